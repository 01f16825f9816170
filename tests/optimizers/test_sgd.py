"""SGD, with and without momentum: step for step what Optax does, and pure."""

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tests.reference import assert_identical, assert_within, random_params, sigmoid_network
from tinynet.trees import leaves, map_leaves

NET = sigmoid_network(4, 3, 2)


@pytest.fixture
def params():
    return random_params(NET, np.random.default_rng(0))


def gradients(seed):
    return random_params(NET, np.random.default_rng(seed))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_twenty_steps_are_those_of_optax(momentum, params):
    ours, theirs = tn.SGD(0.3, momentum), optax.sgd(0.3, momentum or None)
    state = ours.init(params)
    with jax.enable_x64(True):
        expected = jax.tree.map(jax.numpy.asarray, params)
        their_state = theirs.init(expected)
        for step in range(20):
            grads = gradients(step + 1)
            params, state = ours.update(params, grads, state)
            updates, their_state = theirs.update(grads, their_state, expected)
            expected = optax.apply_updates(expected, updates)
            assert_within(params, map_leaves(np.asarray, expected))


def test_one_step_is_w_minus_lr_times_the_gradient(params):
    grads = gradients(1)
    updated, state = tn.SGD(0.3).update(params, grads, ())
    assert state == ()
    assert_identical(updated, map_leaves(lambda p, g: p - 0.3 * g, params, grads))


def test_momentum_starts_at_rest(params):
    state = tn.SGD(0.3, 0.9).init(params)
    assert_identical(state, map_leaves(np.zeros_like, params))
    grads = gradients(1)
    assert_identical(tn.SGD(0.3, 0.9).update(params, grads, state)[0], tn.SGD(0.3).update(params, grads, ())[0])


def test_a_learning_rate_of_0_changes_nothing(params):
    assert_identical(tn.SGD(0).update(params, gradients(1), ())[0], params)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_update_changes_nothing_that_it_is_given_and_lends_none_of_it(momentum, params):
    optimizer, grads = tn.SGD(0.3, momentum), gradients(1)
    state = optimizer.init(params)
    given = [*leaves(params), *leaves(grads), *leaves(state)]
    for array in given:
        array.flags.writeable = False
    result = optimizer.update(params, grads, state)
    assert not any(np.shares_memory(mine, theirs) for mine in leaves(result) for theirs in given)
    assert_identical(optimizer.update(params, grads, state), result)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(dtype):
    params = random_params(NET, np.random.default_rng(0), dtype)
    optimizer = tn.SGD(0.3, 0.9)
    assert {a.dtype for a in leaves(optimizer.update(params, params, optimizer.init(params)))} == {np.dtype(dtype)}


def test_the_same_text_runs_under_jit(params):
    optimizer = tn.SGD(0.3, 0.9)
    with jax.enable_x64(True):
        state = optimizer.init(params)
        compiled = jax.jit(optimizer.update)(params, gradients(1), state)
        assert_within(map_leaves(np.asarray, compiled), optimizer.update(params, gradients(1), state))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": -1}, ValueError, "lr is -1; expected 0 <= lr < inf"),
        ({"lr": float("nan")}, ValueError, "lr is nan; expected 0 <= lr < inf"),
        ({"lr": float("inf")}, ValueError, "lr is inf; expected 0 <= lr < inf"),
        ({"lr": "fast"}, TypeError, "lr is 'fast'; expected a number"),
        ({"lr": None}, TypeError, "lr is None; expected a number"),
        ({"lr": 1, "momentum": 1}, ValueError, "momentum is 1; expected 0 <= momentum < 1"),
        ({"lr": 1, "momentum": -0.1}, ValueError, "momentum is -0.1; expected 0 <= momentum < 1"),
    ],
)
def test_rates_out_of_range_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tn.SGD(**arguments)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradients_of_another_structure_are_refused(momentum, params):
    optimizer = tn.SGD(0.3, momentum)
    for bad in (gradients(1)[:2], ({}, *gradients(1)[1:]), list(gradients(1))[:1]):
        with pytest.raises(ValueError, match="trees differ in structure"):
            optimizer.update(params, bad, optimizer.init(params))


def test_a_state_of_another_optimizer_is_refused(params):
    with pytest.raises(ValueError, match="trees differ in structure"):
        tn.SGD(0.3, 0.9).update(params, gradients(1), ())


class Halving(tn.Optimizer):
    """A user's own rule, which says nothing of scaled losses."""

    def init(self, params):
        return ()

    def step(self, params, grads, state):
        return tn.map_leaves(lambda p, g: p - np.asarray(0.5, p.dtype) * g, params, grads), state


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_users_own_rule_is_given_the_gradient_of_the_loss_itself(engine):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    net, loss = tn.Linear(3, 2), tn.SquaredError("mean")
    params = net.init(rng, np.float64)
    result = tn.fit(net, loss, x, y, params=params, optimizer=Halving(), epochs=1, engine=engine)
    _, grads = tn.value_and_grads(net, loss, params, x, y)
    for name in params:
        np.testing.assert_allclose(result.params[name], params[name] - 0.5 * grads[name], rtol=1e-12)

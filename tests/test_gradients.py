"""The whole gradient by hand, of E = ½ Σ (ŷ − y)², against `jax.grad`: dW, db and dx, for any depth, shape and batch.

In float64 each tensor is within 32 · 2⁻⁵² · max|g|. In float32 each is within 32 · 2⁻²³ · max|g| of the gradient that
float64 gives at the same numbers, or within 32 times what that gradient moves by when those numbers move by a rounding:
further, where its terms cancel or where narrow layers pass a relative error on. So are the networks that hypothesis
draws, a width of 1 among them, in either dtype.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinynet as tn
from tests.reference import (
    assert_identical,
    assert_within,
    assert_within_spread,
    grads_by_jax,
    random_params,
    sigmoid_network,
    spread,
    vjp_by_jax,
)
from tinynet.trees import leaves, map_leaves

NETWORKS = [(4, 3), (4, 3, 2), (3, 3, 3, 3), (5, 1, 4, 1, 3), (2, 3, 5, 4, 3, 2), (64, 30, 10)]
SHAPES = st.lists(st.sampled_from([1, 2, 3, 5, 16]), min_size=2, max_size=6)


def problem(widths, m, dtype=np.float64, seed=0):
    """A network, parameters, data and targets, drawn from `seed`."""
    rng = np.random.default_rng(seed)
    net = sigmoid_network(*widths)
    params = random_params(net, rng, dtype)
    return net, params, rng.normal(size=(m, widths[0])).astype(dtype), rng.uniform(size=(m, widths[-1])).astype(dtype)


def by_hand(net, loss, params, x, y):
    """(E, dparams, dx), all by hand; `value_and_grads` must agree on the first two to the bit."""
    y_hat, caches = net.forward(params, x)
    E, residual = loss.forward(y_hat, y)
    dx, dparams = net.backward(params, caches, loss.backward(residual))
    assert_identical(tn.value_and_grads(net, loss, params, x, y), (E, dparams))
    return E, dparams, dx


@pytest.mark.parametrize("m", [1, 2, 7])
@pytest.mark.parametrize("widths", NETWORKS, ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_every_gradient_is_that_of_jax(widths, m, reduction):
    net, params, x, y = problem(widths, m)
    loss = tn.SquaredError(reduction)
    E, *mine = by_hand(net, loss, params, x, y)
    E_exact, *exact = grads_by_jax(net, loss, params, x, y)
    assert float(E) == pytest.approx(E_exact, rel=32 * 2.0**-52)
    assert_within(mine, exact)


@pytest.mark.parametrize("m", [1, 2, 7])
@pytest.mark.parametrize("widths", NETWORKS, ids=str)
def test_every_gradient_in_float32_is_that_of_jax_in_float64(widths, m):
    check_to_rounding(*problem(widths, m, np.float32))


@settings(max_examples=20)
@given(widths=SHAPES, m=st.sampled_from([1, 2, 7]), seed=st.integers(0, 2**32 - 1))
def test_every_gradient_is_that_of_jax_whatever_hypothesis_draws(widths, m, seed):
    for dtype in (np.float64, np.float32):
        check_to_rounding(*problem(widths, m, dtype, seed))


def check_to_rounding(net, params, x, y):
    loss = tn.SquaredError()
    E, *mine = by_hand(net, loss, params, x, y)
    _, *exact = grads_by_jax(net, loss, params, x, y)
    assert {a.dtype for a in leaves((E, mine))} == {x.dtype}
    assert_within_spread(mine, exact, spread(net, loss, params, x, y))


@pytest.mark.parametrize("m", [1, 5])
@pytest.mark.parametrize("widths", NETWORKS, ids=str)
def test_a_random_upstream_gradient_is_pulled_back_as_jax_does(widths, m):
    net, params, x, y = problem(widths, m)
    dy = np.random.default_rng(1).normal(size=y.shape)
    y_hat, caches = net.forward(params, x)
    y_jax, dx_jax, dparams_jax = vjp_by_jax(net, params, x, dy)
    assert_within((y_hat, *net.backward(params, caches, dy)), (y_jax, dx_jax, dparams_jax))


def test_the_reference_is_not_our_own_forward():
    """`jax.grad` elsewhere differentiates the layers' own forward; here the network is written out in jax.numpy."""
    net, params, x, y = problem((4, 3, 2), 5)

    def E(params, x):
        first, _, second, _ = params
        h = jax.nn.sigmoid(x @ first["W"].T + first["b"])
        y_hat = jax.nn.sigmoid(h @ second["W"].T + second["b"])
        return jnp.sum((y_hat - y) ** 2) / 2

    with jax.enable_x64(True):
        E_jax, exact = jax.value_and_grad(E, argnums=(0, 1))(params, x)
    E_hand, dparams, dx = by_hand(net, tn.SquaredError(), params, x, y)
    assert_within((E_hand, dparams, dx), map_leaves(np.asarray, (E_jax, *exact)))


@pytest.mark.parametrize("scale", [6.0, 1e-3])
def test_saturated_and_tiny_weights_make_no_difference(scale):
    net, params, x, y = problem((4, 3, 2), 5)
    params = map_leaves(lambda p: scale * p, params)
    _, *mine = by_hand(net, tn.SquaredError(), params, x, y)
    _, *exact = grads_by_jax(net, tn.SquaredError(), params, x, y)
    assert_within(mine, exact)


@pytest.mark.parametrize("widths", [(4, 3), (4, 3, 2), (2, 3, 5, 4, 3, 2)], ids=str)
def test_by_hand_under_jit_is_by_hand(widths):
    net, params, x, y = problem(widths, 5)
    with jax.enable_x64(True):
        compiled = jax.jit(partial(tn.value_and_grads, net, tn.SquaredError()))(params, x, y)
        eager = tn.value_and_grads(net, tn.SquaredError(), *jax.tree.map(jnp.asarray, (params, x, y)))
        assert all(isinstance(a, jax.Array) for a in leaves((compiled, eager)))
        compiled, eager = map_leaves(np.asarray, (compiled, eager))
    on_numpy = tn.value_and_grads(net, tn.SquaredError(), params, x, y)
    assert_within(compiled, on_numpy)
    assert_within(eager, on_numpy)


def test_jax_differentiates_the_hand_written_gradient_once_more():
    """The Hessian is symmetric, as that of a scalar is: the backward pass is itself plain mathematics."""
    net, params, x, y = problem((3, 2), 4)

    def dW(W):
        return tn.value_and_grads(net, tn.SquaredError(), ({**params[0], "W": W}, {}), x, y)[1][0]["W"]

    with jax.enable_x64(True):
        H = np.asarray(jax.jacobian(dW)(params[0]["W"])).reshape(6, 6)
    assert H.any()
    assert_within(H, H.T)


def test_leading_axes_count_samples():
    net, params, x, y = problem((4, 3, 2), 6)
    flat = tn.value_and_grads(net, tn.SquaredError("mean"), params, x, y)
    cube = tn.value_and_grads(net, tn.SquaredError("mean"), params, x.reshape(2, 3, 4), y.reshape(2, 3, 2))
    assert_within(cube, flat)


def test_one_sample_may_come_without_a_batch_axis():
    net, params, x, y = problem((4, 3, 2), 1)
    row = tn.value_and_grads(net, tn.SquaredError("mean"), params, x, y)
    assert_within(tn.value_and_grads(net, tn.SquaredError("mean"), params, x[0], y[0]), row)


def test_a_batch_without_samples_has_gradients_of_0():
    net, params, x, y = problem((4, 3, 2), 0)
    E, dparams, dx = by_hand(net, tn.SquaredError(), params, x, y)
    assert E == 0
    assert dx.shape == (0, 4)
    assert_identical(dparams, map_leaves(np.zeros_like, params))


def test_the_gradient_of_a_batch_is_the_sum_over_its_samples():
    net, params, x, y = problem((4, 3, 2), 6)
    _, whole = tn.value_and_grads(net, tn.SquaredError(), params, x, y)
    alone = [tn.value_and_grads(net, tn.SquaredError(), params, x[i], y[i])[1] for i in range(6)]
    assert_within(whole, map_leaves(lambda *g: sum(g), *alone))


def test_the_order_of_the_samples_does_not_matter():
    net, params, x, y = problem((4, 3, 2), 6)
    forth = tn.value_and_grads(net, tn.SquaredError(), params, x, y)
    back = tn.value_and_grads(net, tn.SquaredError(), params, x[::-1], y[::-1])
    assert_within(forth, back)


def test_a_network_without_parameters_has_a_loss_and_no_gradient():
    x, y = np.zeros((2, 3)), np.ones((2, 3))
    E, grads = tn.value_and_grads(tn.Sequential(tn.Sigmoid()), tn.SquaredError(), ({},), x, y)
    assert E == 6 * 0.125
    assert grads == ({},)


def test_nothing_handed_in_is_changed():
    net, params, x, y = problem((4, 3, 2), 6)
    for array in leaves((params, x, y)):
        array.flags.writeable = False
    first = tn.value_and_grads(net, tn.SquaredError(), params, x, y)
    assert_identical(tn.value_and_grads(net, tn.SquaredError(), params, x, y), first)
    assert not any(np.shares_memory(g, a) for g in leaves(first) for a in leaves((params, x, y)))


def test_a_target_of_another_shape_is_refused():
    net, params, x, y = problem((4, 3, 1), 6)
    with pytest.raises(ValueError, match=r"y has shape \(6,\); expected \(6, 1\), that of y_hat; use y.reshape"):
        tn.value_and_grads(net, tn.SquaredError(), params, x, y[:, 0])

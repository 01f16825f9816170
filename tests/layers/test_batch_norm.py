"""BatchNorm: both layers, the one that trains and the one that evaluates, and the state between them."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer
from tests.reference import assert_within, random_params

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
IMAGES = RNG.normal(2, 3, size=(4, 3, 2, 5))


@pytest.mark.parametrize("x", [X, X[:1], X[:0], 1e3 * X, 1e-3 * X, np.ones((4, 3)), IMAGES, IMAGES[..., 0]])
def test_backward_of_the_layer_that_trains_is_the_vjp_of_forward(x):
    check_layer(tn.BatchNorm(3).sample(RNG), x)


@pytest.mark.parametrize("x", [X, X[:0], IMAGES])
def test_backward_of_the_layer_that_evaluates_is_the_vjp_of_forward(x):
    layer = tn.BatchNorm(3)
    state = {"mean": RNG.normal(size=3), "var": RNG.uniform(1, 2, size=3)}
    params, dy = random_params(layer, RNG), RNG.normal(size=x.shape)
    _, cache = layer.forward(params, x, state=state)
    with jax.enable_x64(True):
        _, back = jax.vjp(lambda params, x: layer.forward(params, x, state=state)[0], params, x)
        dparams, dx = back(dy)
    assert_within(layer.backward(params, cache, dy), jax.tree.map(np.asarray, (dx, dparams)))
    assert layer.update_state(state, cache) is state


def test_the_running_statistics_approach_those_of_the_data():
    net = tn.Sequential(tn.Linear(2, 3), tn.BatchNorm(3, momentum=0.2))
    params, state = net.init(RNG, np.float64), net.init_state(np.float64)
    x = RNG.normal(3, 2, size=(200, 2))
    training = net.sample(RNG)
    for _ in range(100):
        y, cache = training.forward(params, x)
        state = training.update_state(state, cache)
    z, _ = tn.Linear(2, 3).forward(params[0], x)
    np.testing.assert_allclose(state[1]["mean"], z.mean(axis=0))
    np.testing.assert_allclose(state[1]["var"], z.var(axis=0, ddof=1))
    np.testing.assert_allclose(net.forward(params, x, state=state)[0], y, rtol=0, atol=0.02)
    assert net.init_state() == ({}, {"mean": pytest.approx(np.zeros(3)), "var": pytest.approx(np.ones(3))})
    assert {a.dtype for a in net.init_state()[1].values()} == {np.dtype(np.float32)}


def test_the_state_keeps_its_dtype_and_one_sample_changes_it_finitely():
    layer = tn.BatchNorm(3)
    training, state = layer.sample(RNG), layer.init_state(np.float32)
    params = layer.init(RNG, np.float64)
    for x in (X, X[:1]):
        state = training.update_state(state, training.forward(params, x)[1])
        assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in state.values())


def test_only_the_layer_that_evaluates_asks_for_a_state():
    layer = tn.BatchNorm(3)
    params, state = layer.init(RNG, np.float64), layer.init_state(np.float64)
    with pytest.raises(ValueError, match=r"forward has no state; hand it over as state=, or use sample"):
        layer.forward(params, X)
    training = layer.sample(RNG)
    np.testing.assert_array_equal(training.forward(params, X)[0], training.forward(params, X, state=state)[0])
    assert training.sample(RNG) is training
    assert layer.samplewise()
    assert not training.samplewise()


def test_bad_input_is_named():
    for bad, message in (
        ({"momentum": 1.0}, r"momentum is 1.0; expected 0 <= momentum < 1"),
        ({"eps": 0}, r"eps is 0; expected 0 < eps"),
        ({"n": 0}, r"n is 0; expected at least 1"),
    ):
        with pytest.raises(ValueError, match=f"BatchNorm: {message}"):
            tn.BatchNorm(**{"n": 3, **bad})
    layer = tn.BatchNorm(3, training=True)
    params = layer.init(RNG, np.float64)
    for x in (X[:, :2], X[0], np.ones(())):
        with pytest.raises(ValueError, match=r"x has shape .*; expected \(m, 3, …\)"):
            layer.forward(params, x)
    with pytest.raises(ValueError, match=r"params have mean float64 array of shape \(2,\); expected shape \(3,\)"):
        tn.BatchNorm(3).forward(params, X, state={"mean": np.zeros(2), "var": np.ones(2)})
    with pytest.raises(ValueError, match=r"dy has shape \(6, 2\); expected \(6, 3\)"):
        layer.backward(params, layer.forward(params, X)[1], X[:, :2])

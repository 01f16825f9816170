"""Add and Concatenate: several layers on one input."""

import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer
from tests.layers.tuples import assert_vjp
from tests.reference import assert_within, random_params

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3))
DEEP = tn.Sequential(tn.Linear(3, 2), tn.GELU(), tn.Linear(2, 3))


@pytest.mark.parametrize("join", [tn.Add, tn.Concatenate])
@pytest.mark.parametrize("branches", [(tn.Linear(3, 3), DEEP, tn.Sequential()), (tn.Tanh(),)], ids=["three", "one"])
@pytest.mark.parametrize("x", [X, X[:1], X[:0], X.reshape(2, 2, 3)])
def test_backward_is_the_vjp_of_forward(join, branches, x):
    layer = join(*branches)
    check_layer(layer, x, params=random_params(layer, RNG))


def test_concatenate_joins_outputs_of_different_widths():
    layer = tn.Concatenate(tn.Linear(3, 2), tn.Tanh(), tn.Linear(3, 1))
    params = random_params(layer, RNG)
    check_layer(layer, X, params=params)
    y, _ = layer.forward(params, X)
    np.testing.assert_array_equal(y[:, 2:5], tn.Tanh().forward({}, X)[0])


def test_add_with_the_identity_is_residual():
    residual = tn.Residual(DEEP)
    params = random_params(residual, RNG)
    y, cache = tn.Add(DEEP, tn.Sequential()).forward((params, ()), X)
    expected, expected_cache = residual.forward(params, X)
    np.testing.assert_array_equal(y, expected)
    dx, (dparams, _) = tn.Add(DEEP, tn.Sequential()).backward((params, ()), cache, X)
    assert_within((dx, dparams), residual.backward(params, expected_cache, X), bound=1)


def test_branches_may_take_a_tuple():
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    branches = tn.MultiHeadAttention(4, 2), tn.MultiHeadAttention(4, 1, causal=True)
    assert_vjp(tn.Concatenate(*branches), (RNG.normal(size=(2, 3, 4)), mask))


@pytest.mark.parametrize("join", [tn.Add, tn.Concatenate])
def test_state_and_randomness_reach_the_branches(join):
    layer = join(tn.BatchNorm(3), tn.Dropout(0.5), tn.Tanh())
    assert layer.children() == {"0": tn.BatchNorm(3), "1": tn.Dropout(0.5), "2": tn.Tanh()}
    params, state = layer.init(RNG, np.float64), layer.init_state(np.float64)
    training = layer.sample(RNG)
    assert type(training) is join
    assert training.layers[0].training
    assert training.layers[1].seed is not None
    _, cache = training.forward(params, X, state=state)
    later = training.update_state(state, cache)
    np.testing.assert_allclose(later[0]["mean"], 0.1 * X.mean(axis=0))
    assert later[1:] == ({}, {})
    y, _ = layer.forward(params, X, state=later)
    assert np.isfinite(y).all()
    assert layer.samplewise()
    assert not training.samplewise()


def test_bad_branches_are_named():
    with pytest.raises(TypeError, match=r"Add: argument 1 is the class Tanh; expected an instance of tinynet.Layer"):
        tn.Add(tn.Tanh(), tn.Tanh)
    with pytest.raises(ValueError, match=r"Concatenate: no layer is given; expected at least one"):
        tn.Concatenate()
    layer = tn.Add(tn.Linear(3, 2), tn.Tanh())
    with pytest.raises(ValueError, match=r"the output of layer 1 has shape \(4, 3\); expected \(4, 2\)"):
        layer.forward(layer.init(RNG, np.float64), X)
    layer = tn.Concatenate(tn.Tanh(), tn.Tanh())
    with pytest.raises(ValueError, match=r"dy has shape \(4, 3\); expected \(4, 6\)"):
        layer.backward(({}, {}), layer.forward(({}, {}), X)[1], X)

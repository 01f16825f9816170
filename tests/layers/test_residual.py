"""Residual: a shortcut around a layer."""

import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer

X = np.random.default_rng(0).normal(size=(4, 3))


@pytest.mark.parametrize(
    "f",
    [tn.Linear(3, 3), tn.Tanh(), tn.Sequential(tn.Linear(3, 2), tn.GELU(), tn.Linear(2, 3)), tn.Sequential()],
    ids=repr,
)
@pytest.mark.parametrize("x", [X, X[:1], X[:0], X.reshape(2, 2, 3)])
def test_backward_is_the_vjp_of_forward(f, x):
    layer = tn.Residual(f)
    if isinstance(f, tn.Sequential):
        params = layer.init(np.random.default_rng(0), np.float64)
        check_layer(layer, x, params=params)
    else:
        check_layer(layer, x)


def test_forward_adds_the_input():
    np.testing.assert_array_equal(tn.Residual(tn.Tanh()).forward({}, X)[0], X + tn.Tanh().forward({}, X)[0])


def test_a_layer_that_changes_the_shape_is_named():
    layer = tn.Residual(tn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"f turns shape \(4, 3\) into \(4, 1\); expected the same shape"):
        layer.forward(layer.init(np.random.default_rng(0), np.float64), X)
    with pytest.raises(TypeError, match=r"Residual: f is the class Tanh; expected an instance of tinynet.Layer"):
        tn.Residual(tn.Tanh)


def test_sampling_reaches_inside():
    layer = tn.Residual(tn.Sequential(tn.Linear(3, 3), tn.Dropout(0.5)))
    assert layer.sample(np.random.default_rng(0)).f.layers[1].seed is not None
    plain = tn.Residual(tn.Linear(3, 3))
    assert plain.sample(np.random.default_rng(0)) is plain

"""Embedding: rows looked up, gradients added up where they came from."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer

X = np.random.default_rng(0).integers(5, size=(4, 6))


@pytest.mark.parametrize("x", [X, X[:1], X[:0], X[0], X.reshape(2, 2, 6), np.zeros((3, 2), np.uint8)])
def test_param_grads_is_the_vjp_of_forward(x):
    check_layer(tn.Embedding(5, 3), x)


def test_equals_a_linear_layer_on_one_hot_rows():
    layer, rng = tn.Embedding(5, 3), np.random.default_rng(1)
    params, dy = layer.init(rng, np.float64), rng.normal(size=(4, 6, 3))
    linear, linear_params = tn.Linear(5, 3), {"W": params["W"].T, "b": np.zeros(3)}
    y, cache = layer.forward(params, X)
    expected, linear_cache = linear.forward(linear_params, np.eye(5)[X])
    np.testing.assert_allclose(y, expected)
    dx, dparams = layer.backward(params, cache, dy)
    np.testing.assert_allclose(dparams["W"], linear.param_grads(linear_params, linear_cache, dy)["W"].T)
    np.testing.assert_array_equal(dx, np.zeros(X.shape))


def test_an_index_out_of_range_is_an_error_and_nan_under_jit():
    layer = tn.Embedding(5, 3)
    params = layer.init(np.random.default_rng(0))
    for x in (np.array([0, 5]), np.array([-1, 2])):
        with pytest.raises(ValueError, match=r"x has values from -?\d to \d; expected 0 to 4"):
            layer.forward(params, x)
    assert np.isnan(jax.jit(layer.forward)(params, np.array([0, 5]))[0][1]).all()


def test_bad_input_is_named():
    layer = tn.Embedding(5, 3)
    params = layer.init(np.random.default_rng(0))
    with pytest.raises(
        TypeError, match=r"x is float64 array of shape \(2,\); expected an array of integers from 0 to 4"
    ):
        layer.forward(params, np.ones(2))
    with pytest.raises(ValueError, match=r"params have W float64 array of shape \(4, 3\); expected shape \(5, 3\)"):
        layer.forward({"W": np.ones((4, 3))}, X)
    with pytest.raises(ValueError, match=r"dy has shape \(4, 6\)"):
        layer.backward(params, X, np.ones((4, 6)))

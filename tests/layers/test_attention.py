"""MultiHeadAttention: derivatives compared with jax.vjp, what a mask and causality hide, errors."""

import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer
from tests.layers.tuples import assert_vjp
from tests.reference import random_params

X = np.random.default_rng(0).normal(size=(3, 5, 4))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]], bool)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_backward_is_the_vjp_of_forward(heads, causal):
    check_layer(tn.MultiHeadAttention(4, heads, causal), X)


@pytest.mark.parametrize("x", [X[:1], X[:, :1], X[:0], np.zeros((2, 3, 4)), 1e-3 * X])
def test_backward_is_the_vjp_of_forward_at_the_edges(x):
    check_layer(tn.MultiHeadAttention(4, 2, causal=True), x)


def test_scores_beyond_the_exponential_overflow_nothing():
    layer = tn.MultiHeadAttention(4, 2)
    params = random_params(layer, np.random.default_rng(1))
    y, cache = layer.forward(params, 1e3 * X)
    dx, _ = layer.backward(params, cache, X)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [MASK, np.zeros((3, 5), bool), np.ones((3, 5), bool)], ids=["some", "none", "all"])
def test_backward_is_the_vjp_of_forward_where_a_mask_hides(causal, mask):
    assert_vjp(tn.MultiHeadAttention(4, 2, causal), (X, mask))


def test_a_masked_place_changes_no_other_and_a_place_that_sees_nothing_is_the_bias():
    layer = tn.MultiHeadAttention(4, 2)
    params = random_params(layer, np.random.default_rng(1))
    y, _ = layer.forward(params, (X, MASK))
    other = np.where(MASK[..., None], X, 7.0)
    np.testing.assert_array_equal(layer.forward(params, (other, MASK))[0][MASK], y[MASK])
    alone, _ = layer.forward(params, X[1:2, :2])
    np.testing.assert_allclose(y[1:2, :2], alone, rtol=1e-13)
    nothing, _ = layer.forward(params, (X, np.zeros((3, 5), bool)))
    np.testing.assert_array_equal(nothing, np.broadcast_to(params["b_out"], X.shape))


def test_a_causal_layer_sees_nothing_of_what_comes_after():
    layer = tn.MultiHeadAttention(4, 2, causal=True)
    params = random_params(layer, np.random.default_rng(1))
    y, cache = layer.forward(params, X)
    later = X.copy()
    later[:, 3:] += 1
    np.testing.assert_array_equal(layer.forward(params, later)[0][:, :3], y[:, :3])
    dy = np.zeros(X.shape)
    dy[:, 2] = 1
    np.testing.assert_array_equal(layer.backward(params, cache, dy)[0][:, 3:], 0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"MultiHeadAttention: heads is 3; expected a divisor of n, which is 4"):
        tn.MultiHeadAttention(4, 3)
    layer = tn.MultiHeadAttention(4, 2)
    params = layer.init(np.random.default_rng(0), np.float64)
    with pytest.raises(ValueError, match=r"x has shape \(3, 5, 3\); expected \(m, t, 4\)"):
        layer.forward(params, X[..., :3])
    with pytest.raises(TypeError, match=r"mask is float64 array .*; expected booleans of shape \(3, 5\)"):
        layer.forward(params, (X, MASK * 1.0))
    with pytest.raises(TypeError, match=r"mask is bool array of shape \(3, 4\); expected booleans of shape \(3, 5\)"):
        layer.forward(params, (X, MASK[:, :4]))
    with pytest.raises(ValueError, match=r"dy has shape \(3, 4, 4\); expected \(3, 5, 4\)"):
        layer.backward(params, layer.forward(params, X)[1], X[:, :4])

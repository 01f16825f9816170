"""LayerNorm: its values against JAX's standardisation, its derivatives against jax.vjp."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import assert_close, check_layer
from tinynet.trees import leaves, map_leaves
from tinynet.verification.tolerance import UNIT, K

X = np.random.default_rng(0).normal(size=(6, 4))
INPUTS = {
    "normal": X,
    "one sample": X[:1],
    "no sample": X[:0],
    "leading axes": X.reshape(2, 3, 4),
    "large": 1e4 * X,
    "tiny": 1e-4 * X,
    "equal entries": np.ones((6, 4)),
    "zeros": np.zeros((6, 4)),
}


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS.keys())
def test_backward_is_the_vjp_of_forward(x):
    check_layer(tn.LayerNorm(4), x)
    check_layer(tn.LayerNorm(4, eps=0.1), x)


def test_of_one_feature_nothing_is_left():
    check_layer(tn.LayerNorm(1), X[:, :1])
    params = tn.LayerNorm(1).init(np.random.default_rng(0), np.float64)
    np.testing.assert_array_equal(tn.LayerNorm(1).forward(params, X[:, :1])[0], 0)


def test_forward_equals_jax_and_starts_standardised():
    layer = tn.LayerNorm(4)
    y, _ = layer.forward(layer.init(np.random.default_rng(0), np.float64), X)
    with jax.enable_x64(True):
        expected = np.asarray(jax.nn.standardize(X, axis=-1, epsilon=1e-5))
    assert_close(y, expected, UNIT, 4 * K, "standardize")  # which takes the variance as E[x²] − E[x]²
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=K * UNIT)
    np.testing.assert_allclose(y.var(axis=-1), 1, atol=1e-3)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"LayerNorm: eps is 0; expected 0 < eps"):
        tn.LayerNorm(3, eps=0)
    layer = tn.LayerNorm(3)
    params = layer.init(np.random.default_rng(0), np.float64)
    with pytest.raises(ValueError, match=r"x has shape \(6, 4\); expected \(..., 3\)"):
        layer.forward(params, X)
    with pytest.raises(ValueError, match=r'expected a dict with "gamma"'):
        layer.forward({}, X[:, :3])
    _, cache = layer.forward(params, X[:, :3])
    with pytest.raises(ValueError, match=r"dy has shape \(6, 4\); expected \(6, 3\), that of the output"):
        layer.backward(params, cache, X)


@pytest.mark.parametrize("layer", [tn.LayerNorm(4), tn.RMSNorm(4), tn.BatchNorm(4, training=True)], ids=repr)
@pytest.mark.parametrize("scale", [1, 1e4])
def test_in_float16_nothing_overflows(layer, scale):
    x, dy = (scale * X).astype(np.float16), X[::-1].astype(np.float16)
    params = layer.init(np.random.default_rng(0), np.float16)
    y, cache = layer.forward(params, x)
    dx, dparams = layer.backward(params, cache, dy)
    wide = map_leaves(lambda p: p.astype(np.float64), params)
    expected, wide_cache = layer.forward(wide, x.astype(np.float64))
    dx_wide, dparams_wide = layer.backward(wide, wide_cache, dy.astype(np.float64))
    for got, exact in zip(leaves((y, dx, dparams)), leaves((expected, dx_wide, dparams_wide)), strict=True):
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, exact, rtol=0.01, atol=0.01 * np.abs(exact).max() + 1e-7)

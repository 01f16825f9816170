"""RMSNorm: its derivatives compared with jax.vjp, its rows of mean square 1."""

import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer

X = np.random.default_rng(0).normal(size=(6, 4))


@pytest.mark.parametrize(
    "x", [X, X[:1], X[:0], X.reshape(2, 3, 4), 1e4 * X, 1e-4 * X, np.ones((6, 4)), np.zeros((6, 4))]
)
def test_backward_is_the_vjp_of_forward(x):
    check_layer(tn.RMSNorm(4), x)
    check_layer(tn.RMSNorm(4, eps=0.1), x)


def test_rows_have_mean_square_1():
    layer = tn.RMSNorm(4, eps=1e-12)
    y, _ = layer.forward(layer.init(np.random.default_rng(0), np.float64), 7 * X + 3)
    np.testing.assert_allclose((y * y).mean(axis=1), 1)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"RMSNorm: eps is 0; expected 0 < eps"):
        tn.RMSNorm(3, eps=0)
    layer = tn.RMSNorm(3)
    params = layer.init(np.random.default_rng(0), np.float64)
    with pytest.raises(ValueError, match=r"x has shape \(6, 4\); expected \(..., 3\)"):
        layer.forward(params, X)
    with pytest.raises(ValueError, match=r"dy has shape \(6, 4\); expected \(6, 3\), that of the output"):
        layer.backward(params, layer.forward(params, X[:, :3])[1], X)

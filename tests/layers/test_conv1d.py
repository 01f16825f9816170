"""Conv1d: its derivatives compared with jax.vjp, its values with numpy.convolve."""

import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer
from tests.reference import random_params

X = np.random.default_rng(0).normal(size=(4, 2, 9))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 2, 1), (4, 3, 2), (2, 3, 0), (9, 1, 0)])
@pytest.mark.parametrize("x", [X, X[:1], X[:0], X[0], X.reshape(2, 2, 2, 9)])
def test_backward_is_the_vjp_of_forward(kernel, stride, padding, x):
    check_layer(tn.Conv1d(2, 3, kernel, stride, padding), x)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (5, 1)])
def test_equals_convolve_of_numpy(kernel, stride):
    layer = tn.Conv1d(2, 3, kernel, stride)
    params = random_params(layer, np.random.default_rng(1))
    y, _ = layer.forward(params, X)
    expected = [
        [
            params["b"][o] + sum(np.convolve(x[c], params["W"][o, c, ::-1], "valid")[::stride] for c in range(2))
            for o in range(3)
        ]
        for x in X
    ]
    np.testing.assert_allclose(y, expected)


def test_bad_input_is_named():
    layer = tn.Conv1d(2, 3, 4, padding=1)
    params = layer.init(np.random.default_rng(0), np.float64)
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\); expected \(..., 2, t\)"):
        layer.forward(params, X[:, :, 0])
    with pytest.raises(ValueError, match=r"x has shape \(4, 2, 1\); expected t of at least 2"):
        layer.forward(params, X[..., :1])
    with pytest.raises(ValueError, match=r"Conv1d: stride is 0; expected at least 1"):
        tn.Conv1d(2, 3, 4, stride=0)
    with pytest.raises(ValueError, match=r"dz has shape \(4, 3, 9\); expected \(4, 3, 8\)"):
        layer.backward(params, X, np.zeros((4, 3, 9)))

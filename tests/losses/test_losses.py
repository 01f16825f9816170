"""Each loss: its value against another library, its gradient against jax.grad, its limits, kinks and reduction."""

from dataclasses import dataclass

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tests.gradient_check import assert_close, check_loss
from tinynet.verification.tolerance import UNIT, K

LOSSES = [tn.SquaredError, tn.Huber, tn.BinaryCrossEntropy, tn.SoftmaxCrossEntropy]


def data(shape: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and distributions: every loss takes both."""
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=shape), rng.dirichlet(np.ones(shape[-1]), shape[:-1])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("shape", "scale"), [((4, 3), 1), ((4, 3), 6), ((4, 3), 1e-3), ((1, 3), 1), ((2, 2, 3), 1)])
def test_backward_is_the_gradient_of_forward(loss, reduction, shape, scale):
    check_loss(loss(reduction=reduction), *data(shape, scale))


@pytest.mark.parametrize("loss", LOSSES)
def test_backward_is_the_gradient_of_forward_at_zeros_and_far_out(loss):
    y = np.eye(3)
    for z in (np.zeros((3, 3)), 1e4 * (2 * y - 1), 1e4 * (1 - 2 * y), np.full((3, 3), 1e4)):
        check_loss(loss(), z, y)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_sum_over_no_samples_is_0_and_their_mean_an_error(loss):
    z, y = np.zeros((0, 3)), np.zeros((0, 3))
    assert loss().forward(z, y)[0] == 0
    with pytest.raises(ValueError, match=r"y_hat has shape \(0, 3\); the mean over no samples is undefined"):
        loss(reduction="mean").forward(z, y)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_mean_divides_the_sum_by_the_number_of_samples(loss):
    z, y = data((2, 5, 3))
    total, cache = loss().forward(z, y)
    mean, cache_mean = loss(reduction="mean").forward(z, y)
    np.testing.assert_allclose(mean, total / 10, rtol=4 * UNIT)
    np.testing.assert_allclose(loss(reduction="mean").backward(cache_mean), loss().backward(cache) / 10, rtol=4 * UNIT)


@pytest.mark.parametrize("scale", [1, 30, 1e4])
def test_forward_equals_optax(scale):
    z, y = data((50, 4), scale)
    with jax.enable_x64(True):
        expected = {
            tn.SquaredError("mean"): optax.l2_loss(z, y).sum(axis=-1).mean(),
            tn.Huber(): optax.huber_loss(z, y).sum(),
            tn.Huber(delta=0.3): optax.huber_loss(z, y, delta=0.3).sum(),
            tn.BinaryCrossEntropy(): optax.sigmoid_binary_cross_entropy(z, y).sum(),
            tn.BinaryCrossEntropy("mean"): optax.sigmoid_binary_cross_entropy(z, y).sum(axis=-1).mean(),
            tn.SoftmaxCrossEntropy(): optax.softmax_cross_entropy(z, y).sum(),
            tn.SoftmaxCrossEntropy("mean"): optax.softmax_cross_entropy(z, y).mean(),
        }
    for loss, value in expected.items():
        assert_close(loss.forward(z, y)[0], np.asarray(value), UNIT, K, repr(loss))


def test_binary_cross_entropy_keeps_its_digits_where_the_answer_is_right():
    z, y = np.array([[40.0, -40.0]]), np.array([[1.0, 0.0]])
    loss = tn.BinaryCrossEntropy()
    E, cache = loss.forward(z, y)
    np.testing.assert_allclose(E, 2 * np.log1p(np.exp(-40.0)), rtol=4 * UNIT)
    np.testing.assert_allclose(loss.backward(cache), [[-np.exp(-40.0), np.exp(-40.0)]], rtol=4 * UNIT)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_finite_and_silent_at_1e4_and_lets_nan_through(loss):
    for dtype in (np.float32, np.float64):
        z, y = np.array([[1e4, -1e4]], dtype), np.array([[0, 1]], dtype)
        E, cache = loss().forward(z, y)
        assert np.isfinite(E)
        assert np.isfinite(loss().backward(cache)).all()
        assert np.isnan(loss().forward(z * np.nan, y)[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_bad_input_is_named(loss):
    with pytest.raises(ValueError, match=r'reduction is \'max\'; expected "sum" or "mean"'):
        loss(reduction="max")
    with pytest.raises(ValueError, match=r"y has shape \(3,\); expected \(3, 1\), that of y_hat; use y.reshape"):
        loss().forward(np.ones((3, 1)), np.ones(3))
    with pytest.raises(TypeError, match=r"y_hat has dtype int64"):
        loss().forward(np.ones((3, 1), np.int64), np.ones((3, 1)))
    with pytest.raises(TypeError, match=r"y has dtype int64"):
        loss().forward(np.ones((3, 1)), np.ones((3, 1), np.int64))


@pytest.mark.parametrize("delta", [0, -1, float("inf"), float("nan")])
def test_huber_names_a_bad_delta(delta):
    with pytest.raises(ValueError, match=r"Huber: delta is"):
        tn.Huber(delta)


def test_huber_equals_half_the_squared_error_near_and_has_slope_delta_far():
    y_hat, y = np.array([[0.5, -1.0, 3.0, -7.0]]), np.zeros((1, 4))
    E, c = tn.Huber(1.0).forward(y_hat, y)
    assert E == 0.125 + 0.5 + 2.5 + 6.5
    np.testing.assert_array_equal(tn.Huber(1.0).backward(c), [[0.5, -1.0, 1.0, -1.0]])


@dataclass(frozen=True)
class Absolute(tn.Loss):
    weight: float = 1.0

    def forward(self, y_hat, y):
        r = y_hat["a"] - (0 if y is None else y["a"])
        return self.weight * abs(r).sum() * self.scale(r), r

    def backward(self, r, dE=1.0):
        return {"a": self.weight * np.sign(r) * (dE * self.scale(r))}


def test_the_reduction_is_a_field_that_a_loss_of_ones_own_inherits():
    assert Absolute("mean") == Absolute(reduction="mean", weight=1.0)
    assert Absolute("sum", 2.0).weight == 2
    assert Absolute().reduction == "sum"
    with pytest.raises(ValueError, match=r'Absolute: reduction is 2.0; expected "sum" or "mean"'):
        Absolute(2.0)


def test_samples_one_by_one_of_a_loss_over_trees():
    a = np.array([[1.0, -2.0], [3.0, 0.5]])
    np.testing.assert_array_equal(Absolute().each({"a": a}, {"a": np.zeros((2, 2))}), [3, 3.5])
    np.testing.assert_array_equal(Absolute().each({"a": a}, None), [3, 3.5])
    assert Absolute().each({"a": a[:0]}, None).shape == (0,)


@pytest.mark.parametrize("loss", LOSSES)
def test_check_says_what_the_target_must_be(loss):
    z, y = data((4, 3))
    assert loss().check(z, y) is None
    for wrong, error in ((y[:, :2], ValueError), (y > 0, TypeError), (None, TypeError)):
        with pytest.raises(error, match=f"{loss.__name__}.*y (is|has)"):
            loss().check(z, wrong)

"""SquaredError: the factors ½ and 1/m, the gradient against JAX, and shapes that must not broadcast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_within

SHAPES = [(5, 3), (1, 3), (5, 1), (1, 1), (2, 3, 4), (3,)]


def data(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_sum_is_half_of_every_squared_error(shape):
    y_hat, y = data(shape)
    E, _ = tn.SquaredError().forward(y_hat, y)
    assert E.shape == ()
    assert_within(E, sum((a - t) ** 2 for a, t in zip(y_hat.flat, y.flat, strict=True)) / 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_mean_divides_by_the_samples_and_not_by_the_outputs(shape):
    y_hat, y = data(shape)
    m = np.prod(shape[:-1], dtype=int)
    assert_within(tn.SquaredError("mean").forward(y_hat, y)[0], tn.SquaredError().forward(y_hat, y)[0] / m)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dE", [1.0, -2.5])
def test_backward_is_the_gradient_by_jax(reduction, shape, dE):
    loss, (y_hat, y) = tn.SquaredError(reduction), data(shape)
    dy_hat = loss.backward(loss.forward(y_hat, y)[1], dE)
    m = np.prod(shape[:-1], dtype=int) if reduction == "mean" else 1
    with jax.enable_x64(True):
        written_again = jax.grad(lambda y_hat: dE * jnp.sum(jnp.square(y_hat - y)) / (2 * m))(y_hat)
        through_ours = jax.grad(lambda y_hat: dE * loss.forward(y_hat, y)[0])(y_hat)
    assert_within(dy_hat, written_again)
    assert_within(dy_hat, through_ours)


def test_dE_defaults_to_one_and_may_be_an_array():
    loss, (y_hat, y) = tn.SquaredError(), data((5, 3))
    _, cache = loss.forward(y_hat, y)
    np.testing.assert_array_equal(loss.backward(cache), y_hat - y)
    np.testing.assert_array_equal(loss.backward(cache, np.array(2.0)), 2 * (y_hat - y))


def test_a_perfect_prediction_costs_nothing():
    y, _ = data((5, 3))
    E, cache = tn.SquaredError().forward(y, y.copy())
    assert E == 0
    assert not tn.SquaredError().backward(cache).any()


def test_no_sample_costs_nothing_and_has_no_mean():
    y = np.zeros((0, 3))
    E, cache = tn.SquaredError().forward(y, y)
    assert E == 0
    assert tn.SquaredError().backward(cache).shape == (0, 3)
    with pytest.raises(ValueError, match=r"y_hat has shape \(0, 3\); the mean over no samples is undefined"):
        tn.SquaredError("mean").forward(y, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_that_of_the_data(dtype):
    y_hat, y = data((5, 3)).astype(dtype)
    for loss in (tn.SquaredError(), tn.SquaredError("mean")):
        E, cache = loss.forward(y_hat, y)
        assert E.dtype == loss.backward(cache).dtype == dtype


def test_a_small_difference_of_large_numbers_is_computed_in_the_wider_dtype():
    y_hat, y = np.full((1, 1), 1 + 2.0**-40), np.ones((1, 1), np.float32)
    assert tn.SquaredError().forward(y_hat, y)[0] == 2.0**-81


def test_nothing_handed_in_is_changed_or_handed_out():
    y_hat, y = data((5, 3))
    y_hat.flags.writeable = y.flags.writeable = False
    _, cache = tn.SquaredError().forward(y_hat, y)
    kept = cache.copy()
    dy_hat = tn.SquaredError().backward(cache)
    assert not any(np.shares_memory(dy_hat, given) for given in (y_hat, y, cache))
    np.testing.assert_array_equal(cache, kept)


@pytest.mark.parametrize(
    ("y_hat", "y", "hint"),
    [
        ((5, 1), (5,), r"; use y.reshape\(\(5, 1\)\)"),
        ((5,), (5, 1), r"; use y.reshape\(\(5,\)\)"),
        ((5, 3), (3, 5), r"; use y.reshape\(\(5, 3\)\)"),
        ((5, 3), (1, 3), "$"),
        ((5, 3), (3,), "$"),
        ((5, 3), (), "$"),
    ],
)
def test_shapes_that_differ_never_broadcast(y_hat, y, hint):
    given = f"{y!r:.20}".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"y has shape {given}; expected .*, that of y_hat{hint}"):
        tn.SquaredError().forward(np.zeros(y_hat), np.zeros(y))


@pytest.mark.parametrize("bad", [np.zeros((5, 3), int), np.zeros((5, 3), object), [[0.0] * 3] * 5, None])
def test_data_that_are_not_floating_are_refused(bad):
    good = np.zeros((5, 3))
    with pytest.raises(TypeError, match=r"SquaredError\(reduction='sum'\): y_hat (is|has dtype) .*; expected"):
        tn.SquaredError().forward(bad, good)
    with pytest.raises(TypeError, match=r"SquaredError\(reduction='sum'\): y (is|has dtype) .*; expected"):
        tn.SquaredError().forward(good, bad)


@pytest.mark.parametrize("reduction", ["average", None, 1, "MEAN"])
def test_another_reduction_is_refused(reduction):
    with pytest.raises(ValueError, match=f'reduction is {reduction!r}; expected "sum" or "mean"'):
        tn.SquaredError(reduction)

"""InfoNCE: its value against the definition, its gradients compared with jax.grad."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_within

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 5, 3))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize(("a", "b"), [(A, B), (A, A), (A[:1], B[:1]), (1e3 * A, 1e-2 * B)])
def test_backward_is_the_gradient_of_forward(reduction, temperature, a, b):
    loss = tn.InfoNCE(reduction, temperature)
    E, cache = loss.forward((a, b), None)
    with jax.enable_x64(True):
        value, grads = jax.jit(jax.value_and_grad(lambda y_hat: 3 * loss.forward(y_hat, None)[0]))((a, b))
    np.testing.assert_allclose(3 * E, value, rtol=1e-13)
    for mine, exact in zip(loss.backward(cache, 3.0), grads, strict=True):
        np.testing.assert_allclose(mine, exact, rtol=1e-11, atol=1e-13 * np.abs(exact).max() + 1e-15)


def test_equals_the_definition():
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (A, B))
    similarity = np.exp(a @ b.T / 0.5)
    expected = -np.log(np.diagonal(similarity) / similarity.sum(axis=1)).sum()
    assert_within(tn.InfoNCE(temperature=0.5).forward((A, B))[0], expected)
    assert_within(tn.InfoNCE("mean", 0.5).forward((A, B))[0], expected / 5)


def test_the_length_of_a_vector_does_not_count_and_zeros_are_finite():
    E, _ = tn.InfoNCE().forward((A, B))
    np.testing.assert_allclose(tn.InfoNCE().forward((7 * A, 0.1 * B))[0], E, rtol=1e-9)
    E, cache = tn.InfoNCE().forward((0 * A, B))
    np.testing.assert_allclose(E, 5 * np.log(5))
    assert np.isfinite(tn.InfoNCE().backward(cache)[0]).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_half_precision_is_that_of_float64_rounded_where_squares_overflow_or_vanish_too(scale):
    half = tuple((scale * v).astype(np.float16) for v in (A, B))
    E, cache = tn.InfoNCE(temperature=0.5).forward(half)
    exact, exact_cache = tn.InfoNCE(temperature=0.5).forward(tuple(v.astype(float) for v in half))
    grads, expected = tn.InfoNCE(temperature=0.5).backward(cache), tn.InfoNCE(temperature=0.5).backward(exact_cache)
    assert {a.dtype for a in (E, *grads)} == {np.dtype(np.float16)}
    np.testing.assert_allclose(E, exact, rtol=2e-3)
    for mine, right in zip(grads, expected, strict=True):
        np.testing.assert_allclose(mine, right, atol=0.01 * abs(right).max())


def test_samples_have_no_loss_of_their_own():
    assert not tn.InfoNCE().samplewise()
    with pytest.raises(ValueError, match=r"the loss of one sample depends on the others"):
        tn.InfoNCE().each((A, B), None)


def test_bad_input_is_named():
    loss = tn.InfoNCE()
    for y_hat, y, error, message in (
        (A, None, TypeError, r"y_hat is float64 array of shape \(5, 3\); expected a tuple of two arrays, \(a, b\)"),
        ((A, B), A, ValueError, r"y is float64 array of shape .*; expected None, as the partner"),
        ((A, B[:3]), None, ValueError, r"b has shape \(3, 3\); expected \(5, 3\), that of a"),
        ((A[0], B[0]), None, ValueError, r"a has shape \(3,\); expected \(m, n\)"),
    ):
        with pytest.raises(error, match=f"(?s){message}"):
            loss.forward(y_hat, y)
    with pytest.raises(ValueError, match=r"InfoNCE: temperature is 0; expected 0 < temperature"):
        tn.InfoNCE(temperature=0)

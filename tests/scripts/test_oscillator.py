"""Derivatives of a network inside its loss, compared with JAX's own and with the solution."""

import jax
import numpy as np

import tinynet as tn
from scripts import oscillator
from tests.reference import assert_within


def plain(params, t):
    for p in params:
        t = t @ p["W"].T + p["b"] if p else jax.numpy.tanh(t)
    return t


def test_the_gradient_of_a_loss_with_second_derivatives_is_that_of_jax():
    params = oscillator.NET.init(np.random.default_rng(1), np.float64)
    with jax.enable_x64(True):
        of = lambda f: jax.jit(jax.value_and_grad(lambda p: oscillator.residual(f, p)))(params)  # noqa: E731
        got, expected = of(tn.to_custom_vjp(oscillator.NET)), of(plain)
        assert_within(tn.map_leaves(np.asarray, got), tn.map_leaves(np.asarray, expected))


def test_it_finds_the_sine():
    params = tn.map_leaves(np.asarray, oscillator.solve(500))
    u = tn.predict(oscillator.NET, params, oscillator.TIMES[:, None])[:, 0]
    np.testing.assert_allclose(u, np.sin(oscillator.TIMES), atol=0.05)


def test_the_hessian_of_a_layer_is_that_of_jax():
    params, x = oscillator.NET.init(np.random.default_rng(1), np.float64), np.array([[0.3], [0.7]])
    with jax.enable_x64(True):
        of = lambda f: jax.jit(jax.hessian(lambda a: f(params, a).sum()))(x)  # noqa: E731
        np.testing.assert_allclose(of(tn.to_custom_vjp(oscillator.NET)), of(plain), rtol=1e-11, atol=1e-14)

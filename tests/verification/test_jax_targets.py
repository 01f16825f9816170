"""A target that computes with JAX itself is called in 64-bit mode."""

import jax
import jax.numpy as jnp
import numpy as np

import tinynet as tn

X, W = np.random.default_rng(0).normal(size=(5, 4)), np.random.default_rng(1).normal(size=(4, 3))


def forward(x, W):
    return jnp.tanh(x @ W)


def backward(args, dy):
    x, W = args
    dz = dy * (1 - forward(x, W) ** 2)
    return dz @ W.T, x.T @ dz


def test_it_passes_and_64_bit_mode_is_off_again():
    tn.check_vjp(forward, backward, X, W)
    assert jnp.ones(1).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


def test_its_mistake_is_named():
    report = tn.verify((forward, lambda args, dy: backward(args, -dy)), inputs=(X, W))
    assert [f.fault for f in report.findings] == ["sign"]

"""Verification: hand-derived gradients held against `jax.grad`."""

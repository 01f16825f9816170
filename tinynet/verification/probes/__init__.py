"""Probes that need more than one run: what a target remembers, layouts in memory, jax.jit, branches, claims of a layer."""

"""Probes that need more than one run: what a target remembers, jax.jit, branches, what a layer says of itself."""

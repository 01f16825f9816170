"""The target's own backward pass as JAX sees it: traced, to run under `jax.jit` and to look at its branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.subject import MISSING, Array, Subject
from tinynet.verification.execution import Watch
from tinynet.verification.jaxpr import with_noise
from tinynet.verification.numpy_as_jax import Traced, raw
from tinynet.verification.oracle import ERRORS, as_float64
from tinynet.verification.tolerance import ROUNDINGS, largest


def backward_function(subject: Subject, manners: bool) -> Any:
    """Return (args, dy) -> gradients by name, as a function that JAX can trace if the target's code can be traced."""

    def backward(args: Mapping[str, Any], dy: tuple[Any, ...]) -> dict[str, Any]:
        box: Callable[[Any], Any] = Traced if manners else (lambda a: a)
        session = subject.start()
        y, context = session.forward({n: box(a) for n, a in args.items()})
        leaves, structure = jax.tree.flatten(y, is_leaf=lambda leaf: isinstance(leaf, Traced))
        casts = [box(d.astype(leaf.dtype)) for d, leaf in zip(dy, leaves, strict=True)]
        grads = session.backward(context, jax.tree.unflatten(structure, casts))
        return {n: raw(g) for n, g in grads.items() if n in subject.wrt and g is not None and g is not MISSING}

    return backward


def own_rounding(
    subject: Subject, dy: tuple[Array, ...], unit: float, rng: np.random.Generator, watch: Watch
) -> Mapping[str, float]:
    """Return how far each gradient moves when every operation of the target's own code is off by up to ±unit.

    Raises:
        Exception: whatever JAX raises where the code cannot be traced.
    """
    args = as_float64(subject.args)
    dy = tuple(np.asarray(d, np.float64) for d in dy)

    def run() -> Mapping[str, float]:
        with jax.enable_x64(True):
            call = with_noise(backward_function(subject, manners=False), args, dy)
            at = call(np.zeros(1))
            runs = [call(unit * rng.uniform(-1.0, 1.0, ERRORS)) for _ in range(ROUNDINGS)]
        return {n: max(largest(r[n] - g) for r in runs) for n, g in at.items()}

    return watch.call(run)


def compiled_gradients(subject: Subject, dy: tuple[Array, ...], watch: Watch) -> Mapping[str, Array]:
    """Return the gradients of the target's own forward and backward pass under `jax.jit`, in 64-bit mode.

    Raises:
        Exception: whatever JAX raises where the code cannot be traced.
    """

    def run() -> Mapping[str, Array]:
        with jax.enable_x64(True):
            grads = jax.jit(backward_function(subject, manners=False))(dict(subject.args), dy)
            return {n: np.asarray(g) for n, g in grads.items()}

    return watch.call(run)

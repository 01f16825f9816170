"""Derivatives written by hand in forward mode: a rule that pushes tangents ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.subject import Array
from tinynet.verification.verify import check

_LINEAR = 1e-5
"""How far from linear in the tangents a rule may be, relative to what it returns: float32 rounds to 1e-7."""


def check_jvp(forward: Callable[..., Any], jvp: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Raise GradientError unless a hand-written forward-mode rule agrees with the exact derivative of `forward`.

    Args:
        forward: forward(*args) -> y.
        jvp: jvp(args, tangents) -> the tangent of y, or (y, tangent); tangents is a tuple with an array an argument.
        args: example arrays.
        options: as for `verify`.
    """

    def push(args: Any, tangents: Any, dy: Any) -> float:
        cotangents = jax.tree.leaves(dy)
        found = _tangents_of(jvp(args, tangents), [np.shape(d) for d in cotangents])
        return float(sum(np.sum(t * d) for t, d in zip(found, cotangents, strict=True)))

    def pulled(args: tuple[Any, ...], dy: Any) -> Any:
        """Return dyᵀ ∂y/∂x, a tangent at a time."""
        leaves, structure = jax.tree.flatten(args)
        arrays = [np.asarray(a) for a in leaves]
        zeros = [np.zeros_like(a) for a in arrays]
        rng, grads, expected, size = np.random.default_rng(0), [], 0.0, 0.0
        random = [
            rng.standard_normal(a.shape).astype(a.dtype) if a.dtype.kind == "f" else z
            for a, z in zip(arrays, zeros, strict=True)
        ]
        for i, array in enumerate(arrays):
            grad = np.zeros_like(array)
            for index in np.ndindex(array.shape) if array.dtype.kind == "f" else ():
                tangent = zeros[i].copy()
                tangent[index] = 1
                grad[index] = push(args, jax.tree.unflatten(structure, [*zeros[:i], tangent, *zeros[i + 1 :]]), dy)
            grads.append(grad)
            expected += float(np.sum(grad * random[i]))
            size += float(np.sum(np.abs(grad * random[i])))
        if abs(push(args, jax.tree.unflatten(structure, random), dy) - expected) > _LINEAR * size:
            raise ValueError("jvp is not linear in the tangents: that of a sum is not the sum of those of its parts")
        return jax.tree.unflatten(structure, grads)

    check((forward, pulled), inputs=args, **options)


def _tangents_of(out: Any, shapes: list[tuple[int, ...]]) -> list[Array]:
    """Return the tangents of y of what a rule returns: the tangents, or (y, tangents).

    Raises:
        ValueError: it returns other arrays.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(out)]
    found = leaves[len(shapes) :] if len(leaves) == 2 * len(shapes) else leaves
    if [t.shape for t in found] != shapes:
        given, expected = (", ".join(map(str, s)) or "nothing" for s in ([t.shape for t in leaves], shapes))
        raise ValueError(f"jvp returns arrays of shape {given}; expected {expected}, as y, or (y, tangent)")
    return found

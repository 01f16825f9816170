"""Arrays that are like others, for a subject in other shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["distributions", "drawn_like", "nearby", "perturbed"]


def nearby(a: npt.NDArray[Any], by: float, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return an array near `a`: other values, but of its kind; rows of integers, or that sum to 1, in another order."""
    if a.dtype.kind != "f" or _is_distributions(a):
        return rng.permutation(a) if a.ndim else a
    return np.asarray(a * (1 + by * rng.standard_normal(a.shape)))


def drawn_like(a: npt.NDArray[Any], shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return an array of another shape, with values like those of `a`; rows that sum to 1 go on doing so."""
    if _is_distributions(a):
        return (
            np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
            if np.all(a % 1 == 0)
            else distributions(shape, rng)
        )
    drawn = rng.choice(a.ravel() if a.size else np.zeros(1, a.dtype), shape)
    return drawn * (1 + 0.3 * rng.standard_normal(shape)) if a.dtype.kind == "f" else drawn


def distributions(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Draw targets in (0, 1) that sum to 1 over the last axis: any loss takes them, also one of probabilities."""
    y = rng.random(shape) + 0.1
    return np.asarray(y / y.sum(axis=-1, keepdims=True)) if y.ndim else np.asarray(y)


def _is_distributions(a: npt.NDArray[Any]) -> bool:
    return a.ndim > 1 and a.shape[-1] > 1 and a.size > 0 and bool(np.all(a >= 0) and np.allclose(a.sum(axis=-1), 1))


def perturbed(p: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Move parameters off their initial values: a bias of 0 or a gain of 1 hides a mistake."""
    return p + 0.3 * rng.standard_normal(p.shape) if p.dtype.kind == "f" else p

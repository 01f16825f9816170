"""Argument checks: each names the argument, what was given, what was expected and what to do.

They run on every call of a layer, so the good case is one or two comparisons.
"""

from __future__ import annotations

from tinynet.arrays import Array, describe, is_array, is_floating

__all__ = ["check_features", "check_floating", "check_positive_int", "check_same_shape"]


def check_floating(owner: object, name: str, x: Array) -> None:
    """Raise TypeError unless `x` is an array of floating-point numbers."""
    if is_floating(x):
        return
    if not is_array(x):
        raise TypeError(f"{owner}: {name} is {describe(x)}; expected an array; use numpy.asarray({name}, float)")
    raise TypeError(f"{owner}: {name} has dtype {x.dtype}; expected floating point; use {name}.astype(float)")


def check_features(owner: object, x: Array, n: int) -> None:
    """Raise unless `x` is a floating-point array of shape (..., n)."""
    check_floating(owner, "x", x)
    if x.shape[-1:] != (n,):
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected (..., {n})")


def check_same_shape(owner: object, name: str, x: Array, expected: tuple[int, ...], of: str) -> None:
    """Raise unless `x` is a floating-point array of exactly the `expected` shape, which is that `of` something.

    Broadcasting would hide the mistake: (n,) against (n, 1) makes (n, n).
    """
    check_floating(owner, name, x)
    if x.shape != expected:
        hint = f"; use {name}.reshape({tuple(expected)})" if _size(x.shape) == _size(expected) else ""
        raise ValueError(f"{owner}: {name} has shape {tuple(x.shape)}; expected {tuple(expected)}, that of {of}{hint}")


def check_positive_int(owner: object, name: str, n: object) -> None:
    """Raise unless `n` is an int of at least 1."""
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{owner}: {name} is {n!r}; expected an int")
    if n < 1:
        raise ValueError(f"{owner}: {name} is {n}; expected at least 1")


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size

"""Faults of one gradient, spoilt after it was computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinynet.arrays import Array, is_floating, namespace
from tinynet.testing.faulty import Call, Path, leaf_at

__all__ = ["EDITS", "EDITS_OF_A_CHAIN", "Edit", "Right", "entry", "narrow", "scaled", "set_at"]


@dataclass(frozen=True)
class Right:
    """A right gradient, and the call and the path that it comes from."""

    g: Array
    call: Call
    path: Path

    @property
    def of_params(self) -> bool:
        return self.path[0] == "params"

    @property
    def p(self) -> Array:
        """The parameter that it is the gradient of."""
        return leaf_at(self.call.params, self.path[1:])


Edit: TypeAlias = Callable[[Right], Any]


def _index(g: Array, axis: int, i: int) -> Any:
    """True at index `i` of an axis of `g`, to be broadcast over the others."""
    n = g.shape[axis]
    shape = [1] * g.ndim
    shape[axis] = n
    return (np.arange(n) == i % max(n, 1)).reshape(shape)


def entry(g: Array, i: int) -> Any:
    """True where every index is `i`."""
    hit = np.ones(g.shape, bool)
    for axis in range(g.ndim):
        hit = hit & _index(g, axis, i)
    return hit


def scaled(g: Array, hit: Any, factor: float) -> Array:
    return namespace(g).where(hit, factor * g, g)


def set_at(g: Array, hit: Any, value: float) -> Array:
    return namespace(g).where(hit, value, g)


def narrow(a: Any) -> Any:
    return a.astype("float32") if hasattr(a, "astype") and is_floating(a) else a


def _scaled_slice(axis: int, factor: float, i: int) -> Edit:
    """Scale a row (axis −2) or a column (axis −1) of a matrix."""
    return lambda right: scaled(right.g, _index(right.g, axis, i), factor) if right.g.ndim > 1 else right.g


def _to_norm_1(right: Right) -> Array:
    return right.g / namespace(right.g).maximum((right.g**2).sum() ** 0.5, 1)


def _always(dtype: str) -> Edit:
    return lambda right: right.g.astype(dtype) if isinstance(right.g, np.ndarray) else right.g


def _weight_decay(rate: float) -> Edit:
    return lambda right: right.g + rate * right.p if right.of_params else right.g


def _roll(right: Right, places: int, axis: int) -> Array:
    return namespace(right.g).roll(right.g, places, axis=axis)


def _nan_at_0(right: Right) -> Array:
    return right.g if right.of_params else set_at(right.g, right.call.x == 0, np.nan)


EDITS: list[tuple[str, str, Edit]] = [
    ("zero", "zeros of the right shape", lambda right: 0 * right.g),
    ("missing", "None", lambda _: None),
    ("sign", "−g", lambda right: -right.g),
    ("scaled by 2", "2g: the ½ of the loss forgotten", lambda right: 2 * right.g),
    ("scaled by 1/2", "g/2: the ½ of the loss counted twice", lambda right: right.g / 2),
    ("scaled by m", "m·g", lambda right: right.g * right.call.m),
    ("scaled by 1/m", "g/m: the mean over the batch", lambda right: right.g / right.call.m),
    ("scaled by 1/n_out", "g/n_out: the mean over the outputs", lambda right: right.g / right.call.n_out),
    ("scaled by a constant", "0.9·g", lambda right: 0.9 * right.g),
    ("scaled by a constant", "(1 + 10⁻⁶)·g", lambda right: (1 + 1e-6) * right.g),
    ("scaled by a constant", "g/255: pixels scaled in one place only", lambda right: right.g / 255),
    ("absolute value", "|g|", lambda right: abs(right.g)),
    ("transpose", "gᵀ", lambda right: right.g.T),
    ("transpose", "gᵀ, reshaped until it fitted", lambda right: right.g.T.reshape(right.g.shape)),
    ("summed over everything", "Σg in every entry", lambda right: 0 * right.g + right.g.sum()),
    ("summed over everything", "Σg, a scalar", lambda right: right.g.sum()),
    ("kept a dimension", "a leading axis of length 1: keepdims", lambda right: right.g[None]),
    ("kept a dimension", "a last axis of length 1", lambda right: right.g[..., None]),
    ("wrong dtype", "float32 whatever came in", _always("float32")),
    ("wrong dtype", "float64 whatever came in", _always("float64")),
    ("wrong dtype", "collected in an array of int64", _always("int64")),
    ("float32 inside", "rounded to float32, widened again", lambda right: narrow(right.g).astype(right.g.dtype)),
    ("constant offset", "g + 10⁻³", lambda right: right.g + 1e-3),
    ("constant offset", "g + 10⁻⁸: the ε of a division, in the wrong place", lambda right: right.g + 1e-8),
    ("constant offset", "g − 1", lambda right: right.g - 1),
    ("weight decay", "g + 10⁻² p", _weight_decay(1e-2)),
    ("weight decay", "g + 5·10⁻⁴ p", _weight_decay(5e-4)),
    ("clipped", "to [−0.1, 0.1]", lambda right: right.g.clip(-0.1, 0.1)),
    ("clipped", "to [0, ∞)", lambda right: namespace(right.g).maximum(right.g, 0)),
    ("clipped", "to a norm of 1", _to_norm_1),
    ("shifted", "one place along the last axis, round the end", lambda right: _roll(right, 1, -1)),
    ("shifted", "one place along the first axis, round the end", lambda right: _roll(right, -1, 0)),
    ("shifted", "one place, a zero first", lambda right: set_at(_roll(right, 1, -1), _index(right.g, -1, 0), 0)),
    # A row of zeros in ∂E/∂x is a sample left out, too; in a parameter's gradient it is a row and nothing else.
    ("one row", "the first is zero", lambda right: _scaled_slice(-2, 0, 0)(right) if right.of_params else right.g),
    ("one row", "the last has the wrong sign", _scaled_slice(-2, -1, -1)),
    ("one column", "the last is zero", _scaled_slice(-1, 0, -1)),
    ("one column", "the first is doubled", _scaled_slice(-1, 2, 0)),
    ("one entry", "the first is zero", lambda right: set_at(right.g, entry(right.g, 0), 0)),
    ("one entry", "the last is 10⁻⁴ too large", lambda right: scaled(right.g, entry(right.g, -1), 1 + 1e-4)),
    (
        "one entry",
        "the second along each axis has the wrong sign",
        lambda right: scaled(right.g, entry(right.g, 1), -1),
    ),
    ("non-finite", "NaN in the last entry", lambda right: set_at(right.g, entry(right.g, -1), np.nan)),
    ("non-finite", "∞ in the first entry", lambda right: set_at(right.g, entry(right.g, 0), np.inf)),
    ("non-finite", "NaN everywhere", lambda right: right.g * np.nan),
    ("non-finite", "NaN where the input is 0: a division", _nan_at_0),
]

EDITS_OF_A_CHAIN = {"sign", "missing", "scaled by 1/m", "one entry"}

"""The arrays that an object reaches, by the paths that lead to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.parts import fresh, walk
from tinynet.verification.adapters.subject import Array
from tinynet.verification.copies import attributes


def reachable(target: Any, *, numbers: bool = False) -> list[tuple[str, Array]]:
    """Return every float array that an object reaches by attributes, slots, containers and children, with its path.

    Each array once, under the first path that leads to it; not through functions, classes or modules. With `numbers`,
    single floating-point numbers instead.
    """
    return _reached(target, _is_number if numbers else _is_of_floats)


def flags_in(target: Any) -> list[tuple[str, Any]]:
    """Return every bool and every string that an object reaches, with its path."""
    return _reached(target, lambda value: isinstance(value, (bool, np.bool_, str)))


def others_in(target: Any) -> list[tuple[str, Any]]:
    """Return the arrays that an object reaches which are not of floating-point numbers or of another library."""
    return _reached(
        target, lambda value: _is_array(value) and not _is_of_floats(value) and value.dtype not in (bool, object)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (float, np.floating))


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, (type, np.generic))


def _is_of_floats(value: Any) -> bool:
    return isinstance(value, (np.ndarray, jax.Array)) and value.dtype.kind == "f"


def _reached(target: Any, wanted: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    return [(path, value) for path, value in walk(target) if wanted(value)]


def keeping_arrays_of_its_class(target: Any) -> Any:
    """Return an object that keeps on itself the arrays that its class keeps; itself where there are none."""
    held = {n: v for cls in reversed(type(target).__mro__) for n, v in vars(cls).items() if isinstance(v, np.ndarray)}
    missing = {n: v for n, v in held.items() if n not in attributes(target)}
    if not missing or not hasattr(target, "__dict__"):
        return target
    own = fresh(target)
    vars(own).update({n: v.copy() for n, v in missing.items()})
    return own

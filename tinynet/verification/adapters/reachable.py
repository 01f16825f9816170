"""The arrays that an object reaches, by the paths that lead to them."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.subject import Array, fresh
from tinynet.verification.copies import attributes, parts_of


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
    """Return every such value that an object reaches, with its path; arrays and what holds others once."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()

    def visit(value: Any, path: str) -> None:
        if id(value) in seen:
            return
        parts = parts_of(value)
        if parts or _is_array(value):
            seen.add(id(value))
        if wanted(value):
            found.append((path, value))
        for key, part in parts:
            visit(part, f"{path}.{key}" if path else key)

    visit(target, "")
    return found


def keeping_arrays_of_its_class(target: Any) -> Any:
    """Return an object that keeps on itself the arrays that its class keeps; itself where there are none."""
    held = {n: v for cls in reversed(type(target).__mro__) for n, v in vars(cls).items() if isinstance(v, np.ndarray)}
    missing = {n: v for n, v in held.items() if n not in attributes(target)}
    if not missing or not hasattr(target, "__dict__"):
        return target
    own = fresh(target)
    vars(own).update({n: v.copy() for n, v in missing.items()})
    return own


def put(owner: Any, path: str, value: Any) -> None:
    """Put a value in place of another, unless a tuple holds it."""
    *above, last = path.split(".")
    for key in above:
        owner = _entry(owner, key)
    if isinstance(owner, dict):
        owner[last] = value
    elif isinstance(owner, (list, collections.deque)):
        owner[int(last)] = value
    elif not isinstance(owner, tuple):
        setattr(owner, last, value)


def _entry(owner: Any, key: str) -> Any:
    if isinstance(owner, Mapping):
        return owner[key]
    return owner[int(key)] if isinstance(owner, (list, tuple, collections.deque)) else getattr(owner, key)

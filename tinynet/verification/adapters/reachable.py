"""The arrays that an object reaches, by the paths that lead to them."""

from __future__ import annotations

import collections
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import Array, fresh
from tinynet.verification.copies import attributes

_LIBRARIES = ("numpy", "builtins", "types", "functools", "jax", "torch")


def reachable(target: Any, *, numbers: bool = False) -> list[tuple[str, Array]]:
    """Return every float array that an object reaches by attributes, slots, containers and children, with its path.

    Each array once, under the first path that leads to it; not through functions, classes or modules. With `numbers`,
    single floating-point numbers instead.
    """
    return _reached(target, (float, np.floating)) if numbers else _reached(target, ())


def flags_in(target: Any) -> list[tuple[str, Any]]:
    """Return every bool and every string that an object reaches, with its path."""
    return _reached(target, (bool, np.bool_, str))


def _reached(target: Any, kinds: tuple[type, ...]) -> list[tuple[str, Any]]:
    """Return every value of these types that an object reaches; every float array where there are none."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()

    def visit(value: Any, path: str) -> None:
        if id(value) in seen:
            return
        if isinstance(value, kinds):
            found.append((path, value))
        elif isinstance(value, np.ndarray):
            seen.add(id(value))
            if value.dtype.kind == "f" and not kinds:
                found.append((path, value))
            for i, part in enumerate(value.flat) if value.dtype.kind == "O" else ():
                visit(part, f"{path}.{i}" if path else str(i))
        elif isinstance(value, Mapping):
            seen.add(id(value))
            for key, part in value.items():
                visit(part, f"{path}.{key}" if path else str(key))
        elif isinstance(value, (list, tuple, collections.deque)):
            seen.add(id(value))
            for i, part in enumerate(value):
                visit(part, f"{path}.{i}" if path else str(i))
        elif hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            if isinstance(value, type) or (callable(value) and not attributes(value)):
                return
            library = type(value).__module__.partition(".")[0]
            if library in _LIBRARIES and not isinstance(value, types.SimpleNamespace):
                return
            seen.add(id(value))
            for name in attributes(value):
                visit(getattr(value, name), f"{path}.{name}" if path else name)

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

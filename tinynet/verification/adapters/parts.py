"""What an object holds, and copies of all of it."""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tinynet.verification.copies import attributes, is_transpose, rebound
from tinynet.verification.numpy_as_jax import Traced, raw

_CLOSED = frozenset("numpy builtins types functools jax jaxlib torch _thread".split())
"""Libraries of whose objects the attributes are not looked at."""


def parts_of(value: Any) -> list[tuple[str, Any]]:
    """Return what a value holds, each part by its key, place or attribute; not what a function captures."""
    if isinstance(value, types.MethodType):
        return [("__self__", value.__self__)]
    if isinstance(value, functools.partial):
        return [(name, getattr(value, name)) for name in ("func", "args", "keywords")]
    held: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        held = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple, collections.deque)):
        held = [(str(i), part) for i, part in enumerate(value)]
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        held = [(str(i), part) for i, part in enumerate(value.flat)]
    closed = isinstance(value, type) or type(value).__module__.partition(".")[0] in _CLOSED
    if closed and not isinstance(value, types.SimpleNamespace):
        return held
    return held + [(name, getattr(value, name)) for name in attributes(value)]


def walk(target: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that a target holds, itself included, with the path that leads there; what is no plain number once."""
    seen: set[int] = set()

    def visit(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if id(value) in seen:
            return
        parts = parts_of(value)
        if parts or hasattr(value, "shape"):
            seen.add(id(value))
        yield path, value
        for key, part in parts:
            yield from visit(part, f"{path}.{key}" if path else key)

    yield from visit(target, "")


def put(owner: Any, path: str, value: Any) -> None:
    """Put a value in place of another, unless a tuple holds it."""
    for key, part in parts_of(owner):
        if path.startswith(f"{key}."):
            put(part, path.removeprefix(f"{key}."), value)
        elif path == key and isinstance(owner, Mapping) and any(str(k) == key for k in owner):
            owner[next(k for k in owner if str(k) == key)] = value  # type: ignore[index]
        elif path == key and isinstance(owner, (list, collections.deque)) and key.isdigit():
            owner[int(key)] = value
        elif path == key and not isinstance(owner, tuple):
            setattr(owner, key, value)


def fresh(target: Any, instead: Mapping[int, Any] | None = None) -> Any:
    """Copy a target with all that it remembers, and with other objects `instead` of those of the given ids.

    A transpose that it keeps of one of its arrays is that of the copy, and its functions that capture a part of it
    capture the copy. What has no copies, such as a module, a lock or an open file, is shared.
    """
    memo = _of_arrays(target, instead or {})
    try:
        return _capturing(copy.deepcopy(target, memo), memo)
    except Exception:
        memo = _of_arrays(target, instead or {}) | {id(part): part for part in _without_copies(target, set())}
    try:
        return _capturing(copy.deepcopy(target, memo), memo)
    except Exception:
        if instead:
            raise
        return copy.copy(target)


def followed(target: Any, forward: Callable[[Any, Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any], bool], Any]:
    """Return (arrays, numpy_manners) -> forward(a copy of the target, arrays): what `Subject.pure` is."""

    def pure(arrays: Mapping[str, Any], numpy_manners: bool) -> Any:
        if not numpy_manners:
            return raw(forward(fresh(target), arrays))
        return raw(forward(rebound(target), {name: Traced(a) for name, a in arrays.items()}))

    return pure


def _of_arrays(target: Any, instead: Mapping[int, Any]) -> dict[int, Any]:
    """Return copies of arrays that `copy.deepcopy` parts from what belongs to them, by the ids of the arrays."""
    held = {id(a): a for _, a in walk(target) if isinstance(a, np.ndarray)}
    memo = dict(instead)
    for i, a in held.items():
        if i not in memo and is_transpose(a, held):
            memo[i] = memo.setdefault(id(a.base), np.array(a.base)).T
        elif (
            type(a) is not np.ndarray
            and isinstance(made := memo.get(i, a.copy()), np.ndarray)
            and hasattr(a, "__dict__")
        ):
            memo[i] = made if type(made) is type(a) else made.view(type(a))
            vars(memo[i]).update(copy.deepcopy(vars(a), memo))
    return memo


def _capturing(copied: Any, memo: Mapping[int, Any]) -> Any:
    """Return a copy whose functions capture copies where they captured the originals."""
    functions = [(path, f) for path, f in walk(copied) if isinstance(f, types.FunctionType) and f.__closure__]
    for path, f in functions:
        with contextlib.suppress(ValueError):  # of a cell that is empty yet
            cells = [cell.cell_contents for cell in f.__closure__ or ()]
            if any(id(c) in memo and memo[id(c)] is not c for c in cells):
                made = tuple(types.CellType(memo.get(id(c), c)) for c in cells)
                put(copied, path, types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, made))
    return copied


def _without_copies(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the innermost parts of a value of which no copy can be made."""
    for _, part in parts_of(value):
        if id(part) not in seen:
            seen.add(id(part))
            try:
                copy.deepcopy(part)
            except Exception:
                inside = list(_without_copies(part, seen))
                yield from inside or [part]

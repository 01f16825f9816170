"""Copy a target, so that the code of the copy makes traced arrays where the target's own made NumPy's.

The target, the modules that it reaches and NumPy are left as they are. A function of the user's gets its own globals
and cells, an object a copy of each array, a class a subclass; what libraries define is shared.
"""

from __future__ import annotations

import abc
import collections
import copy
import functools
import sys
import types
from collections.abc import Container
from typing import Any

import numpy as np

from tinynet.verification.numpy_as_jax import MODULES, Traced, counterpart


def rebound(target: Any, instead: dict[int, Any] | None = None) -> Any:
    """Return a copy of a function or an object whose code makes traced arrays where it made NumPy's.

    `instead` maps ids of objects that are reached to what takes their place.

    Raises:
        TypeError: one of them is not reached.
    """
    rebinding = _Rebinding(instead or {})
    copied = rebinding.value(target)
    if instead and not set(instead) <= rebinding.met:
        raise TypeError("the target keeps an array where a copy of it cannot have another")
    return copied


class _Rebinding:
    """One copying; `seen` maps what was met to its copy, so that recursion and sharing survive."""

    def __init__(self, instead: dict[int, Any]) -> None:
        self.seen: dict[int, Any] = dict(instead)
        self.met: set[int] = set()
        self.kept: list[Any] = []

    def value(self, value: Any) -> Any:
        if id(value) in self.seen:
            self.met.add(id(value))
            return self.seen[id(value)]
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, types.FunctionType):
            return self._function(value) if is_users(value.__module__) else counterpart(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.value(value.__func__), self.value(value.__self__))
        if isinstance(value, (np.ufunc, types.BuiltinFunctionType)):
            return counterpart(value)
        if type(value) is functools.partial:
            keywords = {key: self.value(part) for key, part in value.keywords.items()}
            return functools.partial(self.value(value.func), *map(self.value, value.args), **keywords)
        if isinstance(value, (dict, list, collections.deque)):
            return self._container(value)
        if isinstance(value, tuple):
            parts = [self.value(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, type):
            return self._class(value) if is_users(value.__module__) else value
        if isinstance(value, np.ndarray):
            return self._array(value)
        if hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            home = type(value).__module__
            ours = is_users(home) or _root(home) == "tinynet" or type(value) is types.SimpleNamespace
            return self._instance(value) if ours else value
        return value

    def _remember(self, original: Any, replacement: Any) -> Any:
        self.kept.append(original)
        self.seen[id(original)] = replacement
        return replacement

    def _container(self, value: Any) -> Any:
        copied = self._remember(value, copy.copy(value))
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            copied[key] = self.value(part)
        return copied

    def _array(self, value: np.ndarray[Any, Any]) -> Any:
        if is_transpose(value, self.seen):
            return self._remember(value, self.value(value.base).T)
        if value.dtype.kind == "f":
            return self._remember(value, Traced(value.copy()))
        if value.dtype.kind != "O":
            return value
        copied = self._remember(value, value.copy())
        for index in np.ndindex(value.shape):
            copied[index] = self.value(value[index])
        return copied

    def _module(self, module: types.ModuleType) -> Any:
        known = MODULES.get(module.__name__)
        if known is not None or not is_users(module.__name__):
            return known or module
        copied = self._remember(module, types.ModuleType(module.__name__))
        copied.__getattr__ = lambda name: self.value(getattr(module, name))
        return copied

    def _function(self, f: types.FunctionType) -> Any:
        scope = dict(f.__globals__)
        cells = tuple(types.CellType() for _ in f.__closure__ or ())
        copied = types.FunctionType(f.__code__, scope, f.__name__, None, cells or None)
        self._remember(f, copied)
        copied.__defaults__ = self.value(f.__defaults__)
        copied.__kwdefaults__, copied.__dict__ = self.value(f.__kwdefaults__), f.__dict__
        for name in names_in(f.__code__):
            if name in scope:
                scope[name] = self.value(scope[name])
        for cell, new in zip(f.__closure__ or (), cells, strict=True):
            try:
                new.cell_contents = self.value(cell.cell_contents)
            except ValueError:
                continue
        return copied

    def _class(self, cls: type) -> type:
        # A subclass, so that isinstance goes on working; of the copies of its bases first, so that super() finds them.
        bases = [b for b in cls.__bases__ if is_users(b.__module__)]
        space = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        if not hasattr(cls, "__dict__") or "__slots__" in vars(cls):
            space["__slots__"] = ()  # type: ignore[assignment]
        try:
            copied = type(cls)(cls.__name__, (*map(self.value, bases), cls), space)
        except TypeError:
            return cls
        self._remember(cls, copied)
        slots = vars(cls).get("__slots__", ())
        for name, member in vars(cls).items():
            if name in slots:
                continue
            if isinstance(member, types.FunctionType) or not name.startswith("__"):
                type.__setattr__(copied, name, self._member(member))
        abc.update_abstractmethods(copied)
        return copied

    def _member(self, member: Any) -> Any:
        if isinstance(member, (staticmethod, classmethod)):
            return type(member)(self.value(member.__func__))
        if isinstance(member, property):
            return property(*(f and self.value(f) for f in (member.fget, member.fset, member.fdel)))
        return self.value(member)

    def _instance(self, value: Any) -> Any:
        cls = self.value(type(value)) if is_users(type(value).__module__) else type(value)
        try:
            copied = object.__new__(cls)
        except TypeError:  # a class of another layout
            copied = copy.copy(value)
        self._remember(value, copied)
        for name in attributes(value):
            object.__setattr__(copied, name, self.value(getattr(value, name)))
        return copied


def attributes(value: Any) -> list[str]:
    """Return the names that an object keeps on itself, in its dict and its slots."""
    slots = [s for cls in type(value).__mro__ for s in _slots_of(cls)]
    return [*getattr(value, "__dict__", ()), *(s for s in slots if hasattr(value, s))]


def _slots_of(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return tuple(s for s in ((slots,) if isinstance(slots, str) else slots) if s not in ("__dict__", "__weakref__"))


def is_transpose(a: Any, ids: Container[int]) -> bool:
    """Return whether an array is the transpose of another one of those that have these ids, in the same memory."""
    base = getattr(a, "base", None)
    if not isinstance(base, np.ndarray) or id(base) not in ids or a.ndim < 2:
        return False
    whole = base.T
    return bool(a.shape == whole.shape and a.strides == whole.strides and a.ctypes.data == whole.ctypes.data)


def names_in(code: types.CodeType) -> set[str]:
    """Return the global names that a function's code uses, those inside it included."""
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= names_in(const)
    return names


def _root(module: str) -> str:
    return (module or "").partition(".")[0]


_LIBRARIES = frozenset(
    "numpy scipy jax jaxlib tinynet builtins pytest _pytest hypothesis torch thinc sklearn pandas matplotlib".split()
)


def is_users(module: str | None) -> bool:
    root = _root(module or "__main__")
    return root == "__main__" or (root not in _LIBRARIES and root not in sys.stdlib_module_names)

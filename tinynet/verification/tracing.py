"""Let JAX trace a forward pass that was written with `np.`.

`traceable(target)` is a copy of a function or an object in which every name that stands for NumPy stands for
jax.numpy instead, in the functions it calls too. The original, its module and NumPy are left as they are. What still
cannot be traced is explained by `explain`: the line that stops it, and what to write instead.
"""

from __future__ import annotations

import abc
import copy
import functools
import math
import sys
import traceback
import types
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np

__all__ = ["explain", "names_in", "traceable"]


def traceable(target: Any) -> Any:
    """Return a copy of a function or an object whose code calls jax.numpy where it called NumPy."""
    return _Rebinding().value(target)


class _NumpyAsJax(types.ModuleType):
    """jax.numpy, and NumPy for what jax.numpy lacks and a trace can live with: errstate, constants, dtypes."""

    def __getattr__(self, name: str) -> Any:
        if name in ("ascontiguousarray", "asfortranarray"):
            return jnp.asarray
        if hasattr(jnp, name):
            return getattr(jnp, name)
        return getattr(np, name)


class _MathAsJax(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        for module in (jnp, jax.scipy.special):
            if callable(getattr(math, name)) and hasattr(module, name):
                return getattr(module, name)
        return getattr(math, name)


_MODULES: dict[str, types.ModuleType] = {
    "numpy": _NumpyAsJax("numpy"),
    "numpy.linalg": jnp.linalg,
    "numpy.fft": jnp.fft,
    "math": _MathAsJax("math"),
    "scipy.special": jax.scipy.special,
}


class _Rebinding:
    """One copying; `seen` maps what was met to its copy, so that recursion and sharing survive."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}
        self.kept: list[Any] = []

    def value(self, value: Any) -> Any:
        if id(value) in self.seen:
            return self.seen[id(value)]
        if isinstance(value, types.ModuleType):
            return _MODULES.get(value.__name__, value)
        if isinstance(value, types.FunctionType):
            return self._function(value) if _is_users(value.__module__) else _counterpart(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.value(value.__func__), self.value(value.__self__))
        if (
            isinstance(value, (np.ufunc, types.BuiltinFunctionType))
            or _root(getattr(value, "__module__", "")) == "numpy"
        ):
            return _counterpart(value)
        if type(value) is functools.partial:
            keywords = {key: self.value(part) for key, part in value.keywords.items()}
            return functools.partial(self.value(value.func), *map(self.value, value.args), **keywords)
        if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
            return type(value)([self.value(part) for part in value])
        if type(value) is dict:
            return {key: self.value(part) for key, part in value.items()}
        if isinstance(value, type):
            return self._class(value) if _is_users(value.__module__) else value
        if hasattr(value, "__dict__") and (
            _is_users(type(value).__module__) or _root(type(value).__module__) == "tinynet"
        ):
            return self._instance(value)
        return value

    def _remember(self, original: Any, replacement: Any) -> Any:
        self.kept.append(original)
        self.seen[id(original)] = replacement
        return replacement

    def _function(self, f: types.FunctionType) -> Any:
        scope = dict(f.__globals__)
        cells = tuple(types.CellType() for _ in f.__closure__ or ())
        rebound = types.FunctionType(f.__code__, scope, f.__name__, f.__defaults__, cells or None)
        rebound.__kwdefaults__, rebound.__dict__ = f.__kwdefaults__, f.__dict__
        self._remember(f, rebound)
        for name in names_in(f.__code__):
            if name in scope:
                scope[name] = self.value(scope[name])
        for cell, new in zip(f.__closure__ or (), cells, strict=True):
            try:
                new.cell_contents = self.value(cell.cell_contents)
            except ValueError:
                continue
        return rebound

    def _class(self, cls: type) -> type:
        # A subclass, so that isinstance goes on working; of the copies of its bases first, so that super() finds them.
        bases = [b for b in cls.__bases__ if _is_users(b.__module__)]
        try:
            copied = type(
                cls.__name__,
                (*map(self.value, bases), cls),
                {"__module__": cls.__module__, "__qualname__": cls.__qualname__},
            )
        except TypeError:
            return cls
        self._remember(cls, copied)
        for name, member in vars(cls).items():
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
        copied = self._remember(value, copy.copy(value))
        if _is_users(type(value).__module__):
            try:
                object.__setattr__(copied, "__class__", self.value(type(value)))
            except TypeError:
                return copied
        for name, part in vars(value).items():
            object.__setattr__(copied, name, self.value(part))
        return copied


def explain(error: BaseException, name: str) -> str:
    """Say which line of the user's code stopped the trace, and what to write instead."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users_file(f.filename)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    text = str(error).split("\n")[0]
    if "immutable" in text or "item assignment" in text:
        advice = "an assignment to part of an array cannot be traced; write np.where(condition, new, old)"
    elif isinstance(error, jax.errors.TracerBoolConversionError):
        advice = "a branch on the values of an array cannot be traced; write np.where(condition, a, b)"
    elif isinstance(error, (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError)):
        advice = "a traced array was turned into numbers; keep to array operations, without float() and int()"
    elif isinstance(error, jax.errors.NonConcreteBooleanIndexError):
        advice = "a boolean mask as an index cannot be traced; write np.where(mask, a, b)"
    else:
        advice = f"{type(error).__name__}: {text:.120}"
    return f"JAX cannot trace the forward pass of {name}{where} ({advice})"


def _counterpart(value: Any) -> Any:
    """The function of JAX that bears the name of one of NumPy's or SciPy's."""
    name, module = getattr(value, "__name__", ""), _root(getattr(value, "__module__", None) or "")
    if isinstance(value, np.ufunc) or (module in ("numpy", "math", "scipy") and not isinstance(value, type)):
        homes = (jnp, jnp.linalg, jax.scipy.special)
        return next((getattr(home, name) for home in homes if hasattr(home, name)), value)
    return value


def names_in(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= names_in(const)
    return names


def _root(module: str) -> str:
    return (module or "").partition(".")[0]


_LIBRARIES = frozenset({"numpy", "scipy", "jax", "jaxlib", "tinynet", "builtins", "pytest", "_pytest", "hypothesis"})


def _is_users(module: str) -> bool:
    root = _root(module)
    return root == "__main__" or (root not in _LIBRARIES and root not in sys.stdlib_module_names)


def _is_users_file(filename: str) -> bool:
    return not any(
        part in filename for part in ("/jax/", "/numpy/", "/jaxlib/", "/tinynet/verification/", "/contextlib")
    )

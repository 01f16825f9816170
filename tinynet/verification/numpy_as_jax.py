"""Let JAX trace a forward pass that was written for NumPy.

The arrays that go in are `Traced`: they hold a JAX value and have NumPy's manners, so that `np.tanh(x)`, `x @ W`,
`y[i] = …`, `h += …` and `np.add.at` do what they do in NumPy. The code is a copy (`rebound`) in which `np.zeros` and
its kind make such arrays; the original, its module and NumPy are left as they are. What still cannot be traced is
explained by `explain`: the line that stops it, and what to write instead.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import contextvars
import copy
import functools
import math
import operator
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np

_HOMES = (jnp, jnp.linalg, jnp.fft, jax.scipy.special, jax.nn)
_NOT_JAXS = ("casting", "order", "subok", "copy", "optimize")
_MAKERS = frozenset("zeros ones empty full zeros_like ones_like empty_like full_like array asarray copy eye".split())
_ALIKE = frozenset("ascontiguousarray asfortranarray asanyarray".split())


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """An array under trace that can be written into, and whose views see it.

    A view has a `base` and the `index` that leads to it. The entries that a mask selects are the whole array, with the
    `mask` beside it, until they are put back by the same mask.
    """

    __slots__ = ("_base", "_index", "_mask", "_value")
    __array_priority__ = 1000.0

    def __init__(self, value: Any, base: Traced | None = None, index: Any = None, mask: Any = None) -> None:
        self._value, self._base, self._index, self._mask = value, base, index, mask

    @property
    def value(self) -> Any:
        return self._value if self._base is None else self._base.value[self._index]

    def set(self, value: Any) -> None:
        if self._base is None:
            self._value = value
        else:
            self._base[self._index] = value

    def __getitem__(self, index: Any) -> Any:
        key = raw(index)
        if _is_traced(key) and key.dtype == bool and key.ndim == self.ndim:
            return Traced(jnp.where(key, self.value, 0.5), mask=key)
        if _is_basic(key):
            return Traced(None, self, key)
        value = self.value if not _is_traced(key) else jnp.asarray(self.value)
        return _boxed(value[key])

    def __setitem__(self, index: Any, new: Any) -> None:
        key, values, old = raw(index), _opened(new), self.value
        if _is_traced(key) and key.dtype == bool:
            key = key.reshape(key.shape + (1,) * (np.ndim(old) - key.ndim))
            self.set(jnp.where(key, values, old))
        elif _is_traced(old) or _any_traced((key, values)):
            old = jnp.asarray(old)
            self.set(old.at[key].set(jnp.asarray(values).astype(old.dtype)))
        elif self._base is None:
            old[key] = values
        else:
            copy = np.array(old)
            copy[key] = values
            self.set(copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        mask = next((i._mask for i in inputs if isinstance(i, Traced) and i._mask is not None), None)
        if method == "at":
            target, index, *rest = inputs
            if ufunc is not np.add and ufunc is not np.subtract:
                return NotImplemented
            values = jnp.asarray(raw(rest[0]))
            target.set(jnp.asarray(target.value).at[raw(index)].add(-values if ufunc is np.subtract else values))
            return None
        if method == "reduce":
            names = {np.add: "sum", np.multiply: "prod", np.maximum: "max", np.minimum: "min"}
            result = _call(getattr(np, names[ufunc]), inputs, {"axis": 0} | options)
        elif method == "__call__":
            where = options.pop("where", True)
            result = _call(ufunc, tuple(map(_opened, inputs)), options)
            if where is not True:
                result = _call(np.where, (where, result, out[0] if out else 0.0), {})
        else:
            result = _call(getattr(ufunc, method), inputs, options, jax_name=ufunc.__name__, method=method)
        if out is not None:
            # NumPy casts what it writes to the type of what is written into.
            out[0].set(_cast(raw(result), out[0].dtype))
            return out[0]
        if mask is not None and isinstance(result, Traced):
            result._mask = mask
        return result

    def __array_function__(self, function: Any, kinds: Any, args: Any, options: Any) -> Any:
        if function is np.copyto:
            args[0][...] = args[1]
            return None
        out = options.pop("out", None)
        result = _call(function, args, options)
        if out is not None:
            out[...] = result
            return out
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__array_namespace__":
            raise AttributeError(name)
        value = raw(self) if name not in ("dtype", "ndim") else self.value
        attribute = getattr(value, name)
        if not callable(attribute):
            return _boxed(attribute) if name in ("T", "mT", "real", "imag") else attribute

        def method(*args: Any, **options: Any) -> Any:
            kept = options if not _is_traced(value) else {k: v for k, v in options.items() if k not in _NOT_JAXS}
            out = kept.pop("out", None)
            result = _boxed(attribute(*map(raw, args), **{k: raw(v) for k, v in kept.items()}))
            if out is not None:
                out[...] = result
            return result

        return method

    def __array_namespace__(self, **_: Any) -> Any:
        return _NUMPY

    def astype(self, dtype: Any, **_: Any) -> Any:
        return Traced(self.value.astype(dtype), mask=self._mask)

    def copy(self, order: str = "C") -> Traced:
        return Traced(np.array(self.value) if not _is_traced(self.value) else self.value)

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> Traced:
        return self.copy()

    def fill(self, value: Any) -> None:
        self[...] = value

    def dot(self, other: Any) -> Any:
        return _call(np.dot, (self, other), {})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.value, dtype)  # raises for what is really under trace

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(_answer(self.value, bool))

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(_answer(self.value, int))

    def __index__(self) -> int:
        return int(_answer(self.value, operator.index))

    def __format__(self, spec: str) -> str:
        return format(str(self.value), "" if _is_traced(self.value) else spec)

    def __repr__(self) -> str:
        return f"Traced({self.value!r})"


_ANSWER: contextvars.ContextVar[Callable[[Any, Any], Any] | None] = contextvars.ContextVar("answer", default=None)


def _answer(value: Any, kind: Callable[[Any], Any]) -> Any:
    """Return the bool or the int that a forward pass asks of an array, as where it branches on it."""
    answer = _ANSWER.get()
    return kind(value) if answer is None or not _is_traced(value) else answer(value, kind)


@contextlib.contextmanager
def recorded() -> Iterator[list[Any]]:
    """Give the list that fills with what a forward pass asks of the values of arrays, in order."""
    answers: list[Any] = []

    def answer(value: Any, kind: Any) -> Any:
        answers.append(kind(value))
        return answers[-1]

    token = _ANSWER.set(answer)
    try:
        yield answers
    finally:
        _ANSWER.reset(token)


class _Otherwise(BaseException):
    """Raised inside a forward pass that branches in another way when it is traced; no handler of its own takes it."""


@contextlib.contextmanager
def replayed(answers: Sequence[Any]) -> Iterator[None]:
    """Give a forward pass the answers that another run was given: the trace takes the branches that it took.

    Raises:
        _Otherwise, RuntimeError: it asks for more, or for less.
    """
    left = list(reversed(answers))

    def answer(_value: Any, _kind: Any) -> Any:
        if not left:
            raise _Otherwise
        return left.pop()

    token = _ANSWER.set(answer)
    try:
        yield
    finally:
        _ANSWER.reset(token)
    if left:
        raise RuntimeError("the forward pass branches in another way when it is traced")


def raw(tree: Any) -> Any:
    """Return what the traced arrays in a structure hold.

    Raises:
        TypeError: one holds what a mask selects, whose number is not known while it is traced.
    """
    if isinstance(tree, Traced):
        if tree._mask is not None:
            raise TypeError("what a boolean mask selects cannot be traced; write np.where(mask, a, b)")
        return tree.value
    if isinstance(tree, (tuple, list)):
        return _like(tree, map(raw, tree))
    if isinstance(tree, dict):
        return {key: raw(part) for key, part in tree.items()}
    if isinstance(tree, slice):
        return slice(raw(tree.start), raw(tree.stop), raw(tree.step))
    return tree


def _opened(value: Any) -> Any:
    """Return what an array holds, or all of it where a mask selects: an operation entry by entry may go on with it."""
    return value.value if isinstance(value, Traced) else raw(value)


def _boxed(result: Any) -> Any:
    if isinstance(result, (jax.Array, np.ndarray)):
        return Traced(result)
    return _like(result, map(_boxed, result)) if isinstance(result, (tuple, list)) else result


def _like(tree: Any, parts: Iterable[Any]) -> Any:
    """Return a tuple or a list of the type of another, which may name its parts."""
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.Array)


def _any_traced(tree: Any) -> bool:
    if isinstance(tree, (tuple, list)):
        return any(map(_any_traced, tree))
    if isinstance(tree, dict):
        return any(map(_any_traced, tree.values()))
    return _is_traced(tree)


def _is_basic(key: Any) -> bool:
    """Return whether NumPy gives a view for this index."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is Ellipsis or isinstance(k, (slice, int, np.integer)) for k in parts)


def _cast(value: Any, dtype: Any) -> Any:
    return value.astype(dtype) if hasattr(value, "astype") and value.dtype != dtype else value


def _call(function: Any, args: Any, options: Any, *, jax_name: str = "", method: str = "") -> Any:
    """Call a function of NumPy's on traced arrays: JAX's of the same name, or NumPy's own where nothing is traced."""
    args, options = raw(tuple(args)), raw(dict(options))
    if not _any_traced((args, options)):
        return _boxed(function(*args, **options))
    name = jax_name or function.__name__
    if name == "sliding_window_view":
        return _boxed(_windows(*args, **options))
    home = next(h for h in _HOMES if hasattr(h, name))
    called = getattr(getattr(home, name), method) if method else getattr(home, name)
    kept = {k: v for k, v in options.items() if k not in _NOT_JAXS}
    if name in ("concatenate", "stack", "vstack", "hstack", "block", "column_stack", "dstack"):
        args = (jax.tree.map(jnp.asarray, list(args[0])), *args[1:])
    else:
        args = tuple(jnp.asarray(a) if isinstance(a, (list, np.ndarray)) else a for a in args)
    return _boxed(called(*args, **kept))


def _windows(x: Any, window_shape: Any, axis: Any = None, **_: Any) -> Any:
    sizes = (window_shape,) if isinstance(window_shape, int) else tuple(window_shape)
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    for n, k in zip(sizes, axes, strict=True):
        k %= np.ndim(x) if k >= 0 else x.ndim
        starts = np.arange(x.shape[k] - n + 1)[:, None] + np.arange(n)
        x = jnp.moveaxis(jnp.take(x, starts, axis=k), k + 1, -1)
    return x


class _NumpyForTraced(types.ModuleType):
    """NumPy, whose functions that make arrays make arrays that traced values can be written into."""

    def __getattr__(self, name: str) -> Any:
        return _AnyArray if name == "ndarray" else _counterpart(getattr(np, name))


class _Arrays(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (np.ndarray, Traced))


class _AnyArray(metaclass=_Arrays):
    """What stands in for np.ndarray in isinstance(x, np.ndarray)."""


class _MathForTraced(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _counterpart(getattr(math, name))


_NUMPY = _NumpyForTraced("numpy")
_MODULES: dict[str, types.ModuleType] = {"numpy": _NUMPY, "math": _MathForTraced("math")}


def _maker(function: Any) -> Any:
    name = function.__name__

    @functools.wraps(function)
    def make(*args: Any, **options: Any) -> Any:
        if name in ("asarray", *_ALIKE) and args and isinstance(args[0], Traced):
            dtype = options.get("dtype", args[1] if len(args) > 1 else None)
            return args[0] if dtype is None else args[0].astype(dtype)
        values = raw(args)
        if not _any_traced((values, raw(options))):
            return _boxed(function(*values, **raw(options)))
        if name.endswith("_like"):
            like = values[0]
            dtype = np.dtype(options.get("dtype") or like.dtype)
            shape = options.get("shape") or like.shape
            if name == "full_like":
                return Traced(jnp.full(shape, values[1], dtype))
            return Traced(getattr(np, name.removesuffix("_like"))(shape, dtype))
        kept = {k: raw(v) for k, v in options.items() if k not in _NOT_JAXS}
        return _boxed(getattr(jnp, "asarray" if name in _ALIKE else name)(*values, **kept))

    return make


def _counterpart(value: Any) -> Any:
    """Return what stands in for a function of NumPy's or the standard library's on traced arrays."""
    name, home = getattr(value, "__name__", ""), _root(getattr(value, "__module__", None) or "")
    if name in _MAKERS | _ALIKE and home == "numpy":
        return _maker(value)
    if home == "math" and callable(value):
        twin = next((getattr(h, name) for h in (jnp, jax.scipy.special) if hasattr(h, name)), None)
        return (
            (lambda *a: _boxed(twin(*map(raw, a))) if _any_traced(raw(a)) else value(*map(raw, a))) if twin else value
        )
    if home == "scipy" and not isinstance(value, (np.ufunc, type)):
        twin = next((getattr(h, name) for h in _HOMES if hasattr(h, name)), None)
        return (lambda *a, **k: _call(twin, a, k)) if twin else value
    return value


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
            return self._function(value) if is_users(value.__module__) else _counterpart(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.value(value.__func__), self.value(value.__self__))
        if isinstance(value, (np.ufunc, types.BuiltinFunctionType)):
            return _counterpart(value)
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
        if value.dtype.kind == "f":
            return self._remember(value, Traced(value.copy()))
        if value.dtype.kind != "O":
            return value
        copied = self._remember(value, value.copy())
        for index in np.ndindex(value.shape):
            copied[index] = self.value(value[index])
        return copied

    def _module(self, module: types.ModuleType) -> Any:
        known = _MODULES.get(module.__name__)
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


def explain(error: BaseException, name: str) -> str:
    """Return which line of the user's code stopped the trace, and what to write instead."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users_file(f.filename)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    text = str(error).split("\n")[0]
    if isinstance(error, jax.errors.TracerBoolConversionError):
        advice = "a branch on the values of an array cannot be traced; write np.where(condition, a, b)"
    elif isinstance(error, (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError)):
        advice = "a traced array was turned into numbers; keep to array operations, without float() and int()"
    elif isinstance(error, jax.errors.NonConcreteBooleanIndexError):
        advice = "a boolean mask as an index cannot be traced; write np.where(mask, a, b)"
    else:
        advice = f"{type(error).__name__}: {text:.120}"
    return f"JAX cannot trace the forward pass of {name}{where} ({advice})"


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


def _is_users_file(filename: str) -> bool:
    return not any(
        part in filename for part in ("/jax/", "/numpy/", "/jaxlib/", "/tinynet/verification/", "/contextlib")
    )

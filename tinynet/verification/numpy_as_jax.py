"""Let JAX trace a forward pass that was written for NumPy.

The arrays that go in are `Traced`: they hold a JAX value and have NumPy's manners, so that `np.tanh(x)`, `x @ W`,
`y[i] = …`, `h += …` and `np.add.at` do what they do in NumPy. `counterpart` gives what makes such arrays in place of
`np.zeros` and its kind; the code that calls it is a copy (copies.py). What still cannot be traced is explained by
`explain`: the line that stops it, and what to write instead.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import operator
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
            kept = _as_jax_takes(name, options) if _is_traced(value) else options
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
def _answering(answer: Callable[[Any, Any], Any]) -> Iterator[None]:
    token = _ANSWER.set(answer)
    try:
        yield
    finally:
        _ANSWER.reset(token)


@contextlib.contextmanager
def recorded() -> Iterator[list[Any]]:
    """Give the list that fills with what a forward pass asks of the values of arrays, in order."""
    answers: list[Any] = []

    def answer(value: Any, kind: Any) -> Any:
        answers.append(kind(value))
        return answers[-1]

    with _answering(answer):
        yield answers


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

    with _answering(answer):
        yield
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
    kept = _as_jax_takes(name, options)
    if name in ("concatenate", "stack", "vstack", "hstack", "block", "column_stack", "dstack"):
        args = (jax.tree.map(jnp.asarray, list(args[0])), *args[1:])
    else:
        args = tuple(jnp.asarray(a) if isinstance(a, (list, np.ndarray)) else a for a in args)
    return _boxed(called(*args, **kept))


def _as_jax_takes(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those that JAX does not know, the order in memory unless entries are put in it."""
    put = name in ("ravel", "flatten", "reshape") and options.get("order") == "F"
    return {k: v for k, v in options.items() if k not in _NOT_JAXS or (k == "order" and put)}


def _windows(x: Any, window_shape: Any, axis: Any = None, **_: Any) -> Any:
    sizes = (window_shape,) if isinstance(window_shape, int) else tuple(window_shape)
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    for n, k in zip(sizes, axes, strict=True):
        k %= np.ndim(x) if k >= 0 else x.ndim
        starts = np.arange(x.shape[k] - n + 1)[:, None] + np.arange(n)
        x = jnp.moveaxis(jnp.take(x, starts, axis=k), k + 1, -1)
    return x


class _Arrays(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (np.ndarray, Traced))


class _AnyArray(metaclass=_Arrays):
    """What stands in for np.ndarray in isinstance(x, np.ndarray)."""


class _ForTraced(types.ModuleType):
    """A module whose functions that make arrays make arrays that traced values can be written into."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(sys.modules[self.__name__], name)
        return _AnyArray if value is np.ndarray else counterpart(value)


_NUMPY = _ForTraced("numpy")
MODULES: dict[str, types.ModuleType] = {"numpy": _NUMPY, "math": _ForTraced("math")}


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


def counterpart(value: Any) -> Any:
    """Return what stands in for a function of NumPy's or the standard library's on traced arrays."""
    name, home = getattr(value, "__name__", ""), (getattr(value, "__module__", None) or "").partition(".")[0]
    if name in _MAKERS | _ALIKE and home == "numpy":
        return _maker(value)
    has_twin = any(hasattr(h, name) for h in _HOMES)
    if home in ("math", "scipy") and callable(value) and not isinstance(value, (np.ufunc, type)) and has_twin:
        return lambda *args, **options: _call(value, args, options)
    return value


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


def _is_users_file(filename: str) -> bool:
    return not any(
        part in filename for part in ("/jax/", "/numpy/", "/jaxlib/", "/tinynet/verification/", "/contextlib")
    )

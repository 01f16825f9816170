"""Batches: from arrays, from arrays mapped from a file, or from any iterable; and how much each sample counts.

Data are trees: an array, or a tuple or dict of arrays with one common first axis, that of the samples. There may be no
y, which is None then.
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np

from tinynet.arrays import Array, describe
from tinynet.trees import leaves, leaves_with_paths, map_leaves

Batch: TypeAlias = tuple[Any, Any, Array | None]
"""x, y and the weights of the samples, or None for equal ones."""

_RELEASE_EVERY = 64 * 2**20
_MAPPED_AROUND = 2 * 2**20
"""A row read out of order may map the whole huge page around it."""
_CHECK_AT_ONCE = 16 * 2**20


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch, as often as asked for: `size` samples each, in `order` or as they stand."""

    x: Any
    y: Any
    weights: Array | None
    size: int
    order: Array | None
    dtype: Any

    def __iter__(self) -> Iterator[Batch]:
        data, unreleased = (self.x, self.y, self.weights), 0
        for i in range(0, self.m, self.size):
            x, y, weights = map_arrays(partial(self._take, i), data)
            if self.in_memory:
                yield x, y, weights
                continue
            rows = range(i, i + self.size) if self.order is None else self.order[i : i + self.size]
            x, y = (_checked(name, cast(name, a, self.dtype), rows) for name, a in (("x", x), ("y", y)))
            yield x, y, weights
            read = sum(a.nbytes for a in arrays_in((x, y)))
            unreleased += read if self.order is None else count(x) * _MAPPED_AROUND
            if unreleased >= _RELEASE_EVERY:
                release(self.x, self.y)
                unreleased = 0
        release(self.x, self.y)

    def __len__(self) -> int:
        return math.ceil(self.m / self.size)

    @property
    def m(self) -> int:
        """Return the number of samples that the epoch meets."""
        return count(self.x) if self.order is None else len(self.order)

    def parts(self, start: int, every: int | None) -> Iterator[Batches]:
        """Cut what is left from batch `start` on into parts of `every` batches; one part if None."""
        order = np.arange(count(self.x)) if self.order is None else self.order
        if start == 0 and every is None:
            yield self
            return
        step = (every or len(self)) * self.size
        for i in range(start * self.size, self.m, step):
            yield replace(self, order=order[i : i + step])

    @cached_property
    def in_memory(self) -> bool:
        return all(mapping(a) is None for a in arrays_in((self.x, self.y)))

    def _take(self, i: int, a: Array) -> Array:
        return a[i : i + self.size] if self.order is None else a.take(self.order[i : i + self.size], 0)


@dataclass(frozen=True)
class Samples:
    """Data x and y with one row per sample, in memory or mapped from a file, and how epochs go through them."""

    x: Any
    y: Any
    weights: Array | None
    batch_size: int | None
    shuffle: bool
    dtype: Any = None

    replayable = True

    def as_dtype(self, dtype: Any) -> Samples:
        """Round floating-point data to `dtype`: at once in memory, batch by batch from a file."""
        given = {"x": self.x, "y": self.y, "weights": self.weights}
        return replace(self, **{name: cast_in_memory(name, a, dtype) for name, a in given.items()}, dtype=dtype)

    @property
    def largest(self) -> int:
        """Return the number of samples of a batch, the last one excepted."""
        return min(self.batch_size or count(self.x), count(self.x))

    def epoch(self, rng: np.random.Generator) -> Batches:
        m = count(self.x)
        order = rng.permutation(m) if self.shuffle and self.largest < m else None
        return Batches(self.x, self.y, self.weights, self.largest, order, self.dtype)


class Stream:
    """An iterable of batches (x, y) or (x, y, weights), or of dicts of these, or a function that returns one an epoch.

    Only one batch is held at a time. The order is the iterable's own.
    """

    replayable = False

    def __init__(self, batches: Iterable[Any] | Callable[[], Iterable[Any]], epochs: int) -> None:
        self._batches = batches
        self._epoch = 0
        self.dtype: Any = None
        self._started: Iterator[Any] | None = self._start()
        if self._started is batches and epochs > 1:
            raise ValueError(
                f"fit: x is {describe(batches)}, which can be gone through once; expected a list, an iterable object "
                f"or a function that returns an iterator, for {epochs} epochs"
            )
        first = next(self._started, None)
        if first is None:
            raise ValueError("fit: x is an iterable that yields no batch (an exhausted generator?)")
        self.x, self.y, self.weights = self._batch(first, 0)
        # The iterable may reuse what it yielded.
        first = (self.x, self.y, *(() if self.weights is None else (self.weights,)))
        self._started = itertools.chain([first], self._started)

    def as_dtype(self, dtype: Any) -> Stream:
        self.dtype = dtype
        return self

    @property
    def largest(self) -> int:
        return count(self.x)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        iterator, self._started = self._started or self._start(), None
        empty = True
        for i, batch in enumerate(iterator):
            empty = False
            yield self._batch(batch, i)
        if empty:
            raise ValueError("fit: x is an iterable that yields no batch the second time; return a new one each epoch")

    def _start(self) -> Iterator[Any]:
        return iter(self._batches() if callable(self._batches) else self._batches)

    def _batch(self, batch: Any, i: int) -> Batch:
        """Return a batch of copies, so that an iterable that reuses its arrays does not change what is held."""
        if isinstance(batch, dict) and "x" in batch and set(batch) <= {"x", "y", "weights"}:
            batch = (batch["x"], batch.get("y"), *([batch["weights"]] if "weights" in batch else []))
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            given = f"a dict with keys {list(batch)}" if isinstance(batch, dict) else describe(batch)
            raise TypeError(
                f"fit: batch {i} of x is {given}; expected a tuple (x, y) or (x, y, weights), or a dict with the keys "
                '"x", "y" and "weights"'
            )
        x, y = samples(f"x of batch {i}", batch[0], f"y of batch {i}", batch[1])
        weights = _weights(f"weights of batch {i}", batch[2], count(x)) if len(batch) == 3 else None
        named = ((f"x of batch {i}", x), (f"y of batch {i}", y), (f"weights of batch {i}", weights))
        x, y, weights = (map_arrays(np.array, cast(name, part, self.dtype)) for name, part in named)
        return x, y, weights


def is_data(x: Any) -> bool:
    """Return whether `x` is data: an array, a frame, or a tuple or dict of them; anything else may be batches."""
    return isinstance(x, (tuple, dict)) or hasattr(x, "__array__") or hasattr(x, "__array_namespace__")


def samples(name_x: str, x: Any, name_y: str, y: Any) -> tuple[Any, Any]:
    """Return x and y as trees of arrays of real, finite numbers with equally many rows, at least one.

    Arrays mapped from a file are not read: their batches are checked as they come.
    """
    x, y = as_tree(name_x, x), as_tree(name_y, y)
    if not arrays_in(x):
        raise TypeError(f"fit: {name_x} is {describe(x)}, which holds no array; expected at least one")
    for name, tree in ((name_x, x), (name_y, y)):
        for path, array in leaves_with_paths(tree):
            if array is not None and len(array) != count(x):
                raise ValueError(
                    f"fit: {name}{path} has {len(array)} samples; expected {count(x)}, as many as {name_x}"
                )
    if count(x) == 0:
        raise ValueError(f"fit: {name_x} has shape {arrays_in(x)[0].shape}; expected at least one sample")
    return x, y


def as_tree(name: str, data: Any) -> Any:
    """Return `data`, an array or a tuple or dict of arrays and None, as such a tree of NumPy arrays."""
    if data is None:
        return None
    if isinstance(data, dict):
        return {key: as_tree(f'{name}["{key}"]', part) for key, part in data.items()}
    if isinstance(data, tuple):
        return tuple(as_tree(f"{name}[{i}]", part) for i, part in enumerate(data))
    return as_array(name, data)


def as_array(name: str, data: Any) -> Array:
    """Return `data` as an array of real, finite numbers or truth values with one row per sample."""
    if np.ma.is_masked(data):
        raise ValueError(
            f"fit: {name} has masked values; expected a number for each; fill them in (`filled`), or leave their rows "
            "out"
        )
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"fit: {name} is {describe(data)}, of which NumPy makes no array: {error}") from error
    if array.dtype.kind == "O" and all(getattr(t, "kind", "O") in "fiub" for t in getattr(data, "dtypes", [None])):
        array = data.to_numpy(np.float64)  # a pandas frame whose columns are numbers of several kinds, or nullable
    if array.dtype.name == "bfloat16":  # of which NumPy knows no kind; float32 holds every such number
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        texts = array.dtype.kind in "US" or (array.size and isinstance(array.flat[0], str))
        classes = texts and not _is_numbers(array)
        hint = f"numpy.unique({name}, return_inverse=True)[1]" if classes else f"numpy.asarray({name}, float)"
        raise TypeError(f"fit: {name} has dtype {array.dtype}; expected real numbers; use {hint}")
    if array.ndim == 0:
        raise ValueError(f"fit: {name} has shape (); expected (m, …), one row per sample")
    if mapping(array) is None:
        step = max(1, _CHECK_AT_ONCE // max(1, array.nbytes // max(1, len(array))))
        for i in range(0, len(array), step):
            _checked(name, array[i : i + step], range(i, i + step))
    return array


def _is_numbers(texts: Array) -> bool:
    try:
        texts.astype(float)
    except (TypeError, ValueError):
        return False
    return True


def map_arrays(f: Callable[[Array], Any], tree: Any) -> Any:
    """Apply `f` to each array of `tree`; None, which stands for no data, stays."""
    return map_leaves(lambda a: None if a is None else f(a), tree)


def arrays_in(tree: Any) -> list[Array]:
    """Return the arrays of `tree`."""
    return [a for a in leaves(tree) if a is not None]


def count(tree: Any) -> int:
    """Return the number of samples."""
    return len(arrays_in(tree)[0])


def rows_of(tree: Any, rows: slice) -> Any:
    """Return the samples `rows` of a tree."""
    return map_arrays(lambda a: a[rows], tree)


def cast(name: str, tree: Any, dtype: Any) -> Any:
    """Round floating-point numbers to `dtype`, which must hold them; integers, which are labels or indices, stay."""

    def leaf(x: Array) -> Array:
        if x.dtype.kind != "f" or dtype is None or x.dtype == dtype:
            return x
        with np.errstate(over="ignore"):
            rounded = x.astype(dtype)
        if x.size and not np.isfinite([rounded.min(), rounded.max()]).all():
            lost = x[np.isfinite(x) & ~np.isfinite(rounded)]
            if lost.size:
                raise ValueError(
                    f"fit: {name} has the value {lost[0]:.4g}, which {np.dtype(dtype)}, the dtype of the parameters, "
                    "cannot hold; scale the data, or use parameters of float64"
                )
        return rounded

    return map_arrays(leaf, tree)


def cast_in_memory(name: str, tree: Any, dtype: Any) -> Any:
    """Round data in memory as `cast` does; arrays mapped from a file are rounded as their batches come."""
    return map_arrays(lambda a: cast(name, a, dtype) if mapping(a) is None else a, tree)


def sample_weights(y: Any, sample_weight: Any, class_weight: Any, m: int) -> Array | None:
    """Return the weight of each of the m samples, (m,), or None where all count the same; arguments as of `fit`."""
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(m)
    if sample_weight is not None:
        weights = _weights("sample_weight", sample_weight, m)
    if class_weight is not None:
        weights = weights * _of_classes(_classes(y), class_weight)
    return weights


def _weights(name: str, given: Any, m: int) -> Array:
    weights = as_array(name, given).astype(np.float64)
    if weights.shape != (m,):
        raise ValueError(f"fit: {name} has shape {weights.shape}; expected {(m,)}, one per sample")
    if (weights < 0).any():
        raise ValueError(f"fit: {name} has the value {weights.min():g}; expected at least 0")
    return weights


def _of_classes(classes: Array, class_weight: Any) -> Array:
    present, index, number = np.unique(classes, return_inverse=True, return_counts=True)
    if isinstance(class_weight, str) and class_weight == "balanced":
        return (len(classes) / (len(present) * number))[index]
    if not isinstance(class_weight, Mapping):
        raise TypeError(f'fit: class_weight is {describe(class_weight)}; expected a dict or "balanced"')
    missing = [c for c in present.tolist() if c not in class_weight]
    if missing:
        raise ValueError(f"fit: class_weight has no weight for class {missing[0]!r}, which is in y")
    return _weights("class_weight", [class_weight[c] for c in present.tolist()], len(present))[index]


def _classes(y: Any) -> Array:
    if isinstance(y, np.ndarray):
        if y.ndim == 2 and y.shape[1] > 1:
            return y.argmax(axis=1)
        if y.ndim <= 2 and np.array_equal(y, np.rint(y)):
            return y.reshape(-1).astype(np.int64)
    given = describe(y)
    raise ValueError(f"fit: class_weight needs y of classes, (m,), (m, 1) or (m, K); y is {given}")


def mapping(array: Array) -> mmap.mmap | None:
    """Return the file mapping that `array` is a view of, if it is one."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def release(*trees: Any) -> None:
    """Let go of what was read of arrays mapped from files, so that a file larger than memory does not fill it."""
    for m in map(mapping, arrays_in(trees)):
        # A writable mapping may hold changes that only it has.
        if m is not None and memoryview(m).readonly and hasattr(m, "madvise"):
            m.madvise(mmap.MADV_DONTNEED)


def _checked(name: str, tree: Any, rows: Sequence[int]) -> Any:
    for path, array in leaves_with_paths(tree):
        if array is None or array.dtype.kind != "f":
            continue
        finite = np.isfinite(array)
        if not finite.all():
            row = rows[int(np.argwhere(~finite)[0, 0])]
            raise ValueError(
                f"fit: {name}{path} has a value that is NaN or infinite, first in row {row}; expected finite"
            )
    return tree

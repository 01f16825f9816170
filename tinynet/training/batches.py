"""Batches: from arrays, from arrays mapped from a file, or from any iterable; and how much each sample counts."""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from tinynet.arrays import Array, describe

Batch: TypeAlias = tuple[Array, Array, Array | None]
"""x, y and the weights of the samples, or None for equal ones."""

_RELEASE_EVERY = 64 * 2**20
_MAPPED_AROUND = 2 * 2**20
"""A row read out of order may map the whole huge page around it."""
_CHECK_AT_ONCE = 16 * 2**20


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch, as often as asked for: `size` samples each, in `order` or as they stand."""

    x: Array
    y: Array
    weights: Array | None
    size: int
    order: Array | None
    dtype: Any

    def __iter__(self) -> Iterator[Batch]:
        unreleased = 0
        for i in range(0, self.m, self.size):
            x, y = self._take(self.x, i), self._take(self.y, i)
            if not self.in_memory:
                rows = range(i, i + len(x)) if self.order is None else self.order[i : i + len(x)]
                x, y = _checked("x", cast(x, self.dtype), rows), _checked("y", cast(y, self.dtype), rows)
            yield x, y, None if self.weights is None else self._take(self.weights, i)
            unreleased += x.nbytes + y.nbytes if self.order is None else len(x) * _MAPPED_AROUND
            if unreleased >= _RELEASE_EVERY and not self.in_memory:
                release(self.x, self.y)
                unreleased = 0
        release(self.x, self.y)

    def __len__(self) -> int:
        return math.ceil(self.m / self.size)

    @property
    def m(self) -> int:
        """Return the number of samples that the epoch meets."""
        return len(self.x) if self.order is None else len(self.order)

    def parts(self, start: int, every: int | None) -> Iterator[Batches]:
        """Cut what is left from batch `start` on into parts of `every` batches; one part if None."""
        order = np.arange(len(self.x)) if self.order is None else self.order
        if start == 0 and every is None:
            yield self
            return
        step = (every or len(self)) * self.size
        for i in range(start * self.size, self.m, step):
            yield replace(self, order=order[i : i + step])

    @cached_property
    def in_memory(self) -> bool:
        return mapping(self.x) is None and mapping(self.y) is None

    def _take(self, a: Array, i: int) -> Array:
        return a[i : i + self.size] if self.order is None else a.take(self.order[i : i + self.size], 0)


@dataclass(frozen=True)
class Samples:
    """Arrays x and y with one row per sample, in memory or mapped from a file, and how epochs go through them."""

    x: Array
    y: Array
    weights: Array | None
    batch_size: int | None
    shuffle: bool
    dtype: Any = None

    replayable = True

    def as_dtype(self, dtype: Any) -> Samples:
        """Round floating-point data to `dtype`: at once in memory, batch by batch from a file."""
        x, y = (cast(a, dtype) if mapping(a) is None else a for a in (self.x, self.y))
        weights = None if self.weights is None else self.weights.astype(dtype)
        return Samples(x, y, weights, self.batch_size, self.shuffle, dtype)

    @property
    def largest(self) -> int:
        """Return the number of samples of a batch, the last one excepted."""
        return min(self.batch_size or len(self.x), len(self.x))

    def epoch(self, rng: np.random.Generator) -> Batches:
        order = rng.permutation(len(self.x)) if self.shuffle and self.largest < len(self.x) else None
        return Batches(self.x, self.y, self.weights, self.largest, order, self.dtype)


class Stream:
    """An iterable of batches (x, y) or (x, y, weights), or a function that returns one for each epoch.

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
        self._started = itertools.chain([first], self._started)
        self.x, self.y, _ = self._batch(first, 0)

    def as_dtype(self, dtype: Any) -> Stream:
        self.dtype = dtype
        return self

    @property
    def largest(self) -> int:
        return len(self.x)

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
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise TypeError(f"fit: batch {i} of x is {describe(batch)}; expected a tuple (x, y) or (x, y, weights)")
        x, y = samples(f"x of batch {i}", batch[0], f"y of batch {i}", batch[1])
        weights = as_array(f"weights of batch {i}", batch[2]) if len(batch) == 3 else None
        if weights is not None and weights.shape != (len(x),):
            raise ValueError(f"fit: weights of batch {i} has shape {weights.shape}; expected {(len(x),)}")
        dtype = self.dtype
        return cast(x, dtype), cast(y, dtype), None if weights is None else weights.astype(dtype or weights.dtype)


def samples(name_x: str, x: Array, name_y: str, y: Array) -> tuple[Array, Array]:
    """Return x and y as arrays of real, finite numbers with equally many rows, at least one.

    Arrays mapped from a file are not read: their batches are checked as they come.
    """
    x, y = as_array(name_x, x), as_array(name_y, y)
    if len(x) != len(y):
        raise ValueError(f"fit: {name_y} has {len(y)} samples; expected {len(x)}, as many as {name_x}")
    if len(x) == 0:
        raise ValueError(f"fit: {name_x} has shape {x.shape}; expected at least one sample")
    return x, y


def sample_weights(
    y: Array, sample_weight: Any, class_weight: Mapping[int, float] | Literal["balanced"] | None
) -> Array | None:
    """Return the weight of each sample, (m,), or None where all count the same.

    Args:
        y: (m,) or (m, 1) whole numbers that are classes, or (m, K), the class being the largest entry's column.
        sample_weight: (m,), at least 0.
        class_weight: a weight at least 0 for every class in y; "balanced" for m / (classes · samples of the class).

    Raises:
        TypeError, ValueError: the weights do not fit y.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(len(y))
    if sample_weight is not None:
        weights = as_array("sample_weight", sample_weight).astype(np.float64)
        if weights.shape != (len(y),):
            raise ValueError(f"fit: sample_weight has shape {weights.shape}; expected {(len(y),)}, one per sample")
    if class_weight is not None:
        weights *= _of_classes(_classes(y), class_weight)
    if (weights < 0).any():
        raise ValueError("fit: a weight of a sample is negative; expected at least 0")
    return weights


def _of_classes(classes: Array, class_weight: Any) -> Array:
    present, index, count = np.unique(classes, return_inverse=True, return_counts=True)
    if class_weight == "balanced":
        return (len(classes) / (len(present) * count))[index]
    if not isinstance(class_weight, Mapping):
        raise TypeError(f'fit: class_weight is {describe(class_weight)}; expected a dict or "balanced"')
    missing = [c for c in present.tolist() if c not in class_weight]
    if missing:
        raise ValueError(f"fit: class_weight has no weight for class {missing[0]!r}, which is in y")
    return as_array("class_weight", [class_weight[c] for c in present.tolist()]).astype(np.float64)[index]


def _classes(y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] > 1:
        return y.argmax(axis=1)
    if y.ndim <= 2 and np.array_equal(y, np.rint(y)):
        return y.reshape(-1).astype(np.int64)
    raise ValueError(f"fit: class_weight needs y of classes, (m,), (m, 1) or (m, K); y has shape {y.shape}")


def as_array(name: str, data: Array) -> Array:
    """Return `data` as an array of real, finite numbers with one row per sample."""
    array = np.asarray(data)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"fit: {name} has dtype {array.dtype}; expected real numbers; use numpy.asarray({name}, float)")
    if array.ndim == 0:
        raise ValueError(f"fit: {name} has shape (); expected (m, …), one row per sample")
    if mapping(array) is None:
        step = max(1, _CHECK_AT_ONCE // max(1, array.nbytes // max(1, len(array))))
        for i in range(0, len(array), step):
            _checked(name, array[i : i + step], range(i, i + step))
    return array


def cast(x: Array, dtype: Any) -> Array:
    """Round floating-point numbers to `dtype`; integers, which are labels or indices, stay."""
    return x.astype(dtype, copy=False) if x.dtype.kind == "f" and dtype is not None else x


def mapping(array: Array) -> mmap.mmap | None:
    """Return the file mapping that `array` is a view of, if it is one."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def release(*arrays: Array) -> None:
    """Let go of what was read of arrays mapped from files, so that a file larger than memory does not fill it."""
    for m in map(mapping, arrays):
        # A writable mapping may hold changes that only it has.
        if m is not None and memoryview(m).readonly and hasattr(m, "madvise"):
            m.madvise(mmap.MADV_DONTNEED)


def _checked(name: str, array: Array, rows: Sequence[int]) -> Array:
    finite = np.isfinite(array)
    if not finite.all():
        row = rows[int(np.argwhere(~finite)[0, 0])]
        raise ValueError(f"fit: {name} has a value that is NaN or infinite, first in row {row}; expected finite")
    return array

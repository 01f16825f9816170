"""What the mathematics asks of an array, and the only file that knows which library an array is from.

A layer is written once and runs on NumPy arrays, on JAX arrays and on JAX tracers. Two habits make that work:

* the namespace of an array comes from the array itself (`namespace`), as the array API standard has it;
* augmented assignment (`z += b`) is used on arrays made in the same function and on nothing else: NumPy then works in
  place, JAX rebinds the name, and both give the same numbers.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "Array",
    "Cache",
    "Params",
    "add_to_rows",
    "add_to_slice",
    "blocks",
    "describe",
    "has_values",
    "is_array",
    "is_floating",
    "namespace",
    "owned_copy",
    "rows",
]

Array: TypeAlias = Any
"""A `numpy.ndarray`, a `jax.Array` or a JAX tracer."""

Params: TypeAlias = Any
"""A pytree of arrays: a dict for a layer, a tuple with one entry a layer for a `Sequential`."""

Cache: TypeAlias = Any
"""What `forward` hands to `backward`: a pytree of arrays, opaque to everyone else."""

_CACHED_ENTRIES = 2**18

# bfloat16 and the float8 types of JAX are of kind "V".
_FLOATING_KINDS = "fV"


def namespace(x: Array) -> Any:
    """Return the module whose functions work on `x`: `numpy` or `jax.numpy`.

    Raises:
        TypeError: `x` is not an array (a list, a number, None).
    """
    try:
        return x.__array_namespace__()
    except AttributeError:
        raise TypeError(f"{describe(x)} is not an array; convert it with numpy.asarray") from None


def is_array(x: object) -> bool:
    """Whether `x` is an array of NumPy or JAX (a NumPy scalar counts, a Python number does not)."""
    return hasattr(x, "__array_namespace__")


def is_floating(x: object) -> bool:
    """Whether `x` is an array of real floating-point numbers."""
    return hasattr(x, "__array_namespace__") and x.dtype.kind in _FLOATING_KINDS  # type: ignore[attr-defined]


def rows(x: Array) -> Array:
    """View `x` of shape (..., n) as (m, n): one row a sample, whatever the leading axes."""
    return x.reshape(-1, x.shape[-1])


def owned_copy(x: Array) -> Array:
    """Copy `x`, so that augmented assignment may overwrite it."""
    return namespace(x).array(x, copy=True)


def add_to_slice(x: Array, index: Any, values: Array) -> Array:
    """Return `x` with x[index] += values, `index` made of slices; `x` is given away."""
    if namespace(x) is not np:
        return x.at[index].add(values)
    x[index] += values
    return x


def add_to_rows(x: Array, indices: Array, values: Array) -> Array:
    """Return `x` with x[i] += v for each i of `indices` and v of `values`, repeated ones too; `x` is given away."""
    if namespace(x) is not np:
        return x.at[indices].add(values)
    np.add.at(x, indices, values)
    return x


def blocks(x: Array, entries: int) -> list[slice]:
    """Cut the first axis of `x` into slices whose work, `entries` numbers a sample, stays in the processor's cache.

    One slice for JAX, whose compiler does this by itself.
    """
    m = len(x)
    size = max(1, _CACHED_ENTRIES // max(1, entries)) if namespace(x) is np else max(1, m)
    return [slice(i, i + size) for i in range(0, max(1, m), size)]


def has_values(x: Array) -> bool:
    """Whether the entries of `x` can be looked at without waiting for a device or a compiler: whether NumPy owns it."""
    return namespace(x) is np


def describe(x: object) -> str:
    """Name what was given, for an error message: `float64 array of shape (3, 2)`, `list`."""
    if is_array(x):
        return f"{x.dtype} array of shape {tuple(x.shape)}"  # type: ignore[attr-defined]
    return "None" if x is None else type(x).__name__

"""What the mathematics asks of an array, and the only file that knows which library an array is from.

A layer is written once and runs on NumPy arrays, on JAX arrays and on JAX tracers. Two habits make that work:

* the namespace of an array comes from the array itself (`namespace`), as the array API standard has it;
* augmented assignment (`z += b`) is used on arrays made in the same function and on nothing else: NumPy then works in
  place, JAX rebinds the name, and both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A `numpy.ndarray`, a `jax.Array` or a JAX tracer."""

Params: TypeAlias = Any
"""A pytree of arrays: a dict for a layer, a tuple with one entry per layer for a `Sequential`."""

Cache: TypeAlias = Any
"""What `forward` hands to `backward`: a pytree of arrays, opaque to everyone else."""

State: TypeAlias = Any
"""What a layer keeps from step to step beside its parameters: a pytree of arrays, `{}` for most layers."""

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
    """Return whether `x` is an array of NumPy or JAX (a NumPy scalar counts, a Python number does not)."""
    return hasattr(x, "__array_namespace__")


def is_floating(x: object) -> bool:
    """Return whether `x` is an array of real floating-point numbers."""
    return hasattr(x, "__array_namespace__") and x.dtype.kind in _FLOATING_KINDS  # type: ignore[attr-defined]


def rows(x: Array) -> Array:
    """View `x` of shape (..., n) as (m, n): one row per sample, whatever the leading axes."""
    return x.reshape(-1, x.shape[-1])


def owned_copy(x: Array) -> Array:
    """Copy `x`, so that augmented assignment may overwrite it."""
    return namespace(x).array(x, copy=True)


def widened(x: Array) -> Array:
    """Return `x` in float32 where its numbers have fewer bits, whose squares overflow from 256 on; else `x` itself."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


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
    """Cut the first axis of `x` into slices whose work, `entries` numbers per sample, stays in the processor's cache.

    One slice for JAX, whose compiler does this by itself.
    """
    m = len(x)
    size = max(1, _CACHED_ENTRIES // max(1, entries)) if namespace(x) is np else max(1, m)
    return [slice(i, i + size) for i in range(0, max(1, m), size)]


def has_values(x: Array) -> bool:
    """Return whether the entries of `x` can be looked at without waiting for a device or a compiler."""
    return namespace(x) is np


def choose(flag: Array, f: Callable[..., Any], g: Callable[..., Any], *operands: Any) -> Any:
    """Return f(*operands) if `flag` is true and g(*operands) if not: an `if` on NumPy, `jax.lax.cond` on JAX."""
    if namespace(flag) is np:
        return f(*operands) if flag else g(*operands)
    from jax import lax

    return lax.cond(flag, f, g, *operands)


def scan(f: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """Apply `f` to each entry of `xs` in turn, handing `carry` on: a loop on NumPy, `jax.lax.scan` on JAX.

    Args:
        f: (carry, x) -> (carry, y) with x one entry of `xs`; the new carry has the structure, shapes and dtypes of the
            old one.
        carry: what the first call gets, a pytree of arrays.
        xs: a pytree of arrays with one common first axis, of length T.
        reverse: start with the last entry.

    Returns:
        (carry, ys): the last carry, and the y of all calls stacked along a new first axis, in the order of `xs`.

    Raises:
        ValueError: `xs` has no array, or its arrays differ in length.
        TypeError: a carry differs from the one before in structure, shape or dtype.
    """
    from tinynet.trees import leaves, map_leaves  # which is built on this module

    arrays = [x for x in leaves(xs) if x is not None]
    if any(namespace(a).__name__ == "jax.numpy" for a in (*arrays, *filter(is_array, leaves(carry)))):
        from jax import lax

        return lax.scan(f, carry, xs, reverse=reverse)
    lengths = sorted({len(x) for x in arrays})
    if len(lengths) != 1:
        raise ValueError(f"scan: the arrays of xs have lengths {lengths}; expected one common first axis")
    T = lengths[0]
    ys = []
    for t in reversed(range(T)) if reverse else range(T):
        expected = _outline(carry)
        carry, y = f(carry, map_leaves(lambda x, t=t: None if x is None else x[t], xs))
        if _outline(carry) != expected:
            raise TypeError(f"scan: the carry was {expected} and became {_outline(carry)}; expected no change")
        ys.append(y)
    if T == 0:  # one call, for the shapes
        x = map_leaves(lambda x: None if x is None else np.zeros(x.shape[1:], x.dtype), xs)
        return carry, map_leaves(lambda y: None if y is None else np.zeros((0, *y.shape), y.dtype), f(carry, x)[1])
    return carry, map_leaves(_stack, *(reversed(ys) if reverse else ys))


def _stack(*values: Any) -> Any:
    return None if values[0] is None else namespace(values[0]).stack(values)


def _outline(tree: Any) -> Any:
    """Return `tree` with each array replaced by its dtype and shape."""
    from tinynet.trees import map_leaves

    return map_leaves(describe, tree)


def describe(x: object) -> str:
    """Name what was given, for an error message: `float64 array of shape (3, 2)`, `list`."""
    if is_array(x):
        return f"{x.dtype} array of shape {tuple(x.shape)}"  # type: ignore[attr-defined]
    return "None" if x is None else type(x).__name__

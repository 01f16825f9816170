"""Argument checks: each names the argument, what was given, what was expected and what to do.

They run on every call of a layer, so the good case is one or two comparisons.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

from tinynet.arrays import Array, Params, describe, has_values, is_array, is_floating


def check_floating(owner: object, name: str, x: Array) -> None:
    """Raise TypeError unless `x` is an array of floating-point numbers, which in NumPy are not those of bfloat16."""
    if is_floating(x):
        if x.dtype.kind == "f" or not has_values(x):
            return
        raise TypeError(
            f"{owner}: {name} has dtype {x.dtype}, of which NumPy has no arithmetic; use {name}.astype(numpy.float32), "
            f"or jax.numpy.asarray({name})"
        )
    if not is_array(x):
        raise TypeError(f"{owner}: {name} is {describe(x)}; expected an array; use numpy.asarray({name}, float)")
    raise TypeError(f"{owner}: {name} has dtype {x.dtype}; expected floating point; use {name}.astype(float)")


def check_features(owner: object, x: Array, n: int) -> None:
    """Raise unless `x` is a floating-point array of shape (..., n)."""
    check_floating(owner, "x", x)
    if x.shape[-1:] != (n,):
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected (..., {n})")


def check_images(owner: object, x: Array, channels: int | None, kernel: int, padding: int) -> None:
    """Raise unless `x` is floating and (..., channels, height, width), and padded as large as the kernel."""
    check_floating(owner, "x", x)
    if x.ndim < 3 or channels not in (None, x.shape[-3]):
        expected = "channels" if channels is None else channels
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected (..., {expected}, height, width)")
    if min(x.shape[-2:]) + 2 * padding < kernel:
        least = kernel - 2 * padding
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected height and width of at least {least}")


def check_channels(owner: object, x: Array, n: int) -> None:
    """Raise unless `x` is a floating-point array of shape (m, n, …)."""
    check_floating(owner, "x", x)
    if x.ndim < 2 or x.shape[1] != n:
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected (m, {n}, …)")


def check_signals(owner: object, x: Array, channels: int, kernel: int, padding: int) -> None:
    """Raise unless `x` is floating and (..., channels, t), and padded as long as the kernel."""
    check_floating(owner, "x", x)
    if x.ndim < 2 or x.shape[-2] != channels:
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected (..., {channels}, t)")
    if x.shape[-1] + 2 * padding < kernel:
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected t of at least {kernel - 2 * padding}")


def check_sequences(owner: object, x: Array, n: int) -> None:
    """Raise unless `x` is a floating-point array of shape (m, t, n)."""
    check_floating(owner, "x", x)
    if x.ndim != 3 or x.shape[-1] != n:
        raise ValueError(f"{owner}: x has shape {tuple(x.shape)}; expected (m, t, {n})")


def check_lengths(owner: object, lengths: Array, m: int, t: int) -> None:
    """Raise unless `lengths` is an array of m integers from 0 to t; inside `jax.jit` their range cannot be seen."""
    if not is_array(lengths) or lengths.dtype.kind not in "iu" or lengths.shape != (m,):
        raise TypeError(f"{owner}: lengths is {describe(lengths)}; expected integers of shape ({m},)")
    if has_values(lengths) and lengths.size and not 0 <= lengths.min() <= lengths.max() <= t:
        raise ValueError(f"{owner}: lengths has values from {lengths.min()} to {lengths.max()}; expected 0 to {t}")


def check_mask(owner: object, mask: Array, shape: tuple[int, ...]) -> None:
    """Raise TypeError unless `mask` is an array of booleans of the `shape`."""
    if not is_array(mask) or mask.dtype.kind != "b" or mask.shape != shape:
        raise TypeError(f"{owner}: mask is {describe(mask)}; expected booleans of shape {tuple(shape)}")


def check_indices(owner: object, x: Array, n: int) -> None:
    """Raise unless `x` is an array of integers from 0 to n − 1; inside `jax.jit` their range cannot be seen."""
    if not is_array(x) or x.dtype.kind not in "iu":
        raise TypeError(f"{owner}: x is {describe(x)}; expected an array of integers from 0 to {n - 1}")
    if has_values(x) and x.size and not 0 <= x.min() <= x.max() < n:
        raise ValueError(f"{owner}: x has values from {x.min()} to {x.max()}; expected 0 to {n - 1}")


def check_labels(owner: object, y: Array, shape: tuple[int, ...], ignored: int | None) -> None:
    """Raise unless the integers `y` are one class for each sample of logits of the `shape` (..., K), or `ignored`."""
    if y.shape != shape[:-1]:
        raise ValueError(f"{owner}: y has shape {tuple(y.shape)}; expected {shape[:-1]} for y_hat of shape {shape}")
    if has_values(y):
        wrong = y[((y < 0) | (y >= shape[-1])) & (y != ignored)]
        if wrong.size:
            hint = "" if ignored is not None else "; use ignore_index for samples without a class"
            raise ValueError(f"{owner}: y has the value {wrong[0]}; expected 0 to {shape[-1] - 1}{hint}")


def check_instance(owner: object, name: str, value: object, kind: type) -> None:
    """Raise TypeError unless `value` is an instance of `kind`; giving the class itself is the usual slip."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else describe(value)
        raise TypeError(f"{owner}: {name} is {given}; expected an instance of tinynet.{kind.__name__}")


def check_last_axis(owner: object, name: str, x: Array) -> None:
    """Raise unless `x` is a floating-point array of shape (..., K), K ≥ 1."""
    check_floating(owner, name, x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{owner}: {name} has shape {tuple(x.shape)}; expected (..., K) with K of at least 1")


def check_same_shape(owner: object, name: str, x: Array, expected: tuple[int, ...], of: str) -> None:
    """Raise unless `x` is a floating-point array of exactly the `expected` shape, which is that `of` something.

    Broadcasting would hide the mistake: (n,) against (n, 1) makes (n, n).
    """
    check_floating(owner, name, x)
    if x.shape != expected:
        hint = f"; use {name}.reshape({tuple(expected)})" if math.prod(x.shape) == math.prod(expected) else ""
        raise ValueError(f"{owner}: {name} has shape {tuple(x.shape)}; expected {tuple(expected)}, that of {of}{hint}")


def check_positive_int(owner: object, name: str, n: object) -> int:
    """Return `n` as an int; raise unless it is an integer, Python's or NumPy's, of at least 1."""
    return check_int(owner, name, n, 1)


def check_natural(owner: object, name: str, n: object) -> int:
    """Return `n` as an int; raise unless it is an integer, Python's or NumPy's, of at least 0."""
    return check_int(owner, name, n, 0)


def check_int(owner: object, name: str, n: object, least: float = -math.inf) -> int:
    """Return `n` as an int; raise unless it is an integer, Python's or NumPy's, and at least `least`."""
    if not isinstance(n, numbers.Integral) or isinstance(n, bool):
        raise TypeError(f"{owner}: {name} is {n!r}; expected an int")
    if n < least:
        raise ValueError(f"{owner}: {name} is {n}; expected at least {least}")
    return int(n)


def convert_ints(config: Any, *names: str, least: int = 1) -> None:
    """Replace each of the named fields of a frozen dataclass by a Python int; raise unless it is at least `least`."""
    for name in names:
        object.__setattr__(config, name, check_int(type(config).__name__, name, getattr(config, name), least))


def convert_numbers(config: Any, *names: str, below: float = math.inf) -> None:
    """Replace each of the named fields of a frozen dataclass by a float; raise unless 0 ≤ it < below."""
    for name in names:
        number = check_number(type(config).__name__, name, getattr(config, name), 0, below)
        object.__setattr__(config, name, number)


def check_param(owner: object, params: Params, name: str, shape: tuple[int, ...]) -> Array:
    """Return `params[name]`; raise ValueError unless it is there and has the `shape`."""
    try:
        p = params[name]
    except (KeyError, TypeError, IndexError):
        raise ValueError(f'{owner}: params is {params!r:.60}; expected a dict with "{name}"') from None
    if not is_array(p) or p.shape != shape:
        raise ValueError(f"{owner}: params have {name} {describe(p)}; expected shape {shape}")
    return p


def check_number(owner: object, name: str, value: object, low: float = -math.inf, below: float = math.inf) -> float:
    """Return `value` as a float; raise unless it is a finite number with low ≤ value < below."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {name} is {value!r}; expected a number") from None
    if not low <= number < below or number == -math.inf:
        expected = "a finite number" if low == -below else f"{low:g} <= {name} < {below:g}"
        raise ValueError(f"{owner}: {name} is {value!r}; expected {expected}")
    return number


def check_positive(owner: object, name: str, value: object) -> float:
    """Return `value` as a float; raise unless it is a finite number above 0."""
    number = check_number(owner, name, value, 0.0)
    if number == 0:
        raise ValueError(f"{owner}: {name} is 0; expected 0 < {name}")
    return number


def check_choice(owner: object, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        expected = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{owner}: {name} is {value!r}; expected {expected}")

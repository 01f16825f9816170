"""Initialisers: (rng, shape, dtype) -> array.

A weight has the shape (n_out, n_in), or (n_out, n_in, height, width) for a convolution. What counts is how many terms
a weight's output adds up, fan_in = n_in · height · width, and how many outputs an input reaches, fan_out = n_out ·
height · width. The numbers are drawn in float64 and rounded, so every dtype starts from the same point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Initializer",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "standard_normal",
    "zeros",
]

Initializer: TypeAlias = "Callable[[np.random.Generator, tuple[int, ...], Any], npt.NDArray[Any]]"
"""(rng, shape, dtype) -> array; unevaluated, since NumPy loads `numpy.random` at its first mention."""


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ U(−r, r), r = √(6 / (fan_in + fan_out)), so that Var W = 2 / (fan_in + fan_out).

    Then neither the activations on the way forward nor the errors on the way back grow or shrink much from layer to
    layer, where f′ is about 1 at 0 (tanh) or the same all over (sigmoid).

    Source: X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS
    2010, equation (16).
    """
    fan_in, fan_out = _fans(shape)
    return _uniform(rng, shape, 2 / (fan_in + fan_out), dtype)


def glorot_normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ N(0, 2 / (fan_in + fan_out)), with the variance of `glorot_uniform`."""
    fan_in, fan_out = _fans(shape)
    return _normal(rng, shape, 2 / (fan_in + fan_out), dtype)


def he_uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ U(−r, r), r = √(6 / fan_in), with the variance of `he_normal`."""
    return _uniform(rng, shape, 2 / _fans(shape)[0], dtype)


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ N(0, 2 / fan_in), for layers followed by ReLU, which halves the mean square.

    Source: K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers, ICCV 2015, equation (10).
    """
    return _normal(rng, shape, 2 / _fans(shape)[0], dtype)


def lecun_uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ U(−r, r), r = √(3 / fan_in), with the variance of `lecun_normal`."""
    return _uniform(rng, shape, 1 / _fans(shape)[0], dtype)


def lecun_normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ N(0, 1 / fan_in), so that z has the mean square of the layer's input.

    Source: Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, Efficient BackProp, 1998, equation (16).
    """
    return _normal(rng, shape, 1 / _fans(shape)[0], dtype)


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ N(0, 1), for tables whose rows are looked up rather than added up."""
    return _normal(rng, shape, 1.0, dtype)


def zeros(_rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Return zeros: units that start alike stay alike, so only a last layer should start so."""
    return np.zeros(shape, dtype)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    n_out, n_in, *kernel = shape
    return n_in * math.prod(kernel), n_out * math.prod(kernel)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], variance: float, dtype: Any) -> npt.NDArray[Any]:
    r = math.sqrt(3 * variance)  # Var U(−r, r) = r²/3
    return rng.uniform(-r, r, shape).astype(dtype)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], variance: float, dtype: Any) -> npt.NDArray[Any]:
    return (rng.standard_normal(shape) * math.sqrt(variance)).astype(dtype)

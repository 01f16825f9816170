"""Initialisers: (rng, shape, dtype) -> array. A weight has the shape (n_out, n_in)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["glorot_uniform"]


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, int], dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Draw W ~ U(−r, r), r = √(6 / (n_in + n_out)), so that Var W = 2 / (n_in + n_out).

    Then neither the activations on the way forward nor the errors on the way back grow or shrink much from layer to
    layer. The numbers are drawn in float64 and rounded, so every dtype starts from the same point.

    Source: X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS
    2010, equation (16).
    """
    n_out, n_in = shape
    r = math.sqrt(6 / (n_in + n_out))
    return rng.uniform(-r, r, shape).astype(dtype)

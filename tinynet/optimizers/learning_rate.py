"""The learning rate: a number, or a schedule step -> number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tinynet.arrays import Array, namespace
from tinynet.checks import check_number

Schedule: TypeAlias = Callable[[Any], Any]
"""step -> η, where step counts the updates before this one, from 0: an int32 scalar, traced under `jax.jit`."""

LearningRate: TypeAlias = float | Schedule


def check_learning_rate(owner: str, lr: Any) -> LearningRate:
    """Return `lr`, a number as a float; raise unless it is a finite number of at least 0 or can be called."""
    return lr if callable(lr) else check_number(owner, "lr", lr, 0.0, math.inf)


def first_step() -> Array:
    """Return the step count before the first update, an array so that it can be a leaf of the state."""
    return np.zeros((), np.int32)


def next_step(step: Array) -> Array:
    """Return step + 1, an array too."""
    return namespace(step).asarray(step + 1)


def learning_rate_at(lr: LearningRate, step: Array) -> Any:
    """Return η at `step`."""
    return lr(step) if callable(lr) else lr


def is_zero(number: Any) -> bool:
    """Return whether a setting is 0; one that a compiled program is given when it runs is not."""
    return type(number) is float and number == 0


def in_dtype_of(p: Array, number: Any) -> Any:
    """Return `number` in the dtype of `p`, so that a schedule's float64 does not widen it; a Python float cannot."""
    return number if type(number) is float else namespace(p).asarray(number, dtype=p.dtype)

"""Learning-rate schedules: callables step -> η. Any function of the step is one; these are the usual ones.

`step` counts the updates before this one, from 0. It is a NumPy or JAX scalar, traced under `jax.jit`, so a schedule is
written with array functions and not with `if`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinynet.arrays import Array, is_array, namespace
from tinynet.checks import check_number, check_positive, check_positive_int
from tinynet.optimizers.learning_rate import LearningRate, check_learning_rate, learning_rate_at


@dataclass(frozen=True)
class ExponentialDecay:
    """η(t) = η₀ r^(t / T): every T steps the rate is multiplied by r.

    Args:
        lr: η₀ ≥ 0.
        rate: r > 0.
        steps: T ≥ 1.
    """

    traced = ("lr", "rate")

    lr: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        check_number("ExponentialDecay", "lr", self.lr, 0.0)
        check_positive("ExponentialDecay", "rate", self.rate)
        check_positive_int("ExponentialDecay", "steps", self.steps)

    def __call__(self, step: Array | int) -> Array:
        return self.lr * self.rate ** (1.0 * _array(step) / self.steps)  # JAX divides int32 in float32


@dataclass(frozen=True)
class CosineDecay:
    """η(t) = η₁ + ½ (η₀ − η₁) (1 + cos(π min(t, T) / T)): half a cosine from η₀ down to η₁ at step T, then η₁.

    Args:
        lr: η₀ ≥ 0.
        steps: T ≥ 1.
        final: η₁ ≥ 0.

    Source: I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017, equation (5).
    """

    traced = ("lr", "final")

    lr: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        check_number("CosineDecay", "lr", self.lr, 0.0)
        check_positive_int("CosineDecay", "steps", self.steps)
        check_number("CosineDecay", "final", self.final, 0.0)

    def __call__(self, step: Array | int) -> Array:
        step = _array(step)
        xp = namespace(step)
        angle = math.pi / self.steps * xp.minimum(step, self.steps)
        return self.final + 0.5 * (self.lr - self.final) * (1 + xp.cos(angle))


@dataclass(frozen=True)
class Warmup:
    """η(t) = η(0 of `then`) · t / T for t < T, a straight line up from 0; from step T on, `then` from its start.

    Args:
        steps: T ≥ 1.
        then: a number or a schedule.

    Source: P. Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, §2.2.
    """

    steps: int
    then: LearningRate

    def __post_init__(self) -> None:
        check_positive_int("Warmup", "steps", self.steps)
        check_learning_rate("Warmup", self.then)

    def __call__(self, step: Array | int) -> Array:
        step = _array(step)
        xp = namespace(step)
        line = learning_rate_at(self.then, xp.zeros_like(step)) * (1.0 * step / self.steps)
        return xp.where(step < self.steps, line, learning_rate_at(self.then, xp.maximum(step - self.steps, 0)))


def _array(step: Array | int) -> Array:
    return step if is_array(step) else np.asarray(step)

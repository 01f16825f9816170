"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, Params, namespace
from tinynet.checks import convert_numbers
from tinynet.optimizers.learning_rate import (
    LearningRate,
    check_learning_rate,
    first_step,
    in_dtype_of,
    learning_rate_at,
    next_step,
)
from tinynet.optimizers.optimizer import Optimizer, zeros_like
from tinynet.trees import leaves_with_paths, map_leaves


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: each parameter's step is its mean gradient over the root of its mean squared gradient.

        m ← β₁ m + (1 − β₁) ∇w                 mean of the gradient
        v ← β₂ v + (1 − β₂) ∇w²                mean of its square
        m̂ = m / (1 − β₁^t), v̂ = v / (1 − β₂^t)  as both start at 0; t counts updates from 1
        w ← w − η m̂ / (√v̂ + ε)

    Args:
        lr: the learning rate η ≥ 0, or a schedule step -> η.
        beta1, beta2: 0 ≤ β < 1.
        eps: ε ≥ 0.

    The state is {"step", "m", "v"}.

    Source: D. P. Kingma, J. Ba, Adam: a method for stochastic optimization, ICLR 2015, algorithm 1.

    Raises:
        TypeError, ValueError: a setting is not a number in its range; `init`: ε > 0 is 0 in the parameters' dtype.
    """

    traced = ("lr", "weight_decay")

    lr: LearningRate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", check_learning_rate(type(self).__name__, self.lr))
        convert_numbers(self, "beta1", "beta2", below=1)
        convert_numbers(self, "eps")

    def init(self, params: Params) -> Any:
        for path, p in leaves_with_paths(params):
            if self.eps and not p.dtype.type(self.eps):
                raise ValueError(
                    f"{type(self).__name__}: eps={self.eps} is 0 in {p.dtype}, the dtype of params{path}, where a zero "
                    "gradient would make 0 / 0; expected parameters of dtype float32 or float64"
                )
        return {"step": first_step(), "m": zeros_like(params), "v": zeros_like(params)}

    def learning_rate(self, state: Any) -> float | None:
        return float(learning_rate_at(self.lr, state["step"]))

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        t = next_step(state["step"])
        lr = learning_rate_at(self.lr, state["step"])
        unbias1, unbias2 = _one_minus_power(self.beta1, t), _one_minus_power(self.beta2, t)

        def mean(m: Array, g: Array) -> Array:
            m *= self.beta1
            m += (1 - self.beta1) * g
            return m

        def mean_square(v: Array, g: Array) -> Array:
            v *= self.beta2
            v += (1 - self.beta2) * (g * g)
            return v

        def descend(p: Array, m: Array, v: Array) -> Array:
            root = namespace(p).sqrt(v / in_dtype_of(p, unbias2))
            root += self.eps
            p -= in_dtype_of(p, lr / unbias1) * m / root
            return p

        m = map_leaves(mean, state["m"], grads)
        v = map_leaves(mean_square, state["v"], grads)
        return map_leaves(descend, params, m, v), {"step": t, "m": m, "v": v}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: w ← w − η (m̂ / (√v̂ + ε) + λ w), m̂ and v̂ as in `Adam`.

    λ shrinks every parameter at the same rate; inside the gradient it would be divided by √v̂.

    Args:
        lr, beta1, beta2, eps: as in `Adam`.
        weight_decay: λ ≥ 0.

    Source: I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2.

    Raises:
        TypeError, ValueError: a setting is not a number in its range.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        convert_numbers(self, "weight_decay")

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        keep = 1 - learning_rate_at(self.lr, state["step"]) * self.weight_decay

        def shrink(p: Array) -> Array:
            p *= in_dtype_of(p, keep)
            return p

        return super().step(map_leaves(shrink, params), grads, state)


def _one_minus_power(beta: float, t: Array) -> Array:
    """1 − β^t, without cancelling in float32."""
    return -namespace(t).expm1(t * (math.log(beta) if beta else -math.inf))

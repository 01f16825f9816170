"""Gradient descent, with momentum and with Nesterov's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, Params
from tinynet.checks import convert_numbers
from tinynet.optimizers.learning_rate import (
    LearningRate,
    check_learning_rate,
    first_step,
    in_dtype_of,
    is_zero,
    learning_rate_at,
    next_step,
)
from tinynet.optimizers.optimizer import Optimizer, zeros_like
from tinynet.trees import map_leaves


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent w ← w − η ∇w, with momentum v ← μ v + ∇w, w ← w − η v.

    On the gradient over all samples it is gradient descent (§3); on a mini-batch's it is SGD (§4).

    Args:
        lr: the learning rate η ≥ 0, or a schedule step -> η.
        momentum: μ, 0 ≤ μ < 1.

    The state is v, or () without momentum; with a schedule, {"step", "v"}.

    Source: B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964 (momentum).

    Raises:
        TypeError, ValueError: lr or momentum is not a number in its range.
    """

    traced = ("lr", "momentum")

    lr: LearningRate
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", check_learning_rate("SGD", self.lr))
        convert_numbers(self, "momentum", below=1)

    def init(self, params: Params) -> Any:
        v = () if is_zero(self.momentum) else zeros_like(params)
        return {"step": first_step(), "v": v} if callable(self.lr) else v

    def learning_rate(self, state: Any) -> float | None:
        return float(learning_rate_at(self.lr, state["step"] if callable(self.lr) else None))

    def scaled(self) -> tuple[float, Optimizer]:
        if type(self) is not SGD or not is_zero(self.momentum) or callable(self.lr) or is_zero(self.lr):
            return 1.0, self
        return self.lr, SGD(1.0)  # η ∇E = ∇(η E)

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        if not callable(self.lr):
            return self._descend(params, grads, state, self.lr)
        lr = self.lr(state["step"])
        params, v = self._descend(params, grads, state["v"], lr)
        return params, {"step": next_step(state["step"]), "v": v}

    def _descend(self, params: Params, grads: Params, v: Params, lr: Any) -> tuple[Params, Params]:
        def descend(p: Array, g: Array) -> Array:
            p -= g if type(lr) is float and lr == 1 else in_dtype_of(p, lr) * g  # w ← w − η ∇w
            return p

        if is_zero(self.momentum):
            return map_leaves(descend, params, grads), v
        v = accumulate(self.momentum, v, grads)
        return map_leaves(descend, params, v), v


@dataclass(frozen=True)
class Nesterov(Optimizer):
    """Gradient descent with Nesterov's momentum: v ← μ v + ∇w, w ← w − η (∇w + μ v).

    The gradient is taken where the momentum is about to carry w; these are the equations of the point looked ahead to.

    Args:
        lr: the learning rate η ≥ 0, or a schedule step -> η.
        momentum: μ, 0 ≤ μ < 1.

    The state is {"step", "v"}.

    Source: I. Sutskever, J. Martens, G. Dahl, G. Hinton, On the importance of initialization and momentum in deep
    learning, ICML 2013, in the form of Y. Bengio et al., Advances in optimizing recurrent networks, 2013, equation (7).

    Raises:
        TypeError, ValueError: lr or momentum is not a number in its range.
    """

    traced = ("lr", "momentum")

    lr: LearningRate
    momentum: float = 0.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", check_learning_rate("Nesterov", self.lr))
        convert_numbers(self, "momentum", below=1)

    def init(self, params: Params) -> Any:
        return {"step": first_step(), "v": zeros_like(params)}

    def learning_rate(self, state: Any) -> float | None:
        return float(learning_rate_at(self.lr, state["step"]))

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        lr = learning_rate_at(self.lr, state["step"])

        def descend(p: Array, g: Array, v: Array) -> Array:
            p -= in_dtype_of(p, lr) * (g + self.momentum * v)  # w ← w − η (∇w + μ v)
            return p

        v = accumulate(self.momentum, state["v"], grads)
        return map_leaves(descend, params, grads, v), {"step": next_step(state["step"]), "v": v}


def accumulate(momentum: float, v: Params, grads: Params) -> Params:
    """v ← μ v + ∇w, leaf by leaf."""

    def leaf(v: Array, g: Array) -> Array:
        v *= momentum
        v += g
        return v

    return map_leaves(leaf, v, grads)

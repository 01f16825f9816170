"""Optimizers: how gradients change parameters. Pure `init`/`update` pairs on pytrees."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, Params, namespace, owned_copy
from tinynet.trees import map_leaves

__all__ = ["SGD", "Optimizer"]


class Optimizer(ABC):
    """A rule (params, grads, state) -> (params, state).

    A subclass writes `init` and `step`; `update` is the pure face of `step`.
    """

    @abstractmethod
    def init(self, params: Params) -> Any:
        """Return the state before the first update: a pytree."""

    @abstractmethod
    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        """Do as `update`, on arrays that the caller gives away: NumPy arrays are overwritten."""

    def scaled(self) -> tuple[float, Optimizer]:
        """Return (c, rule): a step of `rule` on the gradient of c·E is a step of this on the gradient of E.

        Scaling E is cheaper than scaling its gradient where c is not 1.
        """
        return 1.0, self

    def update(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        """Return (params, state) after one update; nothing that was handed in is changed.

        Raises:
            ValueError: params, grads and state differ in structure.
        """
        return self.step(*(map_leaves(owned_copy, tree) for tree in (params, grads, state)))


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent w ← w − η ∇w, with momentum v ← μ v + ∇w, w ← w − η v.

    On the gradient over all samples it is gradient descent (§3); on a mini-batch's it is SGD (§4).

    Args:
        lr: the learning rate η ≥ 0.
        momentum: μ, 0 ≤ μ < 1.

    Raises:
        TypeError, ValueError: lr or momentum is not a number in its range.
    """

    lr: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", _number("lr", self.lr, math.inf))
        object.__setattr__(self, "momentum", _number("momentum", self.momentum, 1.0))

    def init(self, params: Params) -> Any:
        return map_leaves(lambda p: namespace(p).zeros_like(p), params) if self.momentum else ()

    def scaled(self) -> tuple[float, Optimizer]:
        if type(self) is not SGD or self.momentum:
            return 1.0, self
        return self.lr, SGD(1.0)  # η ∇E = ∇(η E)

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        def accumulate(v: Array, g: Array) -> Array:
            v *= self.momentum
            v += g  # v ← μ v + ∇w
            return v

        def descend(p: Array, g: Array) -> Array:
            p -= g if self.lr == 1 else self.lr * g  # w ← w − η ∇w
            return p

        if not self.momentum:
            return map_leaves(descend, params, grads), state
        state = map_leaves(accumulate, state, grads)
        return map_leaves(descend, params, state), state


def _number(name: str, value: object, below: float) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"SGD: {name} is {value!r}; expected a number") from None
    if not 0 <= number < below:
        raise ValueError(f"SGD: {name} is {value!r}; expected 0 <= {name} < {below:g}")
    return number

"""The contract of an optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tinynet.arrays import Params, namespace, owned_copy
from tinynet.checks import check_instance
from tinynet.trees import map_leaves


class Optimizer(ABC):
    """A rule (params, grads, state) -> (params, state).

    A subclass writes `init` and `step`; `update` is the pure face of `step`.

    Attributes:
        traced: names of fields that hold floats which a compiled program may be given when it runs, so that another
            value does not compile it anew. `step` computes with them and neither tests nor converts them.
    """

    traced: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def init(self, params: Params) -> Any:
        """Return the state before the first update: a pytree."""

    @abstractmethod
    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        """Do as `update`, on arrays that the caller gives away: NumPy arrays are overwritten."""

    def learning_rate(self, state: Any) -> float | None:
        """Return η of the next update, given the state before it; None where there is no one number."""
        return None

    def observe(self, state: Any, row: Mapping[str, float]) -> Any:
        """Return the state after an epoch whose entry in the history is `row`; `fit` calls it. By default the same."""
        return state

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
class Wrapper(Optimizer):
    """An optimizer around another, whose state it keeps in its own dict as "optimizer"."""

    optimizer: Optimizer

    def __post_init__(self) -> None:
        check_instance(type(self).__name__, "optimizer", self.optimizer, Optimizer)

    def learning_rate(self, state: Any) -> float | None:
        return self.optimizer.learning_rate(state["optimizer"])

    def observe(self, state: Any, row: Mapping[str, float]) -> Any:
        return {**state, "optimizer": self.optimizer.observe(state["optimizer"], row)}


def zeros_like(params: Params) -> Params:
    """Return zeros of the structure, shapes and dtypes of `params`."""
    return map_leaves(lambda p: namespace(p).zeros_like(p), params)

"""Engines: how an epoch runs. They know layers, losses and optimizers only through their contracts.

An engine has `start(params) -> carry` and `epoch(carry, batches, rng, on_step) -> (carry, losses)`; the carry, the
parameters with the optimizer's state, is given away at each call. `params`, `state` and `copy` look into it, `resume`
puts others in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.training.batches import Batch
from tinynet.training.engines.processes import Processes

__all__ = ["Carry", "Engine", "Losses", "OnStep"]

Carry: TypeAlias = tuple[Params, Any]
"""The parameters and the optimizer's state, in the engine's own arrays."""

Losses: TypeAlias = list[tuple[float, int]]
"""The loss of each batch before its update, and how many samples it had."""

OnStep: TypeAlias = Callable[[int, float, Params, Array, Array], bool]
"""(batch, loss, params after the update, x, y) -> whether to stop."""


class Engine(Protocol):
    """What `fit` asks of an engine.

    Attributes:
        stops_anywhere: whether `epoch` takes any iterator of batches, which may end before its time.
        processes: those that make the same run.
    """

    stops_anywhere: ClassVar[bool]

    @property
    def processes(self) -> Processes: ...

    def session(self) -> AbstractContextManager[Any]:
        """Return the context that all other calls are made in."""

    def start(self, params: Params) -> Carry:
        """Return the carry before the first update, on copies of `params`."""

    def epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None = None
    ) -> tuple[Carry, Losses]:
        """Make an update a batch; random layers draw from `rng`. The carry is given away."""

    def copy(self, carry: Carry) -> Carry:
        """Return a carry of its own."""

    def resume(self, carry: Carry, params: Params, state: Any) -> Carry:
        """Return a carry with `params` and an optimizer's `state` as `state` gave it; `carry` is given away."""

    def state(self, carry: Carry) -> Any:
        """Return the optimizer's state as NumPy arrays, which may share memory with the carry."""

    def params(self, carry: Carry) -> Params:
        """Return the parameters as NumPy arrays, which may share memory with the carry."""

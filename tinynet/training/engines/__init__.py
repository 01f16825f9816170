"""Engines run an epoch. They know layers, losses and optimizers only through their contracts.

An engine has `start(params) -> carry` and `epoch(carry, batches, rng, on_step) -> (carry, losses)`; the carry, all that
an update changes, is given away at each call. `params`, `state` and `copy` look into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.training.batches import Batch
from tinynet.training.engines.processes import Processes


@dataclass(frozen=True)
class TrainingState:
    """All that training carries from one update to the next beside the parameters.

    Attributes:
        optimizer: the state of the optimizer.
        layers: the state of the network's layers; () where none has any.
    """

    optimizer: Any
    layers: Any = ()


class Carry(NamedTuple):
    """Parameters, optimizer's state and layers' state, in the engine's own arrays."""

    params: Params
    optimizer: Any
    layers: Any = ()


Losses: TypeAlias = list[tuple[float, int]]
"""The loss of each batch before its update, and how many samples it had."""

OnStep: TypeAlias = Callable[[int, float, Params, Array, Array], bool]
"""(batch, loss, params after the update, x, y) -> whether to stop."""


class Engine(Protocol):
    """The calls that `fit` makes.

    Attributes:
        stops_anywhere: whether `epoch` takes any iterator of batches, which may end before its time.
        processes: those that make the same run.
    """

    stops_anywhere: ClassVar[bool]

    @property
    def processes(self) -> Processes: ...

    def session(self) -> AbstractContextManager[Any]:
        """Return the context that all other calls are made in."""

    def start(self, params: Params, state: TrainingState | None = None) -> Carry:
        """Return the carry before the first update, on copies of `params` and `state`, or of a first state.

        Raises:
            TypeError, ValueError: `state` is not one of this optimizer on these parameters.
        """

    def epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None = None
    ) -> tuple[Carry, Losses]:
        """Make one update per batch; random layers draw from `rng`. The carry is given away."""

    def copy(self, carry: Carry) -> Carry:
        """Return a carry of its own."""

    def params(self, carry: Carry) -> Params:
        """Return the parameters as NumPy arrays, which may share memory with the carry."""

    def state(self, carry: Carry) -> TrainingState:
        """Return the rest as NumPy arrays, which may share memory with the carry."""

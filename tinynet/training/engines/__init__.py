"""Engines run an epoch. They know layers, losses and optimizers only through their contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np

from tinynet.arrays import Params, State
from tinynet.layers import Layer
from tinynet.training.batches import Batch
from tinynet.training.engines.processes import Processes
from tinynet.trees import check_like, leaves


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

OnStep: TypeAlias = Callable[[int, float, Params, Any, Any, Params, Layer, float | None], bool]
"""(batch, loss, params after the update, x, y, gradients, sampled network, learning rate) -> whether to stop."""


def is_sampled(net: Layer) -> bool:
    """Return whether any layer of the network has a `sample` of its own; if not, the network is the one that trains."""
    return type(net).sample is not Layer.sample or any(map(is_sampled, net.children().values()))


def first_layers_state(net: Layer, dtype: Any, state: TrainingState | None) -> State:
    """Return the layers' state to begin with: that of `state`, if it has one, which must fit the network."""
    _check_composites(net)
    first = net.init_state(dtype)
    if state is None or not leaves(state.layers):
        return first
    check_like("fit", "state.layers", state.layers, first, "the network")
    return state.layers


def _check_composites(layer: Layer) -> None:
    for child in layer.children().values():
        if type(layer).init_state is Layer.init_state and leaves(child.init_state()):
            raise TypeError(
                f"fit: {type(layer).__name__} has no init_state, but {child!r:.60} inside it has state; expected "
                "init_state, update_state and forward(params, x, *, state=None) that hand it on, as Residual's do"
            )
        _check_composites(child)


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
        """Return the carry before the first update, on copies of `params` and `state`, or of a first state."""

    def epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None = None
    ) -> tuple[Carry, Losses]:
        """Make one update per batch; random layers draw from `rng`. The carry, all that changes, is given away."""

    def observe(self, carry: Carry, row: Mapping[str, float]) -> Carry:
        """Show the optimizer the entry of an epoch in the history."""

    def copy(self, carry: Carry) -> Carry:
        """Return a carry of its own."""

    def params(self, carry: Carry) -> Params:
        """Return the parameters as NumPy arrays, which may share memory with the carry."""

    def state(self, carry: Carry) -> TrainingState:
        """Return the rest as NumPy arrays, which may share memory with the carry."""

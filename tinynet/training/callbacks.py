"""What `fit` tells while it trains, and when it stops early.

A callback is any function of one argument: of a `Step` in `fit(step_callbacks=…)`, of an `Epoch` in
`fit(callbacks=…)`. One that returns True stops the training; an exception it raises goes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tinynet.arrays import Array, Params
from tinynet.checks import check_positive_int

__all__ = ["EarlyStopping", "Epoch", "EpochCallback", "Step", "StepCallback"]


@dataclass(frozen=True)
class Step:
    """An update that was just made.

    Attributes:
        epoch, batch: which, both counted from 0.
        loss: of the batch, before the update.
        params: after it; valid during the call, copy what you keep.
        x, y: the batch.
    """

    epoch: int
    batch: int
    loss: float
    params: Params
    x: Array
    y: Array


@dataclass(frozen=True)
class Epoch:
    """An epoch that just ended.

    Attributes:
        epoch: which, counted from 0.
        params: after its last update; valid during the call, copy what you keep.
        state: the optimizer's, likewise.
        row: this epoch's entry in the history, by name.
    """

    epoch: int
    params: Params
    state: object
    row: Mapping[str, float]


StepCallback: TypeAlias = Callable[[Step], bool | None]
EpochCallback: TypeAlias = Callable[[Epoch], bool | None]


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a number of the history has not improved for a while, and go back to the best parameters.

    Args:
        monitor: its name in the history.
        patience: how many epochs in a row may pass without improvement.
        min_delta: how much better than the best so far counts as better.
        mode: "min" if less is better, "max" if more is.

    Raises:
        TypeError, ValueError: an argument is out of its range.
    """

    monitor: str = "validation_loss"
    patience: int = 10
    min_delta: float = 0.0
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        check_positive_int("EarlyStopping", "patience", self.patience)
        if self.mode not in ("min", "max"):
            raise ValueError(f'EarlyStopping: mode is {self.mode!r}; expected "min" or "max"')
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"EarlyStopping: min_delta is {self.min_delta!r}; expected a number of at least 0")

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best`, which is None before the first."""
        if math.isnan(value):
            return False
        gain = math.inf if best is None else best - value if self.mode == "min" else value - best
        return gain > self.min_delta

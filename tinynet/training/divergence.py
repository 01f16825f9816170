"""When training meets a number that is not finite: where, and the last parameters that were."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinynet.arrays import Params
from tinynet.training.batches import Batch
from tinynet.training.engines import Carry, Engine, Losses
from tinynet.trees import leaves, map_leaves

__all__ = ["DivergenceError", "all_finite", "divergence"]


class DivergenceError(ArithmeticError):
    """Training met a number that is not finite.

    Attributes:
        epoch, batch: where, both counted from 0.
        params: the last parameters that were finite; those the epoch began with where the data cannot be met again.
    """

    def __init__(self, what: str, epoch: int, batch: int, params: Params) -> None:
        super().__init__(
            f"fit: {what} at epoch {epoch}, batch {batch}; the last finite parameters are in this error's `params`; "
            "use a smaller learning rate or scale the data"
        )
        self.what, self.epoch, self.batch, self.params = what, epoch, batch, params

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.epoch, self.batch, self.params)


def all_finite(params: Params) -> bool:
    """Whether every parameter is a finite number."""
    return all(bool(np.isfinite(p).all()) for p in leaves(params))


def divergence(
    engine: Engine,
    carry: Carry,
    batches: Iterable[Batch],
    rng: np.random.Generator,
    epoch: int,
    first: int,
    losses: Losses,
) -> DivergenceError:
    """Walk a part of an epoch again to where it left the finite numbers.

    So a healthy epoch pays for no check at each update. `first` is the number of the part's first batch.
    """
    for i, batch in enumerate(batches, first):
        params = map_leaves(np.copy, engine.params(carry))
        carry, [(E, _)] = engine.epoch(carry, [batch], rng)
        if not math.isfinite(E):
            return DivergenceError(f"the loss became {E}", epoch, i, params)
        if not all_finite(engine.params(carry)):
            return DivergenceError("a parameter became infinite or NaN in the update", epoch, i, params)
    worst = next((i for i, (E, _) in enumerate(losses) if not math.isfinite(E)), len(losses) - 1)
    return DivergenceError("the loss or a parameter became infinite or NaN", epoch, first + worst, engine.params(carry))

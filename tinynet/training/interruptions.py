"""Interruptions: Ctrl-C, and numbers that are not finite."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from tinynet.arrays import Params
from tinynet.training.batches import Batch
from tinynet.training.engines import Carry, Engine, Losses
from tinynet.trees import leaves, map_leaves


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended the training at a batch boundary.

    Attributes:
        epoch, batch: the first batch that was not trained on, both counted from 0.
        params: the parameters after the last update.
        checkpoint: the file to go on from; None where none was asked for.
    """

    def __init__(self, epoch: int, batch: int, params: Params, checkpoint: str | os.PathLike[str] | None) -> None:
        how = (
            "the parameters so far are in this error's `params`; with fit(checkpoint=…) the run could go on"
            if checkpoint is None
            else f"saved to {os.fspath(checkpoint)}; to go on, make the same call again"
        )
        super().__init__(f"fit: interrupted before epoch {epoch}, batch {batch}; {how}")
        self.epoch, self.batch, self.params, self.checkpoint = epoch, batch, params, checkpoint


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets; the second raises KeyboardInterrupt, as it does outside.

    Where Ctrl-C is not Python's own to handle (in a thread, under another handler, ignored in the background), that
    stays as it is.
    """
    interrupt = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def ask(_signum: int, _frame: FrameType | None) -> None:
        interrupt.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nending at the next batch; Ctrl-C again to end at once", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class DivergenceError(ArithmeticError):
    """Training met a number that is not finite.

    Attributes:
        epoch, batch: where, both counted from 0.
        params: the last parameters that were finite; where the data cannot be met again, those that the epoch, or its
            part with `every`, began with.
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
    """Return whether every parameter is a finite number."""
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

"""An epoch of training: the parts it is met in, and what is checked, saved and asked between them."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.training.batches import Batch, Batches, Samples, Stream
from tinynet.training.callbacks import Step, StepCallback
from tinynet.training.checkpoints import rng_state
from tinynet.training.divergence import all_finite, divergence
from tinynet.training.engines import Carry, Engine
from tinynet.training.interruptions import Interrupt, Interrupted
from tinynet.training.resuming import Position, Resuming
from tinynet.trees import map_leaves

__all__ = ["Epochs"]


@dataclass(frozen=True)
class Epochs:
    """The epochs of one run, one after the other.

    Attributes:
        engine: makes the updates.
        data: where the batches come from.
        order_rng: draws the order of the samples.
        sample_rng: spawns, for each epoch, the generator that random layers draw from.
        callbacks: called after each update.
        every: how many batches a part has; None for the whole epoch.
        resuming: writes the checkpoint after each part; None for none.
        interrupt: whether Ctrl-C was pressed.
        at: where the run stands.
        start: when it began, by `time.perf_counter`.
    """

    engine: Engine
    data: Samples | Stream
    order_rng: np.random.Generator
    sample_rng: np.random.Generator
    callbacks: Sequence[StepCallback]
    every: int | None
    resuming: Resuming | None
    interrupt: Interrupt
    at: Position
    start: float

    def first(self, params: Params) -> Carry:
        """Return what the first epoch begins with: `params`, or what the checkpoint has."""
        carry = self.engine.start(params)
        if self.resuming and self.resuming.found:
            carry = self.engine.resume(carry, self.resuming.found.params, self.resuming.found.state)
            self.resuming.restore(order=self.order_rng)
            self.sample_rng.spawn(self.at.epoch)
        return carry

    def run(self, carry: Carry) -> tuple[Carry, bool]:
        """Meet what is left of the epoch at hand; with the carry, whether a callback asked to stop.

        Raises:
            DivergenceError: the loss or a parameter became infinite or NaN.
            Interrupted: Ctrl-C.
            OSError: the checkpoint could not be written.
        """
        at, engine = self.at, self.engine
        order_before, batches = rng_state(self.order_rng), self.data.epoch(self.order_rng)
        draws = self.sample_rng.spawn(1)[0]
        if self.resuming and self.resuming.found and at.epoch == self.resuming.found.epoch:
            self.resuming.restore(draws=draws)
        watch = _Watch(at.epoch, at.batch, self.callbacks)
        watched = engine.processes.any(bool(self.callbacks))
        stopped = False
        for part in _parts(batches, at.batch, self.every):
            before, draws_before = engine.copy(carry), copy.deepcopy(draws)
            until_asked = itertools.takewhile(self._goes_on, part) if engine.stops_anywhere else part
            carry, losses = engine.epoch(carry, until_asked, draws, watch if watched else None)
            params = engine.params(carry)
            if not (all(math.isfinite(E) for E, _ in losses) and all_finite(params)):
                again = part if self.data.replayable or isinstance(part, list) else ()
                raise divergence(engine, before, again, draws_before, at.epoch, at.batch, losses)
            at.losses += losses
            at.batch += len(losses)
            at.seconds = time.perf_counter() - self.start
            if self.resuming:
                self.resuming.save(at, params, engine.state(carry), order_before, draws)
            if engine.processes.any(self.interrupt.asked):
                path = self.resuming.path if self.resuming else None
                raise Interrupted(at.epoch, at.batch, map_leaves(np.array, params), path)
            if stopped := engine.processes.any(watch.stopped):
                break
        return carry, stopped

    def _goes_on(self, _batch: Batch) -> bool:
        return not self.interrupt.asked


class _Watch:
    """Tells the step callbacks of each update, and remembers whether one of them asked to stop."""

    def __init__(self, epoch: int, first: int, callbacks: Sequence[StepCallback]) -> None:
        self.epoch, self.batch, self.callbacks, self.stopped = epoch, first, callbacks, False

    def __call__(self, _batch: int, loss: float, params: Params, x: Array, y: Array) -> bool:
        answers = [callback(Step(self.epoch, self.batch, loss, params, x, y)) for callback in self.callbacks]
        self.batch += 1
        self.stopped = any(answers)
        return self.stopped


def _parts(batches: Any, start: int, every: int | None) -> Iterator[Iterable[Batch]]:
    """Cut what is left of an epoch from batch `start` on: each part is met in one go."""
    if isinstance(batches, Batches):
        yield from batches.parts(start, every)
        return
    rest = itertools.islice(batches, start, None)
    if every is None:
        yield rest
        return
    while part := list(itertools.islice(rest, every)):
        yield part

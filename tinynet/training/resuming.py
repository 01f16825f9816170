"""How `fit` writes checkpoints and goes on from them, bit for bit."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinynet.arrays import Params
from tinynet.files.container import contents
from tinynet.files.encoding import own_names
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.training.arguments import is_optax
from tinynet.training.batches import Samples, Stream
from tinynet.training.callbacks import EarlyStopping
from tinynet.training.checkpoints import (
    Checkpoint,
    check_run,
    fingerprint,
    load_checkpoint,
    restore_rng,
    rng_state,
    save_checkpoint,
)
from tinynet.training.engines import Losses
from tinynet.training.engines.processes import Processes
from tinynet.trees import map_leaves

__all__ = ["Position", "Resuming", "description"]


@dataclass
class Position:
    """Where a run stands: the epoch under way, its batches done and their losses, and what is remembered of before."""

    epoch: int = 0
    batch: int = 0
    losses: Losses = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    best: tuple[float, Params] | None = None
    waited: int = 0

    def remember(self, early_stopping: EarlyStopping, row: Mapping[str, float], params: Params) -> None:
        """Keep `params` if the epoch was the best so far; count the epochs since the best."""
        value = row[early_stopping.monitor]
        self.waited += 1
        if early_stopping.improves(value, self.best and self.best[0]):
            self.best, self.waited = (value, map_leaves(np.copy, params)), 0

    def next_epoch(self, row: Mapping[str, float]) -> None:
        """Enter the epoch in the history, NaN where nothing was measured, and go to the beginning of the next."""
        for name in {**row, **self.history}:
            self.history.setdefault(name, [math.nan] * self.epoch).append(row.get(name, math.nan))
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, []


_ALONE = Processes()


class Resuming:
    """The checkpoint of one run: what it found at the start, and how it writes the next.

    Of several processes the first one reads and writes the file; only its host needs it.
    """

    def __init__(
        self, path: str | os.PathLike[str], net: Layer, run: dict[str, Any], processes: Processes = _ALONE
    ) -> None:
        self.path, self.net, self.run, self.processes = path, net, run, processes
        self.found: Checkpoint | None = None
        data = processes.from_first(contents(path) if processes.is_first and Path(path).exists() else None)
        if data is not None:
            self.found = load_checkpoint(path, data, classes=own_names((net, run)))
            check_run(path, self.found, net, run)

    def position(self) -> Position:
        """Return where the run stood, or its beginning."""
        point = self.found
        if point is None:
            return Position()
        best, waited = point.extra["best"], point.extra["waited"]
        losses = [(E, int(m)) for E, m in point.losses.tolist()]
        history = {name: values.tolist() for name, values in point.history.items()}
        return Position(
            point.epoch, point.batch, losses, history, point.seconds, None if best is None else tuple(best), waited
        )

    def restore(self, **rngs: np.random.Generator) -> None:
        """Put generators back, by name."""
        if self.found is not None:
            for name, rng in rngs.items():
                restore_rng(rng, self.found.rngs[name])

    def save(self, at: Position, params: Params, state: Any, order: dict[str, Any], draws: np.random.Generator) -> None:
        """Write where the run stands; `order` is the state of the generator before it drew this epoch's order."""
        if not self.processes.is_first:
            return
        save_checkpoint(
            self.path,
            Checkpoint(
                net=self.net,
                params=params,
                state=state,
                run=self.run,
                epoch=at.epoch,
                batch=at.batch,
                losses=np.array(at.losses, np.float64).reshape(-1, 2),
                rngs={"order": order, "draws": rng_state(draws)},
                history={name: np.array(values) for name, values in at.history.items()},
                seconds=at.seconds,
                extra={"best": at.best, "waited": at.waited},
            ),
        )


def description(data: Samples | Stream, loss: Loss, optimizer: Any, **settings: Any) -> dict[str, Any]:
    """Return what decides each bit of a run's result, as a file can hold it."""
    told = "an Optax transformation" if is_optax(optimizer) else optimizer
    seen = fingerprint(data.x, data.y, data.weights) if isinstance(data, Samples) else "an iterable of batches"
    return {"loss": loss, "optimizer": told, "data": seen, **settings}

"""Callbacks: what `fit` tells while it trains, and when it stops early.

A user's callback is any function of one argument: of a `Step` in `fit(step_callbacks=…)`, of an `Epoch` in
`fit(callbacks=…)`. One that returns True stops the training; an exception it raises goes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from tinynet.arrays import Params, State
from tinynet.checks import check_choice, check_positive_int
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.training.batches import map_arrays
from tinynet.training.checkpoints import Run
from tinynet.training.engines import TrainingState
from tinynet.trees import map_leaves

Stopped = Literal["epochs", "tolerance", "early_stopping", "callback", "diverged"]
"""Why training ended; "diverged" in a sweep, where `fit` raises."""

Row: TypeAlias = Mapping[str, float]
"""The entry of one epoch in the history, by name."""


@dataclass(frozen=True)
class Step:
    """An update that was just made.

    Attributes:
        epoch, batch: which, both counted from 0.
        loss: of the batch, before the update.
        params: after it; valid during the call, copy what you keep.
        x, y: the batch.
        grads: the gradient that the update followed, of the loss before it.
        net: the network of this step, as `net.sample` gave it.
        lr: the learning rate of the update; None where the optimizer has no one number.
    """

    epoch: int
    batch: int
    loss: float
    params: Params
    x: Any
    y: Any
    grads: Params
    net: Layer
    lr: float | None


@dataclass(frozen=True)
class Epoch:
    """An epoch that just ended.

    Attributes:
        epoch: which, counted from 0.
        params: after its last update; valid during the call, copy what you keep.
        state: those of the optimizer and the layers, likewise.
        row: this epoch's entry in the history, by name.
    """

    epoch: int
    params: Params
    state: TrainingState
    row: Row


StepCallback: TypeAlias = Callable[[Step], bool | None]
EpochCallback: TypeAlias = Callable[[Epoch], bool | None]


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a number of the history has not improved for a while, and go back to the best parameters.

    Args:
        monitor: its name in the history. "loss" is measured while the epoch goes on: where a batch has all samples, at
            the parameters that the epoch began with, which are those that are kept then.
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
        check_choice("EarlyStopping", "mode", self.mode, ("min", "max"))
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"EarlyStopping: min_delta is {self.min_delta!r}; expected a number of at least 0")

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether `value` is better than `best`, which is None before the first."""
        if math.isnan(value):
            return False
        gain = math.inf if best is None else best - value if self.mode == "min" else value - best
        return gain > self.min_delta


def keep_best(rule: EarlyStopping, run: Run, row: Row) -> bool:
    """Keep the best parameters so far in the run, whose epoch gave `row`; return whether it is time to stop."""
    value = row[rule.monitor]
    run.waited += 1
    if rule.improves(value, run.best and run.best[0]):
        measured = run.before if run.before is not None and run.batch == 1 else at_hand(run)
        run.best, run.waited = (value, *measured), 0
    return run.waited >= rule.patience


def at_hand(run: Run) -> tuple[Params, State]:
    """Return copies of the parameters and of the layers' state."""
    assert run.state is not None  # it is set when training starts
    return map_leaves(np.array, (run.params, run.state.layers))  # type: ignore[no-any-return]


@contextmanager
def progress_bar(epochs: int, done: int) -> Iterator[Callable[[Row], None]]:
    """Show a progress bar of tqdm's; give the function that is to be called after each epoch."""
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('progress=True needs tqdm; use pip install "tinynet-grad[train]"') from None
    layout = "{percentage:3.0f}%|{bar}| {n}/{total} [{remaining}{postfix}]"  # with the numbers, within 80 columns
    with tqdm(total=epochs, initial=done, unit="epoch", dynamic_ncols=True, bar_format=layout) as bar:

        def tell(row: Row) -> None:
            bar.set_postfix(shown(row), refresh=False)
            bar.update()

        yield tell


def shown(row: Row) -> dict[str, str]:
    """Return what the bar has room for: the loss, and each metric on the validation data where there are any."""
    seen_on_validation = {name for name in row if name != "loss" and f"validation_{name}" in row}
    fitting = {name: value for name, value in row.items() if name != "seconds" and name not in seen_on_validation}
    return {name.replace("validation_", "val_"): f"{value:.3g}" for name, value in fitting.items()}


def verify_after(n: int, net: Layer, loss: Loss) -> StepCallback:
    """Return a callback that verifies the gradients against `jax.grad` on the batch at hand, after every `n` updates.

    It raises `tinynet.GradientError`, with the report, where they are wrong.
    """
    done = 0

    def check(step: Step) -> None:
        nonlocal done
        done += 1
        if done % n == 0:
            from tinynet.verification import verify

            inputs, params = map_arrays(np.asarray, (step.x, step.y)), map_leaves(np.asarray, step.params)
            probes = ("forward", "rectangular")
            verify(net, loss=loss, params=params, inputs=inputs, probes=probes, dtype="float64").raise_if_failed()

    return check

"""The training loop: gradient descent (§3) and mini-batch SGD (§4)."""

from __future__ import annotations

import copy
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Array, Params
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.training.arguments import (
    check_arguments,
    check_calls,
    check_fits,
    check_watching,
    initial_params,
    make_engine,
    settings_of,
    source,
)
from tinynet.training.batches import Batch, Batches, Samples, Stream, cast, release, samples
from tinynet.training.callbacks import (
    Callback,
    CallFunctions,
    EarlyStopping,
    EpochCallback,
    KeepBest,
    ShowProgress,
    Step,
    StepCallback,
    Stopped,
    StopWithin,
    WriteCheckpoint,
    telling,
    verify_after,
)
from tinynet.training.checkpoints import Run, restore_rng, resumed, rng_state
from tinynet.training.engines import Carry, Engine, Losses, TrainingState
from tinynet.training.engines.threads import step_work
from tinynet.training.interruptions import Interrupt, Interrupted, all_finite, deferred_interrupt, divergence
from tinynet.trees import leaves, map_leaves

Metric = Callable[[Any, Any], float]
"""(ŷ, y) -> a number to watch, over the whole of a data set."""

_EVALUATE_AT_ONCE = 8192


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`.

    Attributes:
        params: the parameters after the last update; the best ones with early stopping.
        history: one entry per epoch: "loss" (of the training data as the epoch met it, each batch before its update,
            joined as the loss joins samples), "seconds" since the start, and what metrics and validation add.
        stopped: why training ended: "epochs", "tolerance", "early_stopping" or "callback".
        state: what else training carries, after the last update; `fit(params=…, state=…)` goes on with it.
    """

    params: Params
    history: dict[str, npt.NDArray[np.float64]]
    stopped: Stopped
    state: TrainingState


def fit(
    net: Layer,
    loss: Loss,
    x: Array | Iterable[Any] | Callable[[], Iterable[Any]],
    y: Array | None = None,
    *,
    params: Params = None,
    optimizer: Any,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    engine: Literal["numpy", "jax"] = "numpy",
    state: TrainingState | None = None,
    threads: int | None = None,
    mesh: Any = None,
    tolerance: float | None = None,
    validation: tuple[Array, Array] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    sample_weight: Array | None = None,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[EpochCallback] = (),
    step_callbacks: Sequence[StepCallback] = (),
    progress: bool = False,
    verify_every: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None,
) -> FitResult:
    """Train `net` to make `loss` small on (x, y); nothing that is handed in is changed.

    With `batch_size=None` this is gradient descent (§3): the gradient over all samples, then one update, until a stop.
    With a number it is mini-batch SGD (§4): the samples are shuffled each epoch and cut into batches, the last one
    shorter where they do not divide. The gradient of a batch is that of the loss as given: its sum over the samples
    with reduction="sum", (17) with reduction="mean".

    Args:
        net, loss: the network and its loss.
        x: (m, …), one row per sample, in memory or mapped from a file (`numpy.load(…, mmap_mode="r")`). Or, with
            y=None, an iterable of batches (x, y) or (x, y, weights), or a function that returns one for each epoch.
        y: of the shape of the network's output.
        params: where to start; `net.init(numpy.random.default_rng(seed), dtype of x)` if None.
        optimizer: turns gradients into updates; with engine="jax" an Optax transformation will do.
        epochs: passes over the data, at least 1.
        batch_size: samples per batch; None for all.
        shuffle: whether each epoch meets the samples in a new random order; an iterable keeps its own.
        seed: of the initial parameters, of the order of the samples and of layers that draw random numbers.
        engine: "numpy", or "jax" to compile an epoch at a time.
        state: of optimizer and layers, to go on with; the `state` of an earlier result. None for a first one.
        threads: for engine="numpy", how many to use; None to choose by the size of the work. They share the samples of
            a batch where every layer is `samplewise`, and the matrix products elsewhere. What held before is restored.
        mesh: for engine="jax", a `jax.sharding.Mesh` with an axis "data" to spread each batch over, if that divides it.
            Where it has the devices of several processes, each of them makes this call; only callbacks may differ.
        tolerance: stop after an epoch whose loss is at most this.
        validation: (x, y) to evaluate after each epoch, as "validation_loss" and "validation_" + each metric.
        metrics: functions of (ŷ, y) to evaluate after each epoch on the training data, if they are arrays, and on the
            validation data.
        sample_weight: (m,), how much each sample counts: E = Σ w_i E_i, times 1/m where the loss is a mean.
        class_weight: a weight for each class, times that of the sample; the class is y itself, or the column of its
            largest entry. "balanced" is m / (classes · samples of the class).
        early_stopping: when to stop for lack of progress; the result then has the best parameters.
        callbacks, step_callbacks: functions to call after each epoch and each update (`tinynet.training.callbacks`).
        progress: show a progress bar (needs tqdm).
        verify_every: after every so many updates, verify the gradients on the batch at hand against `jax.grad`.
        checkpoint: a file to write after each epoch, and after every so many batches with `every`. If it is there
            already, training goes on from it, bit for bit as if it had never ended; an iterable x must then yield
            what it yielded. After Ctrl-C the file is written at the next batch boundary (with engine="jax" the next
            part), and a second Ctrl-C ends at once. Of several processes the first reads and writes the file, and
            Ctrl-C in one ends all. With another mesh a run goes on as well, the same to rounding.
        every: see checkpoint.

    Floating-point data are rounded to the dtype of the parameters.

    Raises:
        TypeError, ValueError: an argument does not fit; nothing was trained. Data from a file or an iterable are
            checked batch by batch as they come.
        DivergenceError: the loss or a parameter became infinite or NaN; it carries the last finite parameters.
        GradientError: `verify_every` met a wrong gradient; it carries the report.
        Interrupted: (a KeyboardInterrupt) Ctrl-C; it carries the parameters and says how to go on.
        FileError, ValueError: the checkpoint is damaged, or another run's.
        OSError: the checkpoint could not be written; the earlier one is still there.
    """
    check_arguments(net, loss, optimizer, epochs, batch_size, engine, threads, mesh, seed, shuffle, state)
    check_watching(validation, metrics, early_stopping, tolerance, y is not None)
    check_calls(callbacks, step_callbacks, verify_every, checkpoint, every)
    rng = np.random.default_rng(seed)
    order_rng, sample_rng = rng.spawn(2)
    data = source(x, y, sample_weight, class_weight, batch_size, shuffle, epochs)
    params = initial_params(net, params, rng, data.x.dtype if data.x.dtype.kind == "f" else np.float32)
    dtype = next((p.dtype for p in leaves(params)), data.x.dtype)
    data = data.as_dtype(dtype)
    check_fits(net, loss, params, data.x, data.y, "y", dtype)
    watched = {"": (data.x, data.y)} if metrics and isinstance(data, Samples) else {}
    if validation is not None:
        x_val, y_val = samples("validation[0]", validation[0], "validation[1]", validation[1])
        check_fits(net, loss, params, x_val, y_val, "validation[1]", dtype)
        watched["validation_"] = x_val, y_val

    runner = make_engine(engine, net, loss, optimizer, dtype, step_work(params, data.largest), threads, mesh)
    run = Run(net, {}, params, state)
    told: list[Callback] = [CallFunctions(callbacks)]
    if tolerance is not None:
        told.append(StopWithin(tolerance))
    if early_stopping is not None:
        told.append(KeepBest(early_stopping))
    if progress:
        told.append(ShowProgress(epochs))
    if checkpoint is not None:
        run.settings = settings_of(data, loss, optimizer, early_stopping, seed, batch_size, shuffle, engine)
        run = resumed(checkpoint, run, runner.processes)
        if runner.processes.is_first:
            told.append(WriteCheckpoint(checkpoint))
    steps = [*step_callbacks, *([verify_after(verify_every, net, loss)] if verify_every else [])]

    stopped: Stopped = "epochs"
    began = time.perf_counter() - run.seconds
    with runner.session(), telling(told, run), deferred_interrupt() as interrupt:
        training = _Training(run, runner, data, order_rng, sample_rng, steps, told, every, checkpoint, interrupt, began)
        carry = training.start()
        while run.epoch < epochs and stopped == "epochs":
            carry, asked = training.epoch(carry)
            row = {"loss": join(loss, run.losses)}
            for prefix, (x_seen, y_seen) in watched.items():
                row |= evaluate(net, loss, run.params, x_seen, y_seen, metrics or {}, prefix, dtype)
            row["seconds"] = training.seconds()
            stopped = _reason(runner, [*(c.after_epoch(run, row) for c in told), "callback" if asked else None])
            run.next_epoch(row)
        params = run.best[1] if run.best else map_leaves(np.array, runner.params(carry))
        history = {name: np.array(values) for name, values in run.history.items()}
        return FitResult(params, history, stopped, runner.state(carry))


@dataclass(frozen=True)
class _Training:
    """The epochs of one run, one after the other.

    Attributes:
        run: where it stands.
        engine: makes the updates.
        data: where the batches come from.
        order_rng: draws the order of the samples.
        sample_rng: spawns, for each epoch, the generator that random layers draw from.
        steps: functions to call after each update.
        told: what to tell after each part of an epoch.
        every: how many batches a part has; None for the whole epoch.
        checkpoint: the file that is written, if one is.
        interrupt: whether Ctrl-C was pressed.
        began: when the run began, by `time.perf_counter`.
    """

    run: Run
    engine: Engine
    data: Samples | Stream
    order_rng: np.random.Generator
    sample_rng: np.random.Generator
    steps: Sequence[StepCallback]
    told: Sequence[Callback]
    every: int | None
    checkpoint: str | os.PathLike[str] | None
    interrupt: Interrupt
    began: float

    def start(self) -> Carry:
        """Return the carry to begin with."""
        self.sample_rng.spawn(self.run.epoch)  # those of the epochs that are done
        return self.engine.start(self.run.params, self.run.state)

    def epoch(self, carry: Carry) -> tuple[Carry, bool]:
        """Train on what is left of the epoch at hand; with the carry, return whether a step callback asked to stop.

        Raises:
            DivergenceError: the loss or a parameter became infinite or NaN.
            Interrupted: Ctrl-C.
            OSError: the checkpoint could not be written.
        """
        run, engine = self.run, self.engine
        if run.order is not None:
            restore_rng(self.order_rng, run.order)
        run.order, batches = rng_state(self.order_rng), self.data.epoch(self.order_rng)
        draws = self.sample_rng.spawn(1)[0]
        if run.draws is not None:
            restore_rng(draws, run.draws)
        asked: list[bool] = []
        on_step = partial(self._tell_step, asked) if engine.processes.any(bool(self.steps)) else None
        for part in _parts(batches, run.batch, self.every):
            before, draws_before = engine.copy(carry), copy.deepcopy(draws)
            until_asked = itertools.takewhile(self._goes_on, part) if engine.stops_anywhere else part
            carry, losses = engine.epoch(carry, until_asked, draws, on_step)
            run.params, run.state = engine.params(carry), TrainingState(carry.optimizer, carry.layers)
            if not (all(math.isfinite(E) for E, _ in losses) and all_finite(run.params)):
                again = part if self.data.replayable or isinstance(part, list) else ()
                raise divergence(engine, before, again, draws_before, run.epoch, run.batch, losses)
            run.losses += losses
            run.batch += len(losses)
            run.draws, run.seconds = rng_state(draws), self.seconds()
            for callback in self.told:
                callback.after_part(run)
            if engine.processes.any(self.interrupt.asked):
                raise Interrupted(run.epoch, run.batch, map_leaves(np.array, run.params), self.checkpoint)
            if engine.processes.any(any(asked)):
                return carry, True
        return carry, False

    def seconds(self) -> float:
        """Return how long the run has taken."""
        return time.perf_counter() - self.began

    def _goes_on(self, _batch: Batch) -> bool:
        return not self.interrupt.asked

    def _tell_step(self, asked: list[bool], batch: int, loss: float, params: Params, x: Array, y: Array) -> bool:
        step = Step(self.run.epoch, self.run.batch + batch, loss, params, x, y)
        asked += [bool(callback(step)) for callback in self.steps]
        return any(asked)


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


def _reason(engine: Engine, reasons: Sequence[Stopped | None]) -> Stopped:
    """Return why training ends, if it does in any process; "epochs" if it goes on."""
    stops: tuple[Stopped, ...] = ("tolerance", "early_stopping", "callback")
    return next((reason for reason in stops if engine.processes.any(reason in reasons)), "epochs")


def join(loss: Loss, losses: Losses) -> float:
    """Return the loss of an epoch from those of its batches, as the loss joins samples."""
    if loss.reduction == "sum":
        return sum(E for E, _ in losses)
    return sum(E * m for E, m in losses) / sum(m for _, m in losses)


def evaluate(
    net: Layer,
    loss: Loss,
    params: Params,
    x: Array,
    y: Array,
    metrics: Mapping[str, Metric],
    prefix: str,
    dtype: Any,
) -> dict[str, float]:
    """Return metrics of the network on (x, y), and its loss where they have a `prefix`, by name."""
    parts = []
    for i in range(0, len(x), _EVALUATE_AT_ONCE):
        parts.append(net.forward(params, cast(x[i : i + _EVALUATE_AT_ONCE], dtype))[0])
        release(x)
    y_hat, y = np.concatenate(parts), cast(y, dtype)
    row = {prefix + "loss": float(loss.forward(y_hat, y)[0])} if prefix else {}
    return row | {prefix + name: float(metric(y_hat, y)) for name, metric in metrics.items()}

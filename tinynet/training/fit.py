"""The training loop: gradient descent (§3) and mini-batch SGD (§4)."""

from __future__ import annotations

import copy
import itertools
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from html import escape
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Array, Params
from tinynet.files.container import unfit
from tinynet.inspection import history_table, html_table, table_lines
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.training.arguments import (
    check_arguments,
    check_calls,
    check_joins,
    check_watching,
    first_dtype,
    fitted,
    initial_params,
    source,
    split_off,
)
from tinynet.training.batches import Batch, Batches, Samples, Stream, is_data
from tinynet.training.callbacks import (
    EarlyStopping,
    Epoch,
    EpochCallback,
    Step,
    StepCallback,
    Stopped,
    at_hand,
    keep_best,
    progress_bar,
    verify_after,
)
from tinynet.training.checkpoints import Run, check_savable, restore_rng, resumed, rng_state, save_checkpoint
from tinynet.training.engines import Carry, Engine, Losses, TrainingState
from tinynet.training.engines.numpy import NumpyEngine
from tinynet.training.engines.threads import shares, step_work
from tinynet.training.evaluation import Metrics, measured, metrics_by_name
from tinynet.training.headway import warn_without_headway
from tinynet.training.interruptions import Interrupted, all_finite, deferred_interrupt, divergence
from tinynet.training.settings import chained, fingerprint, monitored, settings_of_optimizer, versions
from tinynet.trees import leaves, map_leaves


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

    def __str__(self) -> str:
        """Return what was measured, as a table."""
        return "\n".join([self._headline(), *table_lines(history_table(self.history), left=1)])

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._headline())}</p>{html_table(history_table(self.history))}"

    def _headline(self) -> str:
        epochs, seconds = len(self.history["loss"]), self.history["seconds"]
        time = f" in {seconds[-1]:.3g} s" if len(seconds) else ""
        return f"{epochs} epoch{'' if epochs == 1 else 's'}{time}, stopped by {self.stopped.replace('_', ' ')}"


def fit(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Any = None,
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
    validation: tuple[Any, Any] | float | None = None,
    metrics: Metrics | None = None,
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
        x: (m, …), one row per sample: an array, or a tuple or dict of arrays with one common first axis, in memory or
            mapped from a file (`numpy.load(…, mmap_mode="r")`). Or, with y=None, a list or another iterable of batches
            (x, y) or (x, y, weights), or of dicts {"x": …, "y": …}, such as a loader of PyTorch's; or a function that
            returns one for each epoch. Frames of pandas and polars are arrays.
        y: what the loss takes, an array or a tuple or dict of arrays; None where it takes none.
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
        validation: (x, y) to evaluate after each epoch, as "validation_loss" and "validation_" + each metric; or the
            share of the samples to hold out for that, drawn by `seed`.
        metrics: what to evaluate after each epoch on the training data, if they are arrays, and on the validation
            data: functions of (ŷ, y) by name, or names as for `evaluate`.
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

    Floating-point data are rounded to the dtype of the parameters. A `tinynet.NoHeadwayWarning` says that after ten
    epochs or more the network predicts hardly better than a constant would.

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
    check_watching(validation, metrics, early_stopping, tolerance, y is not None or is_data(x), loss, optimizer)
    check_calls(callbacks, step_callbacks, verify_every, checkpoint, every)
    is_new = params is None and state is None
    metrics, seed, epochs = metrics_by_name(metrics, loss), int(seed), int(epochs)
    rng = np.random.default_rng(seed)
    order_rng, sample_rng = rng.spawn(2)
    data, held_out = split_off(
        source(loss, x, y, sample_weight, class_weight, batch_size, shuffle, epochs), validation, seed
    )
    given = (params, None if state is None else (state.optimizer, state.layers))
    params = initial_params(net, params, rng, first_dtype(data.x))
    data, watched, layers, dtype = fitted(net, loss, data, held_out, params, state, metrics)

    work = step_work(params, data.largest)
    matters = data.weights is not None or shares(work, threads) > 1
    joins = not matters or check_joins(net, loss, params, layers, data, dtype)
    runner: Engine = NumpyEngine(net, loss, optimizer, work, threads, joins)
    if engine == "jax":
        from tinynet.training.engines.jax import JaxEngine

        runner = JaxEngine(net, loss, optimizer, mesh, dtype)
    run = Run(net, {}, params, state)
    measure = partial(measured, net, loss, watched=watched, metrics=metrics, engine=engine)
    if checkpoint is not None:
        depends = monitored(optimizer, early_stopping) - {"loss", "validation_loss", "seconds"}
        first = measure(params, layers) if depends else {}
        named = {"loss": loss, "seed": seed, "batch_size": batch_size, "shuffle": shuffle, "engine": engine}
        run.settings = named | {
            **settings_of_optimizer(optimizer, params),
            "data": fingerprint(data.x, data.y, data.weights) if data.replayable else "an iterable of batches",
            "validation": fingerprint(watched["validation_"]) if held_out is not None else None,
            "params and state": fingerprint(given) if any(part is not None for part in leaves(given)) else None,
            "early_stopping": early_stopping and asdict(early_stopping),
            # Of the first parameters, those that training depends on: what they measure has no other name.
            "monitored metrics": {name: f"{first[name]:.5g}" for name in depends},
        }
        run.versions = versions(engine)
        run = resumed(checkpoint, run, runner.processes)
    steps = [*step_callbacks, *([verify_after(verify_every, net, loss)] if verify_every else [])]

    stopped: Stopped = "epochs"
    began = time.perf_counter() - run.seconds
    bar = progress_bar(epochs, run.epoch) if progress else nullcontext(lambda row: None)
    with runner.session(), bar as show_progress, deferred_interrupt() as interrupt:
        keeps = early_stopping is not None and early_stopping.monitor == "loss"
        training = _Training(
            run, runner, data, order_rng, sample_rng, steps, keeps, every, checkpoint, interrupt, began
        )
        carry = training.start()
        while (run.epoch < epochs or run.batch) and stopped == "epochs":  # one that was begun is finished
            carry = training.epoch(carry)
            row = {"loss": join(loss, run.losses), **measure(run.params, carry.layers), "seconds": training.seconds()}
            carry = runner.observe(carry, row)
            assert run.state is not None  # an epoch is over
            answers = [callback(Epoch(run.epoch, run.params, run.state, row)) for callback in callbacks]
            reasons: dict[Stopped, bool] = {
                "tolerance": tolerance is not None and row["loss"] <= tolerance,
                "early_stopping": early_stopping is not None and keep_best(early_stopping, run, row),
                "callback": run.asked or any(answers),
            }
            stopped = next((reason for reason, holds in reasons.items() if runner.processes.any(holds)), "epochs")
            show_progress(row)
            run.next_epoch(row)
        history = {name: np.array(values) for name, values in run.history.items()}
        if stopped in ("epochs", "early_stopping"):
            warn_without_headway(loss, data, history, from_start=is_new)
        state, params = runner.state(carry), map_leaves(np.array, runner.params(carry))
        if run.best is not None:
            params, state = run.best[1], replace(state, layers=run.best[2])
        return FitResult(params, history, stopped, state)


@dataclass(frozen=True)
class _Training:
    """The epochs of one run, one after the other.

    Attributes:
        order_rng: draws the order of the samples.
        sample_rng: spawns, for each epoch, the generator that random layers draw from.
        keeps_before: whether early stopping may need what an epoch began with.
        every: how many batches a part has; None for the whole epoch.
        began: when the run began, by `time.perf_counter`.
    """

    run: Run
    engine: Engine
    data: Samples | Stream
    order_rng: np.random.Generator
    sample_rng: np.random.Generator
    steps: Sequence[StepCallback]
    keeps_before: bool
    every: int | None
    checkpoint: str | os.PathLike[str] | None
    interrupt: threading.Event
    began: float

    def start(self) -> Carry:
        """Return the carry to begin with."""
        self.sample_rng.spawn(self.run.epoch)  # those of the epochs that are done
        resumes = self.checkpoint is not None and self.run.order is not None
        with unfit(self.checkpoint or "", "its state does not fit the run") if resumes else nullcontext():
            carry = self.engine.start(self.run.params, self.run.state)
        self._stand(carry)
        if self.checkpoint is not None:
            check_savable(self.run)
        return carry

    def epoch(self, carry: Carry) -> Carry:
        """Train on what is left of the epoch at hand, until a step callback asks to stop."""
        run, engine = self.run, self.engine
        if run.order is not None:
            restore_rng(self.order_rng, run.order)
        run.order, batches = rng_state(self.order_rng), self.data.epoch(self.order_rng)
        draws = self.sample_rng.spawn(1)[0]
        if run.draws is not None:
            restore_rng(draws, run.draws)
        chain: list[str] = []
        if self.checkpoint is not None and not isinstance(batches, Batches):
            batches = self._same_batches(chained(batches, chain), chain)
        if self.keeps_before and run.batch == 0:
            run.before = at_hand(run)
        if run.asked:
            return carry
        on_step = self._tell_step if engine.processes.any(bool(self.steps)) else None
        parts = batches.parts(run.batch, self.every) if isinstance(batches, Batches) else _cut(batches, self.every)
        for part in parts:
            before, draws_before = engine.copy(carry), copy.deepcopy(draws)
            until_asked = (
                itertools.takewhile(lambda _: not self.interrupt.is_set(), part) if engine.stops_anywhere else part
            )
            carry, losses = engine.epoch(carry, until_asked, draws, on_step)
            self._stand(carry)
            if not (all(math.isfinite(E) for E, _ in losses) and all_finite(run.params)):
                again = part if self.data.replayable else ()
                raise divergence(engine, before, again, draws_before, run.epoch, run.batch, losses)
            run.losses += losses
            run.batch += len(losses)
            run.draws, run.seconds = rng_state(draws), self.seconds()
            run.seen = chain[run.batch - 1] if chain else ""
            run.asked = engine.processes.any(run.asked)
            if self.checkpoint is not None and engine.processes.is_first:
                save_checkpoint(self.checkpoint, run)
            if engine.processes.any(self.interrupt.is_set()):
                raise Interrupted(run.epoch, run.batch, map_leaves(np.array, run.params), self.checkpoint)
            if run.asked:
                break
        return carry

    def _same_batches(self, batches: Iterator[Batch], chain: list[str]) -> Iterator[Batch]:
        """Skip the batches of the epoch that are done; raise ValueError unless they are those of then."""
        done = self.run.batch
        for _ in itertools.islice(batches, done):
            pass
        if done and (len(chain) < done or chain[-1] != self.run.seen):
            raise ValueError(
                f"fit: {os.fspath(self.checkpoint or '')} was written by another run: x yields other batches now; "
                "yield the same ones, or give another checkpoint"
            )
        return batches

    def _stand(self, carry: Carry) -> None:
        self.run.params = self.engine.params(carry)
        self.run.state = TrainingState(carry.optimizer, carry.layers)

    def seconds(self) -> float:
        """Return how long the run has taken."""
        return time.perf_counter() - self.began

    def _tell_step(self, batch: int, *what: Any) -> bool:
        step = Step(self.run.epoch, self.run.batch + batch, *what)
        answers = [callback(step) for callback in self.steps]
        self.run.asked = any(answers)
        return self.run.asked


def _cut(batches: Iterator[Batch], every: int | None) -> Iterator[Iterable[Batch]]:
    """Cut the batches into parts of `every`; one part if None."""
    for first in batches:
        yield itertools.chain([first], itertools.islice(batches, None if every is None else every - 1))


def join(loss: Loss, losses: Losses) -> float:
    """Return the loss of an epoch from those of its batches, as the loss joins samples."""
    if loss.reduction == "sum":
        return sum(E for E, _ in losses)
    return sum(E * m for E, m in losses) / sum(m for _, m in losses)

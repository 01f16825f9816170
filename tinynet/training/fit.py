"""The training loop: gradient descent (§3) and mini-batch SGD (§4)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    source,
)
from tinynet.training.batches import Samples, samples
from tinynet.training.callbacks import EarlyStopping, Epoch, EpochCallback, StepCallback
from tinynet.training.divergence import DivergenceError
from tinynet.training.engines.threads import step_work
from tinynet.training.epochs import Epochs
from tinynet.training.evaluating import Metric, evaluate, join
from tinynet.training.interruptions import deferred_interrupt
from tinynet.training.progress import progress_bar, shown
from tinynet.training.proving import proof_every
from tinynet.training.resuming import Position, Resuming, description
from tinynet.trees import leaves, map_leaves

__all__ = ["DivergenceError", "FitResult", "Metric", "fit"]

Stopped = Literal["epochs", "tolerance", "early_stopping", "callback"]
"""Why training ended."""


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes:
        params: the parameters after the last update; the best ones with early stopping.
        history: one entry an epoch: "loss" (of the training data as the epoch met it, each batch before its update,
            joined as the loss joins samples), "seconds" since the start, and what metrics and validation add.
        stopped: why training ended: "epochs", "tolerance", "early_stopping" or "callback".
    """

    params: Params
    history: dict[str, npt.NDArray[np.float64]]
    stopped: Stopped


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
        x: (m, …), a row a sample, in memory or mapped from a file (`numpy.load(…, mmap_mode="r")`). Or, with y=None,
            an iterable of batches (x, y) or (x, y, weights), or a function that returns one for each epoch.
        y: of the shape of the network's output.
        params: where to start; `net.init(numpy.random.default_rng(seed), dtype of x)` if None.
        optimizer: turns gradients into updates; with engine="jax" an Optax transformation will do.
        epochs: passes over the data, at least 1.
        batch_size: samples a batch; None for all.
        shuffle: whether each epoch meets the samples in a new random order; an iterable keeps its own.
        seed: of the initial parameters, of the order of the samples and of layers that draw random numbers.
        engine: "numpy", or "jax" to compile an epoch at a time.
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
        verify_every: after every so many updates, prove the gradients anew on the batch at hand against `jax.grad`.
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
    check_arguments(net, loss, optimizer, epochs, batch_size, engine, threads, mesh, seed, shuffle)
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

    steps = [*step_callbacks, *([proof_every(verify_every, net, loss)] if verify_every else [])]
    runner = make_engine(engine, net, loss, optimizer, dtype, step_work(params, data.largest), threads, mesh)
    resuming = None
    if checkpoint is not None:
        settings = {"seed": seed, "batch_size": batch_size, "shuffle": shuffle, "engine": engine}
        run = description(data, loss, optimizer, early_stopping=early_stopping, **settings)
        resuming = Resuming(checkpoint, net, run, runner.processes)
    at = resuming.position() if resuming else Position()
    start = time.perf_counter() - at.seconds
    stopped: Stopped = "epochs"
    with runner.session(), progress_bar(epochs, "epoch", progress) as bar, deferred_interrupt() as interrupt:
        run_of = Epochs(runner, data, order_rng, sample_rng, steps, every, resuming, interrupt, at, start)
        carry = run_of.first(params)
        if bar is not None:
            bar.update(at.epoch)
        while at.epoch < epochs and stopped == "epochs":
            carry, stop = run_of.run(carry)
            params = runner.params(carry)
            row = {"loss": join(loss, at.losses)}
            for prefix, (x_seen, y_seen) in watched.items():
                row |= evaluate(net, loss, params, x_seen, y_seen, metrics or {}, prefix, dtype)
            row["seconds"] = time.perf_counter() - start
            if early_stopping is not None:
                at.remember(early_stopping, row, params)
            stops = [stop, *(bool(callback(Epoch(at.epoch, params, carry[1], row))) for callback in callbacks)]
            if tolerance is not None and row["loss"] <= tolerance:
                stopped = "tolerance"
            elif early_stopping is not None and runner.processes.any(at.waited >= early_stopping.patience):
                stopped = "early_stopping"
            elif runner.processes.any(any(stops)):
                stopped = "callback"
            at.next_epoch(row)
            if bar is not None:
                bar.set_postfix(shown(row), refresh=False)
                bar.update()
        params = at.best[1] if at.best else map_leaves(np.array, runner.params(carry))
    return FitResult(params, {name: np.array(values) for name, values in at.history.items()}, stopped)

"""The training loop: gradient descent (§3) and mini-batch SGD (§4)."""

from __future__ import annotations

import copy
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Array, Params, describe
from tinynet.batches import Batch, Batches, Samples, Stream, cast, release, samples
from tinynet.callbacks import EarlyStopping, Epoch, EpochCallback, Step, StepCallback
from tinynet.checkpoints import fingerprint, rng_state
from tinynet.checks import check_positive_int
from tinynet.divergence import DivergenceError, all_finite, divergence
from tinynet.engines import Engine, Losses
from tinynet.engines.numpy import NumpyEngine
from tinynet.engines.threads import step_work
from tinynet.interrupts import Interrupted, deferred_interrupt
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.progress import progress_bar, shown
from tinynet.resuming import Position, Resuming
from tinynet.trees import check_like, leaves, leaves_with_paths, map_leaves
from tinynet.weights import sample_weights

__all__ = ["DivergenceError", "FitResult", "Metric", "fit"]

Metric = Callable[[Any, Any], float]
"""(ŷ, y) -> a number to watch, over the whole of a data set."""

Stopped = Literal["epochs", "tolerance", "early_stopping", "callback"]

_EVALUATE_AT_ONCE = 8192


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
        tolerance: stop after an epoch whose loss is at most this.
        validation: (x, y) to evaluate after each epoch, as "validation_loss" and "validation_" + each metric.
        metrics: functions of (ŷ, y) to evaluate after each epoch on the training data, if they are arrays, and on the
            validation data.
        sample_weight: (m,), how much each sample counts: E = Σ w_i E_i, times 1/m where the loss is a mean.
        class_weight: a weight for each class, times that of the sample; the class is y itself, or the column of its
            largest entry. "balanced" is m / (classes · samples of the class).
        early_stopping: when to stop for lack of progress; the result then has the best parameters.
        callbacks, step_callbacks: functions to call after each epoch and after each update; see `tinynet.callbacks`.
        progress: show a progress bar (needs tqdm).
        verify_every: after every so many updates, prove the gradients anew on the batch at hand against `jax.grad`.
        checkpoint: a file to write after each epoch, and after every so many batches with `every`. If it is there
            already, training goes on from it, bit for bit as if it had never ended; an iterable x must then yield
            what it yielded. After Ctrl-C the file is written at the next batch boundary (with engine="jax" the next
            part), and a second Ctrl-C ends at once.
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
    _check_arguments(net, loss, optimizer, epochs, batch_size, engine, threads, mesh)
    for name, number in (("verify_every", verify_every), ("every", every)):
        if number is not None:
            check_positive_int("fit", name, number)
    if every is not None and checkpoint is None:
        raise ValueError("fit: every is for checkpoint=, which is not given")
    rng = np.random.default_rng(seed)
    order_rng, sample_rng = rng.spawn(2)
    data = _source(x, y, sample_weight, class_weight, batch_size, shuffle, epochs)
    params = _initial_params(net, params, rng, data.x.dtype if data.x.dtype.kind == "f" else np.float32)
    dtype = next((p.dtype for p in leaves(params)), data.x.dtype)
    data = data.as_dtype(dtype)
    _check_fit(net, loss, params, data.x, data.y, "y", dtype)
    watched = {"": (data.x, data.y)} if metrics and isinstance(data, Samples) else {}
    if validation is not None:
        x_val, y_val = samples("validation[0]", validation[0], "validation[1]", validation[1])
        _check_fit(net, loss, params, x_val, y_val, "validation[1]", dtype)
        watched["validation_"] = x_val, y_val

    steps = [*step_callbacks, *([_verification(net, loss, verify_every)] if verify_every else [])]
    work = step_work(params, data.largest)
    runner = _engine(engine, net, loss, optimizer, dtype, work, threads, mesh)
    resuming = None
    if checkpoint is not None:
        told = "an Optax transformation" if _is_optax(optimizer) else optimizer
        seen = fingerprint(data.x, data.y, data.weights) if isinstance(data, Samples) else "an iterable of batches"
        run = {"loss": loss, "optimizer": told, "seed": seed, "batch_size": batch_size, "shuffle": shuffle}
        resuming = Resuming(checkpoint, net, run | {"engine": engine, "data": seen})
    at = resuming.position() if resuming else Position()
    stopped: Stopped = "epochs"
    start = time.perf_counter() - at.seconds
    with runner.session(), progress_bar(epochs, "epoch", progress) as bar, deferred_interrupt() as interrupt:
        carry = runner.start(params)
        if resuming and resuming.found:
            carry = runner.resume(carry, resuming.found.params, resuming.found.state)
            resuming.restore(order=order_rng)
            sample_rng.spawn(at.epoch)
            if bar is not None:
                bar.update(at.epoch)
        for epoch in range(at.epoch, epochs):
            order_before, batches, draws = rng_state(order_rng), data.epoch(order_rng), sample_rng.spawn(1)[0]
            if resuming and resuming.found and epoch == resuming.found.epoch:
                resuming.restore(draws=draws)
            watch = _Watch(epoch, at.batch, steps)
            for part in _parts(batches, at.batch, every):
                before, draws_before = runner.copy(carry), copy.deepcopy(draws)
                until_asked = part if engine == "jax" else itertools.takewhile(lambda _: not interrupt.asked, part)
                carry, losses = runner.epoch(carry, until_asked, draws, watch if steps else None)
                params = runner.params(carry)
                if not (all(math.isfinite(E) for E, _ in losses) and all_finite(params)):
                    again = part if data.replayable or isinstance(part, list) else ()
                    raise divergence(runner, before, again, draws_before, epoch, at.batch, losses)
                at.losses += losses
                at.batch += len(losses)
                at.seconds = time.perf_counter() - start
                if resuming:
                    resuming.save(at, params, runner.state(carry), order_before, draws)
                if interrupt.asked:
                    raise Interrupted(epoch, at.batch, map_leaves(np.array, params), checkpoint)
                if watch.stopped:
                    break
            params = runner.params(carry)
            row = {"loss": _join(loss, at.losses)}
            for prefix, (x_seen, y_seen) in watched.items():
                row |= _evaluate(net, loss, params, x_seen, y_seen, metrics or {}, prefix, dtype)
            row["seconds"] = time.perf_counter() - start
            for name, value in row.items():
                at.history.setdefault(name, []).append(value)
            if bar is not None:
                bar.set_postfix(shown(row), refresh=False)
                bar.update()
            if early_stopping is not None:
                value = _monitored(early_stopping, row)
                at.waited += 1
                if early_stopping.improves(value, at.best and at.best[0]):
                    at.best, at.waited = (value, map_leaves(np.copy, params)), 0
            stop = [bool(callback(Epoch(epoch, params, carry[1], row))) for callback in callbacks]
            if tolerance is not None and row["loss"] <= tolerance:
                stopped = "tolerance"
            elif early_stopping is not None and at.waited >= early_stopping.patience:
                stopped = "early_stopping"
            elif watch.stopped or any(stop):
                stopped = "callback"
            if stopped != "epochs":
                break
            at.epoch, at.batch, at.losses = epoch + 1, 0, []
        params = at.best[1] if at.best else map_leaves(np.array, runner.params(carry))
    return FitResult(params, {name: np.array(values) for name, values in at.history.items()}, stopped)


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


def _verification(net: Layer, loss: Loss, every: int) -> StepCallback:
    """Prove the gradients again on a live batch, every so many updates."""

    done = 0

    def prove(step: Step) -> None:
        nonlocal done
        done += 1
        if done % every == 0:
            from tinynet.verification import verify

            inputs, probes = (np.asarray(step.x), np.asarray(step.y)), ("forward", "rectangular")
            params = map_leaves(np.asarray, step.params)
            verify(net, loss=loss, params=params, inputs=inputs, probes=probes, dtype="float64").raise_if_failed()

    return prove


class _Watch:
    """Tells the step callbacks of each update, and remembers whether one of them asked to stop."""

    def __init__(self, epoch: int, first: int, callbacks: Sequence[StepCallback]) -> None:
        self.epoch, self.batch, self.callbacks, self.stopped = epoch, first, callbacks, False

    def __call__(self, _batch: int, loss: float, params: Params, x: Array, y: Array) -> bool:
        answers = [callback(Step(self.epoch, self.batch, loss, params, x, y)) for callback in self.callbacks]
        self.batch += 1
        self.stopped = any(answers)
        return self.stopped


def _check_arguments(
    net: object,
    loss: object,
    optimizer: object,
    epochs: object,
    batch_size: object,
    engine: object,
    threads: object,
    mesh: object,
) -> None:
    if engine not in ("numpy", "jax"):
        raise ValueError(f'fit: engine is {engine!r}; expected "numpy" or "jax"')
    for name, given, kind in (("net", net, Layer), ("loss", loss, Loss), ("optimizer", optimizer, Optimizer)):
        if isinstance(given, kind) or (name == "optimizer" and _is_optax(given) and engine == "jax"):
            continue
        if name == "optimizer" and _is_optax(given):
            raise TypeError('fit: optimizer is an Optax transformation, which needs engine="jax"')
        shown = f"the class {given.__name__}" if isinstance(given, type) else describe(given)
        raise TypeError(f"fit: {name} is {shown}; expected an instance of tinynet.{kind.__name__}")
    check_positive_int("fit", "epochs", epochs)
    if batch_size is not None:
        check_positive_int("fit", "batch_size", batch_size)
    if threads is not None:
        check_positive_int("fit", "threads", threads)
    if engine == "jax" and threads is not None:
        raise ValueError('fit: threads is for engine="numpy"; JAX takes its number when it starts')
    if engine != "jax" and mesh is not None:
        raise ValueError('fit: mesh needs engine="jax"')


def _is_optax(optimizer: object) -> bool:
    return isinstance(optimizer, tuple) and hasattr(optimizer, "init") and hasattr(optimizer, "update")


def _engine(
    name: str, net: Layer, loss: Loss, optimizer: Any, dtype: Any, work: float, threads: int | None, mesh: Any
) -> Engine:
    if name == "numpy":
        return NumpyEngine(net, loss, optimizer, work, threads)
    from tinynet.engines.jax import JaxEngine

    return JaxEngine(net, loss, optimizer, mesh, dtype)


def _source(
    x: Any, y: Any, sample_weight: Any, class_weight: Any, batch_size: int | None, shuffle: bool, epochs: int
) -> Samples | Stream:
    if y is None:
        if hasattr(x, "__array_namespace__") or not (callable(x) or isinstance(x, Iterable)):
            raise TypeError(f"fit: y is None and x is {describe(x)}; expected y, or x an iterable of batches (x, y)")
        if batch_size is not None:
            raise ValueError("fit: batch_size is for arrays; an iterable x makes its own batches")
        if sample_weight is not None or class_weight is not None:
            raise ValueError("fit: weights are for arrays; an iterable x yields its own, as (x, y, weights)")
        return Stream(x, epochs)
    x, y = samples("x", x, "y", y)
    return Samples(x, y, sample_weights(y, sample_weight, class_weight), batch_size, shuffle)


def _initial_params(net: Layer, params: Params, rng: np.random.Generator, dtype: Any) -> Params:
    initial = net.init(rng, dtype)
    if params is None:
        return initial
    check_like("fit", "params", params, initial, "the network")
    params = map_leaves(np.asarray, params)
    dtypes = {p.dtype for p in leaves(params)}
    for path, p in leaves_with_paths(params):
        if p.dtype.kind != "f" or len(dtypes) > 1:
            raise TypeError(f"fit: params{path} has dtype {p.dtype}; expected one floating-point dtype throughout")
        if not np.isfinite(p).all():
            raise ValueError(f"fit: params{path} has a value that is NaN or infinite; expected finite numbers")
    return params


def _check_fit(net: Layer, loss: Loss, params: Params, x: Array, y: Array, name_y: str, dtype: Any) -> None:
    """Send one sample through, so that data which do not fit are met before anything is trained."""
    y_hat, _ = net.forward(params, cast(x[:1], dtype))
    expected = (len(x), *y_hat.shape[1:])
    if y.shape != expected:
        hint = f"; use {name_y}.reshape({expected})" if y.size == math.prod(expected) else ""
        raise ValueError(f"fit: {name_y} has shape {y.shape}; expected {expected}, that of the network's output{hint}")
    loss.forward(y_hat, cast(y[:1], dtype))


def _join(loss: Loss, losses: Losses) -> float:
    if loss.reduction == "sum":
        return sum(E for E, _ in losses)
    return sum(E * m for E, m in losses) / sum(m for _, m in losses)


def _evaluate(
    net: Layer,
    loss: Loss,
    params: Params,
    x: Array,
    y: Array,
    metrics: Mapping[str, Metric],
    prefix: str,
    dtype: Any,
) -> dict[str, float]:
    parts = []
    for i in range(0, len(x), _EVALUATE_AT_ONCE):
        parts.append(net.forward(params, cast(x[i : i + _EVALUATE_AT_ONCE], dtype))[0])
        release(x)
    y_hat, y = np.concatenate(parts), cast(y, dtype)
    row = {prefix + "loss": float(loss.forward(y_hat, y)[0])} if prefix else {}
    return row | {prefix + name: float(metric(y_hat, y)) for name, metric in metrics.items()}


def _monitored(early_stopping: EarlyStopping, row: Mapping[str, float]) -> float:
    try:
        return row[early_stopping.monitor]
    except KeyError:
        raise ValueError(
            f"fit: early_stopping monitors {early_stopping.monitor!r}; expected one of {sorted(row)}"
        ) from None

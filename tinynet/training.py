"""The training loop: gradient descent (§3) and mini-batch SGD (§4)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Array, Params, describe
from tinynet.checks import check_positive_int
from tinynet.engines import numpy as numpy_engine
from tinynet.gradients import value_and_grads
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.trees import check_like, leaves, leaves_with_paths, map_leaves

__all__ = ["DivergenceError", "FitResult", "Metric", "fit"]

Metric = Callable[[Any, Any], float]
"""(ŷ, y) -> a number to watch, over the whole of a data set."""


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes:
        params: the parameters after the last update.
        history: one entry an epoch: "loss" (of the training data as the epoch met it, each batch before its update,
            joined as the loss joins samples), "seconds" since the start, and what metrics and validation add.
        stopped: why training ended: "epochs" or "tolerance".
    """

    params: Params
    history: dict[str, npt.NDArray[np.float64]]
    stopped: Literal["epochs", "tolerance"]


class DivergenceError(ArithmeticError):
    """Training met a number that is not finite.

    Attributes:
        epoch, batch: where, both counted from 0.
        params: the last parameters that were finite.
    """

    def __init__(self, what: str, epoch: int, batch: int, params: Params) -> None:
        super().__init__(
            f"fit: {what} at epoch {epoch}, batch {batch}; the last finite parameters are in this error's `params`; "
            "use a smaller learning rate or scale the data"
        )
        self.epoch, self.batch, self.params = epoch, batch, params


def fit(
    net: Layer,
    loss: Loss,
    x: Array,
    y: Array,
    *,
    params: Params = None,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    engine: Literal["numpy"] = "numpy",
    tolerance: float | None = None,
    validation: tuple[Array, Array] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    progress: bool = False,
) -> FitResult:
    """Minimise E = loss(net(params, x), y) over the parameters.

    With `batch_size=None` this is gradient descent (§3): the gradient over all samples, then one update, until a stop.
    With a number it is mini-batch SGD (§4): the samples are shuffled each epoch and cut into batches, the last one
    shorter where they do not divide. The gradient of a batch is that of the loss as given: its sum over the samples
    with reduction="sum", (17) with reduction="mean".

    Args:
        net, loss: the network and its loss.
        x: (m, …), a row a sample.
        y: of the shape of the network's output.
        params: where to start; `net.init(numpy.random.default_rng(seed), dtype of x)` if None. Never changed.
        optimizer: turns gradients into updates.
        epochs: passes over the data, at least 1.
        batch_size: samples a batch; None for all.
        shuffle: whether each epoch meets the samples in a new random order.
        seed: of the initial parameters and of the order of the samples.
        engine: "numpy".
        tolerance: stop after an epoch whose loss is at most this.
        validation: (x, y) to evaluate after each epoch, as "validation_loss" and "validation_" + each metric.
        metrics: functions of (ŷ, y) to evaluate after each epoch on the training data and on the validation data.
        progress: show a progress bar (needs tqdm).

    Floating-point data are rounded to the dtype of the parameters.

    Raises:
        TypeError, ValueError: an argument does not fit; nothing was trained.
        DivergenceError: the loss or a parameter became infinite or NaN; it carries the last finite parameters.
    """
    _check_arguments(net, loss, optimizer, epochs, batch_size, engine)
    rng = np.random.default_rng(seed)
    order_rng = rng.spawn(1)[0]
    x, y = _samples("x", x, "y", y)
    params = _initial_params(net, params, rng, x.dtype if x.dtype.kind == "f" else np.float32)
    dtype = next((p.dtype for p in leaves(params)), x.dtype)
    train = _cast(x, dtype), _cast(y, dtype)
    _check_fit(net, loss, params, *train, "y")
    watched = {"": train} if metrics else {}
    if validation is not None:
        x_val, y_val = _samples("validation[0]", validation[0], "validation[1]", validation[1])
        watched["validation_"] = _cast(x_val, dtype), _cast(y_val, dtype)
        _check_fit(net, loss, params, *watched["validation_"], "validation[1]")

    m = len(x)
    size = min(batch_size or m, m)
    state = optimizer.init(params)
    history: dict[str, list[float]] = {}
    stopped: Literal["epochs", "tolerance"] = "epochs"
    start = time.perf_counter()
    with _progress_bar(epochs, progress) as bar:
        for epoch in range(epochs):
            order = order_rng.permutation(m) if shuffle and size < m else None
            before = map_leaves(np.copy, params), map_leaves(np.copy, state)
            batches = Batches(*train, size, order)
            params, state, losses = numpy_engine.run_epoch(net, loss, optimizer, params, state, batches)
            if not (math.isfinite(losses[-1]) and _all_finite(params)):
                raise _divergence(net, loss, optimizer, *before, batches, epoch)
            row = {"loss": _join(loss, losses, m, size)}
            for prefix, data in watched.items():
                row |= _evaluate(net, loss, params, *data, metrics or {}, prefix)
            row["seconds"] = time.perf_counter() - start
            for name, value in row.items():
                history.setdefault(name, []).append(value)
            bar.set_postfix(_shown(row), refresh=False)
            bar.update()
            if tolerance is not None and row["loss"] <= tolerance:
                stopped = "tolerance"
                break
    return FitResult(params, {name: np.array(values) for name, values in history.items()}, stopped)


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch, as often as asked for: `size` samples each, in `order` or as they stand."""

    x: Array
    y: Array
    size: int
    order: Array | None

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for i in range(0, len(self.x), self.size):
            part = slice(i, i + self.size) if self.order is None else self.order[i : i + self.size]
            yield self.x[part], self.y[part]


def _check_arguments(
    net: object, loss: object, optimizer: object, epochs: object, batch_size: object, engine: object
) -> None:
    for name, given, kind in (("net", net, Layer), ("loss", loss, Loss), ("optimizer", optimizer, Optimizer)):
        if not isinstance(given, kind):
            shown = f"the class {given.__name__}" if isinstance(given, type) else describe(given)
            raise TypeError(f"fit: {name} is {shown}; expected an instance of tinynet.{kind.__name__}")
    check_positive_int("fit", "epochs", epochs)
    if batch_size is not None:
        check_positive_int("fit", "batch_size", batch_size)
    if engine != "numpy":
        raise ValueError(f'fit: engine is {engine!r}; expected "numpy"')


def _samples(name_x: str, x: Array, name_y: str, y: Array) -> tuple[Array, Array]:
    x, y = _data(name_x, x), _data(name_y, y)
    if len(x) != len(y):
        raise ValueError(f"fit: {name_y} has {len(y)} samples; expected {len(x)}, as many as {name_x}")
    if len(x) == 0:
        raise ValueError(f"fit: {name_x} has shape {x.shape}; expected at least one sample")
    return x, y


def _data(name: str, data: Array) -> Array:
    array = np.asarray(data)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"fit: {name} has dtype {array.dtype}; expected real numbers; use numpy.asarray({name}, float)")
    if array.ndim == 0:
        raise ValueError(f"fit: {name} has shape (); expected (m, …), a row a sample")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise ValueError(f"fit: {name} has a value that is NaN or infinite, first in row {row}; expected finite")
    return array


def _cast(x: Array, dtype: Any) -> Array:
    return x.astype(dtype, copy=False) if x.dtype.kind == "f" else x


def _initial_params(net: Layer, params: Params, rng: np.random.Generator, dtype: Any) -> Params:
    initial = net.init(rng, dtype)
    if params is None:
        return map_leaves(np.array, initial)
    check_like("fit", "params", params, initial, "the network")
    params = map_leaves(np.array, params)
    dtypes = {p.dtype for p in leaves(params)}
    for path, p in leaves_with_paths(params):
        if p.dtype.kind != "f" or len(dtypes) > 1:
            raise TypeError(f"fit: params{path} has dtype {p.dtype}; expected one floating-point dtype throughout")
        if not np.isfinite(p).all():
            raise ValueError(f"fit: params{path} has a value that is NaN or infinite; expected finite numbers")
    return params


def _check_fit(net: Layer, loss: Loss, params: Params, x: Array, y: Array, name_y: str) -> None:
    """Send one sample through, so that data which do not fit are met before anything is trained."""
    y_hat, _ = net.forward(params, x[:1])
    expected = (len(x), *y_hat.shape[1:])
    if y.shape != expected:
        hint = f"; use {name_y}.reshape({expected})" if y.size == math.prod(expected) else ""
        raise ValueError(f"fit: {name_y} has shape {y.shape}; expected {expected}, that of the network's output{hint}")
    loss.forward(y_hat, y[:1])


def _join(loss: Loss, losses: list[float], m: int, size: int) -> float:
    if loss.reduction == "sum":
        return sum(losses)
    return sum(E * min(size, m - i * size) for i, E in enumerate(losses)) / m


def _evaluate(
    net: Layer, loss: Loss, params: Params, x: Array, y: Array, metrics: Mapping[str, Metric], prefix: str
) -> dict[str, float]:
    y_hat, _ = net.forward(params, x)
    row = {prefix + "loss": float(loss.forward(y_hat, y)[0])} if prefix else {}
    return row | {prefix + name: float(metric(y_hat, y)) for name, metric in metrics.items()}


def _all_finite(params: Params) -> bool:
    return all(bool(np.isfinite(p).all()) for p in leaves(params))


def _divergence(
    net: Layer, loss: Loss, optimizer: Optimizer, params: Params, state: Any, batches: Batches, epoch: int
) -> DivergenceError:
    """Walk the epoch again to where it left the finite numbers: a healthy epoch pays for no check at each update."""
    for batch, (x, y) in enumerate(batches):
        E, grads = value_and_grads(net, loss, params, x, y)
        if not np.isfinite(E):
            return DivergenceError(f"the loss became {float(E)}", epoch, batch, params)
        updated, state = optimizer.update(params, grads, state)
        if not _all_finite(updated):
            return DivergenceError("a parameter became infinite or NaN in the update", epoch, batch, params)
        params = updated
    raise AssertionError("the epoch did not repeat itself")


def _progress_bar(epochs: int, shown: bool) -> Any:
    if not shown:
        return _NoBar()
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('fit: progress=True needs tqdm; use pip install "tinynet[train]"') from None
    layout = "{percentage:3.0f}%|{bar}| {n}/{total} [{remaining}{postfix}]"  # with the numbers, within 80 columns
    return tqdm(total=epochs, unit="epoch", dynamic_ncols=True, bar_format=layout)


def _shown(row: dict[str, float]) -> dict[str, str]:
    """What the progress bar has room for: the loss, and each metric on the validation data where there are any."""
    seen_on_validation = {name for name in row if name != "loss" and f"validation_{name}" in row}
    shown = {name: value for name, value in row.items() if name != "seconds" and name not in seen_on_validation}
    return {name.replace("validation_", "val_"): f"{value:.3g}" for name, value in shown.items()}


class _NoBar:
    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_postfix(self, *_: object, **__: object) -> None:
        pass

    def update(self) -> None:
        pass

"""Predictions, losses and metrics of a network as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np

from tinynet.arrays import Array, Params, State, describe
from tinynet.checks import check_choice, check_positive_int
from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.losses import BinaryCrossEntropy, Loss
from tinynet.training.batches import arrays_in, cast, count, map_arrays, release, rows_of, samples
from tinynet.training.engines import TrainingState
from tinynet.trees import leaves, map_leaves

Metric: TypeAlias = Callable[[Any, Any], float]
"""(ŷ, y) -> a number to watch, over the whole of a data set."""

Metrics: TypeAlias = Mapping[str, Metric | str] | Iterable[str]
"""Metrics by the names that they have in the history; or names of those that are built in."""

EngineName: TypeAlias = Literal["numpy", "jax"]

AT_ONCE = 8192
"""Samples in a forward pass; more would take memory and save no time."""


def predict(
    net: Layer,
    params: Params,
    x: Any,
    *,
    state: State = None,
    batch_size: int = AT_ONCE,
    engine: EngineName = "numpy",
) -> Any:
    """Return ŷ of the network that evaluates, as NumPy arrays.

    Args:
        net, params: the network and its parameters.
        x: (m, …), one row per sample: an array, or a tuple or dict of arrays; in memory or mapped from a file. Floating
            point is rounded to the dtype of the parameters.
        state: the `state` of a result of `fit`, or that of the layers alone; None for a network without.
        batch_size: samples in a forward pass.
        engine: "numpy", or "jax" to compile it.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    check_positive_int("predict", "batch_size", batch_size)
    check_choice("predict", "engine", engine, ("numpy", "jax"))
    state = state.layers if isinstance(state, TrainingState) else state
    x, _ = samples("x", x, "y", None)
    dtype = next((p.dtype for p in leaves(params)), None)
    forward = _compiled(net, dtype) if engine == "jax" else lambda *given: forward_with_state(net, *given)[0]
    parts = []
    for i in range(0, count(x), batch_size):
        parts.append(forward(params, cast("x", rows_of(x, slice(i, i + batch_size)), dtype), state))
        release(x)
    return map_leaves(lambda *arrays: np.concatenate(arrays), *parts)


def evaluate(
    net: Layer,
    loss: Loss,
    params: Params,
    x: Any,
    y: Any,
    *,
    metrics: Metrics = (),
    state: State = None,
    batch_size: int = AT_ONCE,
    engine: EngineName = "numpy",
) -> dict[str, float]:
    """Return {"loss": E} of the network on (x, y), with each of `metrics` by its name.

    Args:
        loss: E joins all samples as it joins those of a batch.
        y: what the loss takes; None for none.
        metrics: functions of (ŷ, y) by name, or names: "accuracy", "r2", "rmse", "mae".
        the others: as for `predict`.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    x, y = samples("x", x, "y", y)
    y_hat = predict(net, params, x, state=state, batch_size=batch_size, engine=engine)
    y = cast("y", y, arrays_in(y_hat)[0].dtype)
    told = {"loss": float(loss.forward(y_hat, y)[0])}
    return told | {name: float(metric(y_hat, y)) for name, metric in metrics_by_name(metrics, loss).items()}


def measured(
    net: Layer, loss: Loss, params: Params, state: State, *, watched: Mapping[str, Any], metrics: Metrics, engine: Any
) -> dict[str, float]:
    """Return the metrics on the data, and those and the loss on the validation data, by their names in the history."""
    row: dict[str, float] = {}
    for prefix, (x, y) in watched.items():
        told = evaluate(net, loss, params, x, y, metrics=metrics, state=state, engine=engine)
        row |= {prefix + name: value for name, value in told.items() if prefix or name != "loss"}
    return row


def metrics_by_name(metrics: Metrics | None, loss: Loss) -> dict[str, Metric]:
    """Return the metrics as functions."""
    if metrics is None:
        return {}
    if isinstance(metrics, str) or not isinstance(metrics, (Mapping, Iterable)):
        raise TypeError(f"metrics is {describe(metrics)}; expected a dict of functions of (ŷ, y), or a list of names")
    given = metrics if isinstance(metrics, Mapping) else {name: name for name in metrics}
    built_in: dict[str, Metric] = {"accuracy": partial(_accuracy, loss), "r2": _r2, "rmse": _rmse, "mae": _mae}
    found = {}
    for name, metric in given.items():
        if isinstance(metric, str) and metric not in built_in:
            raise ValueError(f"metrics has {metric!r}; expected a function of (ŷ, y), or one of {sorted(built_in)}")
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(f"metrics[{name!r}] is {describe(metric)}; expected a function of (ŷ, y)")
        if not isinstance(name, str) or name in ("loss", "seconds") or name.startswith("validation_"):
            raise ValueError(f"metrics has the name {name!r}, which the history uses itself; use another one")
        found[name] = built_in[metric] if isinstance(metric, str) else metric
    return found


def _compiled(net: Layer, dtype: Any) -> Callable[[Params, Any, State], Any]:
    from tinynet.training.engines.jax import forward, precision

    def on_numpy(params: Params, x: Any, state: State) -> Any:
        with precision(dtype):
            return map_arrays(np.asarray, forward(net, params, state, x))

    return on_numpy


def _accuracy(loss: Loss, y_hat: Array, y: Any) -> float:
    """Return the share of samples whose class is right: the largest of the outputs, or the side that one output is on.

    y has integer classes, or one-hot rows of the shape of ŷ; or it is a tuple of them and of weights, which count
    nothing here. Samples that the loss ignores are left out; the share of none is NaN.
    """
    y = y[0] if isinstance(y, tuple) else y
    K = y_hat.shape[-1] if y_hat.ndim > 1 else 1
    if K > 1:
        right = y_hat.argmax(axis=-1) == (y.argmax(axis=-1) if y.ndim == y_hat.ndim else y)
        ignored = getattr(loss, "ignore_index", None)
        counted = right if ignored is None or y.ndim == y_hat.ndim else right[y != ignored]
        return float(np.mean(counted)) if counted.size else math.nan
    border = 0.0 if isinstance(loss, BinaryCrossEntropy) else 0.5  # a logit, or a number between the targets 0 and 1
    return float(np.mean((y_hat.reshape(-1) > border) == (y.reshape(-1) > 0.5)))


def _r2(y_hat: Array, y: Array) -> float:
    """Return R² = 1 − Σ (ŷ − y)² / Σ (y − ȳ)², the mean over the outputs; NaN for an output that is constant."""
    y_hat, y = (a.reshape(len(a), -1).astype(np.float64) for a in (y_hat, y))
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(np.where(total > 0, 1 - ((y_hat - y) ** 2).sum(axis=0) / total, np.nan)))


def _rmse(y_hat: Array, y: Array) -> float:
    return float(np.sqrt(np.mean((y_hat - y) ** 2)))


def _mae(y_hat: Array, y: Array) -> float:
    return float(np.mean(np.abs(y_hat - y)))

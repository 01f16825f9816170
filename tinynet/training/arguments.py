"""The arguments of `fit`: checked, and made into what it works with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, describe
from tinynet.checks import check_number, check_positive_int
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.training.batches import Samples, Stream, cast, sample_weights, samples
from tinynet.training.callbacks import EarlyStopping
from tinynet.training.checkpoints import fingerprint
from tinynet.training.engines import Engine, TrainingState
from tinynet.training.engines.numpy import NumpyEngine
from tinynet.trees import check_like, leaves, leaves_with_paths, map_leaves


def check_arguments(
    net: object,
    loss: object,
    optimizer: object,
    epochs: object,
    batch_size: object,
    engine: object,
    threads: object,
    mesh: object,
    seed: object,
    shuffle: object,
    state: object,
) -> None:
    """Raise TypeError or ValueError at the first argument that says how to train and cannot be taken."""
    if engine not in ("numpy", "jax"):
        raise ValueError(f'fit: engine is {engine!r}; expected "numpy" or "jax"')
    for name, given, kind in (("net", net, Layer), ("loss", loss, Loss), ("optimizer", optimizer, Optimizer)):
        if isinstance(given, kind) or (name == "optimizer" and is_optax(given) and engine == "jax"):
            continue
        if name == "optimizer" and is_optax(given):
            raise TypeError('fit: optimizer is an Optax transformation, which needs engine="jax"')
        shown = f"the class {given.__name__}" if isinstance(given, type) else describe(given)
        raise TypeError(f"fit: {name} is {shown}; expected an instance of tinynet.{kind.__name__}")
    check_positive_int("fit", "epochs", epochs)
    for name, count in {"batch_size": batch_size, "threads": threads}.items():
        if count is not None:
            check_positive_int("fit", name, count)
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"fit: seed is {seed!r}; expected an int of at least 0")
    if not isinstance(shuffle, (bool, np.bool_)):
        raise TypeError(f"fit: shuffle is {shuffle!r}; expected True or False")
    if state is not None and not isinstance(state, TrainingState):
        raise TypeError(f"fit: state is {describe(state)}; expected a tinynet.TrainingState, as `state` of a result is")
    if engine == "jax" and threads is not None:
        raise ValueError('fit: threads is for engine="numpy"; JAX takes its number when it starts')
    if engine != "jax" and mesh is not None:
        raise ValueError('fit: mesh needs engine="jax"')


def check_watching(
    validation: object, metrics: object, early_stopping: object, tolerance: object, trained_on_arrays: bool
) -> None:
    """Raise TypeError or ValueError unless what `fit` is to measure after each epoch can be."""
    if validation is not None and not (isinstance(validation, (tuple, list)) and len(validation) == 2):
        given = f"{len(validation)} entries" if isinstance(validation, (tuple, list)) else describe(validation)
        raise TypeError(f"fit: validation is {given}; expected a tuple (x, y)")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"fit: metrics is {describe(metrics)}; expected a dict of functions of (ŷ, y)")
    names = dict(metrics or {})
    for name, metric in names.items():
        if not callable(metric):
            raise TypeError(f"fit: metrics[{name!r}] is {describe(metric)}; expected a function of (ŷ, y)")
        if not isinstance(name, str) or name in ("loss", "seconds") or name.startswith("validation_"):
            raise ValueError(f"fit: metrics has the name {name!r}, which the history uses itself; use another one")
    if tolerance is not None:
        check_number("fit", "tolerance", tolerance)
    if early_stopping is None:
        return
    if not isinstance(early_stopping, EarlyStopping):
        raise TypeError(f"fit: early_stopping is {describe(early_stopping)}; expected a tinynet.EarlyStopping")
    measured = {"loss", "seconds", *(names if trained_on_arrays else ())}
    if validation is not None:
        measured |= {"validation_loss", *(f"validation_{name}" for name in names)}
    if early_stopping.monitor not in measured:
        raise ValueError(
            f"fit: early_stopping monitors {early_stopping.monitor!r}, which is not measured; expected one of "
            f"{sorted(measured)}, or validation=(x, y)"
        )


def check_calls(
    callbacks: object, step_callbacks: object, verify_every: object, checkpoint: object, every: object
) -> None:
    """Raise TypeError or ValueError unless what `fit` is to call and to write on its way can be."""
    for name, given in (("callbacks", callbacks), ("step_callbacks", step_callbacks)):
        if not isinstance(given, (tuple, list)) or not all(map(callable, given)):
            raise TypeError(f"fit: {name} is {given!r:.60}; expected a list of functions")
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise TypeError(f"fit: checkpoint is {describe(checkpoint)}; expected the path of a file")
    for name, count in {"verify_every": verify_every, "every": every}.items():
        if count is not None:
            check_positive_int("fit", name, count)
    if every is not None and checkpoint is None:
        raise ValueError("fit: every is for checkpoint=, which is not given")


def source(
    x: Any, y: Any, sample_weight: Any, class_weight: Any, batch_size: int | None, shuffle: bool, epochs: int
) -> Samples | Stream:
    """Return where the batches come from."""
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


def initial_params(net: Layer, params: Params, rng: np.random.Generator, dtype: Any) -> Params:
    """Return the parameters to start from: `params`, checked, or drawn."""
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


def check_fits(net: Layer, loss: Loss, params: Params, x: Array, y: Array, name_y: str, dtype: Any) -> None:
    """Send one sample through, so that data which do not fit are met before anything is trained."""
    y_hat, _ = net.forward(params, cast(x[:1], dtype))
    expected = (len(x), *y_hat.shape[1:])
    if y.shape != expected:
        hint = f"; use {name_y}.reshape({expected})" if y.size == math.prod(expected) else ""
        raise ValueError(f"fit: {name_y} has shape {y.shape}; expected {expected}, that of the network's output{hint}")
    loss.forward(y_hat, cast(y[:1], dtype))


def make_engine(
    name: str, net: Layer, loss: Loss, optimizer: Any, dtype: Any, work: float, threads: int | None, mesh: Any
) -> Engine:
    """Return the engine called `name`."""
    if name == "numpy":
        return NumpyEngine(net, loss, optimizer, work, threads)
    from tinynet.training.engines.jax import JaxEngine

    return JaxEngine(net, loss, optimizer, mesh, dtype)


def settings_of(
    data: Samples | Stream,
    loss: Loss,
    optimizer: Any,
    early_stopping: EarlyStopping | None,
    seed: int,
    batch_size: int | None,
    shuffle: bool,
    engine: str,
) -> dict[str, Any]:
    """Return what decides each bit of a run's result, as a file can hold it."""
    return {
        "loss": loss,
        "optimizer": "an Optax transformation" if is_optax(optimizer) else optimizer,
        "data": fingerprint(data.x, data.y, data.weights) if isinstance(data, Samples) else "an iterable of batches",
        "early_stopping": early_stopping and asdict(early_stopping),
        "seed": seed,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "engine": engine,
    }


def is_optax(optimizer: object) -> bool:
    """Return whether `optimizer` has the form of an Optax transformation."""
    return isinstance(optimizer, tuple) and hasattr(optimizer, "init") and hasattr(optimizer, "update")

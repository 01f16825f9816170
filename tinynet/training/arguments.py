"""The arguments of `fit`: checked, and made into what it works with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from tinynet.arrays import Params, State, describe, is_array
from tinynet.checks import check_choice, check_instance, check_natural, check_number, check_positive_int
from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.training.batches import (
    Samples,
    Stream,
    arrays_in,
    cast,
    cast_in_memory,
    count,
    is_data,
    map_arrays,
    rows_of,
    sample_weights,
    samples,
)
from tinynet.training.callbacks import EarlyStopping
from tinynet.training.engines import TrainingState, first_layers_state
from tinynet.training.evaluation import metrics_by_name
from tinynet.training.settings import is_optax, monitored
from tinynet.training.trial import check_fits
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
    check_choice("fit", "engine", engine, ("numpy", "jax"))
    check_instance("fit", "net", net, Layer)
    check_instance("fit", "loss", loss, Loss)
    if not is_optax(optimizer):
        check_instance("fit", "optimizer", optimizer, Optimizer)
    elif engine != "jax":
        raise TypeError('fit: optimizer is an Optax transformation, which needs engine="jax"')
    check_positive_int("fit", "epochs", epochs)
    for name, number in {"batch_size": batch_size, "threads": threads}.items():
        if number is not None:
            check_positive_int("fit", name, number)
    check_natural("fit", "seed", seed)
    if not isinstance(shuffle, (bool, np.bool_)):
        raise TypeError(f"fit: shuffle is {shuffle!r}; expected True or False")
    if state is not None and not isinstance(state, TrainingState):
        raise TypeError(f"fit: state is {describe(state)}; expected a tinynet.TrainingState, as `state` of a result is")
    if engine == "jax" and threads is not None:
        raise ValueError('fit: threads is for engine="numpy"; JAX takes its number when it starts')
    if engine != "jax" and mesh is not None:
        raise ValueError('fit: mesh needs engine="jax"')


def check_watching(
    validation: Any,
    metrics: Any,
    early_stopping: object,
    tolerance: object,
    trained_on_arrays: bool,
    loss: Loss,
    optimizer: object,
) -> None:
    """Raise TypeError or ValueError unless what `fit` is to measure after each epoch can be."""
    if isinstance(validation, (float, np.floating)):
        if not 0 < validation < 1:
            raise ValueError(f"fit: validation is {validation!r}; expected a share of the samples between 0 and 1")
        if not trained_on_arrays:
            raise ValueError("fit: validation is a share of the samples, but x is an iterable; expected (x, y)")
    elif validation is not None and not (isinstance(validation, (tuple, list)) and len(validation) == 2):
        given = f"{len(validation)} entries" if isinstance(validation, (tuple, list)) else describe(validation)
        raise TypeError(f"fit: validation is {given}; expected a tuple (x, y)")
    try:
        names = metrics_by_name(metrics, loss)
    except (TypeError, ValueError) as error:
        raise type(error)(f"fit: {error}") from None
    if tolerance is not None:
        check_number("fit", "tolerance", tolerance)
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise TypeError(f"fit: early_stopping is {describe(early_stopping)}; expected a tinynet.EarlyStopping")
    measured = {"loss", "seconds", *(names if trained_on_arrays else ())}
    if validation is not None:
        measured |= {"validation_loss", *(f"validation_{name}" for name in names)}
    for who, watched in (("optimizer", monitored(optimizer)), ("early_stopping", monitored(None, early_stopping))):
        if missing := sorted(watched - measured):
            raise ValueError(
                f"fit: {who} monitors {missing[0]!r}, which is not measured; expected one of {sorted(measured)}, or "
                "validation=(x, y)"
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
    for name, number in {"verify_every": verify_every, "every": every}.items():
        if number is not None:
            check_positive_int("fit", name, number)
    if every is not None and checkpoint is None:
        raise ValueError("fit: every is for checkpoint=, which is not given")


def source(
    loss: Loss,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: Any,
    batch_size: int | None,
    shuffle: bool,
    epochs: int,
) -> Samples | Stream:
    """Return where the batches come from."""
    if (sample_weight is not None or class_weight is not None) and not loss.samplewise():
        raise ValueError(f"fit: the loss of a sample depends on the others in {loss}; expected no weights of samples")
    if y is None and not is_data(x):
        if not (callable(x) or isinstance(x, Iterable)):
            raise TypeError(f"fit: x is {describe(x)}; expected arrays, or an iterable of batches (x, y)")
        if batch_size is not None:
            raise ValueError("fit: batch_size is for arrays; an iterable x makes its own batches")
        if sample_weight is not None or class_weight is not None:
            raise ValueError("fit: weights are for arrays; an iterable x yields its own, as (x, y, weights)")
        return Stream(x, epochs)
    x, y = samples("x", x, "y", y)
    batch_size = None if batch_size is None else int(batch_size)
    return Samples(x, y, sample_weights(y, sample_weight, class_weight, count(x)), batch_size, shuffle)


def split_off(data: Samples | Stream, validation: Any, seed: int) -> tuple[Samples | Stream, tuple[Any, Any] | None]:
    """Return the data to train on and (x, y) to validate on, if any."""
    if validation is None:
        return data, None
    if not isinstance(validation, (float, np.floating)):
        return data, samples("validation[0]", validation[0], "validation[1]", validation[1])
    assert isinstance(data, Samples)  # as `check_watching` has seen to
    m = count(data.x)
    held_out = math.ceil(validation * m)
    if held_out == m:
        raise ValueError(f"fit: validation is {validation!r}, all of the {m} samples; expected a smaller share")
    order = np.random.default_rng(seed).spawn(3)[2].permutation(m)
    x, y, weights = (
        map_arrays(lambda a: a[np.sort(order[held_out:])], part) for part in (data.x, data.y, data.weights)
    )
    rest = map_arrays(lambda a: a[np.sort(order[:held_out])], (data.x, data.y))
    return replace(data, x=x, y=y, weights=weights), rest


def initial_params(net: Layer, params: Params, rng: np.random.Generator, dtype: Any) -> Params:
    """Return the parameters to start from: `params`, checked, or drawn."""
    initial = net.init(rng, dtype)
    for path, p in leaves_with_paths(initial):
        if not is_array(p) or p.dtype != dtype:
            raise TypeError(
                f"fit: init makes params{path} {describe(p)}; expected an array of {dtype}, the dtype it is given"
            )
    if params is None:
        return initial
    check_like("fit", "params", params, initial, "the network")
    params = map_leaves(np.asarray, params)
    dtypes = {p.dtype for p in leaves(params)}
    for path, p in leaves_with_paths(params):
        if p.dtype in ("float16", "bfloat16"):
            raise TypeError(
                f"fit: params{path} has dtype {p.dtype}, whose small gradients would be 0; expected float32 or "
                "float64; use tn.map_leaves(lambda p: p.astype(numpy.float32), params)"
            )
        if p.dtype.kind != "f" or len(dtypes) > 1:
            raise TypeError(f"fit: params{path} has dtype {p.dtype}; expected one floating-point dtype throughout")
        if not np.isfinite(p).all():
            raise ValueError(f"fit: params{path} has a value that is NaN or infinite; expected finite numbers")
    return params


def first_dtype(x: Any) -> Any:
    """Return the dtype in which parameters are drawn: that of the floating-point data, of 32 bits at least."""
    found = [a.dtype for a in arrays_in(x) if a.dtype.kind == "f"]
    return np.result_type(np.float32, *found)


def fitted(
    net: Layer, loss: Loss, data: Samples | Stream, held_out: Any, params: Params, state: Any, metrics: Any
) -> tuple[Samples | Stream, dict[str, tuple[Any, Any]], State, Any]:
    """Return the data in the dtype of `params`, what is measured after each epoch, the layers' state and that dtype.

    What is measured is (x, y) by the prefix of its names in the history, "" or "validation_".
    """
    dtype = next((p.dtype for p in leaves(params)), first_dtype(data.x))
    data, layers = data.as_dtype(dtype), first_layers_state(net, dtype, state)
    check_fits("the data", net, loss, params, layers, data.x, data.y, dtype)
    watched = {"": (data.x, data.y)} if metrics and isinstance(data, Samples) else {}
    if held_out is not None:
        watched["validation_"] = x, y = cast_in_memory("validation", held_out, dtype)
        check_fits("the validation data", net, loss, params, layers, x, y, dtype)
    return data, watched, layers, dtype


def check_joins(net: Layer, loss: Loss, params: Params, state: Any, data: Samples | Stream, dtype: Any) -> bool:
    """Return whether the losses of single samples join to that of a batch, as they must where samples have weights.

    A few are looked at, whatever the loss says.
    """
    x, y = rows_of((data.x, data.y), slice(4))
    y_hat, _ = forward_with_state(net, params, cast("x", x, dtype), state)
    y, m = cast("y", y, dtype), count(x)
    each = [float(loss.forward(*rows_of((y_hat, y), slice(i, i + 1)))[0]) for i in range(m)]
    joined, E = sum(each) / (m if loss.reduction == "mean" else 1), float(loss.forward(y_hat, y)[0])
    joins = loss.samplewise() and abs(joined - E) <= 1e-4 * sum(map(abs, each))
    if not joins and data.weights is not None:
        raise ValueError(
            f"fit: the losses of single samples do not join to that of their batch in {loss}: {m} of them to "
            f"{joined:.6g}, their batch has {E:.6g}; expected no weights of samples"
        )
    return joins

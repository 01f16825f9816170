"""From what is to be verified to its subject, with random arrays where none are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.trees import leaves_with_paths, map_leaves
from tinynet.verification.subjects.contract import LayerSubject, LossSubject, NetworkSubject
from tinynet.verification.subjects.functions import Closure, PairSubject
from tinynet.verification.subjects.likeness import distributions, perturbed
from tinynet.verification.subjects.objects import ObjectSubject, get, param_slots
from tinynet.verification.subjects.subject import Subject, TargetError, fresh, pair, short

__all__ = ["make_subject"]


def make_subject(target: Any, inputs: Any, params: Any, loss: Loss | None, rng: np.random.Generator) -> Subject:
    """Bring `target` to the one form, with random arrays where none are given.

    Raises:
        TargetError: it is nothing that can be verified, or its arrays cannot be guessed.
    """
    if isinstance(target, type):
        target = _construct(target)
    if isinstance(target, Loss):
        return _loss_subject(target, inputs, rng)
    if isinstance(target, Layer):
        return _layer_subject(target, inputs, params, loss, rng)
    if loss is not None:
        raise TargetError("loss= goes with a tinynet Layer; expected target to be one")
    if isinstance(target, (tuple, list)) and len(target) == 2 and all(map(callable, target)):
        forward, backward = target
        return PairSubject(forward, backward, _example_values(forward, inputs, rng))
    if callable(getattr(target, "forward", None)) and callable(getattr(target, "backward", None)):
        return _object_subject(target, inputs, rng)
    if callable(target):
        return Closure(target, _example_values(target, inputs, rng))
    raise TargetError(
        f"target is {type(target).__name__}; expected a tinynet Layer or Loss, an object with forward(x) and "
        "backward(dy), a function that returns (y, backprop), or a pair (forward, backward)"
    )


def _layer_subject(layer: Layer, inputs: Any, params: Any, loss: Loss | None, rng: np.random.Generator) -> Subject:
    given = _arrays(inputs, rng) if inputs is not None else ()
    if params is None:
        params = map_leaves(lambda p: perturbed(np.asarray(p), rng), layer.init(rng, np.float64))
    params = map_leaves(_as_float64, params)
    if given:
        x = given[0]
        _try_forward(layer, params, x, raising=True)
    else:
        x = _guess_input(layer, params, rng)
    if loss is None:
        return LayerSubject(layer, params, x)
    y_hat = pair(_forward_on_copies(layer, params, x), "forward", "(y, cache)")[0]
    y = given[1] if len(given) > 1 else distributions(np.shape(y_hat), rng)
    return NetworkSubject(layer, loss, params, x, y)


def _loss_subject(loss: Loss, inputs: Any, rng: np.random.Generator) -> Subject:
    given = _arrays(inputs, rng) if inputs is not None else [rng.standard_normal((5, 3))]
    y_hat = given[0]
    return LossSubject(loss, y_hat, given[1] if len(given) > 1 else distributions(y_hat.shape, rng))


def _object_subject(target: Any, inputs: Any, rng: np.random.Generator) -> Subject:
    if inputs is not None:
        return ObjectSubject(target, _arrays(inputs, rng)[0], rng)
    slots = param_slots(target)
    widths = [n for slot in slots.values() for n in np.shape(get(target, slot))]
    for n in dict.fromkeys([*widths, 4]):
        subject = ObjectSubject(target, rng.standard_normal((5, n)), rng)
        try:
            subject.session().forward(subject.args)
        except Exception:
            continue
        return subject
    raise TargetError(f"{type(target).__name__}: no input shape that its forward accepts was found; give inputs=x")


def _guess_input(layer: Layer, params: Any, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Find an input that the layer's forward accepts, by its own numbers.

    In this order: features (m, n), images (m, n, h, w), series (m, n, t), sequences (m, t, n), indices.
    """
    sizes = [p.shape for _, p in leaves_with_paths(params)] + [(n,) for n in _ints(layer)]
    widths = [*(s[-1] for s in sizes if s), *(s[1] for s in sizes if len(s) > 1), *(s[0] for s in sizes if s), 4]
    for n in dict.fromkeys(widths):
        for shape in ((5, n), (3, n, 7, 6), (3, n, 7), (5, 4, n)):
            x = rng.standard_normal(shape)
            if _try_forward(layer, params, x):
                return x
    indices = rng.integers(0, max([2, *(s[0] for s in sizes if s)]), (5, 3))
    if _try_forward(layer, params, indices):
        return indices
    raise TargetError(f"{short(layer)}: no input shape that its forward accepts was found; give inputs=x")


def _forward_on_copies(layer: Layer, params: Any, x: npt.NDArray[Any]) -> Any:
    return fresh(layer).forward(map_leaves(np.copy, params), x.copy())


def _try_forward(layer: Layer, params: Any, x: npt.NDArray[Any], raising: bool = False) -> bool:
    try:
        _forward_on_copies(layer, params, x)
    except Exception as error:
        if raising:
            raise TargetError(f"{short(layer)}: forward does not accept inputs= ({error})") from error
        return False
    return True


def _example_values(forward: Callable[..., Any], inputs: Any, rng: np.random.Generator) -> tuple[Any, ...]:
    if inputs is not None:
        return _arrays(inputs, rng)
    try:
        required = [
            p
            for p in inspect.signature(forward).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        required = []
    if len(required) != 1:
        raise TargetError(
            f"{getattr(forward, '__qualname__', forward)}: takes {len(required)} arguments; give inputs=, an array each"
        )
    return (rng.standard_normal((5, 3)),)


def _arrays(inputs: Any, rng: np.random.Generator) -> tuple[npt.NDArray[Any], ...]:
    """Turn `inputs` into arrays: an array, a tuple of arrays, a dict of arrays, or a shape to fill at random."""
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, (tuple, list)) and inputs and all(isinstance(n, int) for n in inputs):
        return (rng.standard_normal(tuple(inputs)),)
    if not isinstance(inputs, (tuple, list)):
        inputs = (inputs,)
    return tuple(_as_float64(value) for value in inputs)


def _as_float64(value: Any) -> npt.NDArray[Any]:
    array = np.array(value)
    if array.dtype.kind not in "fiub":
        raise TargetError(f"inputs or params hold {array.dtype}; expected arrays of real numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise TargetError("inputs or params hold a value that is NaN or infinite; expected finite numbers")
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _construct(cls: type) -> Any:
    """Build an instance: with no arguments, or with small widths for required int arguments."""
    try:
        return cls()
    except TypeError:
        pass
    required = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    if all(p.annotation in (int, "int", p.empty) for p in required):
        try:
            return cls(*[4, 3, 2, 5, 6][: len(required)])
        except Exception as error:
            raise TargetError(f"{cls.__name__}: could not be constructed ({error}); give an instance") from error
    raise TargetError(f"{cls.__name__}: takes arguments that cannot be guessed; give an instance")


def _ints(layer: Any) -> list[int]:
    values = [getattr(layer, f.name) for f in fields(layer)] if is_dataclass(layer) else list(vars(layer).values())
    parts = [n for value in values for n in (value if isinstance(value, tuple) else (value,))]
    nested = [n for value in parts if isinstance(value, Layer) for n in _ints(value)]
    return [n for n in parts if isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 4096] + nested

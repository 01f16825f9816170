"""Adapters: from a target as people write it to a `Subject`, the one form that the rest of the verifier knows."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import custom_jvp, custom_vjp

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.verification.adapters.arguments import read_arguments
from tinynet.verification.adapters.chainer import adapt_function_node, as_one_tuple
from tinynet.verification.adapters.context import adapt_context
from tinynet.verification.adapters.contract import adapt_layer, adapt_loss
from tinynet.verification.adapters.conventions import returns_backprop, value_and_gradient
from tinynet.verification.adapters.functions import adapt_closure, adapt_pair, adapt_value_and_gradient
from tinynet.verification.adapters.jax import adapt_jax
from tinynet.verification.adapters.objects import METHODS, adapt_object, methods_of
from tinynet.verification.adapters.parts import fresh
from tinynet.verification.adapters.reachable import reachable
from tinynet.verification.adapters.subject import Subject, TargetError, short

__all__ = ["Subject", "TargetError", "adapt"]


def adapt(target: Any, *, inputs: Any, params: Any, loss: Loss | None, rng: np.random.Generator) -> list[Subject]:
    """Return the readings of a target, the likeliest first; most targets have one.

    Raises:
        TargetError: it is nothing that can be verified, or its arrays cannot be guessed.
    """
    for library in ("torch", "thinc", "autograd"):
        if library in sys.modules:
            module = importlib.import_module(f"tinynet.verification.adapters.{library}")
            if library == "torch" and (readings := module.adapt_by_hand(target, inputs, rng)):
                return list(readings)
            found: Subject | None = getattr(module, f"adapt_{library}")(target, inputs, params, rng)
            if found is not None:
                return [found]
    if (pair := adapt_context(target, inputs, rng)) is not None:
        return pair
    if isinstance(target, type):
        return adapt(constructed(target), inputs=inputs, params=params, loss=loss, rng=rng)
    if isinstance(target, Loss):
        _only_for_layers("params", params)
        return [adapt_loss(target, inputs, rng)]
    if isinstance(target, Layer):
        return [adapt_layer(target, inputs, params, loss, rng)]
    if loss is not None:
        raise TargetError("loss= goes with a tinynet Layer; expected target to be one")
    if isinstance(target, (tuple, list)) and len(target) == 2 and all(map(callable, target)):
        _only_for_layers("params", params)
        return adapt_pair(target[0], target[1], inputs, rng)
    if (node := adapt_function_node(target, inputs, rng)) is not None:
        _only_for_layers("params", params)
        return [node]
    if (names := methods_of(target)) is not None and not inspect.isfunction(target):
        if inspect.ismodule(target):
            return adapt_pair(getattr(target, names[0]), getattr(target, names[1]), inputs, rng)
        return adapt_object(target, names, as_one_tuple(target, inputs), params, rng)
    if (readings := _returning_backprop(target, inputs, params, rng)) is not None:
        return readings
    if callable(target):
        _only_for_layers("params", params)
        return [_function(target, inputs, rng)]
    half = next((f for f, _ in METHODS if f != "__call__" and callable(getattr(target, f, None))), None)
    lacks = f" with {half}, and no backward that goes with it" if half else ""
    raise TargetError(f"target is {type(target).__name__}{lacks}; expected {_FORMS}")


_FORMS = (
    "a tinynet Layer or Loss, a pair (forward, backward), an object with forward and backward, a function that returns "
    "(y, backprop) or (E, gradient), a torch.autograd.Function or Module, or a jax.custom_vjp function"
)


def _returning_backprop(target: Any, inputs: Any, params: Any, rng: np.random.Generator) -> list[Subject] | None:
    """Return an object with parameters of which one method returns (y, backprop); None of anything else."""
    owner, name = target, next((n for n in ("forward", "__call__") if callable(getattr(target, n, None))), "")
    if inspect.ismethod(target):
        owner, name = target.__self__, target.__name__
    if not name or inspect.isroutine(owner) or not reachable(owner):
        return None
    try:
        arguments, arrays = read_arguments(getattr(owner, name), inputs, rng, name=short(target), integers=True)
        out = arguments.call(getattr(fresh(owner), name), {n: a.copy() for n, a in arrays.items()})
    except Exception:
        return None
    return adapt_object(owner, (name, name), inputs, params, rng) if returns_backprop(out) else None


def _function(target: Callable[..., Any], inputs: Any, rng: np.random.Generator) -> Subject:
    if isinstance(target, (custom_vjp, custom_jvp)):
        found = adapt_jax(target, inputs, rng)
        assert found is not None
        return found
    arguments, arrays = read_arguments(target, inputs, rng, name=short(target))
    try:
        out = arguments.call(fresh(target), {n: a.copy() for n, a in arrays.items()})
    except Exception as error:
        if (found := adapt_jax(target, inputs, rng)) is not None:
            return found
        hint = ""
        if hasattr(target, "apply") and hasattr(target, "init"):
            hint = "; its parameters stand apart: give lambda params, x: module.apply(params, x) and inputs=(params, x)"
        text = f"{short(target)}: cannot be called with inputs=: {type(error).__name__}: {error}"
        raise TargetError(text + hint) from error
    if returns_backprop(out):
        return adapt_closure(target, out, inputs, rng)
    if value_and_gradient(out) is not None:
        return adapt_value_and_gradient(target, inputs, rng)
    if (found := adapt_jax(target, inputs, rng)) is not None:
        return found
    seen = f"a tuple of {len(out)}" if isinstance(out, tuple) else type(out).__name__
    raise TargetError(
        f"{short(target)}: returns {seen}, and no backward pass was found; give a pair (forward, backward), or a "
        "function that returns (y, backprop) or (E, gradient)"
    )


def _only_for_layers(name: str, value: Any) -> None:
    if value is not None:
        raise TargetError(f"{name}= goes with a layer or an object; give the arrays of a function as inputs=")


def constructed(cls: type) -> Any:
    """Build an instance: with no arguments, or with small widths for required int arguments."""
    try:
        return cls()
    except TypeError:
        pass
    except SystemExit as error:
        raise TargetError(f"{cls.__name__}() raises SystemExit: {error}; give an instance") from error
    required = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    if all(p.annotation in (int, "int", *([p.empty] if issubclass(cls, (Layer, Loss)) else [])) for p in required):
        try:
            return cls(*[4, 3, 2, 5, 6][: len(required)])
        except Exception as error:
            raise TargetError(f"{cls.__name__}: could not be constructed ({error}); give an instance") from error
    names = ", ".join(p.name for p in required)
    raise TargetError(
        f"{cls.__name__}: takes {names}, which cannot be guessed; give an instance, {cls.__name__}({names})"
    )

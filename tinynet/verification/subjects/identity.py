"""Which subjects have one and the same forward function."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.trees import leaves_with_paths
from tinynet.verification.tracing import names_in

__all__ = ["forward_key", "function_key"]


def forward_key(params: Any, *targets: Any) -> Any:
    """What a forward pass is a function of besides its arrays; None where that cannot be known.

    An object that compares by identity may change behind an equal hash; a frozen dataclass of plain values may not.
    """
    try:
        key = (_structure(params), tuple(map(_configuration, targets)))
        hash(key)
    except TypeError:
        return None
    return key


def _structure(params: Any) -> Any:
    return tuple(path for path, _ in leaves_with_paths(params))


def _configuration(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_configuration, value))
    if not isinstance(value, (Layer, Loss)):
        return value
    if not is_dataclass(value):
        raise TypeError
    # A class that is wrong on purpose says whose forward pass it has.
    cls = getattr(type(value), "_forward_of", type(value))
    return (cls, *(_configuration(getattr(value, f.name)) for f in fields(value)))


def function_key(function: Any) -> Any:
    """What a function computes: its code and all that the code refers to; None where that cannot be told."""
    try:
        key = _meaning(function, [])
        hash(key)
    except (TypeError, ValueError):
        return None
    return key


def _meaning(value: Any, above: list[Any]) -> Any:
    if any(value is f for f in above):
        return "recursion", value.__qualname__
    if isinstance(value, types.FunctionType):
        names = [n for n in sorted(names_in(value.__code__)) if n in value.__globals__]
        refers = [value.__globals__[n] for n in names] + [c.cell_contents for c in value.__closure__ or ()]
        rest = (value.__defaults__, value.__kwdefaults__, value.__dict__)
        return value.__code__, tuple(names), tuple(_meaning(v, [*above, value]) for v in (*refers, *rest))
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_meaning(v, above) for v in value)
    if isinstance(value, dict):
        return dict, tuple((k, _meaning(v, above)) for k, v in value.items())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic)):
        return type(value), value
    if isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
        return value
    if callable(value) and type(value).__module__ == "numpy":
        return value
    raise TypeError(f"what a {type(value).__name__} means cannot be told from its value")

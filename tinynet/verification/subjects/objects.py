"""Objects that keep their cache and gradients on `self` as subjects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.verification.subjects.likeness import perturbed
from tinynet.verification.subjects.subject import MISSING, Args, Gradients, Session, Subject, fresh
from tinynet.verification.tracing import traceable

__all__ = ["ObjectSubject", "get", "param_slots"]


@dataclass
class _ObjectSession(Session):
    target: Any
    slots: dict[str, tuple[str, ...]]
    keeps_one_cache = True

    def forward(self, args: Args) -> tuple[Any, Any]:
        _put_params(self.target, self.slots, args)
        return _first(self.target.forward(args["x"])), None

    def backward(self, context: Any, dy: Any) -> Gradients:
        for reset in ("zero_grad", "zero_grads"):
            if callable(getattr(self.target, reset, None)):
                getattr(self.target, reset)()
        out = self.target.backward(dy)
        values = list(out) if isinstance(out, (tuple, list)) else [out]
        dx, rest = values[0] if values else MISSING, values[1:]
        grads: Gradients = {"x": dx}
        for (name, slot), value in zip(self.slots.items(), rest or [MISSING] * len(self.slots), strict=False):
            grads[name] = _find_gradient(self.target, slot) if value is MISSING else value
        return grads

    def params_now(self) -> Args:
        return {name: np.asarray(get(self.target, slot)) for name, slot in self.slots.items()}


class ObjectSubject(Subject):
    """An object with forward(x) and backward(dy) that keeps parameters, cache and gradients on itself."""

    def __init__(self, target: Any, x: npt.NDArray[Any], rng: np.random.Generator | None = None) -> None:
        self.target, self.slots, self.name = target, param_slots(target), type(target).__name__
        self.args = {"x": x}
        for name, slot in self.slots.items():
            value = np.array(get(target, slot), np.float64)
            self.args[name] = value if rng is None else perturbed(value, rng)
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f")
        self.code = (type(target).backward,)

    def session(self) -> Session:
        return _ObjectSession(fresh(self.target), self.slots)

    def pure(self, args: Mapping[str, Any]) -> Any:
        target = traceable(self.target) if self.rebound else fresh(self.target)
        _put_params(target, self.slots, args)
        return _first(target.forward(args["x"]))


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) and out else out


_CACHE_NAME = re.compile(r"^_|cache|^d[A-Z_]|^d(w|b|gamma|beta|weights?|bias)$|grad|^(x|z|a|y|out|inp|input|output)s?$")


def param_slots(target: Any) -> dict[str, tuple[str, ...]]:
    """Find the parameters on an object: floating arrays that are there before the first forward pass."""
    slots: dict[str, tuple[str, ...]] = {}
    for name, value in vars(target).items() if hasattr(target, "__dict__") else ():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not _CACHE_NAME.search(name):
            slots[name] = (name,)
        elif isinstance(value, dict) and name.strip("_") in ("params", "parameters", "weights", "p"):
            for key, part in value.items():
                if isinstance(part, np.ndarray) and part.dtype.kind == "f":
                    slots[f"{name}.{key}"] = (name, key)
    return slots


def get(target: Any, slot: tuple[str, ...]) -> Any:
    """Return the parameter in a slot of `target`."""
    value = getattr(target, slot[0])
    return value if len(slot) == 1 else value[slot[1]]


def _put_params(target: Any, slots: Mapping[str, tuple[str, ...]], args: Mapping[str, Any]) -> None:
    for name, slot in slots.items():
        if len(slot) == 1:
            setattr(target, slot[0], args[name])
        else:
            getattr(target, slot[0])[slot[1]] = args[name]


def _find_gradient(target: Any, slot: tuple[str, ...]) -> Any:
    """Find where an object keeps the gradient of a parameter: dW, grad_W, W_grad, grads["W"], grads["dW"], …"""
    name = slot[-1]
    spellings = [
        f"d{name}",
        f"d_{name}",
        f"grad_{name}",
        f"{name}_grad",
        f"g{name}",
        f"g_{name}",
        f"grad{name}",
        f"D{name}",
    ]
    for spelling in spellings:
        if hasattr(target, spelling):
            return getattr(target, spelling)
    for holder in ("grads", "gradients", "grad", "dparams", "d", "g", "_grads"):
        held = getattr(target, holder, None)
        if isinstance(held, Mapping):
            for key in (name, *spellings):
                if key in held:
                    return held[key]
    return MISSING

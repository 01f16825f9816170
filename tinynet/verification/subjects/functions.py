"""Functions that know nothing of tinynet as subjects: a pair, and a closure that returns (y, backprop)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.verification.subjects.identity import function_key
from tinynet.verification.subjects.subject import Args, Gradients, Malformed, Session, Subject, fresh, pair
from tinynet.verification.tracing import traceable

__all__ = ["Closure", "PairSubject"]


@dataclass
class _PairSession(Session):
    forward_function: Callable[..., Any]
    backward_function: Callable[..., Any]
    names: tuple[str, ...]

    def forward(self, args: Args) -> tuple[Any, Any]:
        values = tuple(args[n] for n in self.names)
        return self.forward_function(*values), values

    def backward(self, context: Any, dy: Any) -> Gradients:
        return _positional(self.backward_function(context, dy), self.names)


class PairSubject(Subject):
    """Two functions: forward(*args) -> y, and backward(args, dy) -> a gradient an argument."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], values: Sequence[Any]) -> None:
        self.forward_function, self.backward_function = forward, backward
        self.names = _argument_names(forward, len(values))
        self.args = dict(zip(self.names, values, strict=True))
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f")
        self.batched = _batched(self, self.names)
        self.name, self.code = getattr(backward, "__qualname__", repr(backward)), (backward,)
        self.key, self.parts = function_key(forward), (id(backward), backward)

    def session(self) -> Session:
        return _PairSession(fresh(self.forward_function), fresh(self.backward_function), self.names)

    def pure(self, args: Mapping[str, Any]) -> Any:
        forward = traceable(self.forward_function) if self.rebound else fresh(self.forward_function)
        return forward(*(args[n] for n in self.names))


@dataclass
class _ClosureSession(Session):
    function: Callable[..., Any]
    names: tuple[str, ...]

    def forward(self, args: Args) -> tuple[Any, Any]:
        return pair(self.function(*(args[n] for n in self.names)), "the function", "(y, backprop)")

    def backward(self, context: Any, dy: Any) -> Gradients:
        return _positional(context(dy), self.names)


class Closure(Subject):
    """A function that returns (y, backprop); backprop(dy) -> a gradient an argument."""

    def __init__(self, function: Callable[..., Any], values: Sequence[Any]) -> None:
        self.function = function
        self.names = _argument_names(function, len(values))
        self.args = dict(zip(self.names, values, strict=True))
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f")
        self.batched = _batched(self, self.names)
        self.name, self.code = getattr(function, "__qualname__", repr(function)), (function,)

    def session(self) -> Session:
        return _ClosureSession(fresh(self.function), self.names)

    def pure(self, args: Mapping[str, Any]) -> Any:
        function = traceable(self.function) if self.rebound else fresh(self.function)
        return pair(function(*(args[n] for n in self.names)), "the function", "(y, backprop)")[0]


def _batched(subject: Subject, names: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments whose first axis counts samples: the first one, and all as long as it if it cannot go alone."""
    first = subject.args[names[0]] if names else np.zeros(())
    if first.ndim == 0:
        return ()
    together = tuple(n for n in names if subject.args[n].shape[:1] == first.shape[:1])
    for chosen in (names[:1], together) if len(first) > 2 else ():
        try:
            subject.session().forward({n: a[:-1].copy() if n in chosen else a.copy() for n, a in subject.args.items()})
        except Exception:
            continue
        return chosen
    return names[:1]


def _positional(out: Any, names: tuple[str, ...]) -> Gradients:
    if not isinstance(out, (tuple, list)):
        out = (out,)
    if len(out) != len(names):
        raise Malformed(f"backward returned {len(out)} gradients; expected {len(names)}, one for each of {names}")
    return dict(zip(names, out, strict=True))


def _argument_names(function: Callable[..., Any], n: int) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(names[:n]) if len(names) >= n else tuple(f"args[{i}]" for i in range(n))

"""What could be used by mistake: the other arrays that stand on a tape, by the place of the forward that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinynet.verification.diagnosis.primitives import Array
from tinynet.verification.diagnosis.tape import Operation, Passing, Place, Site, Tape

Get = Callable[[Passing], Array]
"""Reads an array as it is when something passes an edge: at the same step, in the same sweep."""


STEPS: Sequence[tuple[str, Callable[[int, int], int]]] = (
    ("from the steps in reverse", lambda i, n: n - 1 - i),
    ("from the step before", lambda i, n: max(i - 1, 0)),
    ("from the step after", lambda i, n: min(i + 1, n - 1)),
    ("from the last step", lambda i, n: n - 1),
    ("from the first step", lambda i, n: 0),
)
"""Which other step of a loop a value may be taken from, given the step and how many there are."""


class Pool:
    """The other arrays that stand on a tape, by the place that made them: what could be used by mistake."""

    def __init__(self, tape: Tape) -> None:
        self._places: dict[tuple[int, ...], tuple[Place, str]] = {}
        for place, (slots, name) in tape.places.items():
            if len({tape.values[slot].shape for slot in slots}) == 1:
                self._places.setdefault(slots, (place, name))
        self._tape = tape
        self._made = {slot: op for op in tape.operations for slot in op.outs}
        self._divisors = {op.operands[1] for op in tape.operations if op.name == "div"}

    def _there(self, site: Site) -> Iterator[tuple[tuple[int, ...], Array, Place, str]]:
        """Yield what has a value at each step of a site: its slots, the value at the first, its place and name."""
        for slots, (place, name) in self._places.items():
            if len(set(slots)) == 1 or len(slots) == site.steps:
                yield slots, self._tape.values[slots[0]], place, name

    def is_dy(self, slot: int) -> bool:
        """Return whether ∂E/∂(slot) is what the function that computes it, a layer, is handed as its dy."""
        while slot not in self._tape.outputs:
            users = [self._tape.operations[i] for i, _ in self._tape.users[slot]]
            if len(users) != 1 or not users[0].frames:
                return False
            if _function(users[0]) != _function(self._made[slot]):
                return True
            if users[0].name not in ("add", "add_any", "reshape", "squeeze", "broadcast_in_dim"):
                return False
            slot = users[0].outs[0]
        return True

    def values(self, site: Site, shape: tuple[int, ...]) -> Iterator[tuple[str, Get]]:
        """Yield the values of this shape, as they were at the same step."""
        for _, value, place, name in self._there(site):
            if value.shape == shape:
                yield name, partial(_value, place)

    def at_other_steps(self, site: Site, slot: int) -> Iterator[tuple[str, Get]]:
        """Yield a value as it was at other steps of a loop."""
        for slots, _, place, _ in self._there(site):
            if slot in slots and len(set(slots)) == site.steps > 1:
                for words, step in STEPS:
                    yield words, partial(_value_at, place, step)
                return

    def without_epsilon(self, site: Site, shape: tuple[int, ...]) -> Iterator[tuple[str, Get]]:
        """Yield √v and √v + ε where the forward takes √(v + ε)."""
        for slots, value, place, name in self._there(site):
            root = self._made.get(slots[0])
            inner = self._made.get(root.operands[0]) if root and root.name == "sqrt" else None
            if inner is None or inner.name not in ("add", "add_any") or _with_axes(value, shape) is None:
                continue
            for epsilon in (self._tape.values[s] for s in inner.operands if self._tape.values[s].size == 1):
                get = _widened(partial(_value, place), value.shape, shape)
                yield f"({name} without ε)", partial(_root, get, float(epsilon.item()), 0.0)
                yield f"({name} with ε outside the root)", partial(_root, get, float(epsilon.item()), 1.0)

    def factors(self, site: Site, shape: tuple[int, ...]) -> Iterator[tuple[str, Get, bool]]:
        """Yield the values that multiply an array of this shape, and whether the forward divides by them."""
        for slots, value, place, name in self._there(site):
            if value.dtype.kind == "f" and _with_axes(value, shape) is not None:
                inverted = bool(self._divisors & set(slots))
                yield name, _widened(partial(_value, place), value.shape, shape), inverted

    def other_cotangents(self, site: Site, shape: tuple[int, ...]) -> Iterator[tuple[str, Get]]:
        """Yield the cotangents that can be repeated to this shape."""
        own = {slot for _, slot in site.edges}
        for slots, value, place, name in self._there(site):
            if slots[0] in self._tape.cotangents and set(slots) != own and _with_axes(value, shape) is not None:
                yield f"∂E/∂({name})", _widened(partial(_cotangent, place), value.shape, shape)

    def cotangents(self, site: Site, shape: tuple[int, ...]) -> Iterator[tuple[str, Get]]:
        """Yield the cotangents and the values of this shape."""
        for slots, value, place, name in self._there(site):
            if _long(value.shape) == _long(shape):
                if slots[0] in self._tape.cotangents:
                    yield f"∂E/∂({name})", partial(_shaped_above, partial(_cotangent, place))
                if value.shape == shape:
                    yield name, partial(_value, place)
        for i, dy in enumerate(self._tape.dy):
            for axis in range(np.ndim(dy)):
                rest = [n for k, n in enumerate(np.shape(dy)) if k != axis]
                if np.shape(dy)[axis] == site.steps > 1 and _long(tuple(rest)) == _long(shape):
                    yield "dy of the same step", partial(_shaped_above, partial(_dy_of_step, i, axis))


def _function(op: Operation) -> Any:
    """Return the innermost function of the user's that an operation is in."""
    return op.frames[0][1] if op.frames else None


def _root(get: Get, epsilon: float, outside: float, p: Passing) -> Array:
    return np.asarray(np.sqrt(get(p) ** 2 - epsilon) + outside * epsilon)


def _dy_of_step(i: int, axis: int, p: Passing) -> Array:
    return np.asarray(np.take(p.tape.dy[i], p.step, axis))


def _multiplies(factor: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(factor) <= len(shape) and all(n in (1, s) for n, s in zip(factor[::-1], shape[::-1], strict=False))


def _with_axes(a: Array, shape: tuple[int, ...]) -> Array | None:
    """Return an array as it multiplies one of this shape: with axes behind its own where it has the leading ones."""
    if _multiplies(a.shape, shape):
        return a
    leads = a.ndim < len(shape) and a.shape == shape[: a.ndim]
    return a.reshape(a.shape + (1,) * (len(shape) - a.ndim)) if leads else None


def _widened(get: Get, given: tuple[int, ...], shape: tuple[int, ...]) -> Get:
    """Return an array of some shape as it multiplies one of another: `_with_axes`, in other runs too."""
    behind = 0 if _multiplies(given, shape) else len(shape) - len(given)
    return lambda p: get(p).reshape(get(p).shape + (1,) * behind)


def _slot(p: Passing, place: Place) -> int:
    slots = p.tape.places[place][0]
    return slots[0] if len(set(slots)) == 1 else slots[p.step]


def _value_at(place: Place, step: Callable[[int, int], int], p: Passing) -> Array:
    slots = p.tape.places[place][0]
    return p.tape.values[slots[step(p.step, len(slots))]]


def _value(place: Place, p: Passing) -> Array:
    return p.tape.values[_slot(p, place)]


def _cotangent(place: Place, p: Passing) -> Array:
    return p.cotangent(_slot(p, place))


def _shaped_above(get: Get, p: Passing) -> Array:
    """Return an array in the shape of what comes from above: rows that a loop stacks have an axis of length 1 more."""
    return without_ones(get(p), np.shape(p.above))


def without_ones(a: Array, shape: tuple[int, ...]) -> Array:
    """Return an array in a shape that differs from its own by axes of length 1: JAX drops them from a product."""
    return a.reshape(shape) if _long(a.shape) == _long(shape) else a


def _long(shape: tuple[int, ...]) -> list[int]:
    return [n for n in shape if n > 1]

"""The random generators that a target has of its own: on an object, in a closure, among the globals of a function."""

from __future__ import annotations

import contextlib
import random
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinynet.verification.adapters.parts import parts_of
from tinynet.verification.copies import is_users, names_in

_KINDS = (np.random.Generator, np.random.RandomState, random.Random)

_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), np.ndarray})
"""Types that lead to no generator, of which a list that a target uses may hold many."""


def seeder(function: Any) -> Callable[[], None]:
    """Return what sets each generator of a function's own to one state; they are looked for once."""
    return partial(_seed, _generators_in(function))


def seed_own(target: Any) -> None:
    """Set each generator of a target's own to one state."""
    _seed(_generators_in(target))


def _seed(generators: Sequence[Any]) -> None:
    for generator in generators:
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(0).state
        else:
            generator.seed(0)


@contextlib.contextmanager
def kept(target: Any) -> Iterator[None]:
    """Put the generators of a target's own back in the states that they have."""
    found = _generators_in(target)
    states = [_state(g) for g in found]
    try:
        yield
    finally:
        for generator, state in zip(found, states, strict=True):
            if isinstance(generator, np.random.Generator):
                generator.bit_generator.state = state
            elif isinstance(generator, np.random.RandomState):
                generator.set_state(state)
            else:
                generator.setstate(state)


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def _generators_in(target: Any) -> list[Any]:
    found: list[Any] = []
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if type(value) in _PLAIN or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, _KINDS):
            found.append(value)
        else:
            for part in _parts(value):
                visit(part)

    visit(target)
    return found


def _parts(value: Any) -> Iterator[Any]:
    """Yield what a value leads to: what it holds, and what its code names."""
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        yield from (value.__func__, getattr(value, "__self__", None))
    elif isinstance(value, (Mapping, tuple, list, partial)):
        yield from (part for _, part in parts_of(value))
    elif isinstance(value, types.FunctionType) and is_users(value.__module__):
        names = names_in(value.__code__)
        named = [value.__globals__[n] for n in names if n in value.__globals__]
        for module in (m for m in named if isinstance(m, types.ModuleType) and is_users(m.__name__)):
            yield from (vars(module)[n] for n in names if n in vars(module))
        yield from (named, value.__defaults__, value.__kwdefaults__)
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):
                yield cell.cell_contents
    elif isinstance(value, type) and is_users(value.__module__):
        yield from (*vars(value).values(), *value.__bases__)
    elif is_users(type(value).__module__):
        yield from (type(value), *(part for _, part in parts_of(value)))

"""Templates: configurations with numbers left out, so that one compiled program serves all that differ in them only.

Networks that `sample` draws differ from batch to batch, in the seeds of their masks or in arrays of noise; optimizers
differ from run to run in their learning rates. Both are frozen dataclasses, and what a program is compiled for is a
template of them.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from tinynet.arrays import Array
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.training.engines import is_sampled
from tinynet.trees import Path, parts, with_part

Draws: TypeAlias = tuple[Array, tuple[tuple[Array, ...], ...]]
"""For each of several batches, which of the sampled networks it has; for each network, the numbers at its paths."""

_ENTRIES = 4096


@dataclass(frozen=True)
class Template:
    """A configuration without the numbers at `paths`; equal ones share a compiled program."""

    tree: Any
    paths: tuple[Path, ...]

    @classmethod
    def without(cls, tree: Any, paths: tuple[Path, ...]) -> Template:
        """Return the template of `tree`."""
        return cls(_with_numbers(tree, paths, [0] * len(paths)), paths)

    def of(self, numbers: tuple[Any, ...]) -> Any:
        """Return the configuration with these numbers, which may be tracers: no check of its class runs."""
        return _with_numbers(self.tree, self.paths, numbers)


def traced(tree: Any) -> Iterator[tuple[Path, float]]:
    """Yield the numbers of a configuration that its class lists as `traced`; a 0 stays, as it may leave a state out."""
    for path, number, holder in parts(tree):
        if type(number) is float and number and path[-1] in getattr(holder, "traced", ()):
            yield path, number


class SampledNetworks:
    """The networks that `net.sample` has given so far: one template for all that differ in numbers only.

    `last` is the one that was sampled last; `dtype` is that of numbers that are not integers.
    """

    _MOST = 64
    _BYTES = 64 * 2**20
    """Of arrays that are drawn, so many are held at a time."""

    def __init__(self, net: Layer, dtype: Any) -> None:
        self.net, self.dtype = net, dtype
        self.last = net
        self._sampled = is_sampled(net)
        self._index: dict[Any, int] = {}
        self._first: list[tuple[Layer, dict[Path, Any]]] = []
        self._varying: list[set[Path]] = []
        for seed in range(4):  # so that the first batches show already which numbers vary
            self._note(net.sample(np.random.default_rng(seed)))

    def templates(self) -> tuple[Template, ...]:
        """Return them; a program is compiled for these."""
        paths = (tuple(sorted(varying, key=str)) for varying in self._varying)
        return tuple(Template.without(net, where) for (net, _), where in zip(self._first, paths, strict=True))

    def at_once(self, batches: int, runs: int = 1) -> int:
        """Return for how many of the batches to draw at a time: all, unless large arrays are drawn."""
        size = sum(a.nbytes for _, numbers in self._first for a in numbers.values() if isinstance(a, np.ndarray)) * runs
        return max(1, min(batches, self._BYTES // size)) if size else batches

    def draw(self, rng: np.random.Generator, n: int) -> Draws:
        """Sample the networks of `n` batches."""
        if not self._sampled:
            return np.zeros(n, np.int32), ((),)
        drawn = []
        for _ in range(n):
            self.last = self.net.sample(rng)
            drawn.append(self._note(self.last))
        which = np.array([i for i, _ in drawn], np.int32)
        numbers = []
        for i, template in enumerate(self.templates()):
            of_batch = [found if index == i else self._first[i][1] for index, found in drawn]
            numbers.append(tuple(self._column([found[path] for found in of_batch]) for path in template.paths))
        return which, tuple(numbers)

    def _note(self, sampled: Layer) -> tuple[int, dict[Path, Any]]:
        """Return which of the networks this one is, and the numbers in it."""
        numbers: dict[Path, Any] = {}
        structure = _structure(sampled, self.net, (), numbers)
        if structure not in self._index:
            if len(self._index) == self._MOST:
                raise ValueError(
                    f"fit: sample() has given more than {self._MOST} networks that differ in more than numbers; "
                    'engine="jax" compiles each of them; use engine="numpy", or let sample() draw a number'
                )
            self._index[structure] = len(self._first)
            self._first.append((sampled, numbers))
            self._varying.append(set())
        i = self._index[structure]
        first = self._first[i][1]
        for path, number in numbers.items():
            if isinstance(number, np.ndarray) or number != first[path]:  # an array, which has no hash, may always vary
                self._varying[i].add(path)
        return i, numbers

    def _column(self, numbers: list[Any]) -> Array:
        if isinstance(numbers[0], np.ndarray):
            arrays = np.stack(numbers)
            return arrays.astype(self.dtype) if arrays.dtype.kind == "f" else arrays
        whole = all(isinstance(number, (int, np.integer)) for number in numbers)
        return np.array(numbers, (np.uint32 if min(numbers) >= 0 else np.int32) if whole else self.dtype)


def _structure(sampled: Any, net: Any, path: Path, numbers: dict[Path, Any]) -> Any:
    """Return what tells `sampled` from others drawn from `net`, but for numbers, which are entered by their path."""
    if sampled is net:
        return None
    if isinstance(sampled, (int, float, np.integer, np.floating)) and not isinstance(sampled, bool):
        numbers[path] = sampled
        return "number"
    if isinstance(sampled, np.ndarray):
        numbers[path] = sampled
        return sampled.dtype.str, sampled.shape
    if isinstance(sampled, tuple):
        nets = net if isinstance(net, tuple) and len(net) == len(sampled) else (None,) * len(sampled)
        return tuple(_structure(*pair, (*path, i), numbers) for i, pair in enumerate(zip(sampled, nets, strict=True)))
    if is_dataclass(sampled):
        before = net if type(net) is type(sampled) else None
        names = [field.name for field in fields(sampled)]
        return type(sampled), tuple(
            _structure(getattr(sampled, name), getattr(before, name, None), (*path, name), numbers) for name in names
        )
    return sampled


def _with_numbers(tree: Any, paths: Iterable[Path], numbers: Iterable[Any]) -> Any:
    for path, number in zip(paths, numbers, strict=True):
        tree = with_part(tree, path, number, _unchecked)
    return tree


def _unchecked(config: Any, **changes: Any) -> Any:
    """Return a dataclass, which may be frozen, with other fields, which may be tracers."""
    changed = copy.copy(config)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


class Attributes:
    """The attributes of every object in some configurations, which have a hash, as they were when this was made."""

    def __init__(self, *trees: Any) -> None:
        for tree in trees:
            _check_hash(tree)
        self._before = [
            (thing, {name: (value, _content(value)) for name, value in vars(thing).items()})
            for tree in trees
            for thing in _objects(tree)
        ]

    def check_unchanged(self) -> None:
        """Raise TypeError if an attribute was set since: a compiled program sets it once, while it is compiled.

        A dict may have more keys, whose values are numbers: what was computed for a shape and is kept for the next.
        """
        for thing, before in self._before:
            for name, value in vars(thing).items():
                was, content = before.get(name, (before, None))
                if (was is not value or not _same(content, _content(value))) and not _computes(type(thing), name):
                    raise TypeError(
                        f'fit: {type(thing).__name__} set its attribute {name!r} while training; engine="jax" would '
                        "keep none of it; use init_state and update_state for what changes from batch to batch"
                    )


def _configures(thing: Any) -> bool:
    return isinstance(thing, (Layer, Loss, Optimizer)) or (is_dataclass(thing) and not isinstance(thing, type))


def _objects(tree: Any, seen: frozenset[int] = frozenset()) -> Iterator[Any]:
    """Yield the layers, losses, optimizers and dataclasses in a tree, outer ones first."""
    if id(tree) in seen:
        return
    if _configures(tree) and hasattr(tree, "__dict__"):
        yield tree
        tree, seen = vars(tree), seen | {id(tree)}
    if isinstance(tree, (tuple, list, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _objects(part, seen)


def _content(value: Any) -> Any:
    """Return a copy of what an attribute holds that can change in place; None if that is nothing.

    Of an array with more than `_ENTRIES` it has about so many, evenly spread: a table may be large, and what a layer
    counts or averages in place is small or changes throughout.
    """
    if isinstance(value, np.ndarray):
        return np.asarray(value).flat[:: max(1, value.size // _ENTRIES)]
    return dict(value) if isinstance(value, dict) else list(value) if isinstance(value, (list, set)) else None


def _same(was: Any, now: Any) -> bool:
    if isinstance(was, np.ndarray):
        return np.array_equal(was, now, equal_nan=was.dtype.kind in "fc")
    if isinstance(was, dict):
        added = [now[key] for key in now.keys() - was.keys()]
        kept = all(key in now and now[key] is value for key, value in was.items())
        return kept and not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(added))
    return was is None or (len(was) == len(now) and all(map(operator.is_, was, now)))


def _check_hash(thing: Any) -> None:
    """Raise TypeError if a configuration in `thing` has no hash; name the innermost one that is why."""
    if _has_hash(thing):
        return
    held = {name: value for name, value in _hashed(thing) if not _has_hash(value)}
    for value in held.values():
        _check_hash(value)
    if _configures(thing):
        of_field = [f"its field {name} of type {type(value).__name__} has none" for name, value in held.items()]
        found = of_field[0] if type(thing).__hash__ is not None and of_field else "its class has none"
        raise TypeError(
            f'fit: {type(thing).__name__} has no hash, by which engine="jax" tells compiled programs apart: {found}; '
            "use a dataclass(frozen=True) whose fields are numbers, strings, tuples and layers; arrays are for init "
            "and init_state"
        )


def _hashed(thing: Any) -> Iterable[tuple[Any, Any]]:
    """Return what the hash of a configuration or a tuple is made of, by name."""
    if isinstance(thing, tuple):
        return enumerate(thing)
    if is_dataclass(thing):
        return [(f.name, getattr(thing, f.name)) for f in fields(thing) if (f.compare if f.hash is None else f.hash)]
    return vars(thing).items() if _configures(thing) else ()


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _computes(cls: type, name: str) -> bool:
    """Return whether `name` is a property that keeps its value, as `functools.cached_property` does."""
    descriptor: Callable[..., Any] | None = getattr(cls, name, None)
    return hasattr(descriptor, "__get__") and not callable(descriptor)

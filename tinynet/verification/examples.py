"""The examples on which a target is tried: shapes, values, parameters and cotangents.

What the caller gives is what is judged: of given inputs only the batch is varied, and only where it is free. Where
inputs are guessed, widths are varied too. Values keep the properties that they have: zeros and ones stay so, whole
numbers, rows that sum to 1, one sign.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import LABELS, Args, Array, Subject
from tinynet.verification.execution import Watch, execute, told
from tinynet.verification.oracle import leaves_of, shapes_of
from tinynet.verification.probes.lines import closeness
from tinynet.verification.report import Probe

TRIED: Mapping[str, str] = MappingProxyType(
    {
        "forward": "the forward pass gives the same values under JAX as without, and as a reference where there is one",
        "rectangular": "a batch and widths that all differ, so that no transposed matrix fits by chance: (24)",
        "batch 1": "one sample, of which the mean is the sum",
        "batch 2": "two samples, of which the mean is half the sum: (17)",
        "batch 33": "many samples, more than any width",
        "square": "a batch and widths that are all alike: no shape gives a transposed matrix away: (22)",
        "width 1": "widths of 1, which NumPy stretches without a word",
        "larger": "larger arrays, whose sums round more",
        "empty batch": "no sample at all: a sum over none is zero, a mean of none is not a number",
        "saturated": "inputs 6 and 20 times as large, where f′ is nearly zero: (2)",
        "huge": "inputs 100 and 1000 times as large: no exponential may overflow: (1)",
        "tiny": "inputs a thousandth as large: what cancels must not lose its digits",
        "one sign": "inputs all positive, and all negative: a branch may ask for either",
        "zeros and ties": "zeros and equal values, where a maximum has several places and a ReLU its kink",
        "parameters": "parameters moved, negated, enlarged and zero: no special start may hide a term",
        "cotangents": "dy large, small and with zeros: a gradient is linear in it: (20)",
        "branches": "inputs that take the other branches of the code",
        "state": "several calls in another order: nothing may be left over from one to the next, or be written into",
        "layout": "arrays that are transposed, reversed or spread out in memory",
        "param_grads": "param_grads gives what backward gives",
        "training": "the layer of one training step, as `sample` draws it",
        "compiled": "the backward pass under jax.jit",
        "float32": "float32 arrays: the result is float32, and right within its rounding",
    }
)
"""Every probe in the order of the report, and what it tries; purity and types are looked at in each."""

PROBES = tuple(TRIED)
"""The name of every probe."""

SHAPES = ("rectangular", "batch 1", "batch 2", "batch 33", "square", "width 1", "larger")
"""The probes at which nothing is special but the shape."""


@dataclass(frozen=True)
class Example:
    """One set of arrays with a cotangent.

    Attributes:
        probe, label: what it tries: "saturated", "20 ×".
        subject: the target with these arrays.
        dy: one array for each of y.
        ours: whether the shape is of our own making: the target may then refuse it.
        strict: whether a finite gradient must be exact: not where the caller may never give such values.
    """

    probe: str
    subject: Subject
    dy: tuple[Array, ...]
    label: str = ""
    ours: bool = False
    strict: bool = True


@dataclass(frozen=True)
class Batch:
    """Where the samples are: the axis of each array that has one row per sample, and of each output.

    Attributes:
        size: how many samples the given arrays have.
        axes: by name; outputs: by position, None for one that has no such axis.
        places: the arrays that hold the place of each sample, once.
    """

    size: int
    axes: Mapping[str, int]
    outputs: tuple[int | None, ...]
    places: frozenset[str] = frozenset()


class Shapes:
    """The outputs of a subject's forward pass, by the shapes of its arrays; each is run once."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._known = watch, dict[Any, tuple[Array, ...]]()

    def of(self, subject: Subject, args: Args) -> tuple[Array, ...]:
        """Return the outputs at the shapes of `args`.

        Raises:
            Exception: whatever the target raises.
        """
        key = (id(subject.start), shapes_of(args))
        if key not in self._known:
            self._known[key] = self.run(subject, args)
        return self._known[key]

    def run(self, subject: Subject, args: Args) -> tuple[Array, ...]:
        """Return the outputs at the values of `args`.

        Raises:
            Exception: whatever the target raises.
        """
        run = execute(subject, args, None, self._watch)
        if run.error is not None:
            raise run.error
        return leaves_of(run.y)


def cotangent(outputs: tuple[Array, ...], rng: np.random.Generator) -> tuple[Array, ...]:
    """Return a random ∂E/∂y for each output, never near 0; ones would hide what a sum hides."""
    drawn = [np.asarray(rng.standard_normal(np.shape(y))) for y in outputs]
    return tuple(np.asarray(d + np.sign(d) * 0.1) for d in drawn)


_SUMMED = -1


def find_batches(subject: Subject, shapes: Shapes) -> list[Batch]:
    """Find the axes that count samples, by giving the samples twice; none where the batch is not free.

    Axis 0 of the first input and every axis that must grow with it, else its last axis. The output must follow: have
    the same samples twice along some axis, or else keep its shape, as a sum over the samples does. Then the rows of
    another input, if they grow without the first, as the samples of x @ w do in (w, x).
    """
    names = [n for n in subject.inputs if subject.args[n].ndim]
    if not names:
        return []
    scalar = not any(y.ndim for y in shapes.of(subject, subject.args))

    def counts_rows(b: Batch) -> bool:
        return not any(b.axes.values())

    def is_followed(b: Batch) -> bool:
        return any(axis is not None for axis in b.outputs)

    ends = dict.fromkeys((0, subject.args[names[0]].ndim - 1))
    of_first = [b for axis in ends if (b := _growing(subject, shapes, names[0], axis)) is not None]
    # What grows along no row and is not followed is a sum over features, as of w.
    found = ([b for b in of_first if counts_rows(b) or is_followed(b)] or of_first)[:1]
    for name in names[1:]:
        if not any(name in b.axes and counts_rows(b) for b in found):
            b = _growing(subject, shapes, name, 0)
            if b is not None and counts_rows(b) and (scalar or is_followed(b)):
                return [*found, b]
    return found


def _growing(subject: Subject, shapes: Shapes, first: str, axis: int) -> Batch | None:
    """Return the batch in which this axis of one input grows; None if the forward pass does not take a longer one."""
    args = subject.args
    scalar = not any(y.ndim for y in shapes.of(subject, args))
    m, summed = args[first].shape[axis], None

    def like(name: str) -> list[int]:
        """Return the axes of another input that are as long, the one at the same end first."""
        a = args[name]
        end = 0 if axis == 0 else a.ndim - 1
        return sorted((k for k in range(a.ndim) if a.shape[k] == m), key=lambda k: k != end)

    others = [n for n in subject.inputs if n != first and m in args[n].shape]
    for count in range(len(others), -1, -1):
        for chosen in itertools.combinations(others, count):
            places = itertools.product(*(like(n) for n in chosen))
            for axes in itertools.islice(places, 8):
                found = _followed(subject, shapes, m, {first: axis, **dict(zip(chosen, axes, strict=True))})
                if found is not None and (scalar or any(a is not None for a in found.outputs)):
                    return found
                summed = summed or found
    return summed


def _followed(subject: Subject, shapes: Shapes, m: int, axes: Mapping[str, int]) -> Batch | None:
    """Return the batch of m samples along these axes, if the forward pass takes them twice and the output follows."""
    outputs = shapes.of(subject, subject.args)

    def longer(places: Collection[str]) -> tuple[int | None, ...] | None:
        twice = {
            n: np.concatenate([a, a + m * (n in places)], axis=axes[n]) for n, a in subject.args.items() if n in axes
        }
        try:
            out = (shapes.run if places else shapes.of)(subject, {**subject.args, **twice})
        except Exception:
            return None
        follows = tuple(_follows(y, z, m) for y, z in zip(outputs, out, strict=False))
        return follows if len(out) == len(outputs) and None not in follows else None

    follows = longer(())
    if follows is None:
        return None
    # The places of the samples, each once: with the same ones twice they would be no such thing.
    places = [n for n in axes if len(axes) > 1 and _is_permutation(subject.args[n]) and longer((n,)) is not None]
    alone = len(axes) == 1 and all(f == _SUMMED for f in follows)
    idle = [n for n in axes if (alone or len(axes) > 1) and not places and not _counts(subject, shapes, axes, n)]
    if alone and idle:
        return None  # it takes more and looks at the same, as x[:4]
    if idle and len(idle) < len(axes):
        fewer = _followed(subject, shapes, m, {n: axis for n, axis in axes.items() if n not in idle})
        if fewer is not None:
            return fewer
    return Batch(m, axes, tuple(None if f == _SUMMED else f for f in follows), frozenset(places))


def _counts(subject: Subject, shapes: Shapes, axes: Mapping[str, int], name: str) -> bool:
    """Return whether samples that are added to an array move y; of an array that is indexed, as p[0], they do not."""
    given = subject.args
    twice = {n: np.concatenate([given[n], given[n]], axis=axis) for n, axis in axes.items()}
    a, axis = given[name], axes[name]
    other = np.take(a, np.zeros(a.shape[axis], int), axis=axis) if is_special(a) else -1.5 * a + 0.1
    if np.array_equal(other, a):
        return True
    moved = {**twice, name: np.concatenate([a, other], axis=axis)}
    try:
        pairs = zip(*(shapes.run(subject, {**given, **arrays}) for arrays in (twice, moved)), strict=True)
        return not all(np.array_equal(p, q, equal_nan=True) for p, q in pairs)
    except Exception:
        return True


def _is_permutation(a: Array) -> bool:
    return a.ndim == 1 and a.dtype.kind in "iu" and np.array_equal(np.sort(a), np.arange(a.size))


def _follows(y: Array, twice: Array, m: int) -> int | None:
    """Return the axis along which an output has its samples twice, or that it sums over them; None for neither."""
    if twice.shape == y.shape:
        return _SUMMED
    doubled = ((k, (*y.shape[:k], 2 * m, *y.shape[k + 1 :])) for k in range(y.ndim) if y.shape[k] == m)
    return next((axis for axis, shape in doubled if twice.shape == shape), None)


def with_batch(args: Args, batch: Batch, m: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return arrays with m samples, each near one of the given ones."""
    rows = rng.integers(0, batch.size, m) if m > batch.size else np.arange(m)
    made = dict(args)
    for name, axis in batch.axes.items():
        taken = np.take(args[name], rows, axis=axis)
        if name in batch.places:
            made[name] = rng.permutation(m).astype(taken.dtype)
            continue
        made[name] = alike(taken, taken + 0.2 * _spread(args[name]) * rng.standard_normal(taken.shape), args[name])
    return made


def alike(base: Array, new: Array, given: Array) -> Array:
    """Return `new` where the properties that `given` has are kept by it, else `base`."""
    if given.dtype.kind != "f" or is_special(given):
        return base
    if given.size and np.all(given > 0):
        return np.abs(new) + 1e-3 * float(np.min(given))
    if given.size and np.all(given < 0):
        return -np.abs(new) - 1e-3 * float(np.min(-given))
    if given.size and np.all(given >= 0):
        return np.where(base == 0, 0.0, np.abs(new))
    return new


def is_special(a: Array) -> bool:
    """Return whether values mean something that other values would not: whole numbers, shares, a symmetric matrix."""
    if a.dtype.kind != "f" or not a.size or not np.isfinite(a).all():
        return True
    if a.size == 1 and not np.any(a):
        return False
    if np.all(a == np.rint(a)):
        return True
    if _are_shares(a):
        return True
    square = a.ndim >= 2 and a.shape[-1] == a.shape[-2] > 1
    return bool(square and np.allclose(a, np.swapaxes(a, -1, -2), rtol=1e-12, atol=0))


def _are_shares(a: Array) -> bool:
    """Return whether each row holds shares of 1, not all of them whole."""
    if a.dtype.kind != "f" or np.all(a == np.rint(a)):
        return False
    return bool(a.ndim and a.shape[-1] > 1 and np.all(a >= 0) and np.allclose(a.sum(axis=-1), 1.0, atol=1e-9))


def _selects(a: Array) -> bool:
    """Return whether an array chooses among others by 0 and 1: not of one-hot rows, of which each has its 1."""
    if not a.ndim or not np.array_equal(np.unique(a), [0, 1]):
        return False
    return not _is_permutation(a) and not (a.ndim > 1 and np.all(a.sum(axis=-1) == 1))


def _has_one_sign(a: Array) -> bool:
    return bool(np.all(a > 0) or np.all(a < 0))


def keeps_its_sign(subject: Subject, name: str) -> bool:
    """Return whether an array is meant to have the one sign that it has.

    Not so a parameter whose entries are all equal: that is an initial value, which training moves.
    """
    a = subject.args[name]
    if subject.contract or not a.size or not _has_one_sign(a):
        return False
    return name in subject.inputs or bool(np.any(a != a.flat[0]))


def near(subject: Subject, name: str, rng: np.random.Generator, size: float = 0.1) -> Array:
    """Return slightly other values of a parameter, of the one sign that it is meant to have."""
    a = subject.args[name]
    moved = a + size * (np.abs(a) + size) * rng.standard_normal(a.shape)
    return np.sign(a) * np.abs(moved) if keeps_its_sign(subject, name) else moved


def _spread(a: Array) -> float:
    return float(np.sqrt(np.mean(np.square(a, dtype=float)))) if a.size else 1.0


def _step(a: Array) -> float:
    """Return a power of two near the size of an array: sums and products of its multiples are exact."""
    return float(2.0 ** np.rint(np.log2(_spread(a) or 1.0)))


def _with(subject: Subject, names: Collection[str], change: Callable[[Array], Array]) -> dict[str, Array]:
    """Return the arrays with those of `names` changed whose values mean nothing special."""
    special = {n for n in names if is_special(subject.args[n])}
    return {n: change(a) if n in names and n not in special else a for n, a in subject.args.items()}


def times(a: Array, factor: float) -> Array:
    """Return an array times a factor; shares of 1 more or less even; what means something else as it is."""
    if _are_shares(a) and factor > 0:
        sharper = a ** min(factor, 6.0)
        return np.asarray(sharper / sharper.sum(axis=-1, keepdims=True))
    return a if is_special(a) else a * factor


def of_one_sign(subject: Subject, names: tuple[str, ...], sign: float) -> dict[str, Array]:
    """Return the arrays with all entries of one sign, where they have both."""
    return _with(subject, names, lambda a: sign * np.abs(a) if np.any(a > 0) and np.any(a < 0) else a)


def tied(subject: Subject, names: tuple[str, ...]) -> dict[str, Array]:
    """Return the arrays rounded to few values, zeros among them, equal ones within and between arrays."""

    def rounded(a: Array) -> Array:
        step = _step(a)
        if _has_one_sign(a):
            return np.asarray(np.sign(a) * np.maximum(np.rint(np.abs(a) / step), 1) * step)
        return np.rint(a / step) * step + 0.0

    return _with(subject, names, rounded)


def two_valued(subject: Subject, names: tuple[str, ...]) -> dict[str, Array]:
    """Return the arrays with one value for what is positive and 0 for the rest: most maxima are then tied."""
    return _with(subject, names, lambda a: a if _has_one_sign(a) else np.where(a > 0, _step(a), 0.0))


def equal(subject: Subject, names: tuple[str, ...]) -> dict[str, Array]:
    """Return the arrays with as many as can be equal to one of them, as a prediction to its target."""
    given = subject.args
    same = {n: [m for m in names if _may_be(given[m], given[n])] for n in names}
    source = max(names, key=lambda n: len(same[n]))
    return {**given, **dict.fromkeys(same[source], given[source])}


def _may_be(given: Array, values: Array) -> bool:
    """Return whether an array may have these values: they have its shape, and the properties that it has."""
    if given.shape != values.shape or (is_special(given) and not np.array_equal(given, values)):
        return False
    signs = (np.greater, np.less, np.greater_equal, np.less_equal)
    return all(np.all(has(values, 0)) for has in signs if np.all(has(given, 0)))


def shape_examples(
    subject: Subject,
    batches: Sequence[Batch],
    variants: list[tuple[str, Subject]],
    shapes: Shapes,
    rng: np.random.Generator,
    *,
    grow: bool,
) -> Iterator[Example | Probe]:
    """Yield the target as given, at other batches, and in other widths where these are ours to choose.

    Larger ones only where they may `grow`.
    """
    yield Example("rectangular", subject, cotangent(shapes.of(subject, subject.args), rng))
    for batch in batches:
        for m in (1, 2, 33) if grow or batch.size >= 33 else (1, 2)[: batch.size]:
            yield _at_batch(subject, batch, m, shapes, rng)
    for label, variant in variants:
        try:
            yield Example(label, variant, cotangent(shapes.of(variant, variant.args), rng), ours=True)
        except Exception:
            continue


def _at_batch(subject: Subject, batch: Batch, m: int, shapes: Shapes, rng: np.random.Generator) -> Example | Probe:
    """Return m samples, where the forward pass takes as many and gives the shapes that follow."""
    name, other = f"batch {m}", subject.at(with_batch(subject.args, batch, m, rng))
    try:
        outputs = shapes.of(other, other.args)
    except Exception as error:
        return Probe(name, skipped=f"the forward pass raises {told(error)}")
    for y, axis, z in zip(shapes.of(subject, subject.args), batch.outputs, outputs, strict=True):
        expected = tuple(m if k == axis else length for k, length in enumerate(y.shape))
        if z.shape != expected or not np.isfinite(z).all():
            why = f"the forward pass gives shape {z.shape} where {expected} follows, or no finite value"
            return Probe(name, skipped=why)
    return Example(name, other, cotangent(outputs, rng), ours=True)


def value_examples(subject: Subject, shapes: Shapes, rng: np.random.Generator) -> Iterator[Example | Probe]:
    """Yield other values at the shape given: large, small and tied inputs, other parameters.

    None far from the ones given where a loop ends when it is close enough: there it need not end.
    """
    far = ("saturated", "huge", "one sign") if closeness(subject) else ()
    for e in list(_values(subject, cotangent(shapes.of(subject, subject.args), rng), rng)):
        if e.probe not in far and not all(np.array_equal(a, subject.args[n]) for n, a in e.subject.args.items()):
            yield e
    yield from (Probe(name, skipped="a loop ends when it is close enough: far out it need not end") for name in far)


def _values(subject: Subject, dy: tuple[Array, ...], rng: np.random.Generator) -> Iterator[Example]:
    """Yield every value that is tried, some of them as they are given."""
    args = subject.args
    inputs = tuple(n for n in subject.inputs if args[n].dtype.kind == "f")
    params = tuple(n for n in subject.wrt if n not in subject.inputs)

    def at(probe: str, label: str, changed: Mapping[str, Array], strict: bool = True) -> Example:
        return Example(probe, subject.at({**args, **changed}), dy, label, strict=strict)

    def scaled(names: Collection[str], factor: float) -> dict[str, Array]:
        return {n: times(args[n], factor) for n in names}

    for probe, factor in (("saturated", 6.0), ("saturated", 20.0), ("huge", 100.0), ("huge", 1000.0), ("tiny", 1e-3)):
        yield at(probe, f"{factor:g} ×", scaled(inputs, factor))
    yield at("one sign", "all positive", of_one_sign(subject, inputs, 1.0))
    yield at("one sign", "all negative", of_one_sign(subject, inputs, -1.0))
    yield at("zeros and ties", "tied", tied(subject, inputs))
    yield at("zeros and ties", "tied, parameters too", tied(subject, (*inputs, *params)))
    yield at("zeros and ties", "two values", two_valued(subject, inputs))
    if len(inputs) > 1:
        yield at("zeros and ties", "equal", equal(subject, inputs))
        yield from (at("saturated", f"{n} 20 ×", scaled((n,), 20.0)) for n in inputs[1:])
    for n in subject.inputs:
        if _selects(args[n]):
            yield at("zeros and ties", f"{n} all 0", {n: np.zeros_like(args[n])}, strict=n in LABELS)
    zeros = [n for n in subject.wrt if args[n].size and not np.any(args[n])]
    yield at("parameters", "zeros filled", {n: rng.standard_normal(args[n].shape) for n in zeros})
    yield at("parameters", "moved", {n: near(subject, n, rng, 0.3) for n in params})
    params = tuple(n for n in params if not keeps_its_sign(subject, n))
    yield at("parameters", "negative", {n: -args[n] for n in params})
    yield at("parameters", "20 ×", scaled(params, 20.0))
    yield at("parameters", "zero", {n: 0 * args[n] for n in params})


def cotangent_examples(subject: Subject, shapes: Shapes, rng: np.random.Generator) -> Iterator[Example]:
    """Yield cotangents that a right backward pass is linear in: large ones, and ones with zeros."""
    outputs = shapes.of(subject, subject.args)
    dy = cotangent(outputs, rng)
    if all(y.ndim == 0 for y in outputs):
        yield Example("cotangents", subject, tuple(np.ones(()) for _ in outputs), "dE = 1")
    yield Example("cotangents", subject, tuple(1e6 * d for d in dy), "dy 10⁶ ×")
    yield Example("cotangents", subject, tuple(1e-6 * d for d in dy), "dy / 10⁶")
    yield Example("cotangents", subject, tuple(d * (rng.random(d.shape) < 0.5) for d in dy), "dy with zeros")
    for i in range(len(dy))[:4] if len(dy) > 1 else ():
        alone = tuple(d * (j == i) for j, d in enumerate(dy))
        yield Example("cotangents", subject, alone, f"dy of output {i} alone")

"""Mistakes that show in one returned array alone: the exact gradient, spoilt after it was computed.

No forward is traced for these. The order is that of simplicity: what one hypothesis explains the next does not see.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from tinynet.faults import FAULTS
from tinynet.verification.diagnosis.evidence import Diagnosis, Wrong
from tinynet.verification.diagnosis.factors import express_in, told
from tinynet.verification.diagnosis.mistakes import transforms
from tinynet.verification.diagnosis.primitives import Array
from tinynet.verification.tolerance import K

Hypothesis = Callable[[str, Sequence[Wrong]], Diagnosis | None]


def of_one_array(name: str, runs: Sequence[Wrong]) -> Diagnosis | None:
    """Return the first hypothesis that reproduces a gradient in every run where it was wrong."""
    failing = [r for r in runs if name in r.wrong]
    for hypothesis in (_not_finite, _shape, _exactly, _scaled, _added, _clipped):
        found = hypothesis(name, runs if hypothesis is _clipped else failing)
        if found is not None:
            return found
    return None


def _said(fault: str, name: str, sentence: str = "", factor: str = "") -> Diagnosis:
    return Diagnosis((name,), fault, factor, sentence or f"{name}: {FAULTS[fault]}")


def _not_finite(name: str, failing: Sequence[Wrong]) -> Diagnosis | None:
    bad = [~np.isfinite(np.asarray(r.got[name], np.float64)) for r in failing]
    worst = max(bad, key=lambda b: int(b.sum()))
    if not worst.any():
        return None
    return _said("non-finite", name, f"{name} is infinite or NaN in {int(worst.sum())} of {worst.size} entries")


def _shape(name: str, failing: Sequence[Wrong]) -> Diagnosis | None:
    """Say first of all that the shape is wrong, and, if the values tell, how it came about."""
    odd = [r for r in failing if np.shape(r.got[name]) != r.exact[name].shape]
    if not odd:
        return None
    got, exact = np.asarray(odd[0].got[name]), odd[0].exact[name]
    start = f"{name} has shape {got.shape}, expected {exact.shape}"
    axes = _kept_axes(name, odd)
    if axes is not None:
        batch = axes == (0,) and all(np.shape(r.got[name])[0] in _batches(r) for r in odd)
        fault = "not summed over the batch" if batch else "not summed over an axis"
        return _said(fault, name, f"{start}: not summed over axis {', '.join(map(str, axes))}")
    for fault, words, predict in _SHAPES:
        if all(any(r.reproduces(name, p) for p in predict(np.shape(r.got[name]), r.exact[name])) for r in odd):
            return _said(fault, name, f"{start}: {words}")
    return _said("wrong shape", name, start)


def _kept_axes(name: str, odd: Sequence[Wrong]) -> tuple[int, ...] | None:
    """Return the axes whose sum gives the exact array, and which are longer than 1 in some run."""
    kept = np.ndim(odd[0].got[name]) - odd[0].exact[name].ndim
    for axes in itertools.combinations(range(kept + odd[0].exact[name].ndim), kept) if kept > 0 else ():
        if all(np.ndim(r.got[name]) - r.exact[name].ndim == kept for r in odd):
            sums = [np.asarray(r.got[name], np.float64).sum(axis=axes) for r in odd]
            fits = all(
                s.shape == r.exact[name].shape and np.all(np.abs(s - r.exact[name]) <= 2 * r.tolerance[name])
                for s, r in zip(sums, odd, strict=True)
            )
            if fits and max(np.shape(r.got[name])[a] for r in odd for a in axes) > 1:
                return axes
    return None


def _batches(r: Wrong) -> set[int]:
    return {np.shape(a)[0] for a in (*r.args.values(), *r.dy) if np.ndim(a)}


def _squeezed(shape: tuple[int, ...], exact: Array) -> Iterator[Array]:
    if [n for n in shape if n != 1] == [n for n in exact.shape if n != 1]:
        yield exact.reshape(shape)


def _turned(_: tuple[int, ...], exact: Array) -> Iterator[Array]:
    for i in range(exact.ndim):
        for j in range(i):
            yield np.swapaxes(exact, i, j)
    yield exact.T


def _summed(_: tuple[int, ...], exact: Array) -> Iterator[Array]:
    for axis in range(exact.ndim):
        yield exact.sum(axis=axis)
        yield exact.sum(axis=axis, keepdims=True)
        yield exact.mean(axis=axis)
        yield exact.mean(axis=axis, keepdims=True)


_SHAPES: list[tuple[str, str, Callable[[tuple[int, ...], Array], Iterator[Array]]]] = [
    ("kept a dimension", "the values are right, with other axes of length 1", _squeezed),
    ("transpose", "it is transposed", _turned),
    ("summed over everything", "the sum of all entries", lambda shape, exact: iter([np.full(shape, exact.sum())])),
    ("summed over an axis", "summed over one axis too many", _summed),
    ("zero", "zeros", lambda shape, exact: iter([np.zeros(shape)])),
    ("wrong shape", "the right values in another order of axes", lambda shape, exact: _reshaped(shape, exact)),
]


def _reshaped(shape: tuple[int, ...], exact: Array) -> Iterator[Array]:
    if math.prod(shape) == exact.size:
        yield exact.reshape(shape)


def _exactly(name: str, failing: Sequence[Wrong]) -> Diagnosis | None:
    """Zeros, a sign, and what `transforms` makes of an array."""
    largest = max((r.exact[name] for r in failing), key=lambda a: a.size)
    every: list[tuple[str, str, Callable[[Array], Array]]] = [
        ("zero", "zero", np.zeros_like),
        ("sign", "the negative of the exact array", np.negative),
    ]
    every += [(t.fault, t.words, t.of) for t in transforms(largest.shape, all_shifts=True)]
    if largest.ndim > 1:
        every.append(("transpose", "transposed and reshaped", lambda t: t.T.reshape(t.shape)))
        every += [("shifted", "shifted by one place", partial(np.roll, shift=s)) for s in (1, -1)]
    every += [("absolute value", "made negative", lambda t: -np.abs(t))]
    for fault, words, change in every:
        if all(_holds(r, name, change) for r in failing):
            return _said(fault, name, f"{name} is {words}")
    return None


def _holds(r: Wrong, name: str, change: Callable[[Array], Array]) -> bool:
    try:
        return r.reproduces(name, change(r.exact[name]))
    except (IndexError, ValueError):
        return False


def _scaled(name: str, failing: Sequence[Wrong], decimals: bool = False) -> Diagnosis | None:
    factors = []
    for r in failing:
        exact, got = r.exact[name], np.asarray(r.got[name], np.float64)
        scale = float(np.vdot(exact, exact))
        factors.append(float(np.vdot(exact, got)) / scale if scale else math.nan)
        if not r.reproduces(name, factors[-1] * exact):
            return None
    ignoring = [1 / float(r.dy[0]) if len(r.dy) == 1 and r.dy[0].ndim == 0 and r.dy[0] else math.nan for r in failing]
    if all(map(math.isclose, factors, ignoring)):
        return _said("ignores dy", name)
    factor = express_in(failing, factors, [name], decimals=decimals)
    if not factor or (len(failing) == 1 and failing[0].exact[name].size < 2):
        return None
    return _said("scaled", name, f"{name} is the exact array times {told(factor)}", factor)


def of_any_multiple(name: str, runs: Sequence[Wrong]) -> Diagnosis | None:
    """Return by which number a gradient is multiplied, whatever that number."""
    return _scaled(name, [r for r in runs if name in r.wrong], decimals=True)


def _added(name: str, failing: Sequence[Wrong]) -> Diagnosis | None:
    """A number, or a multiple of the parameter, added to every entry: the same in two runs, or a round one."""
    if max(r.exact[name].size for r in failing) < 2:
        return None
    for fault, what, direction in (
        ("constant offset", "added to every entry", lambda r: np.ones(r.exact[name].shape)),
        ("weight decay", "times the parameter added", lambda r: np.asarray(r.args[name], np.float64)),
    ):
        amounts = []
        for r in failing:
            v = direction(r)
            norm = float(np.vdot(v, v))
            amounts.append(float(np.vdot(v, np.asarray(r.got[name]) - r.exact[name])) / norm if norm else math.nan)
            if not r.reproduces(name, r.exact[name] + amounts[-1] * v):
                break
        else:
            seen_twice = len(amounts) > 1 and all(math.isclose(a, amounts[0], rel_tol=1e-5) for a in amounts)
            if seen_twice or (len(amounts) == 1 and _is_round(amounts[0])):
                return _said(fault, name, f"{name} is exact with {amounts[0]:.6g} {what}")
    return None


def _is_round(number: float) -> bool:
    return math.isclose(number, float(f"{number:.2g}"), rel_tol=1e-9)


def _clipped(name: str, runs: Sequence[Wrong]) -> Diagnosis | None:
    """Every entry cut off at the same bounds, in every run, or the whole at one norm."""
    low = high = None
    failing = [r for r in runs if name in r.wrong]
    for r in failing:
        got, exact = np.asarray(r.got[name]), r.exact[name]
        if not exact.size:
            return None
        if exact.min() < got.min() - r.tolerance[name]:
            low = float(got.min())
        if exact.max() > got.max() + r.tolerance[name]:
            high = float(got.max())
    norm = max(float(np.linalg.norm(r.got[name])) for r in failing)

    def shortened(g: Array) -> Array:
        return g * min(1.0, norm / (float(np.linalg.norm(g)) or 1.0))

    seen = len(failing) > 1 or (len(runs) > 1 and _is_round(norm))
    if seen and all(r.reproduces(name, shortened(r.exact[name])) for r in runs):
        return _said("clipped", name, f"{name} is scaled down to a norm of {norm:.6g} where it is longer")
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    if bounds == (-math.inf, math.inf) or low == high or sum(r.exact[name].size for r in failing) < 4:
        return None
    if len(runs) < 2 or not all(r.reproduces(name, np.clip(r.exact[name], *bounds)) for r in runs):
        return None
    told = [f"below at {low:.6g}"] if low is not None else []
    told += [f"above at {high:.6g}"] if high is not None else []
    return _said("clipped", name, f"{name} is cut off {' and '.join(told)}")


def exchanged(names: Sequence[str], failing: Sequence[Wrong]) -> list[Diagnosis]:
    """Return the pairs of which each gradient is the exact one of the other."""
    found: list[Diagnosis] = []
    for b, a in itertools.combinations(names, 2):
        both = [r for r in failing if {a, b} & r.wrong]
        if both and all(r.reproduces(a, r.exact[b]) and r.reproduces(b, r.exact[a]) for r in both):
            found.append(Diagnosis((b, a), "exchanged gradients", "", f"the gradients of {b} and {a} are exchanged"))
    return found


def of_some_entries(name: str, runs: Sequence[Wrong]) -> Diagnosis | None:
    """All right but one entry, row or column, the same in every run that has it."""
    if any(np.shape(r.got[name]) != r.exact[name].shape for r in runs):
        return None
    bad = [np.argwhere(np.abs(np.asarray(r.got[name]) - r.exact[name]) > r.tolerance[name]) for r in runs]
    entry = next(b[0] for b in bad if len(b))
    large = [(r, len(b)) for r, b in zip(runs, bad, strict=True) if r.exact[name].size > 1]
    if large and all(n == 1 or (n == 0 and _may_hide(r, name, entry)) for r, n in large):
        return _said("one entry", name, f"entry {entry.tolist()} of {name} is wrong, every other one is right")
    for fault, axis in (("one row", 0), ("one row", -2), ("one column", -1)) if len(entry) > 1 else ():
        long = [(r, b) for r, b in zip(runs, bad, strict=True) if r.exact[name].shape[axis] > 1]
        touched = [({*b[:, axis].tolist()}, r.exact[name].shape[axis]) for r, b in long if len(b)]
        # Counted from the front or from the back: the last row is the last at every shape.
        places = [{*at, *(i - n for i in at)} if len(at) == 1 else set() for at, n in touched]
        hidden = [r for r, b in long if not len(b)]
        fits = [p for p in set.intersection(*places) if all(_hides(r, name, axis, p) for r in hidden)] if places else []
        if fits:
            return _said(fault, name, f"{fault[4:]} {max(fits)} of {name} is wrong, every other one is right")
    return None


def _may_hide(r: Wrong, name: str, entry: Array) -> bool:
    """Return whether a mistake at one entry need not show: what is 0 stays right."""
    return bool(np.any(entry >= r.exact[name].shape) or np.any(np.abs(r.exact[name]) <= r.tolerance[name]))


def _hides(r: Wrong, name: str, axis: int, place: int) -> bool:
    """Return whether an array has no such row, or one of zeros, which stay right."""
    n = r.exact[name].shape[axis]
    return not -n <= place < n or bool(np.all(np.abs(np.take(r.exact[name], place, axis)) <= r.tolerance[name]))


def rounded_to_float32(name: str, failing: Sequence[Wrong]) -> Diagnosis | None:
    """Errors of the size of float32's rounding, and of no simpler form."""
    bad = [r for r in failing if name in r.wrong]
    if any(np.shape(r.got[name]) != r.exact[name].shape for r in bad) or of_any_multiple(name, bad):
        return None
    units = [2.0**-24 * float(np.max(np.abs(r.exact[name]), initial=0)) for r in bad]
    errors = [float(np.max(np.abs(np.asarray(r.got[name]) - r.exact[name]))) for r in bad]
    within = all(e <= K * u for e, u in zip(errors, units, strict=True))
    return _said("float32 inside", name) if within and sum(errors) >= sum(units) / 8 else None

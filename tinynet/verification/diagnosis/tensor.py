"""Hypotheses about one gradient: the exact one, spoilt after it was computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from tinynet.verification.diagnosis.evidence import FAULTS, Array, Diagnosis, Evidence
from tinynet.verification.oracle import Exact
from tinynet.verification.tolerance import K, distance

__all__ = [
    "not_finite",
    "of_one_tensor",
    "of_some_entries",
    "rounded_to_float32",
    "when_saturated",
    "without_memory",
]


def not_finite(name: str, failing: Sequence[Evidence]) -> Diagnosis | None:
    """An infinity or a NaN where the exact value is finite."""
    bad = [~np.isfinite(np.asarray(e.got[name], np.float64)) for e in failing if name in e.wrong]
    if not any(b.any() for b in bad):
        return None
    worst = max(bad, key=lambda b: int(b.sum()))
    return Diagnosis("non-finite", (name,), f"{int(worst.sum())} of {worst.size} entries are infinite or NaN")


def of_one_tensor(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    failing = [e for e in evidence if name in e.wrong]
    for fault, predict in _SPOILT:
        if all(any(e.reproduces(name, p) for p in predict(name, e)) for e in failing):
            return Diagnosis(fault, (name,), FAULTS[fault])
    for hypothesis in (_scaled, _offset, _decayed, _clipped, _clipped_to_norm, _samples):
        found = hypothesis(name, failing if hypothesis not in (_clipped, _clipped_to_norm, _samples) else evidence)
        if found is not None:
            return found
    return None


def _transposes(name: str, e: Evidence) -> Iterator[Array]:
    exact = e.exact.grads[name]
    if exact.ndim >= 2:
        yield exact.T
        yield exact.T.reshape(exact.shape)
        if exact.ndim > 2:
            yield np.swapaxes(exact, -1, -2)


def _unsummed(name: str, e: Evidence) -> Iterator[Array]:
    """What the gradient is the sum of: dy itself is one sample's for a bias; else sample by sample."""
    got = np.asarray(e.got[name])
    if got.ndim == e.exact.grads[name].ndim + 1 and got.shape[0] == e.m and name not in e.subject.batched:
        yield np.stack([_one_sample(e, i).grads[name] for i in range(e.m)])


def _summed(name: str, e: Evidence) -> Iterator[Array]:
    exact, shape = e.exact.grads[name], np.shape(e.got[name])
    if exact.size > 1 or shape != exact.shape:
        yield np.full(shape, exact.sum())
        for axis in range(exact.ndim) if exact.ndim > 1 else ():
            for keep in (True, False):
                total = exact.sum(axis=axis, keepdims=keep)
                yield total
                if keep:
                    yield np.broadcast_to(total, exact.shape)


def _kept(name: str, e: Evidence) -> Iterator[Array]:
    got, exact = np.asarray(e.got[name]), e.exact.grads[name]
    if got.ndim != exact.ndim and [n for n in got.shape if n != 1] == [n for n in exact.shape if n != 1]:
        yield exact.reshape(got.shape)


def _shifts(name: str, e: Evidence) -> Iterator[Array]:
    exact = e.exact.grads[name]
    for axis in range(exact.ndim):
        for step in range(1, exact.shape[axis]):
            yield np.roll(exact, step, axis)
        for step in (1, -1):
            moved = np.roll(exact, step, axis)
            moved[(slice(None),) * axis + (0 if step == 1 else -1,)] = 0
            yield moved
    if exact.ndim > 1:
        for step in (1, -1):
            yield np.roll(exact, step)


def _flips(name: str, e: Evidence) -> Iterator[Array]:
    exact = e.exact.grads[name]
    for axis in range(exact.ndim):
        yield np.flip(exact, axis)
    yield np.flip(exact)


def _flattened(name: str, e: Evidence) -> Iterator[Array]:
    got, exact = np.asarray(e.got[name]), e.exact.grads[name]
    if got.shape != exact.shape and got.size == exact.size:
        yield exact.reshape(got.shape)


def _diagonal(name: str, e: Evidence) -> Iterator[Array]:
    """dy ⊗ diag(∂y/∂x): each output's own input only, as for an activation that acts entry by entry."""
    exact = e.exact.grads[name]
    if exact.shape == e.dy.shape and 1 < exact.size <= 64:
        diagonal = np.empty(exact.shape)
        for index in np.ndindex(exact.shape):
            dy = np.zeros(exact.shape)
            dy[index] = 1.0
            diagonal[index] = e.vjp(e.args, dy).grads[name][index]
        yield e.dy * diagonal


_SPOILT: list[tuple[str, Callable[[str, Evidence], Iterable[Array]]]] = [
    ("zero", lambda name, e: (np.zeros(e.exact.grads[name].shape),)),
    ("sign", lambda name, e: (-e.exact.grads[name],)),
    ("kept a dimension", _kept),
    ("transpose", _transposes),
    ("not summed over the batch", _unsummed),
    ("absolute value", lambda name, e: (np.abs(e.exact.grads[name]), -np.abs(e.exact.grads[name]))),
    ("shifted", _shifts),
    ("reversed", _flips),
    ("summed over everything", _summed),
    ("zero", lambda name, e: (np.zeros(np.shape(e.got[name])),)),
    ("wrong shape", _flattened),
    ("off-diagonal terms missing", _diagonal),
]
"""In order: what a simpler hypothesis explains is not looked at by the next."""


def _scaled(name: str, failing: Sequence[Evidence]) -> Diagnosis | None:
    """One factor an evidence, and one expression for the factors of all."""
    factors = []
    for e in failing:
        exact, got = e.exact.grads[name], np.asarray(e.got[name], np.float64)
        scale = float(np.vdot(exact, exact))
        if got.shape != exact.shape or scale == 0 or not np.isfinite(got).all():
            return None
        factor = float(np.vdot(exact, got)) / scale
        if not e.reproduces(name, factor * exact):
            return None
        factors.append(factor)
    return _explain_factors((name,), factors, failing)


def _explain_factors(names: tuple[str, ...], factors: list[float], failing: Sequence[Evidence]) -> Diagnosis | None:
    def all_are(expression: Callable[[Evidence], float], sign: float = 1.0) -> bool:
        return all(math.isclose(f, sign * expression(e), rel_tol=1e-9) for f, e in zip(factors, failing, strict=True))

    ignoring = [1 / float(e.dy) for e in failing if e.dy.ndim == 0 and float(e.dy)]
    if len(ignoring) == len(factors) and all(map(math.isclose, factors, ignoring)):
        return Diagnosis("ignores dy", names, FAULTS["ignores dy"])
    expressions: list[tuple[str, Callable[[Evidence], float]]] = [
        ("2", lambda e: 2),
        ("1/2", lambda e: 0.5),
        ("m", lambda e: e.m),
        ("1/m", lambda e: 1 / e.m if e.m else 0.0),
        ("m", lambda e: e.rows),
        ("1/m", lambda e: 1 / e.rows if e.rows else 0.0),
        ("n_out", lambda e: e.n_out),
        ("1/n_out", lambda e: 1 / e.n_out),
        ("1/n_in", lambda e: 1 / e.n_in),
        ("n_in", lambda e: e.n_in),
        ("1/(m n_out)", lambda e: 1 / (e.m * e.n_out) if e.m else 0.0),
        ("1/(m n_in)", lambda e: 1 / (e.m * e.n_in) if e.m else 0.0),
        ("m n_out", lambda e: e.m * e.n_out),
        ("2/m", lambda e: 2 / e.m if e.m else 0.0),
        ("1/(2m)", lambda e: 0.5 / e.m if e.m else 0.0),
        ("2/n_out", lambda e: 2 / e.n_out),
        ("1/(m − 1)", lambda e: 1 / (e.m - 1) if e.m > 1 else 0.0),
        ("1/√m", lambda e: e.m**-0.5 if e.m else 0.0),
        ("1/√n_in", lambda e: e.n_in**-0.5),
        ("1/√n_out", lambda e: e.n_out**-0.5),
    ]
    for text, expression in expressions:
        for sign, prefix in ((1.0, ""), (-1.0, "−")):
            if all_are(expression, sign):
                fault = f"scaled by {prefix}{text}"
                return Diagnosis(
                    fault, names, FAULTS.get(fault) or f"every entry is {prefix}{text} times the exact value"
                )
    constant = factors[0]
    if len(failing) > 1 and all(math.isclose(f, constant, rel_tol=1e-9) for f in factors):
        what = f"every entry is {constant:.6g} times the exact value, at every shape"
        return Diagnosis("scaled by a constant", names, what)
    return None


def _offset(name: str, failing: Sequence[Evidence]) -> Diagnosis | None:
    offsets = []
    for e in failing:
        exact, got = e.exact.grads[name], np.asarray(e.got[name])
        if got.shape != exact.shape or not exact.size:
            return None
        offsets.append(float(np.median(got - exact)))
        if not offsets[-1] or not e.reproduces(name, exact + offsets[-1]):
            return None
    if max(e.exact.grads[name].size for e in failing) < 2:
        return None
    if not all(math.isclose(o, offsets[0], rel_tol=1e-6) for o in offsets):
        return None
    return Diagnosis("constant offset", (name,), f"{offsets[0]:.6g} was added to every entry")


def _decayed(name: str, failing: Sequence[Evidence]) -> Diagnosis | None:
    rates = []
    for e in failing:
        exact, got, p = e.exact.grads[name], np.asarray(e.got[name]), e.args[name]
        if got.shape != exact.shape or not p.size:
            return None
        rates.append(float(np.vdot(p, got - exact) / np.vdot(p, p)))
        if not rates[-1] or not e.reproduces(name, exact + rates[-1] * p):
            return None
    if max(e.args[name].size for e in failing) < 2 or not all(math.isclose(r, rates[0], rel_tol=1e-6) for r in rates):
        return None
    return Diagnosis("weight decay", (name,), f"{rates[0]:.6g} times the parameter itself was left in its gradient")


def _clipped(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """Every entry cut off at the same bounds, at every shape."""
    failing = [e for e in evidence if name in e.wrong]
    if any(np.shape(e.got[name]) != e.exact.grads[name].shape or not e.exact.grads[name].size for e in failing):
        return None
    low = high = None
    for e in failing:
        got, exact = np.asarray(e.got[name]), e.exact.grads[name]
        if exact.min() < got.min() - e.tolerance[name]:
            low = float(got.min())
        if exact.max() > got.max() + e.tolerance[name]:
            high = float(got.max())
    if (low is None and high is None) or low == high:
        return None
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    if sum(e.exact.grads[name].size for e in failing) < 4 or len(evidence) < 2:
        return None
    if not all(e.reproduces(name, np.clip(e.exact.grads[name], *bounds)) for e in evidence):
        return None
    told = [f"below at {low:.6g}"] if low is not None else []
    told += [f"above at {high:.6g}"] if high is not None else []
    return Diagnosis("clipped", (name,), f"the exact gradient is cut off {' and '.join(told)}")


def _clipped_to_norm(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """The tensor scaled down where its norm is above a bound, and left alone where it is below."""
    norms = [float(np.linalg.norm(np.asarray(e.got[name]))) for e in evidence if name in e.wrong]
    bound_ = norms[0]
    if len(evidence) < 3 or not bound_ or not all(math.isclose(n, bound_, rel_tol=1e-9) for n in norms):
        return None
    for e in evidence:
        exact = e.exact.grads[name]
        norm = float(np.linalg.norm(exact))
        if not e.reproduces(name, exact * min(1.0, bound_ / norm) if norm else exact):
            return None
    return Diagnosis("clipped", (name,), f"the exact gradient is scaled down to a norm of {bound_:.6g}")


def _samples(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """Gradients of parameters that leave out a sample, or use one."""
    failing = [e for e in evidence if name in e.wrong]
    if name in failing[0].subject.batched or any(e.exact.y.ndim == 0 or e.exact.y.shape[0] != e.m for e in failing):
        return None
    failing = [e for e in failing if e.m > 1] or list(failing)
    faults = ("one sample left out", "only one sample used")
    # Of two samples both may be said; who uses one is right where there is only one.
    if any(e.m == 1 and name not in e.wrong for e in evidence):
        faults = faults[::-1]
    for fault in faults:
        places: set[int] | None = None
        for e in failing:
            if e.m > 64:
                return None
            here = set()
            for i in range(e.m):
                one = _one_sample(e, i).grads[name]
                predicted = e.exact.grads[name] - one if fault == "one sample left out" else one
                if e.reproduces(name, predicted):
                    here |= {i, i - e.m}
            places = here if places is None else places & here
        if places:
            place = min(places, key=abs)
            which = {0: "the first", -1: "the last"}.get(place, f"number {place}")
            rest = "contributes nothing" if fault == "one sample left out" else "alone contributes"
            return Diagnosis(fault, (name,), f"{which} sample of the batch {rest}")
    return None


def _one_sample(e: Evidence, i: int) -> Exact:
    dy = np.zeros_like(e.dy)
    dy[i] = e.dy[i]
    return e.vjp(e.args, dy)


def of_some_entries(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """All right but one entry, row or column, the same at every shape that has it."""
    if any(np.shape(e.got[name]) != e.exact.grads[name].shape for e in evidence):
        return None
    bad = [np.argwhere(np.abs(np.asarray(e.got[name]) - e.exact.grads[name]) > e.tolerance[name]) for e in evidence]
    shapes = [e.exact.grads[name].shape for e in evidence]
    hidden = [bool(np.any(np.abs(e.exact.grads[name]) <= e.tolerance[name])) for e in evidence]  # what is 0 stays right
    large = [(len(b), h) for b, shape, h in zip(bad, shapes, hidden, strict=True) if math.prod(shape) > 1]
    if all(n == 1 or (n == 0 and h) for n, h in large) and max(map(len, bad)):
        entry = [int(i) for i in next(b[0] for b in bad if len(b))]
        return Diagnosis("one entry", (name,), f"entry {entry} is wrong, every other one is right")
    for fault, axes_of in _PARTS:
        if fault != "one entry" and max(map(len, bad)) < 2:
            continue
        places: set[tuple[int, ...]] | None = None
        untouched = []
        for e, here, shape in zip(evidence, bad, shapes, strict=True):
            axes = axes_of(len(shape))
            if math.prod(shape) < 2 or not axes or (fault != "one entry" and shape[axes[0]] < 2):
                continue
            lengths = tuple(shape[a] for a in axes)
            at = {tuple(int(i[a]) for a in axes) for i in here}
            if len(at) > 1:
                places = set()
                break
            if not at:
                untouched.append((np.moveaxis(e.exact.grads[name], axes, range(len(axes))), e.tolerance[name]))
                continue
            # Counted from the front or from the back: the last row is the last at every shape.
            (place,) = at
            both = {place, tuple(p - n for p, n in zip(place, lengths, strict=True))}
            places = both if places is None else places & both
        fits = [p for p in places or () if not any(_shows(exact, p, tolerance) for exact, tolerance in untouched)]
        if fits:
            place = max(fits)
            where = list(place) if fault == "one entry" else place[0]
            return Diagnosis(fault, (name,), f"{fault[4:]} {where} is wrong, every other one is right")
    return None


_PARTS: list[tuple[str, Callable[[int], list[int]]]] = [
    ("one entry", lambda ndim: list(range(ndim))),
    ("one row", lambda ndim: [0] if ndim > 1 else []),
    ("one row", lambda ndim: [ndim - 2] if ndim > 2 else []),
    ("one column", lambda ndim: [ndim - 1] if ndim > 1 else []),
]
"""A part, and the axes along which it has one index each; rows of rows are rows, too."""


def _shows(exact: Array, place: tuple[int, ...], tolerance: float) -> bool:
    """Whether an array has that place, and something there that a mistake could spoil: what is 0 stays right."""
    has = all(-n <= p < n for p, n in zip(place, exact.shape, strict=False))
    return has and bool(np.any(np.abs(exact[place]) > tolerance))


def without_memory(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """Blind to the input it is given: the values are those of another forward pass."""
    wrong = [(e, again) for e in evidence if name in e.wrong and (again := e.rerun(1.5)) is not None]
    if not wrong:
        return None
    for e, again in wrong:
        moved = distance(again.exact.grads[name], e.exact.grads[name]) > 1e3 * e.tolerance[name]
        if not moved or not np.array_equal(np.asarray(again.got[name]), np.asarray(e.got[name])):
            return None
    return Diagnosis("stale cache", (name,), "the values do not change with the input: they are another forward pass's")


def when_saturated(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """Right at every shape once the inputs are small: what is wrong depends on how large they are."""
    fault = "wrong only when saturated"
    small = [again for e in evidence if (again := e.rerun(0.05)) is not None]
    if len(small) < len(evidence) or any(name in e.wrong for e in small):
        return None
    return Diagnosis(fault, (name,), FAULTS[fault])


def rounded_to_float32(names: Sequence[str], failing: Sequence[Evidence]) -> Diagnosis | None:
    """Errors of the size of float32's rounding, and of no simpler form."""
    for e in failing:
        for name in e.wrong & set(names):
            got, exact = np.asarray(e.got[name]), e.exact.grads[name]
            allowed = K * e.subject.depth * 2.0**-24 * float(np.max(np.abs(exact), initial=0))
            if got.shape != exact.shape or distance(got, exact) > allowed:
                return None
    return Diagnosis("float32 inside", tuple(names), FAULTS["float32 inside"])

"""From a wrong array to the name of the mistake.

A name is given only if its hypothesis, computed, reproduces the user's arrays within the tolerance at every shape where
they were wrong. Hypotheses are of three kinds, tried in this order:

1. the exact gradient, spoilt afterwards: a sign, a factor, a transpose, a missing sum, …, each tensor for itself;
2. the right formulas with a wrong ∂E/∂y: one cause that spoils every gradient;
3. the right chain rule with one step replaced inside the layer: another derivative at an activation, another matrix in
   a product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.verification.interventions import Activation, Instrumented
from tinynet.verification.oracle import Exact
from tinynet.verification.subjects import Args, Subject
from tinynet.verification.tolerance import K, bound, distance

__all__ = ["FAULTS", "Diagnosis", "Evidence", "diagnose"]

Array = npt.NDArray[Any]

FAULTS = {
    "sign": "every entry is the negative of the exact value",
    "transpose": "the transpose of the exact value is returned",
    "zero": "every entry is zero",
    "missing": "no gradient is returned",
    "scaled by m": "every entry is m times the exact value, and m is the batch size",
    "scaled by 1/m": (
        "every entry is 1/m of the exact value, and m is the batch size: the mean over the batch is returned where the "
        "forward pass needs the sum"
    ),
    "scaled by 2": "every entry is twice the exact value",
    "scaled by 1/2": "every entry is half the exact value",
    "scaled by n_out": "every entry is n times the exact value, and n is the width of the output",
    "scaled by 1/n_out": "every entry is 1/n of the exact value, and n is the width of the output",
    "scaled by a constant": "every entry is the same multiple of the exact value at every shape",
    "not summed over the batch": "the gradient of each sample is returned; their sum is the gradient",
    "summed over everything": "the sum of all entries is returned in place of each",
    "kept a dimension": "the values are right, with an axis of length 1 too many",
    "wrong dtype": "the values are of another number type than the array that they are the gradient of",
    "float32 inside": "the values are right to float32 only: somewhere on the way they were rounded to it",
    "constant offset": "the same number was added to every entry",
    "weight decay": "a multiple of the parameter itself was left in its gradient",
    "absolute value": "the absolute value of the exact gradient is returned",
    "clipped": "the exact gradient is cut off at a bound",
    "shifted": "the entries stand in the wrong places: shifted along an axis",
    "reversed": "the entries stand in the wrong places: reversed along an axis",
    "one sample left out": "one sample of the batch contributes nothing",
    "only one sample used": "one sample of the batch contributes, the others do not",
    "ignores dy": "the gradient is that for ∂E/∂y = 1: what is handed in as dy is not used",
    "σ′ missing": "the derivative of the activation was left out",
    "σ′ of the output": "the derivative of the activation was taken at its output a where it belongs at z",
    "σ′ incomplete": "a factor of the derivative of the activation was left out",
    "σ′ twice": "the derivative of the activation was multiplied in twice",
    "another activation's derivative": "the derivative of another activation was used",
    "W for Wᵀ": "a matrix goes back through the chain rule untransposed",
    "already updated W": "the error was passed back through a weight matrix that had already been updated",
    "mutates its cache": "the backward pass wrote into what the forward pass left for it",
    "stale cache": "the result depends on another forward pass than the one it belongs to",
    "accumulates": "each call adds to the result of the one before",
    "not deterministic": "the same call gives another result each time",
    "mutates x": "the input x was written into",
    "mutates params": "the parameters were written into",
    "mutates dy": "the incoming gradient dy was written into",
    "shares memory": "the result shares memory with an array of the caller's or with an earlier result",
    "wrong only for a layout": "the values are right for contiguous arrays and wrong for another layout in memory",
    "wrong only at batch 1": "the values are right for every batch but that of one sample",
    "wrong only when saturated": "the values are right for moderate inputs and wrong for large ones",
    "wrong only for small inputs": "the values are right for moderate inputs and wrong for small ones",
    "wrong only on an empty batch": "the values are right for every batch but the empty one",
    "wrong only at kinks": "at a kink of the forward pass the value is not between the one-sided slopes",
    "off-diagonal terms missing": "each output passes its error to its own input only, where it depends on others too",
    "one entry": "one entry is wrong, every other one is right",
    "one row": "one row is wrong, every other one is right",
    "one column": "one column is wrong, every other one is right",
    "non-finite": "there is an infinity or a NaN where the exact value is finite",
    "raises": "the backward pass raises where the forward pass does not",
    "hangs": "the call does not come back",
    "not an array": "something other than an array is returned",
    "malformed": "what is returned cannot be matched with what went in",
    "wrong shape": "the shape is not that of the array that it is the gradient of",
    "forward differs": "the forward pass under NumPy and under JAX give different values",
    "forward differs from the reference": "the forward pass and the independent reference give different values",
    "param_grads differs": "param_grads and backward give different gradients",
    "compiled differs": "under jax.jit the backward pass gives another result than without",
    "unknown": "the values are wrong, and no known mistake reproduces them",
}
"""The fault table: every name that a finding can bear, and what it says."""


@dataclass(frozen=True)
class Evidence:
    """One run of the target whose values were looked at: what it gave beside what is exact."""

    probe: str
    subject: Subject
    args: Args
    dy: Array
    exact: Exact
    got: Mapping[str, Any]
    tolerance: Mapping[str, float]
    wrong: frozenset[str]
    vjp: Callable[[Args, Array], Exact]
    rerun: Callable[[float], Evidence | None] = field(default=lambda _: None, compare=False)
    """Run again with the input scaled by a factor."""

    @property
    def m(self) -> int:
        """The batch size."""
        name = self.subject.batched[0] if self.subject.batched else ""
        return self.args[name].shape[0] if name and self.args[name].ndim else 1

    @property
    def n_out(self) -> int:
        """The width of the output; of ŷ for a loss."""
        shape = self.exact.y.shape or next((self.args[n].shape for n in ("y_hat", "y") if n in self.args), ())
        return int(shape[-1]) if shape else 1

    @property
    def n_in(self) -> int:
        """The width of the input."""
        name = self.subject.batched[0] if self.subject.batched else ""
        return int(self.args[name].shape[-1]) if name and self.args[name].ndim else 1

    def reproduces(self, name: str, predicted: Array) -> bool:
        """Whether the user's array is the predicted one, within the tolerance."""
        got = np.asarray(self.got[name])
        if got.shape != predicted.shape or got.dtype.kind not in "fiu":
            return False
        allowed = max(self.tolerance[name], bound(np.asarray(predicted, np.float64), depth=2 * self.subject.depth))
        return distance(got.astype(np.float64), predicted) <= allowed


@dataclass(frozen=True)
class Diagnosis:
    """A fault, the gradients that it explains, and what to say about it."""

    fault: str
    gradients: tuple[str, ...]
    explanation: str


def diagnose(evidence: Sequence[Evidence]) -> list[Diagnosis]:
    """Name the faults of plain runs (finite, deterministic, of contiguous arrays); every wrong gradient is in one."""
    failing = [e for e in evidence if e.wrong]
    wrong = [name for name in failing[0].subject.wrt if any(name in e.wrong for e in failing)]
    alone = {name: d for name in wrong if (d := _of_one_tensor(name, evidence))}
    if len(alone) < len(wrong):
        common = _of_dy(failing, wrong) or _all_rounded(wrong, failing) or _of_the_chain(failing, wrong)
        if common is not None:
            return [common]
    found = _merged([alone[name] for name in wrong if name in alone])
    for name in wrong:
        if name not in alone:
            found.append(
                _of_dy(failing, [name], only=True)
                or _of_some_entries(name, evidence)
                or _all_rounded([name], failing)
                or _of_the_chain(failing, [name], only=True)
                or _saturated(name, evidence)
                or Diagnosis("unknown", (name,), FAULTS["unknown"])
            )
    return _merged(found)


def _merged(found: list[Diagnosis]) -> list[Diagnosis]:
    merged: dict[tuple[str, str], Diagnosis] = {}
    for d in found:
        key = (d.fault, d.explanation)
        known = merged.get(key)
        merged[key] = Diagnosis(d.fault, (*known.gradients, *d.gradients), d.explanation) if known else d
    return list(merged.values())


# 1. the exact gradient, spoilt afterwards


def _of_one_tensor(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    failing = [e for e in evidence if name in e.wrong]
    for fault, predict in _SPOILT.items():
        if all(any(e.reproduces(name, p) for p in predict(name, e)) for e in failing):
            return Diagnosis(fault, (name,), FAULTS[fault])
    for hypothesis in (_scaled, _offset, _decayed, _clipped, _samples):
        found = hypothesis(name, failing)
        if found is not None:
            return found
    return None


def _transposes(name: str, e: Evidence) -> Iterator[Array]:
    exact = e.exact.grads[name]
    if exact.ndim >= 2:
        yield exact.T
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


_SPOILT: dict[str, Callable[[str, Evidence], Iterable[Array]]] = {
    "zero": lambda name, e: (np.zeros(np.shape(e.got[name])),),
    "sign": lambda name, e: (-e.exact.grads[name],),
    "kept a dimension": _kept,
    "transpose": _transposes,
    "not summed over the batch": _unsummed,
    "absolute value": lambda name, e: (np.abs(e.exact.grads[name]), -np.abs(e.exact.grads[name])),
    "reversed": _flips,
    "shifted": _shifts,
    "summed over everything": _summed,
    "wrong shape": _flattened,
    "off-diagonal terms missing": _diagonal,
}


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
    expressions: dict[str, Callable[[Evidence], float]] = {
        "2": lambda e: 2,
        "1/2": lambda e: 0.5,
        "m": lambda e: e.m,
        "1/m": lambda e: 1 / e.m if e.m else 0.0,
        "n_out": lambda e: e.n_out,
        "1/n_out": lambda e: 1 / e.n_out,
        "1/n_in": lambda e: 1 / e.n_in,
        "n_in": lambda e: e.n_in,
        "1/(m n_out)": lambda e: 1 / (e.m * e.n_out) if e.m else 0.0,
        "1/(m n_in)": lambda e: 1 / (e.m * e.n_in) if e.m else 0.0,
        "m n_out": lambda e: e.m * e.n_out,
        "2/m": lambda e: 2 / e.m if e.m else 0.0,
        "1/(2m)": lambda e: 0.5 / e.m if e.m else 0.0,
        "2/n_out": lambda e: 2 / e.n_out,
        "1/(m − 1)": lambda e: 1 / (e.m - 1) if e.m > 1 else 0.0,
        "1/√m": lambda e: e.m**-0.5 if e.m else 0.0,
        "1/√n_in": lambda e: e.n_in**-0.5,
        "1/√n_out": lambda e: e.n_out**-0.5,
    }
    for text, expression in expressions.items():
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
    norms = [float(np.linalg.norm(np.asarray(e.got[n]))) for n in names for e in failing]
    if (
        len(failing) > 1
        and all(0 < f < 1 for f in factors)
        and all(math.isclose(n, norms[0], rel_tol=1e-6) for n in norms)
    ):
        return Diagnosis("clipped", names, f"the exact gradient is scaled down to the norm {norms[0]:.6g}")
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


def _clipped(name: str, failing: Sequence[Evidence]) -> Diagnosis | None:
    lows, highs = [], []
    for e in failing:
        exact, got = e.exact.grads[name], np.asarray(e.got[name])
        if got.shape != exact.shape or not exact.size:
            return None
        low, high = float(got.min()), float(got.max())
        low = low if exact.min() < low - e.tolerance[name] else -math.inf
        high = high if exact.max() > high + e.tolerance[name] else math.inf
        if not e.reproduces(name, np.clip(exact, low, high)):
            return None
        lows += [low] if math.isfinite(low) else []
        highs += [high] if math.isfinite(high) else []
    sizes = max(e.exact.grads[name].size for e in failing)
    if sizes < 3 or any(not math.isclose(v, vs[0], rel_tol=1e-9, abs_tol=1e-300) for vs in (lows, highs) for v in vs):
        return None
    if len(lows) + len(highs) < 2 or not (lows or highs):
        return None
    bounds = [f"below at {lows[0]:.6g}"] * bool(lows) + [f"above at {highs[0]:.6g}"] * bool(highs)
    return Diagnosis("clipped", (name,), f"the exact gradient is cut off {' and '.join(bounds)}")


def _samples(name: str, failing: Sequence[Evidence]) -> Diagnosis | None:
    """Gradients of parameters that leave out a sample, or use one."""
    if name in failing[0].subject.batched or any(e.exact.y.ndim == 0 or e.exact.y.shape[0] != e.m for e in failing):
        return None
    failing = [e for e in failing if e.m > 1] or list(failing)
    for fault in ("one sample left out", "only one sample used"):
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


# 2. right formulas with a wrong ∂E/∂y


def _of_dy(failing: Sequence[Evidence], wrong: Sequence[str], only: bool = False) -> Diagnosis | None:
    """A wrong ∂E/∂y that explains every gradient; with `only`, these gradients whatever the others are."""
    for fault, transform in _WRONG_DY.items():
        if all(any(_explains(e, wrong, e.vjp(e.args, dy).grads, only) for dy in transform(e)) for e in failing):
            return Diagnosis(fault, tuple(wrong), FAULTS[fault])
    return _clipped_dy(failing, wrong, only)


def _explains(e: Evidence, wrong: Sequence[str], predicted: Mapping[str, Array], only: bool) -> bool:
    return all(e.reproduces(name, predicted[name]) for name in (wrong if only else e.subject.wrt))


def _shifted_dys(e: Evidence) -> Iterator[Array]:
    for axis in range(e.dy.ndim):
        for step in (1, -1):
            yield np.roll(e.dy, step, axis)


def _dys_without(e: Evidence, keep: bool) -> Iterator[Array]:
    for i in {0, e.m - 1, *range(min(e.m, 4))} if e.dy.ndim and e.dy.shape[0] == e.m and e.m > 1 else ():
        dy = np.zeros_like(e.dy) if keep else e.dy.copy()
        dy[i] = e.dy[i] if keep else 0
        yield dy


_WRONG_DY: dict[str, Callable[[Evidence], Iterable[Array]]] = {
    "sign": lambda e: (-e.dy,),
    "scaled by 1/m": lambda e: (e.dy / e.m,) if e.m else (),
    "scaled by m": lambda e: (e.dy * e.m,),
    "scaled by 2": lambda e: (e.dy * 2,),
    "scaled by 1/2": lambda e: (e.dy / 2,),
    "scaled by 1/n_out": lambda e: (e.dy / e.n_out,),
    "scaled by n_out": lambda e: (e.dy * e.n_out,),
    "ignores dy": lambda e: (np.ones_like(e.dy),),
    "absolute value": lambda e: (np.abs(e.dy),),
    "transpose": lambda e: (e.dy.T,) if e.dy.ndim == 2 and e.dy.shape[0] == e.dy.shape[1] else (),
    "summed over everything": lambda e: (
        *(np.broadcast_to(e.dy.sum(axis=a, keepdims=True), e.dy.shape) for a in range(e.dy.ndim)),
        np.full(e.dy.shape, e.dy.sum()),
        *(np.broadcast_to(e.dy.mean(axis=a, keepdims=True), e.dy.shape) for a in range(e.dy.ndim)),
    ),
    "shifted": _shifted_dys,
    "reversed": lambda e: (np.flip(e.dy, axis) for axis in range(e.dy.ndim)),
    "one sample left out": lambda e: _dys_without(e, keep=False),
    "only one sample used": lambda e: _dys_without(e, keep=True),
}


def _clipped_dy(failing: Sequence[Evidence], wrong: Sequence[str], only: bool) -> Diagnosis | None:
    for c in (1.0, 0.5, 0.1, 2.0, 5.0):
        if all(_explains(e, wrong, e.vjp(e.args, np.clip(e.dy, -c, c)).grads, only) for e in failing):
            return Diagnosis("clipped", tuple(wrong), f"dy is cut off at ±{c:g} before it is used")
    return None


# 3. one step of the chain rule replaced


def _of_the_chain(failing: Sequence[Evidence], wrong: Sequence[str], only: bool = False) -> Diagnosis | None:
    """Another δ at one activation, or another matrix in one product; tried at the two most telling runs."""
    telling = sorted(failing, key=lambda e: (-len(e.wrong), -min(e.dy.size, 64)))
    runs = [e for e in telling if all(e.exact.grads[n].size for n in wrong)][:2]
    if not runs:
        return None
    try:
        inside = [(e, Instrumented(e.subject, e.args)) for e in runs]
        places = [i.places(e.args, e.dy) for e, i in inside]
    except Exception:
        return None
    activations = [
        [(e, i, acts[k]) for (e, i), (acts, _) in zip(inside, places, strict=True)] for k in range(len(places[0][0]))
    ]
    for at in activations:
        for fault, transform in _WRONG_DELTA.items():
            if all(any(_gives(e, i, act, δ, wrong, only) for δ in transform(act, e)) for e, i, act in at):
                return Diagnosis(fault, tuple(wrong), FAULTS[fault])
    for j in range(len(places[0][1])):
        for side in (0, 1):
            found = _of_a_product(inside, places, j, side, wrong, only)
            if found is not None:
                return found
    for at in activations:
        for fault, lines in _LINES_OF_DELTA.items():
            if all(_lies_on_a_line(e, i, act, lines(act), wrong, only) for e, i, act in at):
                return Diagnosis(fault, tuple(wrong), FAULTS[fault])
    return None


def _gives(e: Evidence, inside: Instrumented, act: Activation, δ: Array, wrong: Sequence[str], only: bool) -> bool:
    if δ.shape != act.δ.shape or np.allclose(δ, act.δ, rtol=1e-12, atol=0):
        return False
    return _explains(e, wrong, inside.vjp(e.args, e.dy, {act.place: δ - act.δ}), only)


def _lies_on_a_line(
    e: Evidence,
    inside: Instrumented,
    act: Activation,
    lines: Iterable[tuple[Array, Array]],
    wrong: Sequence[str],
    only: bool,
) -> bool:
    """Whether δ = A + t B gives the user's gradients for some number t, for one of the pairs (A, B)."""
    for A, B in lines:
        start = inside.vjp(e.args, e.dy, {act.place: A - act.δ})
        end = inside.vjp(e.args, e.dy, {act.place: A + B - act.δ})
        t = _fit([(np.asarray(e.got[n]), start[n], end[n]) for n in wrong])
        if t and _explains(e, wrong, {n: start[n] + t * (end[n] - start[n]) for n in start}, only):
            return True
    return False


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z < 0, e, 1) / (1 + e))


def _derivatives(z: Array, a: Array) -> tuple[Array, ...]:
    """The derivatives of the activations in use, by z or, as people write them, by a."""
    return (
        a * (1 - a),
        1 - a * a,
        1 - np.tanh(z) ** 2,
        _sigmoid(z) * _sigmoid(-z),
        _sigmoid(z),
        (z > 0).astype(z.dtype),
        (a > 0).astype(z.dtype),
        *(np.where(z > 0, 1.0, slope) for slope in (0.01, 0.1, 0.2, 0.3)),
        np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))),
        _sigmoid(z) * (1 + z * _sigmoid(-z)),
        np.exp(z),
        2 * z,
        np.cos(z),
        1 / (1 + z * z),
        1 / (1 + np.abs(z)) ** 2,
        np.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    )


_WRONG_DELTA: dict[str, Callable[[Activation, Evidence], Iterable[Array]]] = {
    "σ′ missing": lambda act, e: (act.da,),
    "sign": lambda act, e: (-act.δ,),
    "σ′ of the output": lambda act, e: (act.da * act.derivative(act.a),),
    "σ′ incomplete": lambda act, e: (act.da * act.a, act.da * (1 - act.a), act.da * (1 + act.a), act.da * act.a**2),
    "σ′ twice": lambda act, e: (act.δ * act.derivative(act.z),),
    "another activation's derivative": lambda act, e: (act.da * d for d in _derivatives(act.z, act.a)),
    "ignores dy": lambda act, e: (act.derivative(act.z),),
    "absolute value": lambda act, e: (np.abs(act.δ), np.abs(act.da) * act.derivative(act.z)),
    "zero": lambda act, e: (np.zeros_like(act.δ),),
    "scaled by 1/m": lambda act, e: (act.δ / e.m,),
    "scaled by m": lambda act, e: (act.δ * e.m,),
    "scaled by 2": lambda act, e: (act.δ * 2,),
    "scaled by 1/2": lambda act, e: (act.δ / 2,),
    "scaled by 1/n_out": lambda act, e: (act.δ / act.δ.shape[-1],) if act.δ.ndim else (),
    "shifted": lambda act, e: (np.roll(act.δ, s, axis) for axis in range(act.δ.ndim) for s in (1, -1)),
    "reversed": lambda act, e: (np.flip(act.δ, axis) for axis in range(act.δ.ndim)),
    "transpose": lambda act, e: (act.δ.T,) if act.δ.ndim == 2 else (),
    "one sample left out": lambda act, e: _rows_of(act.δ, keep=False),
    "only one sample used": lambda act, e: _rows_of(act.δ, keep=True),
}


def _rows_of(δ: Array, keep: bool) -> Iterator[Array]:
    for i in (0, -1) if δ.ndim and len(δ) > 1 else ():
        changed = np.zeros_like(δ) if keep else δ.copy()
        changed[i] = δ[i] if keep else 0
        yield changed


def _clipping_lines(act: Activation) -> Iterator[tuple[Array, Array]]:
    """δ cut off at ±t is linear in t between two neighbouring |δ|."""
    size = np.abs(act.δ)
    for at in np.unique(size)[-40:-1]:
        yield np.where(size <= at, act.δ, 0.0), np.where(size > at, np.sign(act.δ), 0.0)


_LINES_OF_DELTA: dict[str, Callable[[Activation], Iterable[tuple[Array, Array]]]] = {
    "scaled by a constant": lambda act: ((np.zeros_like(act.δ), act.δ),),
    "constant offset": lambda act: ((act.δ, np.ones_like(act.δ)), (act.δ, act.derivative(act.z))),
    "clipped": _clipping_lines,
}


def _of_a_product(
    inside: Sequence[tuple[Evidence, Instrumented]],
    places: Sequence[tuple[list[Any], list[Any]]],
    j: int,
    side: int,
    wrong: Sequence[str],
    only: bool,
) -> Diagnosis | None:
    """The operand transposed, or moved along its own gradient as an update moves it."""
    transposed, updated = True, True
    for (e, instrumented), (_, products) in zip(inside, places, strict=True):
        operand = products[j].operands[side]
        key = (products[j].place, side)
        name = next((n for n in e.subject.wrt if _is_matrix(operand, e.args[n])), None)
        if name is None:
            return None
        square = operand.ndim == 2 and operand.shape[0] == operand.shape[1]
        transposed &= square and _explains(e, wrong, instrumented.vjp(e.args, e.dy, None, {key: operand.T}), only)
        if updated:
            gradient = e.exact.grads[name]
            direction = gradient if operand.shape == gradient.shape and _same(operand, e.args[name]) else gradient.T
            moved = instrumented.vjp(e.args, e.dy, None, {key: operand + direction})
            step = _fit([(np.asarray(e.got[n]), e.exact.grads[n], moved[n]) for n in wrong])
            updated = step is not None and step != 0
            if updated and step is not None:
                at = {n: g + step * (moved[n] - g) for n, g in e.exact.grads.items()}
                updated = _explains(e, wrong, at, only)
    if transposed:
        return Diagnosis("W for Wᵀ", tuple(wrong), FAULTS["W for Wᵀ"])
    if updated:
        return Diagnosis("already updated W", tuple(wrong), FAULTS["already updated W"])
    return None


def _is_matrix(operand: Array, arg: Array) -> bool:
    return operand.ndim == 2 and arg.ndim == 2 and (_same(operand, arg) or _same(operand, arg.T))


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b))


def _fit(triples: Sequence[tuple[Array, Array, Array]]) -> float | None:
    """The t with got ≈ exact + t · (moved − exact), by least squares."""
    top = bottom = 0.0
    for got, exact, moved in triples:
        if got.shape != exact.shape:
            return None
        d = moved - exact
        top, bottom = top + float(np.vdot(d, got - exact)), bottom + float(np.vdot(d, d))
    return top / bottom if bottom else None


# what remains


def _of_some_entries(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """All right but one entry, row or column, the same at every shape that has it."""
    fits: dict[str, set[tuple[int, ...]]] = {}
    for e in evidence:
        got, exact = np.asarray(e.got[name]), e.exact.grads[name]
        if got.shape != exact.shape:
            return None
        bad = np.argwhere(np.abs(got - exact) > e.tolerance[name])
        for fault, axes in (("one entry", range(exact.ndim)), ("one row", [0]), ("one column", [exact.ndim - 1])):
            if exact.size < 2 or exact.ndim < (1 if fault == "one entry" else 2) or exact.shape[axes[0]] < 2:
                continue
            # Counted from the front or from the back: the last row is the last at every shape.
            at = {tuple(int(i[a]) for a in axes) for i in bad}
            places = at | {tuple(p - exact.shape[a] for p, a in zip(i, axes, strict=True)) for i in at}
            fits[fault] = fits.get(fault, places) & (places if len(at) == 1 else set())
    for fault in ("one entry", "one row", "one column"):
        if fits.get(fault):
            place = max(fits[fault])
            where = list(place) if fault == "one entry" else place[0]
            return Diagnosis(fault, (name,), f"{fault[4:]} {where} is wrong, every other one is right")
    return None


def _saturated(name: str, evidence: Sequence[Evidence]) -> Diagnosis | None:
    """Right at every shape once the inputs are small: what is wrong depends on how large they are."""
    fault = "wrong only when saturated"
    small = [again for e in evidence if (again := e.rerun(0.05)) is not None]
    if len(small) < len(evidence) or any(name in e.wrong for e in small):
        return None
    return Diagnosis(fault, (name,), FAULTS[fault])


def _all_rounded(names: Sequence[str], failing: Sequence[Evidence]) -> Diagnosis | None:
    """Errors of the size of float32's rounding, and of no simpler form."""
    for e in failing:
        for name in e.wrong & set(names):
            got, exact = np.asarray(e.got[name]), e.exact.grads[name]
            allowed = K * e.subject.depth * 2.0**-24 * float(np.max(np.abs(exact), initial=0))
            if got.shape != exact.shape or distance(got, exact) > allowed:
                return None
    return Diagnosis("float32 inside", tuple(names), FAULTS["float32 inside"])

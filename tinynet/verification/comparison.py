"""Compare the gradients of one run with the exact ones, by the one rule of `tolerance`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import MISSING, Args, Array, Exact, Oracle, Subject
from tinynet.verification.numerical import NumericalOracle
from tinynet.verification.oracle import rounding, spread
from tinynet.verification.tolerance import CANCELLED, JUMP, bound, distance, largest, unit_of


@dataclass(frozen=True)
class Comparison:
    """The gradients of one run beside the exact ones.

    Attributes:
        probe, label: what was tried: "batch 2", "saturated (20 ×)"; dtype: the number type.
        subject: the target with the arrays of this run.
        dy: the cotangent.
        exact: what is exact there.
        got: the gradients that were returned, as arrays; absent where nothing usable was.
        form: what is wrong with the form of a gradient, by name: (fault, sentence); not compared where it is a shape.
        tolerance: how far each may be off.
        ratios: each error in units of its tolerance.
        wrong: the names of those beyond it.
        notes: what is worth knowing though it is not wrong.
        misshapen: the gradients of another shape than their array.
        sizes: the largest entry of each exact gradient.
    """

    probe: str
    dtype: str
    subject: Subject
    dy: tuple[Array, ...]
    exact: Exact
    got: Mapping[str, Array]
    form: Mapping[str, tuple[str, str]]
    tolerance: Mapping[str, float]
    ratios: Mapping[str, float]
    wrong: frozenset[str]
    label: str = ""
    notes: tuple[str, ...] = ()
    misshapen: Mapping[str, Array] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)

    @property
    def args(self) -> Args:
        return self.subject.args

    @property
    def spoilt(self) -> frozenset[str]:
        """The gradients of wrong values or of another shape."""
        return self.wrong | self.misshapen.keys()


def compare(
    subject: Subject,
    *,
    grads: Mapping[str, Any],
    probe: str,
    label: str = "",
    oracle: Oracle,
    dy: tuple[Array, ...],
    y: tuple[Array, ...] = (),
    dtype: str = "float64",
    rng: np.random.Generator,
    usual: Mapping[str, float],
    exact: Exact,
    known: Collection[str] = (),
) -> Comparison:
    """Compare the gradients `grads` of a run with the oracle's.

    Args:
        y: what came out, whose number type tells in which one the target computes.
        usual: the largest exact entry of each gradient where nothing is saturated. A factor such as 1 − a is off by u,
            however small it is: there the error may be u of what the gradient usually is, and a note says so.
        exact: what the oracle gives.
        known: the gradients that are known to be wrong, whose error is no rounding.
    """
    # What is not in tinynet's contract may compute in float32, whatever it is given.
    single = dtype == "float64" and not subject.contract and any(leaf.dtype == np.float32 for leaf in y)
    own = unit_of("float32" if single else dtype)
    unit = max(own, oracle.resolution / 32)
    got: dict[str, Array] = {}
    form: dict[str, tuple[str, str]] = {}
    notes: list[str] = []
    for name in subject.wrt:
        array, problem, note = read(grads.get(name, MISSING), subject, name, dtype, single)
        if problem and (subject.args[name].size or subject.contract):  # of no row np.array([]) cannot tell the width
            form[name] = problem
        if note:
            notes.append(note)
        if array is not None:
            got[name] = array
    errors = {n: distance(np.asarray(g, np.float64), exact.grads[n]) for n, g in got.items()}
    tolerance, excuses = _tolerances(subject, oracle, dy, exact, errors, (own, unit), usual, known, rng)
    notes += [f"{excuse} ({label or probe})" for excuse in excuses]
    misshapen = {
        n: np.asarray(grads[n]) for n, (fault, _) in form.items() if fault in ("wrong shape", "kept a dimension")
    }
    ratios = {n: _ratio(errors[n], tolerance[n]) for n in got}
    wrong = frozenset(n for n, r in ratios.items() if not r <= 1)
    told = tuple(dict.fromkeys(notes))
    sizes = {n: largest(exact.grads[n]) for n in subject.wrt}
    return Comparison(
        probe, dtype, subject, dy, exact, got, form, tolerance, ratios, wrong, label, told, misshapen, sizes
    )


def _tolerances(
    subject: Subject,
    oracle: Oracle,
    dy: tuple[Array, ...],
    exact: Exact,
    errors: Mapping[str, float],
    units: tuple[float, float],
    usual: Mapping[str, float],
    known: Collection[str],
    rng: np.random.Generator,
) -> tuple[dict[str, float], list[str]]:
    """Return how far each gradient may be off, and what more than the rule was allowed.

    What moves when the inputs or the operations are rounded is looked at only for gradients that are farther off.
    """
    depth, (own, unit) = subject.depth, units
    tolerance = {n: bound(exact.grads[n], unit=unit, depth=depth) for n in subject.wrt}
    suspect = [n for n, error in errors.items() if not error <= tolerance[n]]
    if not all(np.isfinite(errors[n]) for n in suspect):
        return tolerance, []

    def raise_for(moved: Mapping[str, float]) -> list[str]:
        for n, far in moved.items():
            tolerance[n] = max(tolerance[n], bound(exact.grads[n], unit=unit, spread=far, depth=depth))
        return [n for n in moved if not errors[n] <= tolerance[n]]

    if suspect and not isinstance(oracle, NumericalOracle):  # whose differences rounding moves less than their error
        moves = spread(oracle, subject.args, dy, exact, own, rng).grads
        suspect = raise_for({n: _without_ties(moves[n], exact, n) for n in suspect})
    if not set(suspect) <= set(known):
        rounded = rounding(oracle, subject.args, dy, exact, unit, rng).grads
        suspect = raise_for({n: float(np.max(rounded[n], initial=0.0)) for n in suspect})
    terms = max([*map(largest, exact.grads.values()), *usual.values(), 0.0])
    excuses = []
    for n in suspect:
        if largest(exact.grads[n]) <= CANCELLED * terms:
            tolerance[n] = max(tolerance[n], bound(np.array(terms), unit=unit, depth=depth))
        tolerance[n] = max(tolerance[n], exact.uncertainty.get(n, 0.0))
        excused = 2 * bound(np.array(usual.get(n, 0.0)), unit=unit, depth=depth)
        if tolerance[n] < errors[n] <= excused:
            digits = -np.log10(max(errors[n] / max(largest(exact.grads[n]), 1e-300), 1e-17))
            excuses.append(f"{n} keeps {max(0, digits):.0f} digits where the forward pass saturates")
            tolerance[n] = excused
    return tolerance, excuses


def read(
    grad: Any, subject: Subject, name: str, dtype: str, single: bool
) -> tuple[Array | None, tuple[str, str] | None, str]:
    """Return a gradient as an array to compare, what is wrong with its form, and what is only worth a note."""
    like = subject.args[name]
    if grad is MISSING or grad is None:
        text = "no such gradient is returned" if grad is MISSING else "None is returned"
        return None, None if name in subject.may_lack else ("missing", text), ""
    try:
        array: Array = np.asarray(grad)
    except Exception:
        array = np.array(None)
    is_number = isinstance(grad, (int, float)) and not isinstance(grad, np.generic)
    is_array = isinstance(grad, (np.ndarray, np.generic))
    if is_array and array.dtype.kind not in "fiuV":
        return None, ("wrong dtype", f"{array.dtype} is returned for {name}; expected {dtype}"), ""
    if array.dtype.kind not in "fiuV" or (subject.contract and (is_number or isinstance(grad, (list, tuple)))):
        text = f"a {type(grad).__name__} is returned; expected an array of shape {like.shape}"
        return None, ("not an array", text), ""
    problem: tuple[str, str] | None = None
    note = ""
    if array.shape != like.shape:
        squeezed = tuple(k for k in array.shape if k != 1) == tuple(k for k in like.shape if k != 1)
        kept = squeezed and array.ndim > like.ndim
        problem = (
            "kept a dimension" if kept else "wrong shape",
            f"{name} has shape {array.shape}, expected {like.shape}{_why_shape(array.shape, like.shape)}",
        )
        if not squeezed:
            return None, problem, ""
        if not subject.contract and array.size == like.size:
            problem, note = None, f"the gradient of {name} has shape {array.shape} for {like.shape}"
        elif subject.contract:
            return array.reshape(like.shape) if array.size == like.size else None, problem, ""
        array = array.reshape(like.shape)
    if problem is None and str(array.dtype) != dtype and not (single and array.dtype == np.float32):
        text = f"{array.dtype} is returned for {name}; expected {dtype}"
        if subject.contract:
            problem = ("wrong dtype", text)
        elif not (array.dtype == np.float32 and dtype == "float64"):
            note = text
    return np.asarray(array), problem, note


def _why_shape(given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if len(given) < len(expected):
        for axis in range(len(expected)):
            if tuple(k for i, k in enumerate(expected) if i != axis) == given:
                return f": summed over axis {axis} too"
        return ": summed over too many axes" if given else ": summed over every axis"
    if len(given) > len(expected):
        return ": not summed over every axis that broadcasts" if given[len(given) - len(expected) :] == expected else ""
    if given == expected[::-1]:
        return ": transposed"
    return ": summed, or not, over an axis of length 1" if 1 in given or 1 in expected else ""


def tells(c: Comparison, name: str) -> bool:
    """Return whether a comparison tells a right gradient from zero: one that is smaller than its tolerance does not."""
    return c.sizes[name] > c.tolerance[name]


def _without_ties(moves: Array, exact: Exact, name: str) -> float:
    """Return the largest movement that is no jump from one side of a tie to the other."""
    terms = max(map(largest, exact.grads.values()))
    smooth = moves[(moves <= JUMP * largest(exact.grads[name])) | (moves <= CANCELLED * terms)]
    return float(np.max(smooth, initial=0.0))


def _ratio(off: float, allowed: float) -> float:
    return 0.0 if off == 0 else off / allowed if allowed else float("inf")


def without(comparison: Comparison, names: frozenset[str], note: str) -> Comparison:
    """Return a comparison in which these gradients are right after all."""
    ratios = {n: (min(r, 1.0) if n in names else r) for n, r in comparison.ratios.items()}
    notes = (*comparison.notes, *([note] if note else []))
    return replace(comparison, wrong=comparison.wrong - names, ratios=ratios, notes=notes)


def slim(comparison: Comparison) -> Comparison:
    """Return a comparison without its gradients, for one that was right and whose arrays are large."""
    got = dict.fromkeys(comparison.got, np.zeros(0))
    return replace(comparison, got=got, exact=Exact((), dict.fromkeys(comparison.exact.grads, np.zeros(0))))

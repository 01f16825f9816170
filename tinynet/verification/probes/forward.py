"""The forward pass beside itself as the oracle runs it, and beside `reference=`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinynet.verification.adapters.subject import Array, Exact, Subject
from tinynet.verification.bench import Bench
from tinynet.verification.examples import Example
from tinynet.verification.execution import execute, full_precision, told
from tinynet.verification.observations import Fault, Observed
from tinynet.verification.oracle import as_float64, leaves_of, rounding, spread
from tinynet.verification.report import Probe
from tinynet.verification.tolerance import ROUNDED, ROUNDS_AWAY, bound, distance, unit_of


def compare_forward(
    b: Bench, e: Example, subject: Subject, dy: tuple[Array, ...], y: tuple[Array, ...], exact: Exact, dtype: str
) -> Observed:
    """Compare y at an example with the oracle's and the reference's.

    Args:
        subject: the target with the arrays of this example in `dtype`; dy: the cotangent.
        y: what it gave; exact: what the oracle gives.
    """
    unit = unit_of("float32" if any(v.dtype == np.float32 for v in y) else dtype)
    others, seen = _reference(b, e, subject)
    ratios, moved = [0.0], list[float]()
    for outputs, name, fault in ((exact.y, "the forward pass as the oracle runs it", "forward differs"), *others):
        for i, (mine, theirs) in enumerate(zip(y, outputs, strict=False)):
            if not np.isfinite(theirs).all():
                seen += Observed(notes=(f"{name} has no finite value at: {e.label or e.probe}",))
                continue
            if mine.shape != theirs.shape:
                text = f"y has shape {mine.shape}; {name} gives {theirs.shape}"
                seen += Observed(faults=(Fault(("y",), fault, text, "forward"),))
                continue
            theirs = np.asarray(theirs, np.float64)
            off, allowed = distance(mine.astype(np.float64), theirs), bound(theirs, unit=unit, depth=subject.depth)
            if off > allowed and np.isfinite(off):
                # What is far smaller than y usually is may be lost in rounding, or be zero.
                allowed = max(allowed, bound(np.array(b.size_of_y), unit=unit))
            if off > allowed and np.isfinite(off):
                moved = moved or _movement(b, subject, dy, exact, unit)
                allowed = max(allowed, bound(theirs, unit=unit, spread=max(moved), depth=subject.depth))
            lost = dtype == "float32" and off <= ROUNDED * unit * b.size_of_y
            if not off <= allowed and lost and _is_rounding(b, subject, i, off, theirs):
                seen += Observed(notes=(f"y: digits are lost where terms cancel ({e.label or e.probe})",))
            elif not off <= allowed:
                text = f"y differs from {name} ({e.label or e.probe})"
                shown = Fault(("y",), fault, text, "forward", got=mine, expected=theirs, tolerance=allowed)
                seen += Observed(faults=(replace(shown, shapes=(subject.shapes(),)),))
            ratios.append(off / allowed if allowed else 0.0)
    return seen + Observed(coverage=(Probe("forward", dtype, ratios={"y": max(ratios)}),))


def _reference(b: Bench, e: Example, subject: Subject) -> tuple[list[tuple[tuple[Array, ...], str, str]], Observed]:
    """Return y by `reference=`, its name and the fault if y differs, if there is one; else why it was not compared."""
    if b.settings.reference is None or subject.reference is None:
        return [], Observed()
    try:
        with full_precision():  # for one that is written in JAX
            out = subject.reference(b.settings.reference, {n: np.array(a) for n, a in subject.args.items()})
        if out is None:
            raise ValueError("it returns None; expected y")
        y = tuple(np.asarray(leaf, np.float64) for leaf in leaves_of(out))
    except Exception as error:
        note = f"reference= was not compared at {e.label or e.probe}: {told(error)}"
        reason = f"reference= raises {told(error)}" if e.probe == "rectangular" else ""
        return [], Observed(notes=(note,), reason=reason)
    return [(y, "reference=", "forward differs from the reference")], Observed()


def _movement(b: Bench, subject: Subject, dy: tuple[Array, ...], exact: Exact, unit: float) -> list[float]:
    """Return how far rounding moves each output."""
    oracle = b.oracle_of(subject)
    rounded = rounding(oracle, subject.args, dy, exact, unit, b.rng)
    shifted = spread(oracle, subject.args, dy, exact, unit, b.rng)
    return [max(float(np.max(m, initial=0)) for m in pair) for pair in zip(shifted.y, rounded.y, strict=True)]


def _is_rounding(b: Bench, subject: Subject, i: int, off: float, expected: Array) -> bool:
    """Return whether an output is off in float32 by rounding alone: as much less in float64 as its spacing is."""
    args = as_float64(subject.args)
    ran = execute(subject, args, None, b.watch)
    return ran.error is None and distance(leaves_of(ran.y)[i].astype(np.float64), expected) <= ROUNDS_AWAY * off

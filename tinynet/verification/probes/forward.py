"""Before any gradient is judged: the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinynet.verification.diagnosis import FAULTS, Diagnosis
from tinynet.verification.oracle import Exact, NumericalOracle, make_oracle
from tinynet.verification.report import Probe
from tinynet.verification.runs import call
from tinynet.verification.subjects import Args, LayerSubject
from tinynet.verification.tolerance import bound, distance, unit_of
from tinynet.verification.trial import Array, Stop, Trial, ratio_of

__all__ = ["probe_forward"]


def probe_forward(trial: Trial) -> None:
    """Before any gradient is judged: the forward pass runs, JAX and NumPy agree on it, and with the reference."""
    subject = trial.subject
    dy0 = np.zeros(())
    first = call(subject, subject.args, dy0, trial.watchdog)
    if first.by_jax:
        subject.by_jax = True
        first = call(subject, subject.args, dy0, trial.watchdog)
    if first.error is not None and first.stage == "forward":
        trial.inconclusive(f"the forward pass raises {type(first.error).__name__}: {first.error}")
    if not isinstance(first.y, np.ndarray) or first.y.dtype.kind != "f":
        given = type(first.y).__name__ if not isinstance(first.y, np.ndarray) else f"an array of {first.y.dtype}"
        trial.inconclusive(f"the forward pass returns {given}; expected an array of floating-point numbers")
    if not np.isfinite(first.y).all():
        trial.inconclusive("the forward pass gives an infinity or a NaN for these inputs; give others as inputs=")
    trial.oracle = make_oracle(subject)
    try:
        exact = trial.oracle(subject.args, np.ones(first.y.shape))
    except Exception as error:
        trial.inconclusive(f"no oracle for the forward pass: {type(error).__name__}: {error}")
    if isinstance(trial.oracle, NumericalOracle):
        trial.coverage.append(Probe("forward", note=trial.oracle.reason))
    _compare_forward(trial, first.y, exact, subject.args, "forward differs", "JAX")
    if trial.reference is not None:
        _compare_reference(trial, trial.reference, first.y, exact)
    if not isinstance(trial.oracle, NumericalOracle):
        ratio = _ratio_forward(trial, first.y, exact, subject.args)
        trial.coverage.append(Probe("forward", "float64", ratios={"y": ratio}))


def _ratio_forward(trial: Trial, y: Array, exact: Exact, args: Args) -> float:
    off = distance(y, exact.y) if y.shape == exact.y.shape else float("inf")
    allowed = bound(exact.y, depth=trial.subject.depth)
    if off > allowed and np.isfinite(off):
        spread = trial.the_oracle().spread(args, np.ones(y.shape), unit_of(np.float64), trial.rng)
        allowed = bound(exact.y, spread=float(np.max(spread.y, initial=0)), depth=trial.subject.depth)
    return ratio_of(off, allowed)


def _compare_forward(trial: Trial, y: Array, exact: Exact, args: Args, fault: str, other: str) -> None:
    ratio = _ratio_forward(trial, y, exact, args)
    if ratio <= 1:
        return
    if y.shape != exact.y.shape:
        explanation = f"y has shape {y.shape} under NumPy and {exact.y.shape} under {other}"
        trial.findings.append(trial.finding(Diagnosis(fault, ("y",), explanation), probe="forward"))
    else:
        trial.findings.append(
            trial.finding(Diagnosis(fault, ("y",), FAULTS[fault]), probe="forward", got=y, exact=exact.y, ratio=ratio)
        )
    raise Stop


def _compare_reference(trial: Trial, reference: Callable[..., Any], y: Array, exact: Exact) -> None:
    args = trial.subject.args
    try:
        if isinstance(trial.subject, LayerSubject):
            out = reference(trial.subject.params(args), args["x"])
        else:
            out = reference(*args.values())
        if out is None:
            trial.inconclusive("reference= returns None; expected y")
        expected = np.asarray(out, np.float64)
    except Exception as error:
        trial.inconclusive(f"reference= raises {type(error).__name__}: {error}")
    _compare_forward(trial, y, Exact(expected, exact.grads), args, "forward differs from the reference", "reference=")

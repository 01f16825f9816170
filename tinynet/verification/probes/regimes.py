"""Large, small and tied inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinynet.verification.diagnosis import FAULTS, Diagnosis, Evidence
from tinynet.verification.oracle import NumericalOracle
from tinynet.verification.report import Probe
from tinynet.verification.tolerance import bound, distance
from tinynet.verification.trial import Array, Trial

__all__ = ["probe_regimes"]

_REGIMES: dict[str, Callable[[Array], Array]] = {
    "saturated": lambda x: 6 * x,
    "huge": lambda x: 1e3 * x,
    "tiny": lambda x: 1e-3 * x,
    "zeros and ties": lambda x: np.round(x) + 0.0,
}

_ONLY_IN = {
    "saturated": "wrong only when saturated",
    "huge": "wrong only when saturated",
    "tiny": "wrong only for small inputs",
    "zeros and ties": "wrong only at kinks",
}


def probe_regimes(trial: Trial) -> None:
    for probe, change in _REGIMES.items():
        if probe not in trial.wanted:
            continue
        if probe == "zeros and ties" and isinstance(trial.oracle, NumericalOracle):
            trial.coverage.append(Probe(probe, skipped="differences say nothing at a kink"))
            continue
        subject = trial.subject
        name = subject.batched[0] if subject.batched else subject.wrt[0]
        if subject.args[name].dtype.kind != "f":
            trial.coverage.append(Probe(probe, skipped=f"{name} holds no floating-point numbers"))
            continue
        changed = subject.with_args({**subject.args, name: change(subject.args[name])})
        evidence = trial.evidence(probe, changed)
        if evidence is None or not evidence.wrong:
            continue
        infinite = {n for n in evidence.wrong if not np.isfinite(np.asarray(evidence.got[n], np.float64)).all()}
        if probe == "huge":
            remaining = infinite
            trial.note(probe, "a finite number is all that is asked for there")
        elif probe == "zeros and ties":
            remaining = set(evidence.wrong)
        else:
            remaining = _beyond_rounding(trial, evidence)
        if remaining:
            fault = "non-finite" if remaining & infinite and probe not in ("saturated", "huge") else _ONLY_IN[probe]
            trial.report(Diagnosis(fault, tuple(sorted(remaining)), FAULTS[fault]), [evidence])
            return


def _beyond_rounding(trial: Trial, e: Evidence) -> set[str]:
    """The gradients that are off by more than rounding an activation explains (1 − a where a ≈ 1)."""
    remaining = set()
    # 1 − a is off by u, however small it is: the scale is that of the gradient where nothing is saturated.
    args, x = trial.subject.args, trial.subject.batched[0] if trial.subject.batched else trial.subject.wrt[0]
    usual = [trial.the_oracle()(at, e.dy).grads for at in (args, {**args, x: 0.05 * args[x]})]
    for name in e.wrong:
        got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
        if got.shape != want.shape or distance(got, want) > max(
            bound(grads[name], depth=2 * e.subject.depth) for grads in usual
        ):
            remaining.add(name)
        else:
            digits = -np.log10(max(distance(got, want) / float(np.max(np.abs(want))), 1e-17))
            trial.note(e.probe, f"{name} keeps {digits:.0f} of 16 digits where the layer is saturated")
    return remaining

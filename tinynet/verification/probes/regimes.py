"""Large, small and tied inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinynet.verification.diagnosis import FAULTS, Diagnosis, Evidence
from tinynet.verification.oracle import NumericalOracle
from tinynet.verification.report import Probe
from tinynet.verification.tolerance import bound, distance
from tinynet.verification.trial import Array, Trial

__all__ = ["beyond_kinks", "probe_regimes"]

_REGIMES: dict[str, Callable[[Array], Array]] = {
    "saturated": lambda x: 6 * x,
    "tiny": lambda x: 1e-3 * x,
    "zeros and ties": lambda x: np.round(x) + 0.0,
}

_ONLY_IN = {
    "saturated": "wrong only when saturated",
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
        remaining = beyond_kinks(trial, evidence) if probe == "zeros and ties" else _beyond_rounding(trial, evidence)
        if remaining:
            names = sorted(remaining)
            infinite = not all(np.isfinite(np.asarray(evidence.got[n], np.float64)).all() for n in names)
            fault = "non-finite" if infinite and probe != "saturated" else _ONLY_IN[probe]
            trial.report(Diagnosis(fault, tuple(names), FAULTS[fault]), [evidence])
            return


def beyond_kinks(trial: Trial, e: Evidence) -> set[str]:
    """The gradients that are not between the one-sided ones, at a kink."""
    oracle, remaining = trial.the_oracle(), set()
    sides = []
    for _ in range(8):
        moved = {
            n: a + 1e-7 * trial.rng.choice([-1.0, 1.0], a.shape)
            if n in e.subject.batched and a.dtype.kind == "f"
            else a
            for n, a in e.args.items()
        }
        sides.append(oracle(moved, e.dy).grads)
    for sign in (-1.0, 1.0):
        moved = {n: a + sign * 1e-7 if n in e.subject.batched and a.dtype.kind == "f" else a for n, a in e.args.items()}
        sides.append(oracle(moved, e.dy).grads)
    conventions = []
    for name in e.wrong:
        got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
        every = np.stack([*(s[name] for s in sides), want])
        slack = 1e-5 * float(np.max(np.abs(every), initial=0))
        low, high = every.min(axis=0) - slack, every.max(axis=0) + slack
        off = ~(np.abs(got - want) <= e.tolerance[name])
        kink = (high - low) > 4 * slack
        if np.any(off & ~kink) or not np.all((low <= got) & (got <= high)):
            remaining.add(name)
        elif name in e.subject.batched:
            i = tuple(np.argwhere(off)[0])
            d = e.dy[i] if e.dy.shape == got.shape and e.dy[i] else 1.0
            conventions.append(f"at a kink the layer's slope is {got[i] / d:.3g}, JAX's {want[i] / d:.3g}")
    if conventions and not remaining:
        trial.note("zeros and ties", conventions[0])
    return remaining


def _beyond_rounding(trial: Trial, e: Evidence) -> set[str]:
    """The gradients that are off by more than rounding an activation explains (1 − a where a ≈ 1)."""
    remaining = set()
    usual = trial.the_oracle()(trial.subject.args, e.dy)
    for name in e.wrong:
        got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
        if got.shape != want.shape or distance(got, want) > bound(usual.grads[name], depth=2 * e.subject.depth):
            remaining.add(name)
        else:
            digits = -np.log10(max(distance(got, want) / float(np.max(np.abs(want))), 1e-17))
            trial.note(e.probe, f"{name} keeps {digits:.0f} of 16 digits where the layer is saturated")
    return remaining

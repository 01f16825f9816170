"""What the target remembers, writes into and hands out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinynet.verification.diagnosis import FAULTS, Diagnosis
from tinynet.verification.oracle import Exact
from tinynet.verification.report import Probe
from tinynet.verification.runs import Run, call
from tinynet.verification.tolerance import distance, unit_of
from tinynet.verification.trial import Array, Stop, Trial

__all__ = ["probe_state"]


def probe_state(trial: Trial) -> None:
    """The same call twice; B after A; forward A, forward B, backward A; backward twice; nothing written, shared."""
    if "state" not in trial.wanted:
        return
    A = trial.subject
    B = A.with_args({n: _other(trial, n, a) for n, a in A.args.items()})
    dy = trial.dy(A)
    runs = [call(A, A.args, dy, trial.watchdog) for _ in range(3)]
    if any(r.error for r in runs):
        return  # the values say what is wrong
    exact = trial.the_oracle()(A.args, dy)
    trial.purity(runs[0], "state")
    if runs[0].mutated:
        return  # a second call would start from what the first one wrote
    _repeats(trial, runs, exact, "the same call, on a fresh copy of the target,")

    session = A.session()
    again = [call(A, A.args, dy, trial.watchdog, session=session) for _ in range(3)]
    _repeats(trial, again, exact, "the same call on the same target")
    twice = call(A, A.args, dy, trial.watchdog, session=session, context=again[-1].context)
    _repeats(trial, [again[-1], twice], exact, "backward twice after one forward")
    _shared_results(trial, [*again, twice], "state")

    for order in ("forward A, backward A, forward B, backward B", "forward A, forward B, backward A"):
        session = A.session()
        if order.endswith("backward B"):
            call(A, A.args, dy, trial.watchdog, session=session)
            run, at = call(B, B.args, dy, trial.watchdog, session=session), B
        elif session.keeps_one_cache:
            continue
        else:
            first = call(A, A.args, dy, trial.watchdog, session=session)
            call(B, B.args, dy, trial.watchdog, session=session)
            run, at = call(A, A.args, dy, trial.watchdog, session=session, context=first.context), A
        alone = call(at, at.args, dy, trial.watchdog)
        changed = [n for n in A.wrt if _differ(run.grads.get(n), alone.grads.get(n), exact.grads[n])]
        if run.error is None and alone.error is None and changed:
            _stateful(trial, "stale cache", changed, f"{FAULTS['stale cache']}: {order}", run, alone)
    trial.coverage.append(Probe("state"))


def _repeats(trial: Trial, runs: Sequence[Run], exact: Exact, what: str) -> None:
    first, second, last = runs[0], runs[1], runs[-1]
    for run in runs:
        if run.error is not None:
            text = f"{what} raises {type(run.error).__name__} the second time: {run.error}"
            _stateful(trial, "stale cache", list(trial.subject.wrt), text, run, first)
    changed = [n for n in trial.subject.wrt if _differ(second.grads.get(n), first.grads.get(n), exact.grads[n])]
    changed += [
        n
        for n in trial.subject.wrt
        if n not in changed and _differ(last.grads.get(n), first.grads.get(n), exact.grads[n])
    ]
    if not changed:
        return
    # What each call adds, if it adds: the first result, or the exact one.
    grows = [
        any(
            not _differ(_minus(second.grads[n], first.grads[n]), step, exact.grads[n])
            for step in (np.asarray(first.grads[n]), exact.grads[n])
        )
        for n in changed
    ]
    if all(grows):
        _stateful(trial, "accumulates", changed, f"{FAULTS['accumulates']}: {what}", second, first)
    fault = "mutates its cache" if what.startswith("backward") else "not deterministic"
    _stateful(trial, fault, changed, f"{what} gives another result" + _how(fault), second, first)


def _stateful(trial: Trial, fault: str, names: Sequence[str], explanation: str, run: Run, other: Run) -> None:
    got, expected = run.grads.get(names[0]), other.grads.get(names[0])
    arrays = isinstance(got, np.ndarray) and isinstance(expected, np.ndarray) and got.shape == expected.shape
    trial.findings.append(
        trial.finding(
            Diagnosis(fault, tuple(names), explanation),
            probe="state",
            got=got if arrays else None,
            exact=expected if arrays else None,
        )
    )
    raise Stop


def _differ(a: Any, b: Any, scale: Array) -> bool:
    """Whether two results differ by more than the order of a threaded sum explains."""
    if not (hasattr(a, "dtype") and hasattr(b, "dtype")):
        return type(a) is not type(b)
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return True
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return False
    return a.dtype.kind == "f" and distance(a, b) > 8 * unit_of(a.dtype) * float(
        np.max(np.abs(scale), initial=0) + np.max(np.abs(np.nan_to_num(a)), initial=0)
    )


def _other(trial: Trial, name: str, a: Array) -> Array:
    if name in trial.subject.batched and a.dtype.kind == "f" and a.ndim:
        return a * (1 + 0.5 * trial.rng.standard_normal(a.shape))
    return a


def _shared_results(trial: Trial, runs: Sequence[Run], probe: str) -> None:
    for name in trial.subject.wrt:
        results = [g for r in runs if isinstance(g := r.grads.get(name), np.ndarray) and g.size]
        pairs = [(a, b) for i, a in enumerate(results) for b in results[:i] if np.shares_memory(a, b)]
        if pairs and not trial.kept_by_design(name):
            explanation = "the gradient shares memory with that of an earlier call: an internal buffer is handed out"
            trial.add(trial.finding(Diagnosis("shares memory", (name,), explanation), probe=probe))


def _minus(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    return a - b if a.shape == b.shape and a.dtype.kind == "f" else a


def _how(fault: str) -> str:
    return ": the first backward pass wrote into the cache" if fault == "mutates its cache" else " each time"

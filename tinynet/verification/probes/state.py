"""What the target remembers, writes into and hands out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tinynet.verification.diagnosis import FAULTS, Diagnosis
from tinynet.verification.oracle import Exact
from tinynet.verification.report import Finding, Probe
from tinynet.verification.runs import Run, call
from tinynet.verification.subjects import Subject, nearby
from tinynet.verification.tolerance import distance, unit_of
from tinynet.verification.trial import Array, Stop, Trial

__all__ = ["probe_state"]


def probe_state(trial: Trial) -> None:
    """Repeated calls, other calls in between, writes into what was handed in, memory that is shared."""
    if "state" not in trial.wanted:
        return
    A, dy = trial.subject, _usual_dy(trial)
    runs = [call(A, A.args, dy, trial.watchdog) for _ in range(4)]
    if any(r.error for r in runs):
        return  # the values say what is wrong
    exact = trial.the_oracle()(A.args, dy)
    trial.purity(runs[0], "state")
    if runs[0].mutated:
        return  # a second call would start from what the first one wrote
    _repeats(trial, runs, exact, "the same call, on a fresh copy of the target,")
    session = A.session()
    again = [call(A, A.args, dy, trial.watchdog, session=session) for _ in range(4)]
    _repeats(trial, again, exact, "the same call on the same target")
    twice = call(A, A.args, dy, trial.watchdog, session=session, context=again[-1].context)
    _repeats(trial, [again[-1], twice], exact, "backward twice after one forward")
    _shared_results(trial, [*again, twice], "state")
    _in_between(trial, dy, exact)
    _after_another(trial, dy)
    trial.coverage.append(Probe("state"))


def _repeats(trial: Trial, runs: Sequence[Run], exact: Exact, what: str) -> None:
    """The same call several times: what differs is added to by each call, or changes of itself."""
    first = runs[0]
    for run in runs:
        if run.error is not None:
            text = f"{what} raises {type(run.error).__name__} the second time: {run.error}"
            _stateful(trial, "stale cache", list(trial.subject.wrt), text, run, first)
    names = trial.subject.wrt
    changed = [n for n in names if any(_differ(r.grads.get(n), first.grads.get(n), exact.grads[n]) for r in runs[1:])]
    if not changed:
        return
    if what.startswith("backward"):
        text = f"{what} gives another result: the first backward pass wrote into the cache"
        _stateful(trial, "mutates its cache", changed, text, runs[1], first)
    if all(_grows([r.grads[n] for r in runs]) for n in changed):
        _stateful(trial, "accumulates", changed, f"{FAULTS['accumulates']}: {what}", runs[1], first)
    _stateful(trial, "not deterministic", changed, f"{what} gives another result each time", runs[1], first)


def _grows(results: Sequence[Any]) -> bool:
    """Whether each result is a multiple of the one before, plus another: the steps are then proportional."""
    arrays = [np.asarray(r) for r in results]
    if any(a.shape != arrays[0].shape or a.dtype.kind != "f" for a in arrays):
        return False
    steps = [b - a for a, b in pairwise(arrays)]
    size = float(np.vdot(steps[0], steps[0]))
    if not size:
        return False
    rate = float(np.vdot(steps[0], steps[1])) / size
    slack = 1e-9 * max(float(np.max(np.abs(a), initial=0)) for a in arrays)
    return rate > 0 and all(distance(b, rate * a) <= slack for a, b in pairwise(steps))


def _in_between(trial: Trial, dy: Array, exact: Exact) -> None:
    """Forward A, forward B, backward A: the cache handed back is A's, whatever came after."""
    A, session = trial.subject, trial.subject.session()
    if session.keeps_one_cache:
        return
    B = _another(trial)
    first = call(A, A.args, dy, trial.watchdog, session=session)
    call(B, B.args, dy, trial.watchdog, session=session)
    late = call(A, A.args, dy, trial.watchdog, session=session, context=first.context)
    if first.error is None and late.error is None:
        changed = [n for n in A.wrt if _differ(late.grads.get(n), first.grads.get(n), exact.grads[n])]
        if changed:
            text = f"{FAULTS['stale cache']}: forward A, forward B, backward A"
            _stateful(trial, "stale cache", changed, text, late, first)


def _after_another(trial: Trial, dy: Array) -> None:
    """B after A, with another input and then with other parameters: right for A, B must not be A's again."""
    A, oracle = trial.subject, trial.the_oracle()
    for B, other in (
        (_another(trial, params=False), "another input"),
        (_another(trial, inputs=False), "other parameters"),
    ):
        session = A.session()
        call(A, A.args, dy, trial.watchdog, session=session)
        run = call(B, B.args, dy, trial.watchdog, session=session)
        if run.error is not None:
            return  # the values say what is wrong
        with trial.unrecorded():
            evidence = trial.compared("state", B, B.args, dy, oracle(B.args, dy), run, "float64")
        if evidence is None or not evidence.wrong:
            continue
        wrong = sorted(evidence.wrong, key=A.wrt.index)
        before = oracle(A.args, dy).grads
        again = [n for n in wrong if evidence.reproduces(n, before[n])]
        expected = Run(grads=dict(evidence.exact.grads))
        if again:
            text = f"{FAULTS['stale cache']}: A, then {other} B, which gives A's again"
            _stateful(trial, "stale cache", [*again, *(n for n in wrong if n not in again)], text, run, expected)
        with trial.unrecorded():
            by_itself = call(B, B.args, dy, trial.watchdog)
            alone = trial.compared("state", B, B.args, dy, evidence.exact, by_itself, "float64")
        if alone is None or alone.wrong & evidence.wrong:
            # The values say why; or something outside the target remembers A, which no copy of the target forgets.
            with trial.unrecorded():
                again_A = call(A, A.args, dy, trial.watchdog)
                at_A = trial.compared("state", A, A.args, dy, oracle(A.args, dy), again_A, "float64")
            if at_A is not None and not at_A.wrong:
                text = f"right for the first call, and wrong for the next one with {other}"
                trial.suspicions.append(_finding(trial, "unknown", wrong, text, run, expected))
            continue
        text = f"right for {other} B alone, and wrong for B after A"
        fault = "stale cache" if _forward_leaves_something(trial, A, B, dy, run) else "unknown"
        _stateful(trial, fault, wrong, text, run, expected)


def _forward_leaves_something(trial: Trial, A: Subject, B: Subject, dy: Array, run: Run) -> bool:
    """Whether forward A alone, without its backward pass, is enough to make B go wrong in the same way."""
    session = A.session()
    with trial.watchdog.watching():
        session.forward({n: a.copy() for n, a in A.args.items()})
    again = call(B, B.args, dy, trial.watchdog, session=session)
    return all(not _differ(again.grads.get(n), g, np.asarray(g)) for n, g in run.grads.items() if n in B.wrt)


def _another(trial: Trial, inputs: bool = True, params: bool = True) -> Subject:
    """The subject with another input, with slightly other parameters, or with both."""
    A, rng = trial.subject, trial.rng
    args = dict(A.args)
    for n, a in A.args.items():
        if (n in A.batched and inputs) or (n not in A.batched and a.dtype.kind == "f" and params):
            # A cache may hold no more than signs: where there are both, they are exchanged.
            both = n in A.batched and a.dtype.kind == "f" and a.min(initial=0) < 0 < a.max(initial=0)
            args[n] = nearby(-a if both else a, 0.1, rng)
    return A.with_args(args)


def _usual_dy(trial: Trial) -> Array:
    """A random cotangent; 1 for a scalar, which is what a loss is nearly always asked for."""
    dy = trial.dy(trial.subject)
    return dy if dy.ndim else np.ones(())


def _stateful(trial: Trial, fault: str, names: Sequence[str], explanation: str, run: Run, other: Run) -> None:
    trial.findings.append(_finding(trial, fault, names, explanation, run, other))
    raise Stop


def _finding(trial: Trial, fault: str, names: Sequence[str], explanation: str, run: Run, other: Run) -> Finding:
    got, expected = run.grads.get(names[0]), other.grads.get(names[0])
    arrays = isinstance(got, np.ndarray) and isinstance(expected, np.ndarray) and got.shape == expected.shape
    return trial.finding(
        Diagnosis(fault, tuple(names), explanation),
        probe="state",
        got=got if arrays else None,
        exact=expected if arrays else None,
    )


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


def _shared_results(trial: Trial, runs: Sequence[Run], probe: str) -> None:
    for name in trial.subject.wrt:
        results = [g for r in runs if isinstance(g := r.handed_out.get(name), np.ndarray) and g.size]
        pairs = [(a, b) for i, a in enumerate(results) for b in results[:i] if np.shares_memory(a, b)]
        if pairs and not trial.kept_by_design(name):
            explanation = "the gradient shares memory with that of an earlier call: an internal buffer is handed out"
            trial.add(trial.finding(Diagnosis("shares memory", (name,), explanation), probe=probe))

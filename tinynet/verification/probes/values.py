"""Every entry of every gradient, at several shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tinynet.verification.diagnosis import FAULTS, Diagnosis, Evidence
from tinynet.verification.oracle import NumericalOracle
from tinynet.verification.runs import Run
from tinynet.verification.subjects import Args, LossSubject, Subject
from tinynet.verification.trial import Array, Trial

__all__ = ["probe_values"]


def probe_values(trial: Trial) -> None:
    """Every entry of every gradient, at several shapes; what is wrong there is diagnosed."""
    plain = [
        e
        for probe, subject in trial.shapes()
        if (e := trial.evidence(probe, subject, forgiving=trial.may_refuse(probe))) is not None
    ]
    if isinstance(trial.subject, LossSubject):
        e = trial.evidence("rectangular", trial.subject, dy=np.ones(()), instead=_without_dE)
        plain += [] if e is None else [e]
    wrong = [e for e in plain if e.wrong]
    if not wrong:
        if not trial.findings:
            _empty_batch(trial)
        return
    several = [e for e in plain if e.m > 1]
    if all(e.m == 1 for e in wrong) and several:
        with trial.unrecorded():
            subject, dy = _twice(wrong[0])
            twice = trial.evidence("batch 2", subject, dy=dy)
        if twice is not None and twice.wrong:
            _diagnosed(trial, [*plain, twice])
            return
        only = Diagnosis("wrong only at batch 1", tuple(sorted(set().union(*(e.wrong for e in wrong)))), "")
        trial.report(dataclasses.replace(only, explanation=FAULTS[only.fault]), wrong)
        return
    _diagnosed(trial, plain)


def _twice(e: Evidence) -> tuple[Subject, Array]:
    """The same samples and their cotangents, each of them twice."""
    args = {n: np.concatenate([a, a]) if n in e.subject.batched else a for n, a in e.args.items()}
    return e.subject.with_args(args), np.concatenate([e.dy, e.dy]) if e.dy.ndim else e.dy


def _without_dE(subject: Subject, args: Args, _: Array) -> Run:
    session = subject.session()
    _, context = session.forward({n: a.copy() for n, a in args.items()})
    return Run(grads=session.backward(context, None))


def _empty_batch(trial: Trial) -> None:
    if "empty batch" not in trial.wanted or not trial.has_batch() or isinstance(trial.oracle, NumericalOracle):
        return
    fault = "wrong only on an empty batch"
    evidence = trial.evidence("empty batch", trial.subject.with_batch(0, trial.rng), forgiving=True)
    trial.findings = [dataclasses.replace(f, fault=fault) for f in trial.findings]
    if evidence is not None and evidence.wrong:
        trial.report(Diagnosis(fault, tuple(sorted(evidence.wrong)), FAULTS[fault]), [evidence])


def _diagnosed(trial: Trial, plain: Sequence[Evidence]) -> None:
    # Other cotangents at the same shape, so that a name is not a coincidence of a few signs.
    subject = trial.subject
    more = range(3) if plain[0].wrong and trial.named else ()
    with trial.unrecorded():
        again = [e for _ in more if (e := trial.evidence("rectangular", subject)) is not None]
    plain = [*plain, *again]
    raised = [f for f in trial.findings if f.fault in ("raises", "malformed")]
    diagnoses = trial.diagnoses(plain)
    if raised and all(d.fault != "unknown" for d in diagnoses):
        # It raises where the shapes do not fit, and the mistake has a name where they do.
        trial.findings = [f for f in trial.findings if f not in raised]
    for d in diagnoses:
        shapes = plain[: len(plain) - len(again)]
        failing = [e for e in shapes if any(n in e.wrong for n in d.gradients)]
        trial.report(d, failing or again, len(shapes))

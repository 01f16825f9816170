"""Arrays that lie in memory in other ways."""

from __future__ import annotations

import dataclasses

import numpy as np

from tinynet.verification.diagnosis import FAULTS, Diagnosis
from tinynet.verification.location import line_of_error
from tinynet.verification.runs import LAYOUTS, call
from tinynet.verification.subjects import Args, Subject
from tinynet.verification.trial import Array, Trial, told

__all__ = ["probe_layouts"]


def probe_layouts(trial: Trial) -> None:
    """The same numbers in other layouts; then broadcast arrays, whose numbers repeat."""
    if "layout" not in trial.wanted:
        return
    subject, dy = trial.subject, trial.dy(trial.subject)
    for label, lay_out in LAYOUTS.items():
        run = call(subject, {n: lay_out(a) for n, a in subject.args.items()}, lay_out(dy), trial.watchdog)
        if run.error is not None and run.stage == "backward" and label == "read-only":
            text = f"the backward pass writes into an array that was handed in: {told(run.error)}"
            role = "dy" if "dy" in line_of_error(run.error, []) else "x"
            trial.add(trial.finding(Diagnosis(f"mutates {role}", trial.subject.wrt, text), probe="layout"))
            return
        if _layout_is_wrong(trial, label, subject, {n: lay_out(a) for n, a in subject.args.items()}, lay_out(dy)):
            return
    if trial.has_batch():
        name = subject.batched[0]
        args = {**subject.args, name: np.broadcast_to(subject.args[name][:1].copy(), subject.args[name].shape)}
        wide = np.broadcast_to(dy[:1].copy() if len(dy) > 1 else dy.ravel()[0], dy.shape) if dy.ndim else dy
        _layout_is_wrong(trial, "broadcast", subject, args, wide)


def _layout_is_wrong(trial: Trial, label: str, subject: Subject, args: Args, dy: Array) -> bool:
    evidence = trial.evidence("layout", subject, args=args, dy=dy)
    last = trial.coverage[-1]
    trial.coverage[-1] = dataclasses.replace(last, name=f"layout ({label})")
    if evidence is None or not evidence.wrong:
        return bool(trial.findings)
    with trial.unrecorded():
        plain = {n: a.copy() for n, a in args.items()}
        cotangents = [dy.copy(), trial.dy(subject), trial.dy(subject)]
        contiguous = [e for g in cotangents if (e := trial.evidence("layout", subject, args=plain, dy=g)) is not None]
    if len(contiguous) == len(cotangents) and contiguous[0].wrong == evidence.wrong:
        for d in trial.diagnoses(contiguous):
            trial.report(d, contiguous)
        return True
    text = f"{FAULTS['wrong only for a layout']}: {label}"
    trial.report(Diagnosis("wrong only for a layout", tuple(sorted(evidence.wrong)), text), [evidence])
    return True

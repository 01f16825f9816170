"""The other ways to run it: param_grads alone, compiled, in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tinynet.layers import Layer
from tinynet.verification.diagnosis import FAULTS, Diagnosis
from tinynet.verification.oracle import NumericalOracle, compiled_backward
from tinynet.verification.report import Probe
from tinynet.verification.runs import Run
from tinynet.verification.subjects import Args, LayerSubject, Subject
from tinynet.verification.trial import Array, Trial, told

__all__ = ["probe_compiled", "probe_float32", "probe_param_grads"]


def probe_param_grads(trial: Trial) -> None:
    subject = trial.subject
    if "param_grads" not in trial.wanted or not isinstance(subject, LayerSubject):
        return
    if type(subject.layer).param_grads is Layer.param_grads:
        trial.coverage.append(Probe("param_grads", skipped="it is backward's own"))
        return
    evidence = trial.evidence("param_grads", subject, instead=lambda s, a, d: _run_param_grads(trial, s, a, d))
    if evidence is not None and evidence.wrong:
        for d in trial.diagnoses([evidence]):
            trial.report(dataclasses.replace(d, explanation=f"in param_grads, {d.explanation}"), [evidence])


def _run_param_grads(trial: Trial, subject: Subject, args: Args, dy: Array) -> Run:
    session: Any = subject.session()
    try:
        _, context = session.forward({n: a.copy() for n, a in args.items()})
        grads = session.param_grads(context, dy.copy())
    except Exception as error:
        return Run(error=error, stage="param_grads")
    return Run(grads={"x": trial.the_oracle()(args, dy).grads.get("x"), **grads})


def probe_compiled(trial: Trial) -> None:
    """The backward pass under jax.jit, where it can be traced."""
    subject = trial.subject
    if "compiled" not in trial.wanted or isinstance(trial.oracle, NumericalOracle):
        return
    dy = trial.dy(subject)
    try:
        run = Run(grads=dict(compiled_backward(subject, subject.args, dy)))
    except Exception as error:
        trial.coverage.append(Probe("compiled", skipped=f"JAX cannot trace the backward pass: {told(error)}"))
        return
    evidence = trial.compared(
        "compiled", subject, subject.args, dy, trial.the_oracle()(subject.args, dy), run, "float64"
    )
    if evidence is not None and evidence.wrong:
        names = tuple(sorted(evidence.wrong))
        trial.report(Diagnosis("compiled differs", names, FAULTS["compiled differs"]), [evidence])


def probe_float32(trial: Trial) -> None:
    if "float32" not in trial.dtypes or "float32" not in trial.wanted or isinstance(trial.oracle, NumericalOracle):
        return
    for probe, subject in [s for s in trial.shapes() if s[0] in ("rectangular", "batch 1", "larger")]:
        args = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in subject.args.items()}
        evidence = trial.evidence("float32", subject, dtype="float32", args=args, forgiving=trial.may_refuse(probe))
        if evidence is not None and evidence.wrong:
            for d in trial.diagnoses([evidence]):
                trial.report(d, [evidence])
            return
        if trial.findings:
            return

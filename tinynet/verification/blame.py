"""Where in the target's backward pass the cause of a fault stands, found by running it again while it is traced."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.faults import FAULTS
from tinynet.verification.adapters.conventions import E_AND_GRADIENT
from tinynet.verification.adapters.subject import Args, Array, Gradients, Subject
from tinynet.verification.comparison import Comparison
from tinynet.verification.diagnosis import Blame, Tracer, Wrong, confirms, placed
from tinynet.verification.diagnosis.source import TINYNET, Line
from tinynet.verification.execution import execute
from tinynet.verification.jaxpr import line_of_rule
from tinynet.verification.judgement import Judgement
from tinynet.verification.observations import Fault
from tinynet.verification.oracle import JaxOracle, leaves_of


def place_of(j: Judgement, fault: Fault, bad: Sequence[Comparison], seconds: float) -> Fault:
    """Return a fault with the statement to blame for it; with no line if there is none to name.

    Where no mistake of the table gave it a name, what that statement should have written may.

    Args:
        bad: the comparisons in which it showed; none where no value was wrong.
        seconds: how long it may take.
    """
    c = fault.example or (most_telling(bad, fault.gradients) if bad else None)
    try:
        blame = Blame()
        if c is not None and not fault.fault.startswith("mutates"):
            deadline = time.monotonic() + seconds
            blame = placed(_again(j, c), _judged(j, c), fault.gradients, fault.spoilt, seconds=seconds)
            if fault.fault == "unknown" and blame.exact is not None:
                fault = _told(j, fault, blame, bad, deadline)
            elif fault.fault in ("scaled", "sign") and blame.exact and blame.exact.alone and not blame.exact.value:
                fault = _scaled_at(blame.exact.at, fault)
        return replace(fault, where=blame.line or _of_what_ran(j, fault, c) or _of_a_rule(j))
    except Exception:
        return fault  # a place is a help; that there is none must not cost the verdict


def _scaled_at(at: Line, fault: Fault) -> Fault:
    """Say that what passes a line is scaled: along a chain the gradients alone do not tell where, the backward does."""
    words = "has the wrong sign" if fault.fault == "sign" else f"is multiplied by {fault.factor}"
    sentence = f"what passes back through `{at.text()}` {words}"
    stands = at != fault.at and fault.at.text() in fault.sentence
    return replace(fault, at=at, sentence=sentence if stands else fault.sentence)


def _told(j: Judgement, fault: Fault, blame: Blame, bad: Sequence[Comparison], deadline: float) -> Fault:
    """Say what the statement to blame should have written: a value of the forward, or ∂E/∂ of one."""
    assert blame.exact is not None
    at, text = blame.exact.at, blame.line.text()
    if not blame.exact.value:
        return replace(fault, at=at, sentence=f"{FAULTS['unknown']}; it is made by `{text}`")
    for c in bad:
        if time.monotonic() > deadline or not confirms(_again(j, c), _judged(j, c), fault.gradients, blame):
            return fault
    sentence = f"`{text}` is not what `{at.text()}` was in the forward"
    return replace(fault, fault="another value", at=at, sentence=sentence)


def _judged(j: Judgement, c: Comparison) -> Wrong:
    """Return a comparison as a run for the diagnosis; of a gradient that came with E as it is for dy = 1."""
    run = run_of(c, j, c.subject.wrt)
    if not _came_with_e(c):
        return run
    by = float(c.dy[0])

    def for_one(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {n: np.asarray(a) / by for n, a in arrays.items()}

    tolerance = {n: t / abs(by) for n, t in run.tolerance.items()}
    return replace(run, dy=(np.ones(()),), got=for_one(run.got), exact=for_one(run.exact), tolerance=tolerance)


def _came_with_e(c: Comparison) -> bool:
    """Return whether the gradient is what the forward pass returned beside E."""
    return set(E_AND_GRADIENT.notes) <= set(c.subject.notes) and bool(c.dy[0])


def _again(j: Judgement, c: Comparison) -> Callable[[Tracer], Mapping[str, Any]]:
    """Return what runs a comparison's backward pass once more while it is traced."""
    method = "param_grads" if c.probe == "param_grads" else "backward"
    if _came_with_e(c):
        return lambda tracer: _traced(j, c.subject, c.args, (np.ones_like(c.dy[0]),), tracer, forward=True)
    return lambda tracer: _traced(j, c.subject, c.args, c.dy, tracer, method)


def _of_what_ran(j: Judgement, fault: Fault, c: Comparison | None) -> Line:
    """Return the statement that wrote into what the target was handed, else the last one of the backward pass."""
    subject, args = (c.subject, c.args) if c is not None else (j.subject, j.subject.args)
    dy = c.dy if c is not None else j.comparisons[0].dy if j.comparisons else _ones(j)
    backward, both = Tracer(), Tracer()
    if not fault.fault.startswith("mutates"):
        _traced(j, subject, args, dy, backward)
    if not backward.last:
        _traced(j, subject, args, dy, both, forward=True)
    return both.wrote or backward.last or both.last


def _ones(j: Judgement) -> tuple[Array, ...]:
    return tuple(np.ones_like(y) for y in leaves_of(execute(j.subject, j.subject.args, None, j.watch).y))


def _of_a_rule(j: Judgement) -> Line:
    """Return the head of the first rule that the user gave JAX, which need not run again once it was traced."""
    if not isinstance(j.oracle, JaxOracle) or j.subject.library != "jax" or j.subject.pure is None:
        return Line()
    return Line(*line_of_rule(lambda args: j.subject.pure(args, False), j.subject.args))


def _traced(
    j: Judgement,
    subject: Subject,
    args: Args,
    dy: tuple[Array, ...],
    tracer: Tracer,
    method: str = "backward",
    forward: bool = False,
) -> Mapping[str, Any]:
    """Run forward and backward with the tracer in the backward pass alone, or in both, and return the gradients.

    In a target that is not tinynet's no line of tinynet's is to blame.
    """
    files = [code.co_filename for f in subject.code if (code := getattr(f, "__code__", None))]
    tracer.beside = TINYNET if any(not file.startswith(TINYNET) for file in files) else ""
    session = subject.start()
    of_target: Callable[[Any, Any], Gradients] = getattr(session, method)

    def backward(cache: Any, dy: Any) -> Gradients:
        with tracer.watching(dy):
            return of_target(cache, dy)

    def traced_forward(args: Args) -> tuple[Any, Any]:
        with tracer.watching(args):
            return session.forward(args)

    once = _Once(traced_forward if forward else session.forward, backward)
    return execute(subject, args, dy, j.watch, session=once).grads


@dataclass(frozen=True)
class _Once:
    """A session of which one backward pass alone is run."""

    forward: Callable[[Args], tuple[Any, Any]]
    backward: Callable[[Any, Any], Gradients]


def run_of(c: Comparison, j: Judgement, names: Sequence[str]) -> Wrong:
    """Return a comparison as a run for the diagnosis; of its wrong gradients those in `names`."""
    args = {n: np.asarray(a, np.float64) if a.dtype.kind == "f" else a for n, a in c.args.items()}
    try:
        forward = _forward_of(c, j, args)
    except Exception:
        forward = None
    got: Mapping[str, Array] = {**c.got, **c.misshapen}
    wrong, sizes = c.spoilt.intersection(names), sizes_of(c.subject)
    dy = tuple(np.asarray(d, np.float64) for d in c.dy)
    return Wrong(forward, args, c.subject.wrt, dy, got, c.exact.grads, c.tolerance, wrong, sizes, c.subject.constants)


def _forward_of(c: Comparison, j: Judgement, args: Args) -> Any:
    """Return the forward pass as JAX can trace it; None where there is none."""
    if c.subject.library == "torch":
        from tinynet.verification.adapters.torch.recorded import forward_of

        return forward_of(j.oracle, args)
    if not isinstance(j.oracle, JaxOracle):
        return None
    same = c.subject.pure is j.subject.pure
    return (j.oracle if same else JaxOracle(c.subject, j.oracle.watch, j.oracle.manners, j.oracle.eager)).program(args)


def sizes_of(subject: Subject) -> dict[str, int]:
    """Return the sizes that factors are made of, by the names people give them: m samples, n_in, n_out."""
    first = next((subject.args[n] for n in subject.inputs if subject.args[n].ndim), None)
    if first is None:
        return {}
    if first.ndim < 2:
        return {"m": int(first.shape[0])}
    return {"m": math.prod(first.shape[:-1]), "n_out": int(first.shape[-1])}


def most_telling(seen: Sequence[Comparison], names: Sequence[str]) -> Comparison:
    """Return the first comparison of those in which most of these gradients are wrong."""
    return max(seen, key=lambda c: len(c.spoilt.intersection(names)))

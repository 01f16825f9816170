"""Where in the target's backward pass the cause of a fault stands, found by running it again while it is traced."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import Args, Array, Gradients, Subject
from tinynet.verification.comparison import Comparison
from tinynet.verification.diagnosis import Tracer, Wrong, placed
from tinynet.verification.diagnosis.source import Line
from tinynet.verification.execution import execute
from tinynet.verification.jaxpr import line_of_rule
from tinynet.verification.judgement import Judgement
from tinynet.verification.observed import Fault
from tinynet.verification.oracle import JaxOracle, leaves_of


def place_of(j: Judgement, fault: Fault, c: Comparison | None, seconds: float) -> Line:
    """Return the statement to blame for a fault; no line if there is none to name.

    Args:
        c: a comparison in which it showed; None where no value was wrong.
        seconds: how long it may take.
    """
    if j.watch is None:
        return Line()
    try:
        line = Line()
        if c is not None and not fault.fault.startswith("mutates"):
            line = _of_values(j, fault, c, seconds)
        return line or _of_what_ran(j, fault, c) or _of_a_rule(j)
    except Exception:
        return Line()  # a place is a help; that there is none must not cost the verdict


def _of_values(j: Judgement, fault: Fault, c: Comparison, seconds: float) -> Line:
    """Return the statement that wrote wrong values."""

    def run(tracer: Tracer) -> Mapping[str, Any]:
        return _traced(j, c.subject, c.args, c.dy, tracer, "param_grads" if c.probe == "param_grads" else "backward")

    return placed(run, run_of(c, j, fault.gradients), fault.gradients, seconds=seconds)


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
    assert j.watch is not None
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
    """Run forward and backward with the tracer in the backward pass alone, or in both, and return the gradients."""
    assert j.watch is not None
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
    wrong = frozenset(n for n in names if n in c.wrong or n in c.misshapen)
    dy = tuple(np.asarray(d, np.float64) for d in c.dy)
    return Wrong(
        forward,
        args,
        c.subject.wrt,
        dy,
        got,
        c.exact.grads,
        c.tolerance,
        wrong,
        sizes_of(c.subject),
        c.subject.constants,
    )


def _forward_of(c: Comparison, j: Judgement, args: Args) -> Any:
    """Return the forward pass as JAX can trace it; None where there is none."""
    if c.subject.library == "torch":
        from tinynet.verification.adapters.torch.recorded import forward_of

        return forward_of(j.oracle, args)
    if not isinstance(j.oracle, JaxOracle) or j.oracle.eager:
        return None
    same = c.subject.pure is j.subject.pure
    return (j.oracle if same else JaxOracle(c.subject, j.oracle.watch, j.oracle.manners)).program(args)


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
    return max(seen, key=lambda c: sum(n in c.wrong or n in c.misshapen for n in names))

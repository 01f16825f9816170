"""Run one example, and compare all that comes back: y, the gradients, and those of `param_grads`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import MISSING, Args, Array, Malformed, Oracle, Subject
from tinynet.verification.bench import Bench
from tinynet.verification.comparison import Comparison, compare, slim
from tinynet.verification.examples import SHAPES, Example
from tinynet.verification.excuses import at_kinks, where_never_given, without_own_rounding, without_rounding
from tinynet.verification.execution import Hang, Run, Watch, execute, line_of_error, told
from tinynet.verification.numerical import NumericalOracle
from tinynet.verification.observations import Fault, Observed, skipped
from tinynet.verification.oracle import leaves_of
from tinynet.verification.probes.forward import compare_forward
from tinynet.verification.probes.state import mutation
from tinynet.verification.report import Probe
from tinynet.verification.tolerance import largest


def run_all(b: Bench, examples: Iterable[Example | Probe], seen: Observed) -> Observed:
    """Run examples until one stops the target, and add what they show to what was `seen` before."""
    for e in examples:
        if seen.stopped:
            break
        if isinstance(e, Probe):  # that the target does not take
            seen += Observed(coverage=(e,))
        elif b.numerical and e.probe in ("zeros and ties", "huge"):
            seen += skipped(e.probe, "differences say nothing at a kink or far out")
        elif e.probe in b.settings.wanted:
            seen += run(b, e, seen)
    return seen


def run(b: Bench, e: Example, seen: Observed, dtype: str = "float64") -> Observed:
    """Run forward and backward on one example and compare; what there is nothing to compare of, the coverage says."""
    dtype = dtype if dtype in b.settings.dtypes else "float32"
    args = {n: a.astype(dtype, copy=False) if a.dtype.kind == "f" else a for n, a in e.subject.args.items()}
    subject = e.subject.at(args)
    dy = tuple(d.astype(dtype) for d in e.dy)
    unmet = b.lines.missed() if not e.strict else []
    with b.lines if e.probe != "empty batch" else contextlib.nullcontext():  # which takes a side and compares nothing
        ran = execute(subject, subject.args, dy, b.watch)
    if not e.strict and b.lines.missed() != unmet:
        e = replace(e, strict=True)  # the code has a side of its own for it
    written = Observed(faults=tuple(mutation(subject, ran, e.probe)))
    if ran.error is None:
        return written + compared(b, e, subject, dy, ran, seen + written, dtype)
    if ran.y is not None and not _finite(leaves_of(ran.y)):
        return written + _overflow(e, dtype)
    return written + raised(b, e, ran, seen + written, dtype)


def compared(
    b: Bench, e: Example, subject: Subject, dy: tuple[Array, ...], ran: Run, seen: Observed, dtype: str
) -> Observed:
    """Compare what a run gave with what is exact.

    Args:
        subject: the target with the arrays of the run, in `dtype`; dy: its cotangent.
        seen: what the examples before it showed.
    """
    try:
        oracle = b.oracle_of(subject)
        exact = oracle(subject.args, dy)
    except Hang:
        late = "the oracle takes too long"
        if e.ours and not any(p.skipped == late for p in seen.coverage):
            return skipped(e.probe, late, dtype=dtype)  # the target came back: once, it may be long there, not endless
        fault = hang(b.subject, "the oracle runs your forward pass and it", b.watch)
        return Observed(faults=(fault,), stopped=True)
    except Exception as error:
        return skipped(e.probe, f"no oracle: {told(error)}", dtype=dtype)
    y = leaves_of(ran.y)
    if not _finite((*y, *exact.y)):
        return _overflow(e, dtype)
    new = compare_forward(b, e, subject, dy, y, exact, dtype)
    new = replace(new, coverage=()) if seen.ran("forward") else new
    new += Observed(faults=(*_of_integers(subject, ran, e.probe), *_of_nothing(subject, ran, e.probe)))
    bad = [n for n in subject.wrt if not np.isfinite(exact.grads[n]).all()]
    if bad and e.probe != "layout":  # which is about memory, and makes samples equal
        new += _not_finite(b, e, subject, ran, bad)
    subject = replace(subject, wrt=tuple(n for n in subject.wrt if n not in bad))
    if not subject.wrt:
        return new
    usual = usual_sizes(seen) if e.probe not in (*SHAPES, "cotangents") else {}
    larger = _growth(b.subject.args, subject.args)
    beside = partial(
        compare,
        oracle=oracle,
        dy=dy,
        y=y,
        dtype=dtype,
        rng=b.rng,
        usual={n: size * larger for n, size in usual.items()},
        exact=exact,
        known=known_wrong(seen),
    )
    c = _excused(b, e, beside(subject, grads=ran.grads, probe=e.probe, label=e.label), oracle, seen)
    new += recorded(b, c)
    if ran.short_grads is None or "param_grads" not in b.settings.wanted or e.probe == "empty batch":
        return new
    # What is the same as the gradient that `backward` returns was judged with it.
    params = tuple(n for n in subject.wrt if n not in subject.inputs)
    both = ran.short_grads.keys() & ran.grads.keys()
    other = tuple(n for n in params if n not in both or not np.array_equal(ran.short_grads[n], ran.grads[n]))
    short = replace(subject, wrt=other)
    s = beside(short, grads=ran.short_grads, probe="param_grads", label=e.label or e.probe)
    s = _excused(b, e, s, oracle, seen + new)
    if (s.wrong - c.wrong) or (set(s.form) - set(c.form)):
        return new + recorded(b, s)
    probe = Probe("param_grads", dtype, ratios={n: r for n, r in c.ratios.items() if n in params})
    return new if seen.ran("param_grads") else new + Observed(coverage=(probe,))


def recorded(b: Bench, c: Comparison) -> Observed:
    """Return a comparison with its notes and its line in the coverage."""
    name = c.probe if c.dtype == "float64" or "float64" not in b.settings.dtypes else "float32"
    c = slim(c) if b.is_large and not c.wrong and not c.form and c.probe not in SHAPES else c
    return Observed((c,), coverage=(Probe(name, c.dtype, ratios=dict(c.ratios), note=c.label),), notes=c.notes)


def usual_sizes(seen: Observed) -> dict[str, float]:
    """Return the largest entry of each exact gradient where nothing is saturated."""
    plain = [c for c in seen.comparisons if c.probe in ("rectangular", "tiny")]
    return {n: max(c.sizes[n] for c in plain if n in c.sizes) for n in {n for c in plain for n in c.sizes}}


def known_wrong(seen: Observed) -> set[str]:
    """Return the gradients that are wrong at the plain examples: nothing is looked for that could excuse them."""
    return {n for c in seen.comparisons if c.probe == "rectangular" for n in c.wrong}


def raised(b: Bench, e: Example, ran: Run, seen: Observed, dtype: str) -> Observed:
    """Return what an error says: a fault, or that the target does not take inputs that are our own."""
    error = ran.error
    assert error is not None
    if isinstance(error, Hang):
        late = replace(hang(b.subject, f"the {ran.stage} pass", b.watch), probe=e.probe)
        return Observed(faults=(late,), stopped=True)
    if isinstance(error, SystemExit):
        return Observed(faults=(exit_of(b.subject, ran, e.probe),), stopped=True)
    if ran.stage == "forward" or (e.ours and not e.subject.contract):
        why = f"the {ran.stage} pass raises {told(error)}"
        note = f"at {e.label or e.probe} {why}" if ran.stage != "forward" else ""
        return skipped(e.probe, why, dtype=dtype, note=note)
    if "read-only" in str(error) and any(f.fault.startswith("mutates") for f in seen.faults):
        return Observed()  # the write was seen already, and what it was into
    malformed = isinstance(error, Malformed)
    sentence = str(error) if malformed else f"the {ran.stage} pass raises {told(error)}"
    read_only = "read-only" in str(error) and e.probe == "layout"
    fault = "malformed" if malformed else "mutates x" if read_only else "raises"
    return Observed(faults=(Fault(b.subject.wrt, fault, sentence, e.probe, where=line_of_error(error)),))


def hang(subject: Subject, what: str, watch: Watch) -> Fault:
    """Return the fault of a call that does not come back."""
    text = f"{what} does not come back within {watch.seconds:g} s"
    return Fault(subject.wrt, "hangs", text, "forward", where=watch.where)


def exit_of(subject: Subject, ran: Run, probe: str) -> Fault:
    """Return the fault of a run that wanted to end the process."""
    assert ran.error is not None
    text = f"the {ran.stage} pass calls {told(ran.error)}"
    return Fault(subject.wrt, "exits", text, probe, where=line_of_error(ran.error))


def _finite(arrays: Iterable[Array]) -> bool:
    return all(np.isfinite(a).all() for a in arrays)


def _overflow(e: Example, dtype: str) -> Observed:
    return skipped(e.probe, f"the forward pass overflows ({e.label or e.probe})", dtype=dtype)


def _excused(b: Bench, e: Example, c: Comparison, oracle: Oracle, seen: Observed) -> Comparison:
    """Return the comparison without what is right at a kink, or lost in rounding far out."""
    if isinstance(oracle, NumericalOracle) or c.wrong <= known_wrong(seen):
        return c
    c = at_kinks(c, oracle, b.rng, b.watch)
    if not e.strict:
        return replace(where_never_given(c), form={n: f for n, f in c.form.items() if f[0] != "missing"})
    if e.probe in (*SHAPES, "cotangents"):
        return without_own_rounding(c, b.rng, b.watch)
    return without_rounding(c, oracle, b.rng, b.watch)


def _growth(usual: Args, args: Args) -> float:
    """Return how many times larger some array is than in the example that was given, at least 1."""
    now, before = ({n: largest(a) for n, a in arrays.items()} for arrays in (args, usual))
    return max([1.0, *(now[n] / size for n, size in before.items() if size and n in now)])


def _of_integers(subject: Subject, ran: Run, probe: str) -> list[Fault]:
    """Return a fault for each gradient by integers, which do not vary: there is none, or it is zeros."""
    text = "a gradient by {} is returned, which holds integers; expected zeros, or None"
    integers = [n for n in subject.inputs if subject.contract and subject.args[n].dtype.kind in "iub"]
    wrong = [n for n in integers if not _is_nothing(ran.grads.get(n))]
    return [Fault((n,), "malformed", text.format(n), probe) for n in wrong]


def _is_nothing(grad: Any) -> bool:
    try:
        return grad is None or grad is MISSING or not np.any(np.asarray(grad))
    except (TypeError, ValueError):
        return False


def _of_nothing(subject: Subject, ran: Run, probe: str) -> list[Fault]:
    """Return a fault for each gradient by a parameter that there is not: `fit` takes none that differ from params."""
    extra = [n for n in ran.grads if subject.contract and n not in subject.args and ran.grads[n] is not None]
    text = "a gradient is returned by {}, and there is no such parameter; expected the structure of params"
    return [Fault((n,), "malformed", text.format(n), probe) for n in extra]


def _not_finite(b: Bench, e: Example, subject: Subject, ran: Run, names: list[str]) -> Observed:
    """Judge gradients where JAX has no finite one: a NaN is wrong where the slopes on both sides are finite."""
    new = Observed()
    for name in names:
        got = ran.grads.get(name, MISSING)
        if not isinstance(got, np.ndarray) or np.isfinite(got).all():
            continue
        if _slopes_are_finite(b, subject, name):
            text = f"the gradient is NaN or infinite where y and its slopes are finite ({e.label or e.probe})"
            new += Observed(faults=(Fault((name,), "non-finite", text, e.probe, shapes=(subject.shapes(),)),))
        else:
            new += Observed(notes=(f"the slope by {name} is infinite ({e.label or e.probe})",))
    return new


def _slopes_are_finite(b: Bench, subject: Subject, name: str) -> bool:
    """Return whether the slopes of y to both sides along a random direction stay as they are when the step shrinks."""
    a = subject.args[name]
    v = b.rng.standard_normal(a.shape)
    size = max(largest(a), 1e-3)
    steepest = []
    for step in (1e-5, 1e-7):
        ends = []
        for sign in (0, 1, -1):
            moved = {**subject.args, name: a + (sign * step * size * v).astype(a.dtype)}
            ran = execute(subject, moved, None, b.watch)
            if ran.error is not None:
                return False
            ends.append(leaves_of(ran.y))
        slopes = [
            np.max(np.abs(p - o), initial=0.0) / (step * size)
            for end in ends[1:]
            for p, o in zip(end, ends[0], strict=True)
        ]
        steepest.append(float(np.nanmax(slopes)))
    return bool(np.isfinite(steepest[1]) and steepest[1] < 3 * steepest[0] + 1e-6)

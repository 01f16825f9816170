"""Judge one subject: run it on every example, compare, and return what was seen. Nothing here names a fault's cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np

from tinynet.verification.adapters.subject import DATA_NAMES, Malformed, Oracle, Subject, TargetError
from tinynet.verification.bench import Bench, Settings
from tinynet.verification.comparison import compare, tells
from tinynet.verification.examples import (
    SHAPES,
    Example,
    Shapes,
    cotangent,
    cotangent_examples,
    is_special,
    shape_examples,
    value_examples,
    with_batch,
)
from tinynet.verification.execution import Hang, Run, Watch, execute, told
from tinynet.verification.observations import Fault, Observed, skipped
from tinynet.verification.oracle import JaxOracle, find_oracle, leaves_of
from tinynet.verification.probes.branches import probe_branches
from tinynet.verification.probes.compiled import compiled_gradients
from tinynet.verification.probes.forward import compare_forward
from tinynet.verification.probes.layout import probe_layout
from tinynet.verification.probes.lines import Lines
from tinynet.verification.probes.state import DRAWS, other_y, probe_state
from tinynet.verification.probes.values import exit_of, hang, recorded, run, run_all, usual_sizes
from tinynet.verification.tolerance import largest
from tinynet.verification.twin import find_twin

T = TypeVar("T")

_SHUFFLES = 8

FEW = ("20 ×", "1000 ×", "all negative", "tied", "moved")
"""Which values are tried at the size that is given where each run takes long, by their labels."""


@dataclass(frozen=True, kw_only=True)
class Judgement(Observed):
    """What was seen of one subject.

    Attributes:
        subject, oracle: what was judged, by what; the oracle is None where there is none.
        watch: what the target may be run under again.
        inside: the judgements of the layers inside, by path; "" for the same target on shorter axes.
    """

    subject: Subject
    watch: Watch
    oracle: Oracle | None = None
    inside: tuple[tuple[str, Judgement], ...] = ()


def judge(subject: Subject, settings: Settings, lines: Lines | None = None) -> Judgement:
    """Run a subject on every example and compare; `lines` has the steps of its code that other examples took."""
    judged = partial(Judgement, subject=subject, watch=settings.watch)
    first = execute(subject, subject.args, None, settings.watch)
    if isinstance(first.error, Hang):
        fault = Fault(subject.wrt, "hangs", "the forward pass does not come back", "forward")
        return judged(faults=(fault,))
    if isinstance(first.error, SystemExit):
        return judged(faults=(exit_of(subject, first, "forward"),))
    if reason := _why_not(first, subject):
        return judged(reason=reason)
    if not subject.contract and other_y(first, execute(subject, subject.args, None, settings.watch)):
        return judged(reason=DRAWS)
    rng = np.random.default_rng([settings.seed, 1])
    outputs = leaves_of(first.y)
    dy = cotangent(outputs, rng)
    try:
        oracle = find_oracle(subject, settings.watch, dy)
        oracle(subject.args, dy)
    except Hang:
        fault = hang(subject, "the oracle runs your forward pass and it", settings.watch)
        return judged(faults=(fault,))
    except TargetError:
        raise
    except Exception as error:
        return judged(reason=f"no oracle for the forward pass: {told(error)}")
    size = max(largest(y) for y in outputs)
    b = Bench(subject, dy, settings, oracle, lines or Lines(subject), rng, size, Shapes(settings.watch))
    seen = _tried(_AS_GIVEN, b, Observed())
    twin = _twin(b, seen)
    seen = _tried(_MORE, b, seen) if twin is None else seen + _of_twin(b, twin, seen)
    seen += _missing_at_times(b, seen)
    seen = _uncompared(b, seen) + seen
    inside = [("", twin), *twin.inside] if twin is not None and not seen.failed else _inside(b, seen)
    seen = dataclasses.replace(
        seen,
        faults=_once(seen.faults),
        notes=(*subject.notes, *_oracle_notes(oracle, subject), *dict.fromkeys(seen.notes)),
        reason=seen.reason or oracle.caveat,
        unreached=tuple(dict.fromkeys(seen.unreached)),
    )
    return judged(oracle=oracle, inside=tuple(inside), **vars(seen))


def _why_not(run: Run, subject: Subject) -> str:
    """Return why a first forward pass leaves nothing to judge; "" if it does not."""
    if isinstance(run.error, Malformed):
        return str(run.error)
    if run.error is not None:
        return f"the forward pass raises {told(run.error)} at {subject.shapes()}; give others as inputs="
    try:
        leaves = leaves_of(run.y)
    except Exception as error:
        return str(error)
    if not leaves or any(leaf.dtype.kind not in "fV" for leaf in leaves):
        given = ", ".join(str(leaf.dtype) for leaf in leaves) or "nothing"
        return f"the forward pass returns {given}; expected arrays of floating-point numbers"
    if not any(leaf.size for leaf in leaves):
        return "the output has no entries for these inputs: nothing can be compared; give others as inputs="
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        return "the forward pass gives an infinity or a NaN for these inputs; give others as inputs="
    return ""


def _or_none(f: Callable[[], T]) -> T | None:
    try:
        return f()
    except Exception:
        return None


def _tried(stages: tuple[tuple[str, Stage], ...], b: Bench, seen: Observed) -> Observed:
    """Run stages until one stops the target."""
    for probe, stage in stages:
        if not seen.stopped and (not probe or probe in b.settings.wanted):
            try:
                seen = stage(b, seen)
            except Hang:
                seen += Observed(faults=(hang(b.subject, "a call", b.watch),), stopped=True)
    return seen


def _twin(b: Bench, seen: Observed) -> Judgement | None:
    """Return the judgement of the same target on shorter axes, where each run takes long and it shows nothing new.

    None where something was not compared at the size that is given.
    """
    if not b.takes_long or seen.stopped or not seen.comparisons or _uncompared(b, seen).reason:
        return None
    subject = _or_none(lambda: find_twin(b.subject, b.shapes))
    if subject is None:
        return None
    twin = judge(subject, b.settings, b.lines)
    found = _wrong(twin)
    if not seen.failed:
        found = found.union(*(_wrong(part) for _, part in twin.inside))
    reasons = [twin.reason, *(part.reason for _, part in twin.inside)]
    return twin if found <= _wrong(seen) and not any(reasons) else None


def _wrong(seen: Observed) -> set[Any]:
    """Return what is wrong, and how as far as that is known."""
    forms = {(n, fault) for c in seen.comparisons for n, (fault, _) in c.form.items()}
    return {n for c in seen.comparisons for n in c.wrong} | forms | {(f.gradients, f.fault) for f in seen.faults}


def _of_twin(b: Bench, twin: Judgement, seen: Observed) -> Observed:
    """Return which probes a twin ran instead."""
    coverage = tuple(p for p in twin.coverage if not seen.ran(p.name))
    args = twin.subject.args
    shorter = [f"{n} {a.shape}" for n, a in args.items() if a.shape != b.subject.args[n].shape]
    note = f"each run takes long: most values were tried on shorter axes, {', '.join(shorter)}"
    return Observed(coverage=coverage, notes=(*((note,) if coverage else ()), *twin.notes))


def _inside(b: Bench, seen: Observed) -> list[tuple[str, Judgement]]:
    """Judge the layers inside a composite on what reaches them; the same layer at the same shapes once.

    Only the small ones of a large composite that is right: each run of the others takes long.
    """
    small = b.is_large and not seen.failed
    found: list[tuple[str, Judgement]] = []
    met: list[Any] = []
    for path, part in _or_none(b.subject.parts) or []:
        key = (part.name, part.code, tuple((n, a.shape) for n, a in part.args.items()), repr(dict(part.constants)))
        if (part.contract and key in met) or (small and part.is_large):
            continue
        met.append(key)
        found.append((path, judge(part, dataclasses.replace(b.settings, reference=None))))
    return found


def _forward_alone(b: Bench, seen: Observed) -> Observed:
    """Compare the forward pass where "rectangular" is not asked for, at which it would be."""
    if "rectangular" in b.settings.wanted:
        return seen
    exact = b.oracle(b.subject.args, b.dy)
    y = leaves_of(execute(b.subject, b.subject.args, None, b.watch).y)
    e = Example("rectangular", b.subject, b.dy)
    return seen + compare_forward(b, e, b.subject, b.dy, y, exact, "float64")


def _shapes(b: Bench, seen: Observed) -> Observed:
    wider = [(label, v) for label, v in b.variants if not label.startswith("only ")]
    return run_all(b, shape_examples(b.subject, b.batches, wider, b.shapes, b.rng, grow=b.may_grow), seen)


def _fewer_gradients(b: Bench, seen: Observed) -> Observed:
    """Run the same arrays where fewer ask for a gradient."""
    fewer = [(label, v) for label, v in b.variants if label.startswith("only ")]
    return run_all(b, (Example("rectangular", variant, b.dy, label) for label, variant in fewer), seen)


def _no_larger_batch(b: Bench, seen: Observed) -> Observed:
    """Say that no larger batch was tried, where the samples may be more and each run takes long."""
    if b.may_grow or all(batch.size >= 33 for batch in b.batches):
        return seen
    why = "each run takes long"
    return seen + skipped("batch 33", why, note=f"no larger batch was tried: {why}")


def _values(b: Bench, seen: Observed) -> Observed:
    return run_all(b, value_examples(b.subject, b.shapes, b.rng), seen)


def _far(b: Bench, seen: Observed) -> Observed:
    """Try a few of the values, and the cotangents, where the others will be tried on shorter axes."""
    if not b.takes_long:
        return seen
    examples = value_examples(b.subject, b.shapes, b.rng)
    seen = run_all(b, (e for e in examples if isinstance(e, Example) and e.label in FEW), seen)
    return _until_none_is_zero(b, _cotangents(b, seen))


def _cotangents(b: Bench, seen: Observed) -> Observed:
    return run_all(b, cotangent_examples(b.subject, b.shapes, b.rng), seen)


def _until_none_is_zero(b: Bench, seen: Observed) -> Observed:
    """Shuffle the inputs, with other signs where they have both, until no entry of a gradient was always zero.

    What was never anything but zero, an entry that no maximum picks, a unit that is dead, was not tested.
    """
    names = [n for n in b.subject.inputs if not is_special(b.subject.args[n])]
    for _ in range(_SHUFFLES if names and not b.numerical else 0):
        alike = [c for c in seen.comparisons if c.subject.pure is b.subject.pure and c.probe != "layout"]
        if seen.stopped or not alike or any(c.wrong for c in alike):
            break
        grads = {n: [c.exact.grads[n] for c in alike if n in c.got] for n in b.subject.wrt}
        here = {n: [g for g in gs if g.shape == b.subject.args[n].shape] for n, gs in grads.items()}
        if all(np.all(np.any([g != 0 for g in gs], axis=0)) for gs in here.values() if gs):
            break
        args = dict(b.subject.args)
        for n in names:
            args[n] = b.rng.permutation(args[n].ravel()).reshape(args[n].shape)
            if np.any(args[n] < 0) and np.any(args[n] > 0):
                args[n] = args[n] * b.rng.choice([-1.0, 1.0], args[n].shape)
        shuffled = b.subject.at(args)
        if (dy := b.draw(shuffled)) is not None:
            seen += run(b, Example("rectangular", shuffled, dy, "shuffled"), seen)
    return seen


def _empty(b: Bench, seen: Observed) -> Observed:
    """Give no sample at all: gradients of what all samples share are then zeros, and nothing may be raised."""
    batch = b.batch
    if batch is None or b.numerical:
        return seen
    subject = b.subject.at(
        {n: np.take(a, [], axis=batch.axes[n]) if n in batch.axes else a for n, a in b.subject.args.items()}
    )
    try:
        outputs = b.shapes.of(subject, subject.args)
    except Exception as error:
        return seen + skipped("empty batch", f"the forward pass raises {told(error)}")
    if not all(np.isfinite(y).all() for y in outputs):
        return seen + skipped("empty batch", "the forward pass has no value for it")
    return seen + run(b, Example("empty batch", subject, cotangent(outputs, b.rng), ours=True), seen)


def _compiled(b: Bench, seen: Observed) -> Observed:
    """Run the target's own code under jax.jit, where it can be traced: part of tinynet's contract."""
    if not b.subject.contract or b.numerical or seen.failed:
        return seen
    try:
        grads = compiled_gradients(b.subject, b.dy, b.watch)
    except (Exception, Hang) as error:
        why = f"JAX cannot trace the backward pass: {told(error)}"
        return seen + skipped("compiled", why, note="not under jax.jit: the code uses NumPy's functions")
    exact = b.oracle(b.subject.args, b.dy)
    if not all(np.isfinite(g).all() for g in exact.grads.values()):
        return seen
    usual = usual_sizes(seen)
    c = compare(b.subject, grads=grads, probe="compiled", oracle=b.oracle, dy=b.dy, rng=b.rng, usual=usual, exact=exact)
    return seen + recorded(b, dataclasses.replace(c, form={}))


def _float32(b: Bench, seen: Observed) -> Observed:
    """Run the plain and the extreme examples in float32, unless that is the only type or float64 is wrong already."""
    if set(b.settings.dtypes) != {"float32", "float64"}:
        return seen
    if b.numerical:
        return seen + skipped("float32", "differences do not resolve more than float32 does")
    if b.oracle.resolution:
        why = "a loop that ends when it is close enough need not end in float32"
        return seen + skipped("float32", why, note=f"not in float32: {why}")
    if any(c.wrong and c.probe in SHAPES for c in seen.comparisons):
        return seen
    examples = [Example("rectangular", b.subject, cotangent(b.dy, b.rng))]
    if b.batch is not None:
        one = b.subject.at(with_batch(b.subject.args, b.batch, 1, b.rng))
        if (dy := b.draw(one)) is not None:
            examples.append(Example("batch 1", one, dy, ours=True))
    extreme = ("saturated", "huge", "tiny", "zeros and ties")
    others = value_examples(b.subject, b.shapes, b.rng)
    examples += [e for e in others if isinstance(e, Example) and e.probe in extreme]
    for e in examples:
        if not seen.stopped:
            seen += run(b, e, seen, "float32")
    return seen


Stage: TypeAlias = Callable[[Bench, Observed], Observed]
"""Tries something, and adds what it shows to what was seen before."""

_AS_GIVEN: tuple[tuple[str, Stage], ...] = (
    ("", _forward_alone),
    ("", _shapes),
    ("", _fewer_gradients),
    ("rectangular", _far),
)
"""What is tried first, in this order, each with its probe; "" where it is several, of which the wanted ones run."""

_MORE: tuple[tuple[str, Stage], ...] = (
    ("batch 33", _no_larger_batch),
    ("", _values),
    ("", _cotangents),
    ("rectangular", _until_none_is_zero),
    ("state", probe_state),
    ("empty batch", _empty),
    ("layout", probe_layout),
    ("compiled", _compiled),
    ("float32", _float32),
    ("branches", probe_branches),
)
"""What is tried after that, on shorter axes where each run of the target takes long and it is right there."""


def _uncompared(b: Bench, seen: Observed) -> Observed:
    """Return why there can be no PASS where something was not compared, and what to do."""
    compared = {n for c in seen.comparisons for n in c.got if c.probe != "empty batch"}
    lacking = [n for n in b.subject.wrt if n not in compared] if compared else []
    declared = {n: c.form[n][0] for c in seen.comparisons for n in c.form}
    new = Observed()
    for name in lacking:
        if b.subject.contract or declared.get(name, "missing") != "missing":
            continue
        if name.rpartition(".")[2] in DATA_NAMES and name in b.subject.inputs:
            new += Observed(notes=(f"the gradient by {name} is not returned and was not judged",))
            continue
        zero = not any(np.any(c.exact.grads[name]) for c in seen.comparisons)
        if zero and name in b.subject.inputs and _only_selects(b, name):
            text = f"{name} moves y by jumps alone, as a mask does; that no gradient is returned is right"
            new += Observed(notes=(text,))
            continue
        what = "argument" if name in b.subject.inputs else "parameter"
        lacks = f"the {what} {name} moves y and no gradient of it was found"
        return new + Observed(reason=f"{lacks}; return one, or say what is judged: wrt=[…]")
    if not compared and not seen.faults:
        return new + Observed(reason="no gradient was compared")
    judged = [n for n in b.subject.wrt if n in compared]
    vacuous = [n for n in judged if not any(tells(c, n) for c in seen.comparisons if n in c.got)]
    for name in vacuous:
        if _moves_output(b, name):
            text = f"the exact gradient by {name} is zero, or lost in rounding, at every example; give other inputs="
            return new + Observed(reason=text)
        new += Observed(notes=(f"{name} does not move y",))
        # A condition of Python's, as on a flag, may never hold for these arguments.
        flags = {f"{place}: {text}" for place, text in b.lines.missed()}
        if left := [place for place in seen.unreached if place not in flags]:
            text = f"{name} does not move y at any example, and not every branch was taken: {left[0]}"
            return new + Observed(reason=f"{text}; give other inputs=, or say what is judged: wrt=[…]")
    if compared and len(vacuous) == len(compared) and not seen.faults:
        text = "nothing moves y, and every exact gradient is zero: nothing was tested; give other inputs="
        return new + Observed(reason=text)
    return new


def _missing_at_times(b: Bench, seen: Observed) -> Observed:
    """Return a fault for each gradient that is returned at some examples, and at others, where it is not 0, is not."""
    found = []
    returned = {n for c in seen.comparisons for n in c.got if c.probe != "empty batch"}
    for c in seen.comparisons if not b.subject.contract else ():
        for name, (fault, sentence) in c.form.items():
            if fault == "missing" and name in returned and np.any(c.exact.grads[name]):
                at = f"where {c.label}" if c.label.startswith("only ") else f"at {c.label or c.probe}"
                text = f"{sentence} {at}, and one is at other examples"
                if b.subject.library == "torch":
                    text += "; ctx.needs_input_grad has an entry for each argument of forward, in order"
                found.append(Fault((name,), fault, text, c.probe, shapes=(c.subject.shapes(),)))
    return Observed(faults=_once(tuple(found)))


def _only_selects(b: Bench, name: str) -> bool:
    """Return whether the exact gradient by an array is zero at other values too, as where it is only compared."""
    a = b.subject.args[name]
    moved = [-a, 0.3 * a, 10 * a, a + b.rng.standard_normal(a.shape), b.rng.standard_normal(a.shape)]
    try:
        return not any(np.any(b.oracle({**b.subject.args, name: m}, b.dy).grads[name]) for m in moved)
    except (Exception, Hang):
        return False


def _moves_output(b: Bench, name: str) -> bool:
    a = b.subject.args[name]
    moved = {**b.subject.args, name: a + (0.5 + np.abs(a)) * b.rng.standard_normal(a.shape)}
    here, there = (execute(b.subject, args, None, b.watch) for args in (b.subject.args, moved))
    if here.error is not None or there.error is not None:
        return True
    pairs = zip(leaves_of(here.y), leaves_of(there.y), strict=False)
    return any(not np.allclose(p, q, rtol=1e-9, atol=1e-12, equal_nan=True) for p, q in pairs)


def _oracle_notes(oracle: Oracle, subject: Subject) -> list[str]:
    if not isinstance(oracle, JaxOracle) or oracle.eager:
        return []
    program = oracle.program(subject.args)
    notes = [f"the rule of {name} is not what it is judged by" for name in program.stripped]
    return notes + [f"stop_gradient at {line} holds the derivative back" for line in program.stopped]


def _once(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    seen: dict[Any, Fault] = {}
    for f in faults:
        key = (f.fault, f.gradients, f.probe if f.fault in ("raises", "unknown") else "")
        seen.setdefault(key, f)
    return tuple(seen.values())

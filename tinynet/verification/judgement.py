"""Judge one subject: run it on every example, compare, and return what was seen. Nothing here names a fault's cause."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import (
    DATA_NAMES,
    MISSING,
    Args,
    Array,
    Exact,
    Malformed,
    Oracle,
    Subject,
    TargetError,
)
from tinynet.verification.comparison import Comparison, compare, without
from tinynet.verification.examples import (
    SHAPES,
    Batch,
    Example,
    Refused,
    Shapes,
    cotangent,
    cotangent_examples,
    find_batches,
    is_special,
    keeps_its_sign,
    shape_examples,
    value_examples,
    with_batch,
)
from tinynet.verification.execution import LAYOUTS, Hang, Run, Watch, execute, full_precision, line_of_error, told
from tinynet.verification.jaxpr import is_long
from tinynet.verification.kinks import accept_kinks
from tinynet.verification.numerical import NumericalOracle
from tinynet.verification.observed import Fault
from tinynet.verification.oracle import JaxOracle, find_oracle, leaves_of, rounding, spread
from tinynet.verification.probes.branches import look_for, sides_of
from tinynet.verification.probes.compiled import backward_function, compiled_gradients, own_rounding
from tinynet.verification.probes.lines import Lines, numbers_in
from tinynet.verification.probes.state import mutation, probe_state
from tinynet.verification.report import Probe
from tinynet.verification.tolerance import (
    LARGE,
    ROUNDED,
    ROUNDS_ALIKE,
    ROUNDS_AWAY,
    SATURATES,
    bound,
    distance,
    unit_of,
)

_NUMBERS = 8
_SHUFFLES = 8


@dataclass(frozen=True)
class Settings:
    """What a verification was asked for.

    Attributes:
        reference: an independent forward pass; None for none.
        dtypes: the number types to try.
        wanted: the probes.
        seed: of every random number.
        watch: ends a call that does not come back.
    """

    reference: Callable[..., Any] | None
    dtypes: tuple[str, ...]
    wanted: frozenset[str]
    seed: int
    watch: Watch


@dataclass(frozen=True)
class Judgement:
    """What was seen of one subject.

    Attributes:
        subject, oracle: what was judged, by what; the oracle is None where there is none.
        comparisons: every comparison made.
        faults: what is wrong besides values.
        coverage: the probes, run or skipped.
        notes: what is unusual and does no harm.
        reason: why there can be no PASS.
        unreached: branches that no example took.
        inside: the judgements of the layers inside, by path.
        watch: what the target may be run under again.
    """

    subject: Subject
    oracle: Oracle | None = None
    comparisons: tuple[Comparison, ...] = ()
    faults: tuple[Fault, ...] = ()
    coverage: tuple[Probe, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""
    unreached: tuple[str, ...] = ()
    inside: tuple[tuple[str, Judgement], ...] = ()
    watch: Watch | None = None

    @property
    def failed(self) -> bool:
        return (
            bool(self.faults)
            or any(c.wrong or c.form for c in self.comparisons)
            or any(j.failed for _, j in self.inside)
        )


@dataclass
class _Bench:
    """The tools of one judgement, and what has been seen so far; only this module writes to it."""

    subject: Subject
    settings: Settings
    oracle: Oracle
    rng: np.random.Generator
    shapes: Shapes
    lines: Lines
    oracles: dict[Any, Oracle] = field(default_factory=dict)
    usual: dict[str, float] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    coverage: list[Probe] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hung: bool = False
    unusable: str = ""
    usual_y: Array = field(default_factory=lambda: np.zeros(()))

    def may_grow(self) -> bool:
        """Return whether larger arrays than given cost little more."""
        if sum(a.size for a in self.subject.args.values()) > LARGE:
            return False
        oracle = self.oracle
        if not isinstance(oracle, JaxOracle):
            return True
        return not oracle.is_slow if oracle.eager else not is_long(oracle.program(self.subject.args))

    def failed_already(self) -> bool:
        return bool(self.faults) or any(c.wrong or c.form for c in self.comparisons)


def judge(subject: Subject, settings: Settings) -> Judgement:
    """Run a subject on every example and compare."""
    watch, rng = settings.watch, np.random.default_rng([settings.seed, 1])
    first = execute(subject, subject.args, None, watch)
    if (refusal := _refused(first, subject)) is not None:
        return _without_oracle(subject, first, refusal)
    outputs = leaves_of(first.y)
    dy = cotangent(outputs, rng)
    try:
        oracle = find_oracle(subject, watch, dy)
        oracle(subject.args, dy)
    except Hang:
        return Judgement(subject, faults=(_hang(subject, "the oracle runs your forward pass and it", watch),))
    except TargetError:
        raise
    except Exception as error:
        return Judgement(subject, reason=f"no oracle for the forward pass: {told(error)}")
    b = _Bench(subject, settings, oracle, rng, Shapes(watch), Lines(subject))
    inside = _inside(subject, settings)
    if "rectangular" not in settings.wanted:  # where the forward pass would be compared
        e = Example("rectangular", subject, dy)
        _forward(b, e, subject, dy, outputs, oracle(subject.args, dy), oracle, "float64")
    batches = _or_none(lambda: find_batches(subject, b.shapes)) or []
    batch = next(iter(batches), None)
    variants = [] if isinstance(b.oracle, NumericalOracle) else _or_none(lambda: subject.variants(rng)) or []
    wider = [(label, v) for label, v in variants if not label.startswith("only ")]
    _run_all(b, shape_examples(subject, batches, wider, b.shapes, rng, grow=b.may_grow()))
    for label, variant in variants:
        if label.startswith("only ") and not b.hung:  # the same arrays, of which fewer ask for a gradient
            _lacks(b, _run(b, Example("rectangular", variant, dy, label), "float64"))
    if not b.hung:
        _run_all(b, value_examples(subject, b.shapes, rng))
        _run_all(b, cotangent_examples(subject, b.shapes, rng))
    if not b.hung and "rectangular" in settings.wanted:
        _run_all(b, _until_none_is_zero(b))
    if not b.hung and "state" in settings.wanted:
        found, notes, why = probe_state(subject, lambda s, d: _oracle_of(b, s)(s.args, d), batch, b.shapes, watch, rng)
        b.faults += found
        b.notes += notes
        b.unusable = b.unusable or why
        b.coverage.append(Probe("state"))
    unreached: tuple[str, ...] = ()
    if not b.hung:
        _empty(b, batch)
        _layouts(b, batch, dy)
        _compiled(b, dy)
        _in_float32(b, batch)
        unreached = _branches(b, batch, dy)
    reason = _reason(b)
    return Judgement(
        subject=subject,
        oracle=oracle,
        comparisons=tuple(b.comparisons),
        faults=tuple(_once(b.faults)),
        coverage=tuple(b.coverage),
        notes=(*subject.notes, *_oracle_notes(oracle, subject), *dict.fromkeys(b.notes)),
        reason=reason,
        unreached=unreached,
        inside=tuple(inside),
        watch=watch,
    )


def _refused(run: Run, subject: Subject) -> str | None:
    """Return why a first forward pass leaves nothing to judge; None if it does not."""
    if isinstance(run.error, Malformed):
        return str(run.error)
    if run.error is not None:
        return f"the forward pass raises {told(run.error)} at {_shape(subject)}; give others as inputs="
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
    return None


def _without_oracle(subject: Subject, run: Run, refusal: str) -> Judgement:
    if isinstance(run.error, Hang):
        return Judgement(
            subject, faults=(Fault(subject.wrt, "hangs", "the forward pass does not come back", "forward"),)
        )
    if isinstance(run.error, SystemExit):
        return Judgement(subject, faults=(_exit(subject, run, "forward"),))
    return Judgement(subject, reason=refusal)


def _hang(subject: Subject, what: str, watch: Watch) -> Fault:
    return Fault(
        subject.wrt, "hangs", f"{what} does not come back within {watch.seconds:g} s", "forward", where=watch.where
    )


def _exit(subject: Subject, run: Run, probe: str) -> Fault:
    assert run.error is not None
    return Fault(
        subject.wrt, "exits", f"the {run.stage} pass calls {told(run.error)}", probe, where=line_of_error(run.error)
    )


def _or_none(f: Callable[[], Any]) -> Any:
    try:
        return f()
    except Exception:
        return None


def _inside(subject: Subject, settings: Settings) -> list[tuple[str, Judgement]]:
    """Judge the layers inside a composite on what reaches them; the same layer at the same shapes once."""
    found: list[tuple[str, Judgement]] = []
    seen: list[Any] = []
    for path, part in _or_none(subject.parts) or []:
        key = (part.name, part.code, tuple((n, a.shape) for n, a in part.args.items()), repr(dict(part.constants)))
        if part.contract and key in seen:
            continue
        seen.append(key)
        found.append((path, judge(part, dataclasses.replace(settings, reference=None))))
    return found


def _oracle_of(b: _Bench, subject: Subject) -> Oracle:
    """Return the oracle of a subject in other widths; the same one where only the arrays differ."""
    if subject.start is b.subject.start or subject.pure is b.subject.pure:
        return b.oracle
    key = id(subject.pure)
    if key not in b.oracles:
        b.oracles[key] = find_oracle(subject, b.settings.watch, cotangent(b.shapes.of(subject, subject.args), b.rng))
    return b.oracles[key]


def _lacks(b: _Bench, alone: Comparison | None) -> None:
    """Note that a gradient is missing where fewer are asked for, though it is returned where all of them are."""
    for name, (fault, sentence) in alone.form.items() if alone is not None else ():
        returned = any(name in c.got for c in b.comparisons)
        if alone is not None and fault == "missing" and returned and np.any(alone.exact.grads[name]):
            sentence += (
                f" where {alone.label}; ctx.needs_input_grad has an entry for each argument of forward, in order"
            )
            b.faults.append(Fault((name,), fault, sentence, alone.probe, shapes=(_shape(alone.subject),)))


def _run_all(b: _Bench, examples: Iterable[Example | Refused]) -> None:
    for example in examples:
        if b.hung:
            return
        if isinstance(example, Refused):
            b.coverage.append(Probe(example.probe, skipped=example.reason))
            continue
        if example.probe in ("zeros and ties", "huge") and isinstance(b.oracle, NumericalOracle):
            b.coverage.append(Probe(example.probe, skipped="differences say nothing at a kink or far out"))
            continue
        if example.probe in b.settings.wanted:
            _run(b, example, "float64")


def _run(b: _Bench, e: Example, dtype: str) -> Comparison | None:
    """Run one example and compare; None where there is nothing to compare, which the coverage then says."""
    if dtype == "float64" and "float64" not in b.settings.dtypes:
        dtype = "float32"
    subject = e.subject.at({n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in e.subject.args.items()})
    dy = tuple(d.astype(dtype) for d in e.dy)
    with b.lines if e.probe != "empty batch" else contextlib.nullcontext():  # which takes a side and compares nothing
        run = execute(subject, subject.args, dy, b.settings.watch)
    b.faults += mutation(subject, run, e.probe)
    if run.error is not None:
        if run.y is not None and not _finite(leaves_of(run.y)):
            _overflows(b, e, dtype)
        else:
            _error(b, e, run, dtype)
        return None
    return _compared(b, e, subject, dy, run, dtype)


def _compared(
    b: _Bench, e: Example, subject: Subject, dy: tuple[Array, ...], run: Run, dtype: str
) -> Comparison | None:
    try:
        oracle = _oracle_of(b, subject)
        exact = oracle(subject.args, dy)
    except Hang:
        if e.ours:  # the target itself came back: it is long there, not endless
            b.coverage.append(Probe(e.probe, dtype, skipped="the oracle takes too long"))
            return None
        b.hung = True
        b.faults.append(_hang(b.subject, "the oracle runs your forward pass and it", b.settings.watch))
        return None
    except Exception as error:
        b.coverage.append(Probe(e.probe, dtype, skipped=f"no oracle: {told(error)}"))
        return None
    y = leaves_of(run.y)
    if not _finite((*y, *exact.y)):
        _overflows(b, e, dtype)
        return None
    _forward(b, e, subject, dy, y, exact, oracle, dtype)
    b.faults += _of_integers(subject, run, e.probe)
    bad = [n for n in subject.wrt if not np.isfinite(exact.grads[n]).all()]
    if bad:
        if e.probe != "layout":  # which is about memory, and makes samples equal
            _not_finite(b, e, subject, run, bad)
        subject = dataclasses.replace(subject, wrt=tuple(n for n in subject.wrt if n not in bad))
        if not subject.wrt:
            return None
    for name in subject.wrt:
        size = float(np.max(np.abs(exact.grads[name]), initial=0.0))
        if e.probe in ("rectangular", "tiny"):
            b.usual[name] = max(b.usual.get(name, 0.0), size)
    larger = _growth(b.subject.args, subject.args)
    usual = {n: size * larger for n, size in b.usual.items()} if e.probe not in (*SHAPES, "cotangents") else {}
    options: dict[str, Any] = {"label": e.label, "dtype": dtype, "rng": b.rng, "usual": usual, "exact": exact}
    c = _judged(b, e, compare(subject, oracle, dy, run, run.grads, probe=e.probe, **options), oracle, _grads)
    _record(b, c)
    if run.short_grads is not None and "param_grads" in b.settings.wanted and e.probe != "empty batch":
        # What is the same as the gradient that `backward` returns was judged with it.
        params = tuple(n for n in subject.wrt if n not in subject.inputs)
        both = run.short_grads.keys() & run.grads.keys()
        other = tuple(n for n in params if n not in both or not np.array_equal(run.short_grads[n], run.grads[n]))
        options["label"] = e.label or e.probe
        of_params = dataclasses.replace(subject, wrt=other)
        s = compare(of_params, oracle, dy, run, run.short_grads, probe="param_grads", **options)
        s = _judged(b, e, s, oracle, _short_grads)
        if (s.wrong - c.wrong) or (set(s.form) - set(c.form)):
            _record(b, s)
        elif not any(p.name == "param_grads" for p in b.coverage):
            b.coverage.append(Probe("param_grads", dtype, ratios={n: r for n, r in c.ratios.items() if n in params}))
    return c


def _finite(arrays: Iterable[Array]) -> bool:
    return all(np.isfinite(a).all() for a in arrays)


def _overflows(b: _Bench, e: Example, dtype: str) -> None:
    b.coverage.append(Probe(e.probe, dtype, skipped=f"the forward pass overflows ({e.label or e.probe})"))


def _grads(run: Run) -> Mapping[str, Any]:
    return run.grads


def _short_grads(run: Run) -> Mapping[str, Any]:
    return run.short_grads or {}


def _judged(
    b: _Bench, e: Example, c: Comparison, oracle: Oracle, read: Callable[[Run], Mapping[str, Any]]
) -> Comparison:
    """Return the comparison without what is right at a kink, or lost in rounding far out.

    Of gradients that are wrong at the plain examples already nothing is looked for that could excuse them far out.
    """
    if isinstance(oracle, NumericalOracle):
        return c
    if e.probe not in SHAPES and c.wrong <= {n for d in b.comparisons if d.probe == "rectangular" for n in d.wrong}:
        return c
    c = _at_kinks(b, c, oracle, read)
    if c.wrong and e.probe not in (*SHAPES, "cotangents"):
        return _without_rounding(b, c, oracle, read)
    return _without_own_rounding(b, c) if c.wrong else c


def _without_own_rounding(b: _Bench, c: Comparison) -> Comparison:
    """Return the comparison without the errors that the target's own operations make, as in p − y where p is nearly 1.

    JAX may add up the same terms in an order in which fewer digits are lost.
    """
    unit = unit_of(c.dtype)
    errors = {n: distance(np.asarray(c.got[n], np.float64), c.exact.grads[n]) for n in c.wrong}
    terms = [1.0, *(float(np.max(np.abs(a), initial=0.0)) for a in c.args.values() if a.dtype.kind == "f")]
    sizes = max(float(np.max(np.abs(d), initial=0.0)) for d in c.dy) * max(terms)
    if not c.subject.contract or min(errors.values()) > ROUNDED * unit * sizes:
        return c
    try:
        moves = own_rounding(c.subject, c.dy, unit, b.rng, b.settings.watch)
    except (Exception, Hang):
        return c
    allowed = {n: bound(c.exact.grads[n], unit=unit, spread=moves.get(n, 0.0), depth=c.subject.depth) for n in c.wrong}
    lost = frozenset(n for n in c.wrong if errors[n] <= allowed[n])
    return without(c, lost, f"{', '.join(sorted(lost))}: digits are lost where terms cancel" if lost else "")


def _without_rounding(b: _Bench, c: Comparison, oracle: Oracle, read: Callable[[Run], Mapping[str, Any]]) -> Comparison:
    """Return the comparison without the errors that are rounding where the forward pass saturates and terms cancel.

    Rounding is as much smaller in float64 as its spacing is; a wrong formula is as wrong in both. What saturates in
    one number type is not yet saturated in the other, so smaller inputs are looked at too.
    """
    other, share = ("float32", ROUNDS_AWAY) if c.dtype == "float64" else ("float64", ROUNDS_ALIKE)
    rounded: set[str] = set()
    for fraction in SATURATES:
        args = {
            n: (a * fraction if n in c.subject.inputs else a).astype(other) if a.dtype.kind == "f" else a
            for n, a in c.args.items()
        }
        dy = tuple(d.astype(other) for d in c.dy)
        run = execute(c.subject.at(args), args, dy, b.settings.watch)
        if run.error is not None:
            break
        exact, there = oracle(args, dy).grads, read(run)
        for name in c.wrong - rounded:
            if isinstance(there.get(name), np.ndarray) and there[name].shape == exact[name].shape:
                error = distance(np.asarray(c.got[name], np.float64), c.exact.grads[name])
                if np.isfinite(error) and error <= share * distance(there[name].astype(np.float64), exact[name]):
                    rounded.add(name)
        if rounded == c.wrong:
            break
    names = ", ".join(sorted(rounded))
    return without(c, frozenset(rounded), f"{names}: digits are lost where terms cancel ({c.label})" if rounded else "")


def _growth(usual: Args, args: Args) -> float:
    """Return how many times larger some array is than in the example that was given, at least 1."""
    sizes = [
        (float(np.max(np.abs(a), initial=0.0)), float(np.max(np.abs(usual[n]), initial=0.0)))
        for n, a in args.items()
        if n in usual
    ]
    return max([1.0, *(now / before for now, before in sizes if before)])


def _of_integers(subject: Subject, run: Run, probe: str) -> list[Fault]:
    """Return a fault for each gradient by integers, which do not vary: there is none, or it is zeros."""
    found = []
    for name in subject.inputs if subject.contract else ():
        grad = run.grads.get(name, MISSING)
        if subject.args[name].dtype.kind in "iub" and grad is not MISSING and grad is not None:
            try:
                nothing = not np.any(np.asarray(grad))
            except (TypeError, ValueError):
                nothing = False
            if not nothing:
                text = f"a gradient by {name} is returned, which holds integers; expected zeros, or None"
                found.append(Fault((name,), "malformed", text, probe))
    return found


def _record(b: _Bench, c: Comparison) -> None:
    b.comparisons.append(c)
    b.notes += c.notes
    name = c.probe if c.dtype == "float64" or "float64" not in b.settings.dtypes else "float32"
    b.coverage.append(Probe(name, c.dtype, ratios=dict(c.ratios), note=c.label))


def _until_none_is_zero(b: _Bench) -> Iterator[Example]:
    """Yield the inputs shuffled, other signs where they have both, until no entry of a gradient was always zero.

    What was never anything but zero, an entry that no maximum picks, a unit that is dead, was not tested.
    """
    names = [n for n in b.subject.inputs if not is_special(b.subject.args[n])]
    for _ in range(_SHUFFLES if names and not isinstance(b.oracle, NumericalOracle) else 0):
        alike = [c for c in b.comparisons if c.subject.pure is b.subject.pure and c.probe != "layout"]
        if not alike or any(c.wrong for c in alike):
            return
        grads = {n: [c.exact.grads[n] for c in alike if n in c.got] for n in b.subject.wrt}
        here = {n: [g for g in gs if g.shape == b.subject.args[n].shape] for n, gs in grads.items()}
        if all(np.all(np.any([g != 0 for g in gs], axis=0)) for gs in here.values() if gs):
            return
        args = dict(b.subject.args)
        for n in names:
            args[n] = b.rng.permutation(args[n].ravel()).reshape(args[n].shape)
            if np.any(args[n] < 0) and np.any(args[n] > 0):
                args[n] = args[n] * b.rng.choice([-1.0, 1.0], args[n].shape)
        subject = b.subject.at(args)
        outputs = _or_none(partial(b.shapes.of, subject, args))
        if outputs is not None:
            yield Example("rectangular", subject, cotangent(outputs, b.rng), "shuffled")


def _at_kinks(b: _Bench, c: Comparison, oracle: Oracle, read: Callable[[Run], Mapping[str, Any]]) -> Comparison:
    if not c.wrong:
        return c

    def pull(one: tuple[Array, ...]) -> Mapping[str, Any]:
        return read(execute(c.subject, c.args, one, b.settings.watch))

    try:
        return accept_kinks(c, oracle, pull, b.rng)
    except Exception:
        return c


def _error(b: _Bench, e: Example, run: Run, dtype: str) -> None:
    error = run.error
    assert error is not None
    if isinstance(error, Hang):
        b.hung = True
        b.faults.append(
            Fault(
                b.subject.wrt,
                "hangs",
                f"the {run.stage} pass does not come back within {b.settings.watch.seconds:g} s",
                e.probe,
                where=b.settings.watch.where,
            )
        )
    elif isinstance(error, SystemExit):
        b.hung = True
        b.faults.append(_exit(b.subject, run, e.probe))
    elif run.stage == "forward" or (e.ours and not e.subject.contract):
        b.coverage.append(Probe(e.probe, dtype, skipped=f"the {run.stage} pass raises {told(error)}"))
    else:
        if "read-only" in str(error) and any(f.fault.startswith("mutates") for f in b.faults):
            return  # the write was seen already, and what it was into
        malformed = isinstance(error, Malformed)
        sentence = str(error) if malformed else f"the {run.stage} pass raises {told(error)}"
        read_only = "read-only" in str(error) and e.probe == "layout"
        fault = "malformed" if malformed else "mutates x" if read_only else "raises"
        b.faults.append(Fault(b.subject.wrt, fault, sentence, e.probe, where=line_of_error(error)))


def _forward(
    b: _Bench, e: Example, subject: Subject, dy: Any, y: tuple[Array, ...], exact: Exact, oracle: Oracle, dtype: str
) -> None:
    """Compare the forward pass with itself as the oracle runs it, and with the reference."""
    unit = unit_of("float32" if any(v.dtype == np.float32 for v in y) else dtype)
    if e.probe == "rectangular":
        b.usual_y = np.array(max((float(np.max(np.abs(v), initial=0.0)) for v in y), default=0.0))
    others = [("forward differs", "the forward pass as the oracle runs it", exact.y)]
    if b.settings.reference is not None and subject.reference is not None:
        try:
            with full_precision():  # for one that is written in JAX
                out = subject.reference(b.settings.reference, {n: np.array(a) for n, a in subject.args.items()})
            if out is None:
                raise ValueError("it returns None; expected y")
            expected = tuple(np.asarray(leaf, np.float64) for leaf in leaves_of(out))
            others.append(("forward differs from the reference", "reference=", expected))
        except Exception as error:
            if e.probe == "rectangular":
                b.unusable = f"reference= raises {told(error)}"
            b.notes.append(f"reference= was not compared at {e.label or e.probe}: {told(error)}")
    moves: Any = None
    for fault, what, expected in others:
        for i, (mine, theirs) in enumerate(zip(y, expected, strict=False)):
            theirs = np.asarray(theirs, np.float64)
            if not np.isfinite(theirs).all():
                b.notes.append(f"{what} has no finite value at: {e.label or e.probe}")
                continue
            if mine.shape != theirs.shape:
                b.faults.append(
                    Fault(("y",), fault, f"y has shape {mine.shape}; {what} gives {theirs.shape}", "forward")
                )
                continue
            off, allowed = distance(mine.astype(np.float64), theirs), bound(theirs, unit=unit, depth=subject.depth)
            if off > allowed and np.isfinite(off):
                if moves is None:
                    rounded = rounding(oracle, subject.args, dy, exact, unit, b.rng)
                    shifted = spread(oracle, subject.args, dy, unit, b.rng)
                    moves = [
                        max(float(np.max(m, initial=0)) for m in pair)
                        for pair in zip(shifted.y, rounded.y, strict=True)
                    ]
                allowed = bound(theirs, unit=unit, spread=max(moves), depth=subject.depth)
                # What is far smaller than y usually is may be lost in rounding, or be zero.
                allowed = max(allowed, bound(b.usual_y, unit=unit))
            if not off <= allowed and dtype == "float32" and _is_rounding(b, subject, i, off, theirs):
                b.notes.append(f"y: digits are lost where terms cancel ({e.label or e.probe})")
            elif not off <= allowed:
                b.faults.append(
                    Fault(
                        ("y",),
                        fault,
                        f"y differs from {what} ({e.label or e.probe})",
                        "forward",
                        got=mine,
                        expected=theirs,
                        tolerance=allowed,
                        shapes=(_shape(subject),),
                    )
                )
            elif not any(p.name == "forward" for p in b.coverage):
                b.coverage.append(Probe("forward", dtype, ratios={"y": off / allowed if allowed else 0.0}))


def _is_rounding(b: _Bench, subject: Subject, i: int, off: float, expected: Array) -> bool:
    """Return whether an output is off in float32 by rounding alone: as much less in float64 as its spacing is."""
    args = {n: a.astype("float64") if a.dtype.kind == "f" else a for n, a in subject.args.items()}
    run = execute(subject.at(args), args, None, b.settings.watch)
    if run.error is not None:
        return False
    return distance(leaves_of(run.y)[i].astype(np.float64), expected) <= ROUNDS_AWAY * off


def _not_finite(b: _Bench, e: Example, subject: Subject, run: Run, names: list[str]) -> None:
    """Where JAX has no finite gradient and y is finite, a NaN is wrong where the slopes on both sides are finite."""
    for name in names:
        got = run.grads.get(name, MISSING)
        if not isinstance(got, np.ndarray) or np.isfinite(got).all():
            continue
        slopes = _slopes(b, subject, name)
        if slopes is None:
            b.notes.append(f"the slope by {name} is infinite ({e.label or e.probe})")
        else:
            text = f"the gradient is NaN or infinite where y and its slopes are finite ({e.label or e.probe})"
            b.faults.append(Fault((name,), "non-finite", text, e.probe, shapes=(_shape(subject),)))


def _slopes(b: _Bench, subject: Subject, name: str) -> float | None:
    """Return the largest slope of y to either side along a random direction; None if it grows without bound."""
    v = b.rng.standard_normal(subject.args[name].shape)
    size = max(float(np.max(np.abs(subject.args[name]), initial=0.0)), 1e-3)
    largest = []
    for step in (1e-5, 1e-7):
        ends = []
        for sign in (0, 1, -1):
            moved = {
                **subject.args,
                name: subject.args[name] + (sign * step * size * v).astype(subject.args[name].dtype),
            }
            run = execute(subject.at(moved), moved, None, b.settings.watch)
            ends.append(None if run.error is not None else leaves_of(run.y))
        if any(end is None for end in ends):
            return None
        slopes = [
            np.max(np.abs(np.asarray(p) - np.asarray(o)), initial=0.0) / (step * size)
            for end in ends[1:]
            for p, o in zip(end or (), ends[0] or (), strict=True)
        ]
        largest.append(float(np.nanmax(slopes)))
    return largest[1] if np.isfinite(largest[1]) and largest[1] < 3 * largest[0] + 1e-6 else None


def _layouts(b: _Bench, batch: Batch | None, dy: tuple[Array, ...]) -> None:
    """The same numbers in other layouts of memory; then broadcast arrays, whose numbers repeat."""
    if "layout" not in b.settings.wanted or "float64" not in b.settings.dtypes or any(c.wrong for c in b.comparisons):
        return
    for label, lay_out in LAYOUTS.items():
        subject = b.subject.at({n: lay_out(a) for n, a in b.subject.args.items()})
        laid = tuple(map(lay_out, dy))
        run = execute(subject, subject.args, laid, b.settings.watch)
        e = Example("layout", subject, laid, label)
        if run.error is not None:
            _error(b, e, run, "float64")
            continue
        if subject.library == "numpy":
            b.faults += mutation(subject, run, "layout")
        _compared(b, e, subject, laid, run, "float64")
    if batch is not None and b.subject.library == "numpy":
        _broadcast(b, batch, dy)


def _broadcast(b: _Bench, batch: Batch, dy: tuple[Array, ...]) -> None:
    """The first sample in place of each, and dy's first entry, as views that repeat in memory."""

    def repeated(a: Array, axis: int) -> Array:
        return np.broadcast_to(np.take(a, [0], axis=axis).copy(), a.shape)

    many = batch.axes.keys() - batch.places
    args = {n: repeated(a, batch.axes[n]) if n in many else a for n, a in b.subject.args.items()}
    subject = b.subject.at(args)
    by_sample = tuple(d if k is None else repeated(d, k) for d, k in zip(dy, batch.outputs, strict=True))
    everywhere = tuple(np.broadcast_to(d.ravel()[:1].reshape((1,) * d.ndim), d.shape) for d in dy)  # as a sum gives it
    for wide in (by_sample, everywhere):
        run = execute(subject, args, wide, b.settings.watch)
        if run.error is None:
            _compared(b, Example("layout", subject, wide, "broadcast"), subject, wide, run, "float64")


def _empty(b: _Bench, batch: Batch | None) -> None:
    """No sample at all: the gradients of what all samples share are then zeros, and nothing may be raised."""
    if batch is None or "empty batch" not in b.settings.wanted or isinstance(b.oracle, NumericalOracle):
        return
    subject = b.subject.at(
        {n: np.take(a, [], axis=batch.axes[n]) if n in batch.axes else a for n, a in b.subject.args.items()}
    )
    try:
        outputs = b.shapes.of(subject, subject.args)
    except Exception as error:
        b.coverage.append(Probe("empty batch", skipped=f"the forward pass raises {told(error)}"))
        return
    if not all(np.isfinite(y).all() for y in outputs):
        b.coverage.append(Probe("empty batch", skipped="the forward pass has no value for it"))
        return
    _run(b, Example("empty batch", subject, cotangent(outputs, b.rng), ours=True), "float64")


def _compiled(b: _Bench, dy: tuple[Array, ...]) -> None:
    """The target's own code under jax.jit, where it can be traced: part of tinynet's contract."""
    if "compiled" not in b.settings.wanted or not b.subject.contract or isinstance(b.oracle, NumericalOracle):
        return
    if b.failed_already():
        return
    try:
        grads = compiled_gradients(b.subject, dy, b.settings.watch)
    except (Exception, Hang) as error:
        b.coverage.append(Probe("compiled", skipped=f"JAX cannot trace the backward pass: {told(error)}"))
        b.notes.append("not under jax.jit: the code uses NumPy's functions")
        return
    exact = b.oracle(b.subject.args, dy)
    if not all(np.isfinite(g).all() for g in exact.grads.values()):
        return
    run = Run(b.subject.start(), y=None)
    full = {n: grads.get(n, MISSING) for n in b.subject.wrt}
    c = compare(b.subject, b.oracle, dy, run, full, probe="compiled", dtype="float64", rng=b.rng, usual=b.usual)
    _record(b, dataclasses.replace(c, form={}))


def _in_float32(b: _Bench, batch: Batch | None) -> None:
    if "float32" not in b.settings.dtypes or "float64" not in b.settings.dtypes or "float32" not in b.settings.wanted:
        return
    if isinstance(b.oracle, NumericalOracle):
        b.coverage.append(Probe("float32", skipped="differences do not resolve more than float32 does"))
        return
    if any(c.wrong and c.probe in SHAPES for c in b.comparisons):
        return  # wrong in float64 already
    examples: list[Example] = [
        Example("rectangular", b.subject, cotangent(b.shapes.of(b.subject, b.subject.args), b.rng))
    ]
    if batch is not None:
        one = b.subject.at(with_batch(b.subject.args, batch, 1, b.rng))
        if (outputs := _or_none(lambda: b.shapes.of(one, one.args))) is not None:
            examples.append(Example("batch 1", one, cotangent(outputs, b.rng), ours=True))
    examples += [
        e
        for e in value_examples(b.subject, b.shapes, b.rng)
        if e.probe in ("saturated", "huge", "tiny", "zeros and ties")
    ]
    for e in examples:
        if b.hung:
            return
        _run(b, e, "float32")


def _branches(b: _Bench, batch: Batch | None, dy: tuple[Array, ...]) -> tuple[str, ...]:
    """Look for branches that no example took, compare there, and return those that stay untaken."""
    if "branches" not in b.settings.wanted or b.failed_already():
        return ()
    unreached: list[str] = []
    if isinstance(b.oracle, JaxOracle) and not b.oracle.eager and b.may_grow():
        unreached += _untaken_sides(b, dy)
    for example in _hunting(b, batch):
        if b.hung:
            break
        _run(b, example, "float64")
    unreached += [f"{place}: {text}" for place, text in b.lines.missed()]
    b.coverage.append(Probe("branches"))
    return tuple(dict.fromkeys(unreached))


def _untaken_sides(b: _Bench, dy: tuple[Array, ...]) -> list[str]:
    assert isinstance(b.oracle, JaxOracle)
    sides = None
    for manners in dict.fromkeys((b.oracle.manners, True)):
        try:
            sides = b.settings.watch.call(partial(sides_of, backward_function(b.subject, manners), b.subject.args, dy))
            break
        except (Exception, Hang):
            continue
    if sides is None:
        b.notes.append("branches of the backward pass were followed by line only: it cannot be traced")
        program = b.oracle.program(b.subject.args)
        sides = sides_of(lambda args, dy: program(args), b.subject.args, dy)
    if not sides.places:
        return []
    seen = sides.taken(b.subject.args, dy)
    base = {n: a.shape for n, a in b.subject.args.items()}
    for c in b.comparisons:
        if (
            c.dtype == "float64"
            and c.probe != "zeros and ties"  # where equal numbers take sides that they do not test
            and {n: a.shape for n, a in c.args.items()} == base
            and c.subject.pure is b.subject.pure
        ):
            seen = seen | sides.taken(c.args, c.dy)
    for args, cotangents, label in look_for(sides, seen, b.subject, dy):
        _run(b, Example("branches", b.subject.at(args), cotangents, label), "float64")
    return [f"{place}: {text}" for (place, text), taken in zip(sides.places, seen, strict=True) if not taken.all()]


def _hunting(b: _Bench, batch: Batch | None) -> Iterator[Example]:
    """Yield examples at the numbers that stand in the target's code: batches and values on both sides of each.

    And batches as long as another axis is, where a side of an `if` never ran.
    """
    numbers = sorted(numbers_in(b.subject))[:_NUMBERS]
    whole = [int(n) for n in numbers if n == int(n) and 2 < n <= 512]
    lengths = {k for a in b.subject.args.values() for k in a.shape if 2 < k <= 512}
    for m in dict.fromkeys([*(n + 1 for n in whole), *whole, *sorted(lengths)]):
        if batch is not None and b.may_grow() and (m - 1 in whole or b.lines.missed()):
            other = b.subject.at(with_batch(b.subject.args, batch, m, b.rng))
            if (outputs := _or_none(partial(b.shapes.of, other, other.args))) is not None:
                yield Example("branches", other, cotangent(outputs, b.rng), f"batch {m}", ours=True)
    for number in numbers:
        for name in b.subject.wrt if b.lines.missed() else ():
            a = b.subject.args[name]
            size = float(np.max(np.abs(a), initial=0.0))
            if size and (number or not keeps_its_sign(b.subject, name)):
                for factor in (2 * number / size, -2 * number / size) if number else (-1.0,):
                    if b.lines.missed():
                        args = {**b.subject.args, name: a * factor}
                        yield Example(
                            "branches",
                            b.subject.at(args),
                            cotangent(b.shapes.of(b.subject, args), b.rng),
                            f"{name} {factor:.3g} ×",
                        )


def _reason(b: _Bench) -> str:
    """Return what was not compared, and what to do; "" if everything was."""
    compared = {n for c in b.comparisons for n in c.got if c.probe != "empty batch"}
    lacking = [n for n in b.subject.wrt if n not in compared] if compared else []
    declared = {n: c.form[n][0] for c in b.comparisons for n in c.form}
    for name in lacking:
        if b.subject.contract or declared.get(name, "missing") != "missing":
            continue
        if name.rpartition(".")[2] in DATA_NAMES and name in b.subject.inputs:
            b.notes.append(f"the gradient by {name} is not returned and was not judged")
            continue
        if name in b.subject.inputs and not any(np.any(c.exact.grads[name]) for c in b.comparisons):
            b.notes.append(f"{name} moves y by jumps alone, as a mask does; that no gradient is returned is right")
            continue
        what = "argument" if name in b.subject.inputs else "parameter"
        return f"the {what} {name} moves y and no gradient of it was found; return one, or say what is judged: wrt=[…]"
    if not compared and not b.faults:
        return "no gradient was compared"
    vacuous = [
        n
        for n in b.subject.wrt
        if n in compared and not any(np.any(c.exact.grads[n]) for c in b.comparisons if n in c.got)
    ]
    for name in vacuous:
        if _moves_output(b, name):
            return f"the exact gradient by {name} is zero at every example: nothing was tested; give other inputs="
        b.notes.append(f"{name} does not move y")
    if compared and len(vacuous) == len(compared) and not b.faults:
        return "nothing moves y, and every exact gradient is zero: nothing was tested; give other inputs="
    return b.unusable or b.oracle.caveat


def _moves_output(b: _Bench, name: str) -> bool:
    a = b.subject.args[name]
    moved = {**b.subject.args, name: a + (0.5 + np.abs(a)) * b.rng.standard_normal(a.shape)}
    here, there = (execute(b.subject, args, None, b.settings.watch) for args in (b.subject.args, moved))
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


def _once(faults: list[Fault]) -> list[Fault]:
    seen: dict[Any, Fault] = {}
    for f in faults:
        key = (f.fault, f.gradients, f.probe if f.fault in ("raises", "unknown") else "")
        seen.setdefault(key, f)
    return list(seen.values())


def _shape(subject: Subject) -> str:
    return shapes_text({n: subject.args[n] for n in subject.inputs})


def shapes_text(args: Args) -> str:
    """Return the shapes of arrays in a line: `x (2, 5, 4)`."""
    return ", ".join(f"{n} {tuple(a.shape)}" for n, a in args.items())

"""`verify`: is a hand-derived gradient right, and if not, where and why?

adapt → examples → execute → compare → diagnose → report
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinynet.losses import Loss
from tinynet.verification.adapters import TargetError, adapt, constructed
from tinynet.verification.adapters.contract import layer_subject
from tinynet.verification.adapters.generators import kept
from tinynet.verification.adapters.subject import Subject, short
from tinynet.verification.bench import Settings
from tinynet.verification.examples import PROBES
from tinynet.verification.execution import (
    Abandoned,
    Hang,
    Watch,
    leave_no_trace,
    line_of_error,
    told,
    watched,
)
from tinynet.verification.findings import findings_of
from tinynet.verification.intended import as_intended
from tinynet.verification.judgement import Judgement, judge
from tinynet.verification.observations import Fault
from tinynet.verification.probes.claims import check_each, check_samplewise
from tinynet.verification.readings import choose, computes_in_float32, with_updates
from tinynet.verification.report import Probe, Report, Verdict
from tinynet.verification.reproduce import command
from tinynet.verification.tolerance import HANG_SECONDS, UNIT, K


def verify(
    target: Any,
    *,
    inputs: Any = None,
    params: Any = None,
    wrt: Iterable[str] | None = None,
    loss: Loss | None = None,
    reference: Callable[..., Any] | None = None,
    intended: Callable[..., Any] | None = None,
    dtype: str | Sequence[str] = ("float64", "float32"),
    seed: int = 0,
    name_seconds: float = 10.0,
    probes: Iterable[str] | None = None,
    named: bool = True,
    on_verdict: Callable[[Report], None] | None = None,
) -> Report:
    """Compare the hand-derived gradients of `target` with the exact ones of its own forward pass.

    Args:
        target: a tinynet Layer, Loss or network; a pair (forward, backward); a function that returns (y, backprop) or
            (E, gradient); an object with a forward and a backward method; a torch.autograd.Function or nn.Module; a
            function of JAX's with custom rules; a thinc Model.
        inputs: a tuple with one entry for each argument of the forward pass, or a dict by argument name; an entry is an
            array, a shape, a pytree of arrays, or a constant such as a flag. One array or one shape is the single
            argument. A Loss takes (ŷ, y). Guessed if None, which one argument allows.
        params: the parameters: a layer's tree; of an object a dict by attribute path, which also says what they are.
        wrt: the names of the arrays whose gradients are judged, as in `report.compared`; all of floats if None.
        loss: verify E = loss(target(params, x), y) end to end.
        reference: an independent forward pass with the arguments of the target's: f(params, x) for a layer, f(ŷ, y) for
            a loss, else the function's own. What it returns must equal y.
        intended: the function whose gradients are meant where the backward pass deviates from the forward pass on
            purpose (straight-through, reversed or surrogate gradients); it has the arguments of the forward pass.
        dtype: which number types to try.
        seed: of every random number.
        name_seconds: how long to look for the name of what is wrong, after it was found; 0 for not at all.
        probes: only these, by name; all of `PROBES` if None.
        named: False is the same as name_seconds=0.
        on_verdict: called with the report as soon as the verdict is known, before names are looked for.

    Returns:
        A report. It never raises for a fault of the target.

    Raises:
        TargetError: (a ValueError) target, inputs, params or wrt are nothing that can be verified.
    """
    start = time.perf_counter()
    probes = None if probes is None else tuple(probes)
    dtypes, wanted = _dtypes(dtype), _wanted(probes)
    wrt = (wrt,) if isinstance(wrt, str) else None if wrt is None else tuple(wrt)
    seconds = name_seconds if named else 0.0
    with leave_no_trace(), kept(target):
        random.seed(seed)

        def work(watch: Watch) -> Report:
            settings = Settings(reference, dtypes, wanted, seed, watch)
            rng = np.random.default_rng(seed)
            subjects = _adapted(target, inputs, params, loss, watch, rng)
            subjects = [_restricted(s, wrt) for s in subjects]
            if intended is not None:
                subjects = [as_intended(s, intended, watch) for s in subjects]
            subject = with_updates(choose(subjects, watch, rng), watch, rng)
            if dtypes != ("float64",) and computes_in_float32(subject, watch, inputs, rng):
                settings = dataclasses.replace(settings, dtypes=("float32",))
                note = "computes in float32 whatever it is given, and is judged in float32 alone"
                subject = dataclasses.replace(subject, notes=(*subject.notes, note))
            judgement = _with_claims(judge(subject, settings), target, loss, settings)
            if on_verdict is not None:
                on_verdict(dataclasses.replace(_report(judgement, settings, 0.0, seed), findings=()))
            return _report(judgement, settings, seconds, seed)

        try:
            report = watched(work, HANG_SECONDS)
        except (Abandoned, Hang) as hang:
            runs = "; its thread still runs" if isinstance(hang, Abandoned) else ""
            text = f"a call does not come back within {HANG_SECONDS:g} s{runs}"
            report = _of_fault(target, Fault((), "hangs", text, "forward", where=str(hang)), seed)
        except SystemExit as error:
            fault = Fault((), "exits", f"the target calls {told(error)}", "forward", where=line_of_error(error))
            report = _of_fault(target, fault, seed)
        if report.findings and params is None and loss is None and reference is None and intended is None:
            options = {"seed": [str(seed)], "wrt": wrt or (), "probe": probes or ()}
            line = command(target, inputs, options | ({"dtype": dtypes} if len(dtypes) == 1 else {}))
            report = dataclasses.replace(
                report, findings=tuple(dataclasses.replace(f, reproduce=line) for f in report.findings)
            )
    return dataclasses.replace(report, seconds=time.perf_counter() - start)


def check(target: Any, **options: Any) -> None:
    """Raise GradientError unless `verify(target, **options)` passes: the one line for a test."""
    verify(target, **options).raise_if_failed()


def check_vjp(forward: Callable[..., Any], backward: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Do as `check` for a pair of functions that know nothing of tinynet.

    Args:
        forward: forward(*args) -> y, or (y, cache).
        backward: backward(args, dy), or backward(dy, cache) -> a gradient per argument, a tuple.
        args: example arrays. The first axis of the first one counts samples.
        options: as for `verify`.
    """
    check((forward, backward), inputs=tuple(args) if args else None, **options)


def _dtypes(dtype: str | Sequence[str]) -> tuple[str, ...]:
    dtypes = (dtype,) if isinstance(dtype, str) else tuple(dtype)
    for name in dtypes:
        if name not in ("float64", "float32"):
            raise TargetError(f'verify: dtype is {name!r}; expected "float64", "float32" or both')
    if not dtypes:
        raise TargetError('verify: dtype is empty; expected "float64", "float32" or both')
    return dtypes


def _wanted(probes: Iterable[str] | None) -> frozenset[str]:
    names = frozenset(PROBES if probes is None else probes)
    if unknown := names - set(PROBES):
        raise TargetError(f"verify: no probe {sorted(unknown)}; expected some of {', '.join(PROBES)}")
    return names


def _adapted(
    target: Any, inputs: Any, params: Any, loss: Loss | None, watch: Watch, rng: np.random.Generator
) -> list[Subject]:
    """Return the readings of a target, the likeliest first."""
    try:
        return watch.call(lambda: adapt(target, inputs=inputs, params=params, loss=loss, rng=rng))
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(f"verify: the target cannot be called: {told(error)}; see inputs=") from error


def _restricted(subject: Subject, wrt: Iterable[str] | None) -> Subject:
    if wrt is None:
        return subject
    names = tuple(wrt)
    unknown = [n for n in names if n not in subject.wrt]
    if unknown:
        raise TargetError(f"verify: wrt names {unknown[0]!r}; {subject.name} has {', '.join(subject.wrt)}")
    return subject.judged_for(names)


def _with_claims(j: Judgement, target: Any, loss: Loss | None, settings: Settings) -> Judgement:
    """Judge also what a layer or a loss says of itself, and the layer that trains."""
    args = {n: np.array(a) for n, a in j.subject.args.items()}
    if j.subject.reference is None or not j.subject.contract:
        return j
    target = constructed(target) if isinstance(target, type) else target
    if isinstance(target, Loss):
        found = j.subject.reference(partial(check_each, target), args)
        return dataclasses.replace(j, faults=(*j.faults, *found))
    if loss is not None or j.oracle is None or "training" not in settings.wanted:
        return j
    params, x = j.subject.reference(lambda params, x: (params, x), args)
    j = dataclasses.replace(j, faults=(*j.faults, *check_samplewise(target, params, x)))
    trains = target.sample(np.random.default_rng(settings.seed))
    if trains is target or _equal(trains, target):
        return j
    judged = judge(layer_subject(trains, x, params), dataclasses.replace(settings, reference=None))
    return dataclasses.replace(j, inside=(*j.inside, ("in training", judged)))


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays in their fields
        return False


def _report(j: Judgement, settings: Settings, seconds: float, seed: int) -> Report:
    findings = findings_of(j, seconds=seconds)
    compared = tuple(n for n in j.subject.wrt if any(n in c.got for c in j.comparisons if c.probe != "empty batch"))
    reason = j.reason or next((f"{path}: {part.reason}" for path, part in j.inside if part.reason), "")
    if not findings and not reason and not compared:
        reason = "no gradient was compared"
    verdict: Verdict = "FAIL" if findings else "INCONCLUSIVE" if reason else "PASS"
    unreached = (*j.unreached, *(u for _, part in j.inside for u in part.unreached))
    return Report(
        target=j.subject.name,
        verdict=verdict,
        findings=tuple(findings),
        coverage=_coverage(j, settings, bool(findings)),
        oracle=_oracle_text(j, settings),
        compared=compared,
        notes=tuple(dict.fromkeys((*j.notes, *(n for _, part in j.inside for n in part.notes)))),
        resolution=max(K * UNIT, j.oracle.resolution if j.oracle is not None else 0.0),
        unreached=tuple(dict.fromkeys(unreached)) if verdict == "PASS" else (),
        reason=reason if verdict == "INCONCLUSIVE" else "",
        depth=j.subject.depth,
        seed=seed,
    )


def _coverage(j: Judgement, settings: Settings, failed: bool) -> tuple[Probe, ...]:
    """Return every probe: those that ran, and for the others why not."""
    coverage = list(j.coverage)
    for name in PROBES:
        if not j.ran(name):
            why = "a fault was found before it" if failed else "does not apply"
            coverage.append(Probe(name, skipped=why if name in settings.wanted else "not asked for"))
    return tuple(sorted(coverage, key=lambda p: PROBES.index(p.name)))


def _oracle_text(j: Judgement, settings: Settings) -> str:
    if j.oracle is None:
        return "nothing"
    equal = settings.reference is not None and not any(f.gradients == ("y",) for f in j.faults)
    return j.oracle.text + (
        "; forward equals the reference" if equal and not any(n.startswith("reference=") for n in j.notes) else ""
    )


def _of_fault(target: Any, fault: Fault, seed: int) -> Report:
    nothing = Subject(name=short(target), args={}, wrt=(), inputs=(), start=lambda: None)  # type: ignore[arg-type, return-value]
    settings = Settings(None, (), frozenset(), seed, Watch(HANG_SECONDS))
    return _report(Judgement(subject=nothing, watch=settings.watch, faults=(fault,)), settings, 0.0, seed)

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

import jax
import numpy as np

from tinynet.losses import Loss
from tinynet.verification.adapters import TargetError, adapt, constructed
from tinynet.verification.adapters.contract import layer_subject
from tinynet.verification.adapters.subject import MISSING, Array, Subject
from tinynet.verification.examples import PROBES, cotangent
from tinynet.verification.execution import (
    Abandoned,
    Hang,
    Run,
    Watch,
    execute,
    leave_no_trace,
    line_of_error,
    told,
    watched,
)
from tinynet.verification.intended import as_intended
from tinynet.verification.judgement import Judgement, Settings, judge
from tinynet.verification.naming import findings_of
from tinynet.verification.observed import Fault
from tinynet.verification.oracle import find_oracle, leaves_of
from tinynet.verification.probes.claims import check_each, check_samplewise
from tinynet.verification.report import Probe, Report, Verdict
from tinynet.verification.reproduce import command
from tinynet.verification.tolerance import CHOICE, HANG_SECONDS, UNIT, K, distance


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
    with leave_no_trace():
        random.seed(seed)

        def work(watch: Watch) -> Report:
            settings = Settings(reference, dtypes, wanted, seed, watch)
            rng = np.random.default_rng(seed)
            try:
                subjects = watch.call(lambda: adapt(target, inputs=inputs, params=params, loss=loss, rng=rng))
            except TargetError:
                raise
            except Exception as error:
                raise TargetError(f"verify: the target cannot be called: {told(error)}; see inputs=") from error
            subjects = [_restricted(s, wrt) for s in subjects]
            if intended is not None:
                subjects = [as_intended(s, intended, watch) for s in subjects]
            subject = _with_updates(_settled(subjects, settings, rng), settings, rng)
            if settings.dtypes != ("float64",) and _is_single(subject, settings, inputs, rng):
                settings = dataclasses.replace(settings, dtypes=("float32",))
                note = "computes in float32 whatever it is given, and is judged in float32 alone"
                subject = dataclasses.replace(subject, notes=(*subject.notes, note))
            judgement = judge(subject, settings)
            judgement = _with_claims(judgement, target, loss, settings)
            if on_verdict is not None:
                on_verdict(dataclasses.replace(_report(judgement, settings, 0.0, seed), findings=()))
            return _report(judgement, settings, seconds, seed)

        try:
            report = watched(work, HANG_SECONDS)
        except Abandoned as hang:
            report = _hung(target, hang.where, "; its thread still runs", seed)
        except Hang as hang:
            report = _hung(target, str(hang), "", seed)
        except SystemExit as error:
            fault = Fault((), "exits", f"the target calls {told(error)}", "forward", where=line_of_error(error))
            report = _of_faults(target, [fault], seed)
        except TargetError:
            raise
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


def _restricted(subject: Subject, wrt: Iterable[str] | None) -> Subject:
    if wrt is None:
        return subject
    names = tuple(wrt)
    unknown = [n for n in names if n not in subject.wrt]
    if unknown:
        raise TargetError(f"verify: wrt names {unknown[0]!r}; {subject.name} has {', '.join(subject.wrt)}")
    return subject.judged_for(names)


def _settled(subjects: list[Subject], settings: Settings, rng: np.random.Generator) -> Subject:
    """Return the reading of a target under which it is right at two draws; else the one that is least wrong."""
    scored = []
    for i, subject in enumerate(subjects):
        if len(subjects) == 1 and subject.settle is None:
            return subject
        try:
            subject, wrong = _score(subject, settings, rng)
        except (Exception, SystemExit):
            wrong = 1e6 + (0 if _runs(subject, settings) else 1e6)
        if wrong == 0:
            return subject
        scored.append((wrong, i, subject))
    return min(scored, key=lambda s: s[:2])[2]


def _with_updates(subject: Subject, settings: Settings, rng: np.random.Generator) -> Subject:
    """Return a subject that may write into the arguments that have no gradient and do not move y."""
    first = execute(subject, subject.args, None, settings.watch)
    outputs = _outputs(first)
    if not first.mutated or not outputs or subject.contract:
        return subject
    run = execute(subject, subject.args, cotangent(outputs, rng), settings.watch)
    lacking = [n for n in subject.inputs if (g := run.grads.get(n)) is None or g is MISSING]
    written = [n for n in run.mutated if n in lacking]
    moved = {n: a + rng.random(a.shape) if n in written and a.dtype.kind == "f" else a for n, a in subject.args.items()}
    others = _outputs(execute(subject, moved, None, settings.watch))
    if run.error is not None or not others or not written:
        return subject
    return subject.that_updates(written) if all(map(np.array_equal, outputs, others)) else subject


def _is_single(subject: Subject, settings: Settings, inputs: Any, rng: np.random.Generator) -> bool:
    """Return whether a target computes in float32: its forward pass, or its backward pass where it is given float32."""
    if subject.contract:
        return False
    first, near, far = (_moved(subject, settings, size, rng) for size in (0.0, 1e-12, 1e-5))
    if not first or not near or not far or any(y.dtype != np.float64 for y in first):
        return False  # a float32 result is judged as one
    if all(map(np.array_equal, first, near)) and not any(map(np.array_equal, first, far)):
        return True
    given = [a.dtype for a in jax.tree.leaves(inputs) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    if not given or any(dtype != np.float32 for dtype in given):
        return False
    grads = execute(subject, subject.args, cotangent(first, rng), settings.watch).grads.values()
    return any(getattr(g, "dtype", None) == np.float32 for g in grads)


def _moved(subject: Subject, settings: Settings, size: float, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return y with the inputs moved by a share of their size; nothing where there is none."""
    floats = [n for n in subject.inputs if subject.args[n].dtype.kind == "f"]
    args = {n: a * (1 + size * rng.random(a.shape)) if n in floats else a for n, a in subject.args.items()}
    run = execute(subject, args, None, settings.watch)
    return _outputs(run) if floats else ()


def _outputs(run: Run) -> tuple[Array, ...]:
    """Return the arrays that a forward pass gave; nothing where it gave anything else."""
    try:
        leaves = leaves_of(run.y) if run.error is None else ()
    except Exception:
        return ()
    return leaves if all(leaf.dtype.kind == "f" for leaf in leaves) else ()


def _runs(subject: Subject, settings: Settings) -> bool:
    run = execute(subject, subject.args, None, settings.watch)
    if run.error is not None:
        return False
    try:
        return all(leaf.dtype.kind in "fV" for leaf in leaves_of(run.y))
    except Exception:
        return False


def _score(subject: Subject, settings: Settings, rng: np.random.Generator) -> tuple[Subject, float]:
    """Return a subject that has settled where its gradients are, and how many of them are wrong at two draws."""
    first = execute(subject, subject.args, None, settings.watch)
    if first.error is not None:
        raise first.error
    outputs = leaves_of(first.y)
    if any(leaf.dtype.kind not in "fV" for leaf in outputs):
        raise TypeError("an output is no array of floating-point numbers")
    oracle, draws = None, []
    for _ in range(2):
        dy = cotangent(outputs, rng)
        if oracle is None:
            if (tried := execute(subject, subject.args, dy, settings.watch)).error is not None:
                raise tried.error  # before an oracle is made for a reading that does not even run
            oracle = find_oracle(subject, settings.watch, dy)
        draws.append((subject.args, dy, oracle(subject.args, dy)))
    if subject.settle is not None:
        subject = subject.settle(draws)
    wrong = 0.0
    for args, dy, exact in draws:
        run = execute(subject, args, dy, settings.watch)
        if run.error is not None:
            raise run.error
        for name, g in exact.grads.items():
            got = run.grads.get(name)
            fits = isinstance(got, (np.ndarray, np.generic, float)) and np.shape(got) == g.shape
            size = float(np.max(np.abs(g), initial=0.0))
            wrong += 2.0 if not fits else float(distance(np.asarray(got, np.float64), g) > CHOICE * size)
    return subject, wrong


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
    if trains is target or trains == target:
        return j
    subject = dataclasses.replace(layer_subject(trains, x, params, given=True), variants=lambda rng: [])
    return dataclasses.replace(
        j, inside=(*j.inside, ("in training", judge(subject, dataclasses.replace(settings, reference=None))))
    )


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
        if not any(p.name == name for p in coverage):
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


def _hung(target: Any, where: str, more: str, seed: int) -> Report:
    sentence = f"a call does not come back within {HANG_SECONDS:g} s{more}"
    return _of_faults(target, [Fault((), "hangs", sentence, "forward", where=where)], seed)


def _of_faults(target: Any, faults: list[Fault], seed: int) -> Report:
    from tinynet.verification.adapters.subject import short

    nothing = Subject(name=short(target), args={}, wrt=(), inputs=(), start=lambda: None)  # type: ignore[arg-type, return-value]
    settings = Settings(None, (), frozenset(), seed, Watch(HANG_SECONDS))
    return _report(Judgement(nothing, faults=tuple(faults)), settings, 0.0, seed)

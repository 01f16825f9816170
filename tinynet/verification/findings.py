"""From what was seen to findings: which fault each wrong gradient has, by the table of mistakes where values tell."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinynet.faults import FAULTS
from tinynet.verification.adapters.subject import Args, Oracle, Subject
from tinynet.verification.blame import most_telling, place_of, run_of
from tinynet.verification.comparison import Comparison
from tinynet.verification.diagnosis import diagnose
from tinynet.verification.diagnosis.source import Line
from tinynet.verification.examples import SHAPES
from tinynet.verification.execution import Hang
from tinynet.verification.judgement import Judgement
from tinynet.verification.observations import Fault
from tinynet.verification.report import Finding
from tinynet.verification.tolerance import bound, distance, unit_of

_ONLY_IN = {
    "saturated": "wrong only when saturated",
    "huge": "wrong only when saturated",
    "tiny": "wrong only for small inputs",
    "zeros and ties": "wrong only at kinks",
    "cotangents": "not linear in dy",
    "empty batch": "wrong only at some batch sizes",
    "layout": "wrong only for a layout",
    "compiled": "compiled differs",
}


def findings_of(j: Judgement, *, seconds: float, label: str = "") -> list[Finding]:
    """Return the findings of a judgement; a fault inside a composite explains the composite's.

    Args:
        seconds: how long names may be looked for; 0 for none: "unknown" is then the name of each.
        label: of a layer inside a composite, what leads to it: "Sequential(…), layer 2.f".
    """
    start = time.perf_counter()
    inside: list[Finding] = []
    for path, part in j.inside:
        left = max(0.0, seconds - (time.perf_counter() - start))
        inside += findings_of(part, seconds=left, label=_inside(label or j.subject.name, path, bool(label)))
    faults = list(j.faults)
    if not inside:
        faults += _forms(j) + _values(j, start + seconds)
    if seconds > 0:
        faults = [_placed(j, f, start + seconds) for f in faults]
    spoilt = {name for f in faults for name in f.gradients}
    return [*inside, *(_finding(f, j.subject, label, spoilt) for f in _merged(faults))]


def _placed(j: Judgement, fault: Fault, deadline: float) -> Fault:
    """Return a fault with the backward's line to blame for it."""
    of_forward = fault.gradients == ("y",) and "y" not in j.subject.wrt
    if fault.where or of_forward or fault.fault in ("hangs", "exits"):
        return fault
    bad = [c for c in j.comparisons if probe_of(c) == fault.probe and c.spoilt.intersection(fault.gradients)]
    left = min(3.0, max(0.5, deadline - time.perf_counter()))
    return place_of(j, fault, bad, left)


def _inside(label: str, path: str, deep: bool) -> str:
    """Return what leads to a layer inside what a label leads to; `path` is empty for the same on shorter axes."""
    if deep and path and not label.endswith("training"):
        return f"{label}.{path}"
    return ", ".join(filter(None, (label, f"layer {path}" if path[:1].isdigit() else path)))


def _forms(j: Judgement) -> list[Fault]:
    """The faults of form: no gradient, another type, another shape whose values tell no more."""
    found: dict[tuple[str, str], Fault] = {}
    explained = {n for c in j.comparisons for n in c.misshapen if c.misshapen[n].size}
    for c in j.comparisons:
        for name, (fault, sentence) in c.form.items():
            if fault == "missing" and not j.subject.contract and any(d.got for d in j.comparisons):
                continue
            if not (fault in ("wrong shape", "kept a dimension") and name in explained):
                first = Fault((name,), fault, sentence, probe_of(c), shapes=(c.subject.shapes(),))
                found.setdefault((name, fault), first)
    return list(found.values())


def probe_of(c: Comparison) -> str:
    """Return where a comparison was made: `saturated (20 ×)`, `float32`."""
    return ("float32" if c.dtype == "float32" else c.probe) + (f" ({c.label})" if c.label else "")


def _values(j: Judgement, deadline: float) -> list[Fault]:
    """The faults of values: named at the plain examples where they show there, else by where alone they show."""
    found: list[Fault] = []
    told: set[str] = set()
    plain = [c for c in j.comparisons if c.probe in SHAPES and c.dtype == j.comparisons[0].dtype]
    infinite: list[Fault] = []
    for name in j.subject.wrt:
        seen = [c for c in j.comparisons if _is_infinite(c, name)]
        if not seen:
            continue
        nan = _of(seen, (name,), "non-finite", FAULTS["non-finite"])
        if any(c.probe == "rectangular" and name in c.wrong and not _is_infinite(c, name) for c in plain):
            infinite.append(nan)  # and wrong where it is finite, for which there may be a better name
        else:
            found.append(nan)
            told.add(name)
    for name in [n for n in j.subject.wrt if n not in told and _is_of_another_call(j, n, deadline)]:
        found.append(_of([c for c in j.comparisons if name in c.wrong], (name,), "stale cache", FAULTS["stale cache"]))
        told.add(name)
    plain = [c for c in plain if not any(_is_infinite(c, n) for n in c.wrong - told)]
    given = [c for c in plain if c.probe == "rectangular"]
    for name in [n for n in j.subject.wrt if n not in told and given and not any(n in c.spoilt for c in given)]:
        bad = [c for c in plain if name in c.spoilt]
        if bad and all(c.probe.startswith("batch") for c in bad):
            sentence = f"right at {given[0].subject.shapes()}, wrong at {', '.join(c.subject.shapes() for c in bad)}"
            found.append(_of(bad, (name,), "wrong only at some batch sizes", sentence))
            told.add(name)
    short = [c for c in j.comparisons if c.probe == "param_grads"]
    short = [c for c in short if c.label in SHAPES and c.dtype == short[0].dtype] or short
    for among, where in ((plain, ""), (short, "in param_grads, ")):
        names = [n for n in j.subject.wrt if n not in told and any(n in c.spoilt for c in among)]
        if names:
            found += [replace(f, sentence=where + f.sentence) for f in _diagnosed(j, among, names, deadline)]
            told |= set(names)
    for c in j.comparisons:
        new = tuple(n for n in j.subject.wrt if n in c.wrong and n not in told)
        if new:
            same = [d for d in j.comparisons if d.probe == c.probe and d.dtype == c.dtype and set(new) & d.wrong]
            only_single = c.dtype == "float32" and j.comparisons[0].dtype == "float64"
            fault = "wrong only in float32" if only_single else _ONLY_IN.get(c.probe, "unknown")
            sentence = FAULTS[fault] + (f" ({c.label})" if c.label else "")
            if fault == "unknown":
                sentence = f"right at the plain examples, wrong at: {c.label or c.probe}"
            found.append(_of(same, new, fault, sentence))
            told |= set(new)
    return found + infinite


def _is_of_another_call(j: Judgement, name: str, deadline: float) -> bool:
    """Return whether a gradient, wherever it is wrong, is that of arrays which an earlier call was given."""
    bad = [i for i, c in enumerate(j.comparisons) if name in c.wrong]
    if j.oracle is None or not bad or any(name in c.misshapen for c in j.comparisons):
        return False
    for i in bad:
        c = j.comparisons[i]
        earlier = [d for d in j.comparisons[:i] if d.subject.shapes() == c.subject.shapes()]
        if not any(_is_of(j.oracle, c, d, name, deadline) for d in (*earlier[:1], *earlier[1:][-1:])):
            return False
    return True


def _is_of(oracle: Oracle, c: Comparison, earlier: Comparison, name: str, deadline: float) -> bool:
    """Return whether a gradient is the exact one of an earlier call's arrays: one, inputs, parameters, all."""
    params = [n for n in c.args if n not in c.subject.inputs]
    got, rng = np.asarray(c.got[name], np.float64), np.random.default_rng(0)
    near = {n: a * (1 + 0.1 * rng.random(a.shape)) if a.dtype.kind == "f" else a for n, a in earlier.args.items()}

    def is_that_of(args: Args, old: Sequence[str]) -> bool:
        exact = oracle({n: args[n] if n in old else a for n, a in c.args.items()}, c.dy).grads[name]
        return distance(got, exact) <= bound(exact, unit=unit_of(c.dtype), depth=c.subject.depth)

    for old in [[n] for n in c.args] + [list(c.subject.inputs), params, list(c.args)]:
        if time.perf_counter() > deadline:
            return False
        try:  # what is that of other arrays too, 0 or a slope that is the same everywhere, tells of no call
            if is_that_of(earlier.args, old) and not is_that_of(near, old):
                return True
        except (Exception, Hang):  # arrays of two calls that do not go together
            continue
    return False


def _is_infinite(c: Comparison, name: str) -> bool:
    """Return whether a gradient holds an infinity or a NaN where the exact one is finite."""
    return c.probe != "empty batch" and name in c.wrong and not np.isfinite(np.asarray(c.got[name], float)).all()


def _of(seen: Sequence[Comparison], names: tuple[str, ...], fault: str, sentence: str, **more: Any) -> Fault:
    name = names[0]
    c = most_telling([c for c in seen if name in c.spoilt], names)
    got = c.got.get(name, c.misshapen.get(name))
    expected = c.exact.grads[name]
    extent = f"at {len(seen)} example{'s' if len(seen) > 1 else ''}"
    if got is not None and np.shape(got) == expected.shape and expected.size:
        bad = int((~(np.abs(np.asarray(got, np.float64) - expected) <= c.tolerance[name])).sum())
        extent = f"{bad} of {expected.size} entries, {extent}"
    shapes = tuple(dict.fromkeys(d.subject.shapes() for d in seen))
    return Fault(names, fault, sentence, probe_of(c), got=got, expected=expected,
                 tolerance=c.tolerance.get(name, 0.0), shapes=shapes, extent=extent, **more)  # fmt: skip


def _diagnosed(j: Judgement, plain: Sequence[Comparison], names: Sequence[str], deadline: float) -> list[Fault]:
    """Ask the table of mistakes; every name is in one fault."""
    bad = [c for c in plain if c.spoilt.intersection(names)]
    found: list[Fault] = []

    def tell(mine: tuple[str, ...], fault: str = "unknown", sentence: str = "", **more: Any) -> None:
        seen = [c for c in bad if c.spoilt.intersection(mine)]
        shape = next((c.form[n][1] for c in seen for n in mine if n in c.misshapen), "")
        fault = "wrong shape" if shape and fault == "unknown" else fault
        shape = "" if sentence.startswith(shape.partition(":")[0]) else shape
        sentence = "; ".join(filter(None, (shape, sentence))) or FAULTS["unknown"]
        found.append(_of(seen, mine, fault, sentence, **more))

    seconds = deadline - time.perf_counter()
    if seconds > 0:
        every = max((c.subject.wrt for c in plain), key=len)
        alike = [c for c in plain if c.subject.wrt == every]
        given = tuple(n for n in every if all(n in c.got or n in c.misshapen for c in alike))
        runs = [replace(run_of(c, j, names), wrt=given) for c in alike] if set(names) <= set(given) else []
        for d in diagnose(runs, seconds=seconds):
            if mine := tuple(n for n in d.gradients if n in names):
                example = next((c for c, r in zip(alike, runs, strict=True) if d.spoilt and d.spoilt.run is r), None)
                tell(mine, d.fault, d.sentence, factor=d.factor, at=d.at, example=example, spoilt=d.spoilt)
    explained = {n for f in found for n in f.gradients}
    for name in [n for n in names if n not in explained]:
        tell((name,))
    return found


def _merged(faults: Sequence[Fault]) -> list[Fault]:
    """Join the faults of one cause: the same fault with the same sentence, of several gradients."""
    merged: dict[Any, Fault] = {}
    for f in faults:
        key = (f.fault, f.factor, f.sentence, f.at)
        known = merged.get(key)
        if known is None:
            merged[key] = f
        elif set(f.gradients) - set(known.gradients):
            merged[key] = replace(known, gradients=tuple(dict.fromkeys((*known.gradients, *f.gradients))))
    return list(merged.values())


def _finding(f: Fault, subject: Subject, label: str, spoilt: Collection[str]) -> Finding:
    index: tuple[int, ...] | None = None
    value = wanted = None
    ratio = float("inf")
    if f.got is not None and f.expected is not None and np.shape(f.got) == np.shape(f.expected) and np.size(f.got):
        got, expected = np.asarray(f.got, np.float64), np.asarray(f.expected, np.float64)
        off = np.nan_to_num(np.abs(got - expected), nan=np.inf)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
        value, wanted = float(got[index]), float(expected[index])
        ratio = float(off[index]) / f.tolerance if f.tolerance else float("inf")
    where = f.where if isinstance(f.where, Line) else Line()
    return Finding(
        target=f"{label}: {subject.name}" if label else subject.name,
        gradient=f.gradients[0] if f.gradients else "y",
        fault=f.fault,
        explanation=f.sentence,
        factor=f.factor,
        at=str(f.at),
        text=f.at.text(),
        where=str(f.where),
        where_text=where.text(),
        sources=tuple(lines for lines in (f.at.excerpt(), where.excerpt(around=3)) if lines),
        also=f.gradients[1:],
        right=tuple(n for n in subject.wrt if n not in spoilt) if "y" not in {*f.gradients} - {*subject.wrt} else (),
        index=index,
        got=value,
        expected=wanted,
        tolerance=f.tolerance,
        ratio=ratio,
        extent=f.extent,
        probe=f.probe,
        shapes=f.shapes,
        got_array=None if f.got is None else np.array(f.got),
        expected_array=None if f.expected is None else np.array(f.expected),
    )

"""From wrong arrays to the name and the place of the mistake.

A mistake is a transform of what passes back through an edge of the chain rule. One table of them (`mistakes`) is tried
at every edge of the traced forward (`tape`, in which `primitives` are differentiated); what shows in one returned array
alone needs no trace (`returned`). A name is given only if its hypothesis, computed, reproduces the target's arrays
within the tolerance in every run in which they were wrong.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from tinynet.verification.diagnosis.evidence import Diagnosis, Wrong
from tinynet.verification.diagnosis.place import Blame, Tracer, confirms, placed
from tinynet.verification.diagnosis.returned import (
    exchanged,
    of_any_multiple,
    of_one_array,
    of_some_entries,
    rounded_to_float32,
)
from tinynet.verification.diagnosis.search import OutOfTime, Search, subsets
from tinynet.verification.diagnosis.source import Line

__all__ = ["Blame", "Diagnosis", "Tracer", "Wrong", "confirms", "diagnose", "placed"]


def diagnose(
    runs: Sequence[Wrong],
    *,
    seconds: float = 10.0,
) -> list[Diagnosis]:
    """Name the mistakes; every wrong gradient is in exactly one diagnosis, "unknown" if no mistake reproduces it.

    Args:
        runs: runs of one target, those in which all was right as well.
        seconds: how long it may take.
    """
    failing = [r for r in runs if r.wrong]
    if not failing:
        return []
    wrong = [name for name in failing[0].wrt if any(name in r.wrong for r in failing)]
    found: list[Diagnosis] = []
    search = Search([])
    try:
        alone = {name: d for name in wrong if (d := of_one_array(name, runs))}
        odd = [n for n, d in alone.items() if d.fault == "non-finite" or "has shape" in d.sentence]
        found += [alone[n] for n in odd]
        wrong = [n for n in wrong if n not in odd]
        search = Search.of(runs, time.monotonic() + 0.8 * seconds) if wrong or odd else search
        found = [_placed(d, search) for d in found]
        found += _of_several(wrong, alone, odd, runs, search)
    except OutOfTime:
        pass
    named = {n for d in found for n in d.gradients}
    unknown = [name for name in wrong if name not in named]
    for names in [unknown, *([name] for name in unknown)] if unknown else []:
        left = [name for name in names if not any(name in d.gradients for d in found)]
        if left == names and (one := _unknown(names, search, _others(wrong, [], names), seconds / 10 / len(unknown))):
            found.append(one)
    return _merged(found)


def _of_several(
    wrong: list[str], alone: dict[str, Diagnosis], odd: list[str], runs: Sequence[Wrong], search: Search
) -> list[Diagnosis]:
    """Explain what is wrong by as few mistakes as there can be."""
    failing = [r for r in runs if r.wrong]
    if wrong and all(n in alone for n in wrong) and len({(alone[n].fault, alone[n].factor) for n in wrong}) == 1:
        return [_placed(alone[n], search) for n in wrong]
    pairs = [_placed(d, search) for d in exchanged(wrong, failing)]
    left = [n for n in wrong if not any(n in d.gradients for d in pairs)]
    found, few = list(pairs), len(wrong) <= 6
    for names in subsets(left):
        if set(names) <= set(left) and (few or len(names) == len(left)):
            one = search.explain(names, _others(wrong, odd, names))
            if one is not None:
                found.append(one)
                left = [n for n in left if n not in names]
    rounded = {n: d for n in left if n not in alone and (d := rounded_to_float32(n, failing))}
    for name in left:
        free = _others(wrong, odd, [name]) if few else odd
        if (d := alone.get(name) or of_some_entries(name, runs) or rounded.get(name)) is not None:
            found.append(_placed(d, search))
        elif (d := search.explain([name], free)) is not None:
            found.append(d)
        elif (d := of_any_multiple(name, runs)) is not None:
            found.append(_placed(d, search))
    return found


def _others(wrong: Sequence[str], odd: Sequence[str], names: Sequence[str]) -> list[str]:
    return [*odd, *(n for n in wrong if n not in names)]


def _placed(d: Diagnosis, search: Search) -> Diagnosis:
    """Say at which line the arrays of a diagnosis are used."""
    sites = [site for name in d.gradients if (site := search.used_at(name))]
    if not sites:
        return d
    return replace(d, at=max(sites, key=lambda s: s.order).line)


def _unknown(names: Sequence[str], search: Search, free: Sequence[str], seconds: float) -> Diagnosis | None:
    """Say through which statements all passes that is wrong; None if there is no one of several gradients."""
    sentence = f"{names[0]} is wrong, and no known mistake reproduces it"
    search.allow(seconds)
    try:
        sites = search.smallest(names, free)
    except OutOfTime:
        sites = []
    if len(names) > 1 and not sites:
        return None
    texts = dict.fromkeys(f"`{site.line.text()}`" for site in sites)
    sentence += f"; what reaches it passes through {' or '.join(texts)}" if texts else ""
    at = max(sites, key=lambda site: site.order).line if sites else Line()
    return Diagnosis(tuple(names), "unknown", "", sentence, at)


def _merged(found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Join what bears one name: the same mistake in several arrays."""
    merged: dict[tuple[str, ...], Diagnosis] = {}
    for d in found:
        key = (d.fault, d.factor, d.sentence.removeprefix(d.gradients[0]))
        known = merged.get(key, replace(d, gradients=()))
        merged[key] = replace(known, gradients=(*known.gradients, *d.gradients))
    return [replace(d, sentence=_of_each(d)) for d in merged.values()]


def _of_each(d: Diagnosis) -> str:
    """Return the sentence of a diagnosis, which begins with the name of one gradient, for all that it explains."""
    first, *others = d.gradients
    several = others and d.sentence.startswith(first)
    return d.sentence.replace(first, f"each of {', '.join(d.gradients)}", 1) if several else d.sentence

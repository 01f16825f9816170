"""Reports as one page that needs nothing else: the verdict, what is wrong and where, gradients × probes, heat maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.equations import EQUATIONS
from tinynet.faults import formulas
from tinynet.files.atomic import write_atomically
from tinynet.pages import fill
from tinynet.pages.mathml import mathml
from tinynet.verification.examples import TRIED
from tinynet.verification.report import Finding, Probe, Report, Verdict
from tinynet.verification.tolerance import RULE, rule

Array = npt.NDArray[Any]

LARGEST = 32
"""A map has at most this many rows and columns; larger tensors are pooled."""

ANNOTATED = (12, 8)
"""Up to this many rows and columns, each cell shows its number."""

DEEPEST = 55
"""The per cent of colour in the deepest cell of a map: text is still read on it, on either paper."""

ORDER: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")


def write_html(reports: Sequence[Report], path: str | Path) -> None:
    """Write the reports as one page, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, report_page(reports).encode())


def report_page(reports: Sequence[Report]) -> str:
    """Return the page: of one report all of it, of several a table that opens at each."""
    alone, ordered = len(reports) == 1, sorted(reports, key=lambda report: ORDER.index(report.verdict))
    counts = [(v, sum(report.verdict == v for report in reports)) for v in ORDER]
    tried = [name for name in TRIED if any(p.name == name and not p.skipped for r in reports for p in r.coverage)]
    return fill(
        "report.html",
        title=", ".join(f"{n} {v}" for v, n in counts if n),
        verdicts=" ".join(_verdict(v, "" if alone else f"{n} ") for v, n in counts if n),
        rule=escape(rule(reports[0].depth) if alone else RULE.format(depth="layers · ")),
        reports="".join(map(_alone if alone else _row_of_all, ordered)),
        probes=_list(((name, _with_equations(TRIED[name])) for name in tried), "probe-"),
    )


def _alone(report: Report) -> str:
    return f"<section><h2>{escape(report.target)}</h2>{_section(report)}</section>"


def _row_of_all(report: Report) -> str:
    worst = max((ratio for p in report.coverage for ratio in p.ratios.values()), default=0.0)
    found = dict.fromkeys(f"{', '.join((f.gradient, *f.also))}: {f.name}" for f in report.findings)
    outcome = "; ".join(found) or report.reason or f"{_short(worst)} of the tolerance"
    share = 100.0 if report.findings else 100 * min(worst, 1.0)
    return (
        f"<details><summary>{_verdict(report.verdict)} <h2>{escape(report.target)}</h2> "
        f'<span class="bar {report.verdict}"><i style="width: {share:.3g}%"></i></span> '
        f'<span class="outcome">{escape(outcome)}</span></summary>{_section(report)}</details>'
    )


def _verdict(verdict: str, count: str = "") -> str:
    return f'<span class="verdict {verdict}">{count}{verdict}</span>'


def _section(report: Report) -> str:
    run = sum(not p.skipped for p in report.coverage)
    head = f"compared with {report.oracle}; {run} of {len(report.coverage)} probes run; seed {report.seed}"
    parts = [f'<p class="dim">{escape(head)}; {report.seconds:.1f} s</p>']
    parts += [f"<p>{escape(report.reason)}</p>"] if report.reason else []
    parts += [_finding(i, f) for i, f in enumerate(report.findings, 1)]
    parts += [f'<p class="dim">{escape(note)}</p>' for note in report.notes]
    return "".join(parts) + (_coverage(report) if report.coverage else "")


# What is wrong


def _finding(number: int, finding: Finding) -> str:
    labelled = [(label, escape(text)) for label, text in finding.details()]
    labelled[1:1] = _meaning(finding)
    sources = "".join(f'<pre class="scroll" tabindex="0">{_source(lines)}</pre>' for lines in finding.sources)
    title = escape(f"{', '.join((finding.gradient, *finding.also))}, {finding.name}")
    maps = f'<div class="maps">{"".join(_maps(finding))}</div>'
    return f"<h3>Finding {number}: {title}</h3>{_list(labelled)}{sources}{maps}"


def _meaning(finding: Finding) -> list[tuple[str, str]]:
    """Return what was computed and what belongs there as formulas, and the equation of the derivation about it."""
    found = formulas(finding.fault, finding.factor)
    if found is None:
        return []
    computed, expected, number = found
    equation = _with_equations(f", see ({number})") if number else ""
    return [("computed", _formula(computed)), ("instead of", _formula(expected) + equation)]


def _formula(text: str) -> str:
    return f'<span class="formula">{mathml(text)}</span>'


def _with_equations(text: str) -> str:
    """Return HTML of a sentence, each number of an equation with the equation."""

    def equation(found: re.Match[str]) -> str:
        e = EQUATIONS[int(found[1]) - 1]
        return f"({e.number}) {_formula(e.formula)}"

    return re.sub(r"\((\d+)\)", equation, escape(text))


def _list(items: Iterable[tuple[str, str]], prefix: str = "") -> str:
    """Return a list of terms, each with HTML that describes it; with a prefix each is the target of a link."""

    def term(name: str) -> str:
        return f'<dt id="{prefix}{_id(name)}">{name}</dt>' if prefix else f"<dt>{name}</dt>"

    return f"<dl>{''.join(f'{term(name)}<dd>{text}</dd>' for name, text in items)}</dl>"


def _id(name: str) -> str:
    return name.replace(" ", "-")


def _source(lines: Sequence[tuple[int, str, bool]]) -> str:
    return "".join(
        f"<mark>{n:4d} ▸ {escape(text)}</mark>" if marked else f"<span>{n:4d}   {escape(text)}</span>"
        for n, text, marked in lines
    )


# Gradients × probes


def _coverage(report: Report) -> str:
    """Return the table of errors; what failed stands in the first columns."""
    wrong = [g for f in report.findings for g in (f.gradient, *f.also)]
    compared = [name for p in report.coverage for name in p.ratios]
    gradients = list(dict.fromkeys([*wrong, *compared]))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("probe", *gradients))
    rows = "".join(_row(p, gradients, report.findings) for p in report.coverage)
    key = {"fine": "up to 0.3", "near": "up to 1", "wrong": "above 1: wrong", "none": "– not compared here"}
    legend = " ".join(f'<span class="{kind}">{text}</span>' for kind, text in key.items())
    return (
        "<h3>Error in units of the tolerance</h3>"
        f'<p class="key">{legend}</p>'
        '<div class="scroll" tabindex="0" role="group" aria-label="Error in units of the tolerance">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(probe: Probe, gradients: Sequence[str], findings: Sequence[Finding]) -> str:
    found = [f for f in findings if f.probe == probe.name]
    faulty = {g: f.name for f in found for g in (f.gradient, *f.also)}
    if probe.skipped:
        cells = _remark("none", f"skipped: {probe.skipped}", gradients)
    elif not probe.ratios:
        cells = _remark("wrong" if found else "fine", "; ".join(faulty.values()) or "nothing wrong", gradients)
    else:
        cells = "".join(_cell(probe.ratios.get(name), faulty.get(name, "")) for name in gradients)
    name = escape(probe.name)
    link = name if probe.skipped else f'<a href="#probe-{_id(name)}">{name}</a>'
    note = f'<td class="note">{escape(probe.note)}</td>' if probe.note else ""
    return f'<tr><th scope="row">{link}</th>{cells}{note}</tr>'


def _cell(ratio: float | None, fault: str) -> str:
    if ratio is not None and (ratio > 1 or not fault):
        return f'<td class="{_kind(ratio)}">{_short(ratio)}</td>'
    return f'<td class="wrong">{escape(fault)}</td>' if fault else '<td class="none">–</td>'


def _remark(kind: str, text: str, gradients: Sequence[str]) -> str:
    return f'<td class="remark {kind}" colspan="{max(len(gradients), 1)}">{escape(text)}</td>'


def _kind(ratio: float) -> str:
    return "wrong" if not ratio <= 1 else "near" if ratio > 0.3 else "fine"


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    text = f"{value:.2g}" if 1e-3 <= abs(value) < 1000 else f"{value:.0e}"
    return text.replace("e+0", "e").replace("e-0", "e−").replace("e+", "e").replace("-", "−")


# Heat maps


def _maps(finding: Finding) -> list[str]:
    """Return the array that came back, the exact one, and where they differ by more than the tolerance."""
    got, expected, name = finding.got_array, finding.expected_array, finding.gradient
    given = {title: a for title, a in ((f"{name}, got", got), (f"{name}, expected", expected)) if a is not None}
    if got is None or expected is None or got.shape != expected.shape:
        return [_map(title, a, np.abs(_plane(a)), _limit(a), None) for title, a in given.items()]
    with np.errstate(all="ignore"):
        error = np.abs(_plane(got) - _plane(expected))
    error = np.where(_plane(got) == _plane(expected), 0.0, np.nan_to_num(error, nan=np.inf, posinf=np.inf))
    limits = {title: _limit(a) for title, a in given.items()}
    if max(limits.values()) <= 30 * min(limits.values()):  # one scale for both, so that a missing factor shows
        limits = dict.fromkeys(limits, max(limits.values()))
    maps = [_map(title, a, error, limits[title], finding.index) for title, a in given.items()]
    difference = np.where(error > finding.tolerance, error, 0.0).reshape(got.shape)
    return [*maps, _map(f"{name}, |error|", difference, error, _limit(difference), finding.index)]


def _limit(a: Array) -> float:
    return float(np.abs(a[np.isfinite(a)]).max(initial=0.0))


def _plane(a: Array) -> Array:
    """View a tensor as rows and columns: the leading axes are folded into the rows."""
    a = np.asarray(a, np.float64)
    return a.reshape(1, -1) if a.ndim < 2 else a.reshape(-1, a.shape[-1])


def _pooled(error: Array) -> tuple[Array, int, int]:
    """Return, for each block of a grid of at most 32 × 32, which entry has the largest error; and the block's size.

    The entry is given by its flat index. A block stands for its worst entry, in every map alike.
    """
    rows, columns = error.shape
    high, wide = -(-rows // LARGEST), -(-columns // LARGEST)
    chosen = np.empty((-(-rows // high), -(-columns // wide)), np.intp)
    for i, j in np.ndindex(*chosen.shape):
        block = error[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
        at = np.unravel_index(int(np.argmax(block)), block.shape)
        chosen[i, j] = (i * high + int(at[0])) * columns + j * wide + int(at[1])
    return chosen, high, wide


def _map(title: str, a: Array, error: Array, limit: float, index: tuple[int, ...] | None) -> str:
    """Return a tensor as a table of coloured cells: a cell for an entry, or for a block of entries."""
    shape = " × ".join(map(str, a.shape)) if a.shape else "a scalar"
    caption = f'<figcaption><b>{escape(title)}</b> <span class="dim">{shape}</span></figcaption>'
    if not a.size:
        return f'<figure>{caption}<p class="dim">no entries</p></figure>'
    plane = _plane(a)
    chosen, high, wide = _pooled(error)
    written = chosen.shape[0] <= ANNOTATED[0] and chosen.shape[1] <= ANNOTATED[1]
    worst = None if index is None else int(np.ravel_multi_index(index, a.shape)) if a.shape else 0

    def cell(flat: int) -> str:
        value = float(plane.flat[flat])
        at = f"[{', '.join(str(int(k)) for k in np.unravel_index(flat, a.shape))}] " if a.shape else ""
        kind = ' class="worst"' if flat == worst else ""
        text = _short(value) if written else ""
        return f'<td{kind} title="{at}{value:.9g}" style="{_colour(value, limit)}">{text}</td>'

    rows = "".join(f"<tr>{''.join(cell(int(flat)) for flat in row)}</tr>" for row in chosen)
    remarks = [f"from {_short(-limit)} (red) to {_short(limit)} (blue)"] if plane.min() < 0 else []
    if high * wide > 1:
        remarks.append(f"each cell stands for {high} × {wide} entries and shows the one with the largest error")
    if a.ndim > 2:
        remarks.append(f"axes 0 to {a.ndim - 2} are folded into the rows")
    return (
        f'<figure>{caption}<div class="scroll" tabindex="0" role="group" aria-label="{escape(title)}">'
        f'<table class="map{" written" if written else ""}"><tbody>{rows}</tbody></table></div>'
        f'<p class="dim">{escape("; ".join(remarks))}</p></figure>'
    )


def _colour(value: float, limit: float) -> str:
    """Return the colour of a cell: red below zero, blue above, deeper the larger; a third one where it is no number."""
    if not np.isfinite(value):
        return f"--c: var(--backward); --p: {DEEPEST}%"
    share = DEEPEST * abs(value) / limit if limit else 0.0
    return f"--c: var(--{'minus' if value < 0 else 'plus'}); --p: {share:.0f}%"

"""Reports as one self-contained page: the verdict, gradients × probes, and heat maps of what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.files.atomic import write_atomically
from tinynet.verification.report import Finding, Probe, Report
from tinynet.verification.tolerance import RULE

__all__ = ["check_available", "write_html"]

Array = npt.NDArray[Any]

LARGEST = 32
"""A map has at most this many rows and columns; larger tensors are pooled."""

ANNOTATED = (12, 8)
"""Up to this many rows and columns, each cell shows its number."""

WITHIN, UNKNOWN = "var(--within)", "var(--unknown)"


def write_html(reports: Sequence[Report], path: str | Path) -> None:
    """Write the reports as one page, whole or not at all. It needs nothing but itself: no script, no network.

    Raises:
        ImportError: Jinja2 or matplotlib is not installed.
        OSError: the file cannot be written.
    """
    check_available()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tinynet.verification", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.j2").render(
        sections=[_section(report) for report in reports],
        counts={v: n for v in ("PASS", "FAIL", "INCONCLUSIVE") if (n := sum(r.verdict == v for r in reports))},
        rule=RULE,
    )
    write_atomically(path, page.encode())


def check_available() -> None:
    """Raise ImportError, which says what to do, unless the page can be made."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ImportError(f'an HTML report needs {" and ".join(missing)}; use pip install "tinynet-grad[html]"')


# the table


@dataclass(frozen=True)
class Cell:
    """One gradient at one probe: the error in units of the tolerance."""

    text: str
    kind: str


@dataclass(frozen=True)
class Row:
    """One probe: a cell for each gradient, or one remark over all of them."""

    probe: str
    cells: tuple[Cell, ...] = ()
    remark: str = ""
    kind: str = ""
    note: str = ""


def _section(report: Report) -> dict[str, Any]:
    gradients = list(dict.fromkeys(n for p in report.coverage if not _is_layer(p) for n in p.ratios))
    gradients += [g for f in report.findings for g in (f.gradient, *f.also) if g not in gradients]
    worst = max((ratio for p in report.coverage for ratio in p.ratios.values()), default=0.0)
    found = dict.fromkeys(f"{', '.join((f.gradient, *f.also))}: {f.name}" for f in report.findings)
    return {
        "report": report,
        "gradients": list(dict.fromkeys(gradients)),
        "rows": [_row(p, gradients, report.findings) for p in report.coverage],
        "findings": [{"finding": f, "lines": _lines(f), "maps": _maps(f)} for f in report.findings],
        "outcome": "; ".join(found) or report.reason or f"at most {_short(worst)} of the tolerance",
        "run": sum(not p.skipped for p in report.coverage),
    }


def _lines(finding: Finding) -> list[tuple[str, str]]:
    """Split the finding's own text, below its first line, into labels and what they label."""
    parts = (line.strip().partition(" ") for line in str(finding).splitlines()[1:])
    return [(label, text.strip()) for label, _, text in parts]


def _is_layer(probe: Probe) -> bool:
    return probe.name.startswith("layer ")


def _row(probe: Probe, gradients: Sequence[str], findings: Sequence[Finding]) -> Row:
    found = [f for f in findings if f.probe == probe.name]
    if probe.skipped:
        return Row(probe.name, remark=f"skipped: {probe.skipped}", kind="skipped")
    if _is_layer(probe):
        told = "; ".join(f"{name}: {_short(ratio)}" for name, ratio in probe.ratios.items())
        kind = _kind(max(probe.ratios.values(), default=0.0))
        return Row(probe.name, remark=told, kind=kind, note=probe.note)
    if not probe.ratios:
        told, kind = ("; ".join(f.name for f in found), "wrong") if found else ("nothing wrong", "fine")
        return Row(probe.name, remark=told, kind=kind, note=probe.note)
    faulty = {g: f.name for f in found for g in (f.gradient, *f.also)}
    cells = []
    for name in gradients:
        ratio = probe.ratios.get(name)
        if ratio is not None and (ratio > 1 or name not in faulty):
            cells.append(Cell(_short(ratio), _kind(ratio)))
        else:
            cells.append(Cell(faulty.get(name, "–"), "wrong" if name in faulty else "none"))
    return Row(probe.name, tuple(cells), note=probe.note)


def _kind(ratio: float) -> str:
    return "wrong" if not ratio <= 1 else "near" if ratio > 0.3 else "fine"


def _short(value: float) -> str:
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    text = f"{value:.2g}" if 1e-3 <= abs(value) < 1000 else f"{value:.0e}"
    return text.replace("e+0", "e").replace("e-0", "e−").replace("e+", "e").replace("-", "−")


# the heat maps


@dataclass(frozen=True)
class Square:
    """One cell of a map."""

    row: int
    column: int
    colour: str
    ink: str
    text: str
    tip: str
    worst: bool


@dataclass(frozen=True)
class HeatMap:
    """A tensor as a picture: a square an entry, or a block of entries."""

    title: str
    shape: str
    rows: int
    columns: int
    last_row: int
    last_column: int
    squares: tuple[Square, ...]
    annotated: bool
    legend: tuple[tuple[str, str], ...]
    caption: str


def _maps(finding: Finding) -> list[HeatMap]:
    got, expected = finding.got_array, finding.expected_array
    if got is None and expected is None:
        return []
    name = finding.gradient
    if got is None or expected is None or got.shape != expected.shape:
        alone = [(title, a) for title, a in (("got", got), ("expected", expected)) if a is not None]
        scale = _common_limit([a for _, a in alone])
        return [_map(f"{name}, {title}", a, np.abs(_plane(a)), scale, None) for title, a in alone]
    with np.errstate(all="ignore"):
        error = np.abs(_plane(got) - _plane(expected))
    error = np.where(_plane(got) == _plane(expected), 0.0, np.nan_to_num(error, nan=np.inf, posinf=np.inf))
    scale = _common_limit([got, expected])
    maps = [
        _map(f"{name}, {title}", a, error, scale, finding.index) for title, a in (("got", got), ("expected", expected))
    ]
    return [*maps, _error_map(f"{name}, |error|", got.shape, error, finding)]


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


def _common_limit(arrays: Sequence[Array]) -> float | None:
    """Return the end of one scale for all, so that a missing factor shows; None if they are too far apart for one."""
    limits = [_limit(a) for a in arrays]
    return max(limits) if max(limits) <= 30 * min(limits) or min(limits) == 0 else None


def _limit(a: Array) -> float:
    finite = np.abs(a[np.isfinite(a)])
    return float(finite.max(initial=0.0))


def _map(title: str, a: Array, error: Array, common: float | None, index: tuple[int, ...] | None) -> HeatMap:
    limit = _limit(a) if common is None else common

    def colour(value: float) -> str:
        return UNKNOWN if not np.isfinite(value) else _hex("RdBu_r", 0.5 + 0.5 * value / limit if limit else 0.5)

    ends = ((-limit, 0.0), (-limit / 2, 0.25), (0.0, 0.5), (limit / 2, 0.75), (limit, 1.0)) if limit else ((0.0, 0.5),)
    legend = tuple((_short(v), _hex("RdBu_r", at)) for v, at in ends)
    remark = "scale of its own: got and expected are too far apart for one" if common is None else ""
    return _draw(title, a.shape, _plane(a), error, colour, legend, remark, index)


def _error_map(title: str, shape: tuple[int, ...], error: Array, finding: Finding) -> HeatMap:
    """Draw what is above the tolerance on a logarithmic scale, from the smallest such error to the largest."""
    wrong = error[np.isfinite(error) & (error > finding.tolerance)]
    high = float(wrong.max(initial=np.finfo(float).tiny))
    low = min(float(wrong.min(initial=high)), high / 10)

    def share(value: float) -> float:
        return 0.15 + 0.85 * math.log(value / low) / math.log(high / low)

    def colour(value: float) -> str:
        if not np.isfinite(value):
            return UNKNOWN
        return WITHIN if value <= finding.tolerance else _hex("YlOrBr", share(value))

    marks = ((float(v), _hex("YlOrBr", share(float(v)))) for v in np.geomspace(low, high, 4))
    legend = ((f"≤ {_short(finding.tolerance)}, the tolerance", WITHIN), *((_short(v), c) for v, c in marks))
    return _draw(title, shape, error, error, colour, legend, "", finding.index)


def _draw(
    title: str,
    shape: tuple[int, ...],
    plane: Array,
    error: Array,
    colour: Any,
    legend: tuple[tuple[str, str], ...],
    remark: str,
    index: tuple[int, ...] | None,
) -> HeatMap:
    if plane.size == 0:
        return HeatMap(title, _shape_text(shape), 0, 0, 0, 0, (), False, (), "no entries")
    chosen, high, wide = _pooled(error)
    annotated = chosen.shape[0] <= ANNOTATED[0] and chosen.shape[1] <= ANNOTATED[1]
    worst = None if index is None else int(np.ravel_multi_index(index, shape)) if shape else 0
    squares = []
    for (i, j), flat in np.ndenumerate(chosen):
        value = float(plane.flat[flat])
        fill = colour(value)
        at = ", ".join(str(int(k)) for k in np.unravel_index(int(flat), shape)) if shape else ""
        squares.append(
            Square(
                i, j, fill, _ink(fill), _short(value) if annotated else "", f"[{at}] {value:.9g}", int(flat) == worst
            )
        )
    remarks = [remark] if remark else []
    if high * wide > 1:
        remarks.append(f"each square stands for {high} × {wide} entries and shows the one with the largest error")
    if len(shape) > 2:
        remarks.append(f"axes 0 to {len(shape) - 2} are folded into the rows")
    return HeatMap(
        title,
        _shape_text(shape),
        chosen.shape[0],
        chosen.shape[1],
        plane.shape[0] - 1,
        plane.shape[1] - 1,
        tuple(squares),
        annotated,
        legend,
        "; ".join(remarks),
    )


def _shape_text(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) if shape else "a scalar"


def _hex(colours: str, at: float) -> str:
    import matplotlib
    from matplotlib.colors import to_hex

    return to_hex(matplotlib.colormaps[colours](min(max(at, 0.0), 1.0)))


def _ink(fill: str) -> str:
    """Black or white, whichever is read better on the colour."""
    if not fill.startswith("#"):
        return "var(--ink)"
    channels = [int(fill[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return "#000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#fff"

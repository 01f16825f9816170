"""What a verification says: findings, coverage, a verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinynet import faults
from tinynet.files.atomic import write_atomically
from tinynet.inspection import for_terminal
from tinynet.verification.tolerance import rule

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]

FORMAT = 1
"""The version of the JSON: a name that is there keeps its meaning as long as this number stays; names may be added."""


@dataclass(frozen=True)
class Probe:
    """One thing that was tried, for each number type: run, or skipped and why.

    Attributes:
        name: "rectangular", "batch 1", "saturated", "layout", …
        dtype: "float64" or "float32"; "" where it makes no difference.
        skipped: the reason; empty if it ran.
        ratios: for each gradient, the largest error in units of the tolerance; above 1 is wrong.
        note: what is worth knowing though it is not wrong.
    """

    name: str
    dtype: str = ""
    skipped: str = ""
    ratios: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        state = f"skipped ({self.skipped})" if self.skipped else "run"
        worst = (
            f", at most {max(self.ratios.values()):.2g} of the tolerance" if self.ratios and not self.skipped else ""
        )
        note = f"; {self.note}" if self.note else ""
        return for_terminal(f"{self.name:<16} {self.dtype:<8} {state}{worst}{note}")


@dataclass(frozen=True)
class Finding:
    """One fault, by its root cause.

    Attributes:
        target: what was verified; for a layer inside a composite, its path too.
        gradient: which gradient is wrong: "params.W", "x", …; "y" if it is the forward pass.
        fault: a key of `tinynet.faults.FAULTS`; "unknown" where no known mistake reproduces the array.
        explanation: one sentence on what was computed and what should have been.
        factor: what belongs to the fault: "2" or "1/m" of "scaled"; else "".
        at: "file.py:12", the forward's statement at the edge through which what is wrong passes; "" if unknown.
        text: that statement.
        where: "file.py:31", the backward's statement that last wrote the wrong array; "" if unknown.
        where_text: that statement.
        sources: what stands around `at` and `where`: the number of each line, its text, whether it is to blame.
        also: the other gradients that the same fault spoils.
        right: the gradients without fault.
        index, got, expected: the worst entry.
        tolerance: how far it was allowed to be.
        ratio: its error in units of the tolerance.
        extent: how many entries are wrong, at how many shapes.
        probe: where it was seen first.
        shapes: the shapes of every input at which it was seen.
        reproduce: a command or a line of Python; "" where none can be given.
        got_array, expected_array: the whole tensors, for pictures.
    """

    target: str
    gradient: str
    fault: str
    explanation: str
    factor: str = ""
    at: str = ""
    text: str = ""
    where: str = ""
    where_text: str = ""
    also: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    index: tuple[int, ...] | None = None
    got: float | None = None
    expected: float | None = None
    tolerance: float = 0.0
    ratio: float = float("inf")
    extent: str = ""
    probe: str = ""
    shapes: tuple[str, ...] = ()
    reproduce: str = ""
    sources: tuple[tuple[tuple[int, str, bool], ...], ...] = field(default=(), repr=False, compare=False)
    got_array: npt.NDArray[Any] | None = field(default=None, repr=False, compare=False)
    expected_array: npt.NDArray[Any] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The fault as it is printed: "scaled by 1/m"."""
        return faults.name(self.fault, self.factor) if self.fault == "scaled" else self.fault

    def details(self) -> list[tuple[str, str]]:
        """Return what is known of the fault, each with its label."""
        at = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        worst = "" if self.got is None or self.expected is None else f"{self.gradient}{at}  got {self.got:.9g}  "
        lines = [
            ("fault", f"{self.name}: {self.explanation}"),
            ("worst", worst and f"{worst}expected {self.expected:.9g}  (tolerance {self.tolerance:.2g})"),
            ("extent", ", ".join(filter(None, [self.extent, *(f"first {s}" for s in self.shapes[:1])]))),
            ("probe", self.probe),
            ("at", f"{self.at}   {self.text}".rstrip() if self.at else ""),
            ("where", f"{self.where}   {self.where_text}".rstrip() if self.where else ""),
            ("reproduce", self.reproduce),
        ]
        return [(label, text) for label, text in lines if text]

    def __str__(self) -> str:
        fine = ", ".join(f"{name} ok" for name in self.right[:8]) + (", …" if len(self.right) > 8 else "")
        head = f"FAIL  {self.target} → {', '.join((self.gradient, *self.also))}" + (f"    {fine}" if fine else "")
        return for_terminal("\n".join([head, *(f"  {label:<10} {text}" for label, text in self.details())]))

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON types, without the arrays."""
        plain = {k: v for k, v in vars(self).items() if not k.endswith("_array") and k != "sources"}
        lists = {k: list(plain[k]) for k in ("also", "right", "shapes")}
        return plain | lists | {"index": list(self.index or ()), "name": self.name}


class GradientError(AssertionError):
    """A gradient is wrong, or could not be verified; `report` says which and why."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


@dataclass(frozen=True)
class Report:
    """The outcome of `tinynet.verify`.

    Attributes:
        target: what was verified.
        verdict: "PASS", "FAIL" or "INCONCLUSIVE": something could not be compared, and `reason` says what to do.
        findings: the faults, root causes first.
        coverage: every probe, run or skipped.
        oracle: what the gradients were compared with.
        compared: the arrays whose gradients were compared.
        notes: what is unusual and does no harm, how the target was read, what could not run.
        resolution: the smallest relative error that could be seen: 2.2e-16 · K for the exact oracle.
        unreached: the branches that no example took, "file.py:40: text".
        reason: why the verdict is INCONCLUSIVE.
        depth: how many layers contribute rounding.
        seed: of every random number.
        seconds: how long it took.
    """

    target: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    coverage: tuple[Probe, ...]
    oracle: str
    compared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resolution: float = 0.0
    unreached: tuple[str, ...] = ()
    reason: str = ""
    depth: int = 1
    seed: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every gradient is verified."""
        return self.verdict == "PASS"

    def __bool__(self) -> bool:
        raise TypeError("a Report is neither true nor false; use report.ok, report.verdict or report.raise_if_failed()")

    def raise_if_failed(self) -> None:
        """Raise GradientError unless the verdict is PASS."""
        if self.verdict != "PASS":
            raise GradientError(self)

    def __str__(self) -> str:
        run = [p for p in self.coverage if not p.skipped]
        worst = max((r for p in run for r in p.ratios.values()), default=0.0)
        verdict: str = self.verdict
        if self.ok and self.resolution > 1e-12:
            verdict += f" to {self.resolution:.0e}"
        if self.ok and self.unreached:
            verdict += f", {len(self.unreached)} branch{'es' if len(self.unreached) > 1 else ''} not reached"
        lines = [f"{verdict}  {self.target}  (against {self.oracle}; {len(run)} of {len(self.coverage)} probes run)"]
        if self.reason:
            lines.append(f"  because    {self.reason}")
        if self.compared:
            lines.append(f"  compared   {', '.join(self.compared[:12])}{', …' if len(self.compared) > 12 else ''}")
        if self.ok:
            lines.append(f"  worst      {worst:.2g} of the tolerance")
        lines.append(f"  rule       {rule(self.depth)}")
        lines += [f"  unreached  {place}" for place in self.unreached]
        lines += [f"  note       {note}" for note in self.notes]
        return for_terminal("\n".join([*lines, *map(str, self.findings)]))

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the report as JSON text; also write it to `path`, whole or not at all, if one is given."""
        content = {k: v for k, v in vars(self).items() if k not in ("findings", "coverage")}
        content |= {
            "format": FORMAT,
            "rule": rule(self.depth),
            "findings": [f.to_dict() for f in self.findings],
            "coverage": [vars(p) for p in self.coverage],
        }
        text = json.dumps(_plain(content), ensure_ascii=False, indent=2)
        if path is not None:
            write_atomically(path, text.encode())
        return text

    def to_html(self, path: str | Path) -> None:
        """Write the report as one page that needs nothing else, whole or not at all."""
        from tinynet.verification.html import write_html

        write_html([self], path)

    def _repr_html_(self) -> str:
        from tinynet.pages import in_notebook
        from tinynet.verification.html import report_page

        return in_notebook("Gradients", report_page([self]), str(self))


def _plain(value: Any) -> Any:
    """Return JSON types; JSON has no infinity: None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)

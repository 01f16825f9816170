"""What a verification says: findings, coverage, a verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinynet.files.atomic import write_atomically
from tinynet.verification.tolerance import RULE

__all__ = ["Finding", "GradientError", "Probe", "Report", "Verdict"]

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


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
        return f"{self.name:<16} {self.dtype:<8} {state}{worst}{f'; {self.note}' if self.note else ''}"


@dataclass(frozen=True)
class Finding:
    """One fault, by its root cause.

    Attributes:
        target: what was verified.
        gradient: which gradient is wrong: "params.W", "x", …; "y" if it is the forward pass.
        fault: its name, from the fault table; "unknown" where no hypothesis reproduces the array.
        explanation: one sentence on what was computed and what should have been.
        also: the other gradients that the same fault spoils.
        right: the gradients without fault.
        index, got, expected: the worst entry.
        tolerance: how far it was allowed to be.
        ratio: its error in units of the tolerance.
        extent: how many entries are wrong, at how many shapes.
        probe: where it was seen.
        where: file:line of the guilty expression, with its text, as far as it can be found.
        reproduce: a command or a line of Python.
        got_array, expected_array: the whole tensors, for pictures.
    """

    target: str
    gradient: str
    fault: str
    explanation: str
    also: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    index: tuple[int, ...] | None = None
    got: float | None = None
    expected: float | None = None
    tolerance: float = 0.0
    ratio: float = float("inf")
    extent: str = ""
    probe: str = ""
    where: str = ""
    reproduce: str = ""
    got_array: npt.NDArray[Any] | None = field(default=None, repr=False, compare=False)
    expected_array: npt.NDArray[Any] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        fine = ", ".join(f"{name} ok" for name in self.right)
        lines = [f"FAIL  {self.target} → {', '.join((self.gradient, *self.also))}" + (f"    {fine}" if fine else "")]
        lines.append(f"  fault      {self.fault}: {self.explanation}")
        if self.got is not None and self.expected is not None:
            at = f"[{', '.join(map(str, self.index))}]" if self.index else ""
            name = self.gradient.removeprefix("params.")
            lines.append(
                f"  worst      {name}{at}  got {self.got:.9g}  expected {self.expected:.9g}  "
                f"(tolerance {self.tolerance:.2g})"
            )
        for label, value in (
            ("extent", self.extent),
            ("probe", self.probe),
            ("where", self.where),
            ("reproduce", self.reproduce),
        ):
            if value:
                lines.append(f"  {label:<10} {value}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON types, without the arrays."""
        plain = {k: v for k, v in vars(self).items() if not k.endswith("_array")}
        return plain | {"also": list(self.also), "right": list(self.right), "index": list(self.index or ())}


class GradientError(AssertionError):
    """A gradient is wrong, or could not be proven; `report` says which and why."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


@dataclass(frozen=True)
class Report:
    """The outcome of `tinynet.verify`.

    Attributes:
        target: what was verified.
        verdict: "PASS", "FAIL" or "INCONCLUSIVE": no exact oracle could be had, and nothing is proven.
        findings: the faults, root causes first.
        coverage: every probe, run or skipped.
        reason: why the verdict is INCONCLUSIVE.
        oracle: what the gradients were held against.
        seconds: how long it took.
    """

    target: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    coverage: tuple[Probe, ...]
    oracle: str
    reason: str = ""
    seed: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every gradient is proven."""
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
        lines = [f"{self.verdict}  {self.target}  ({self.oracle}; {len(run)} of {len(self.coverage)} probes run)"]
        if self.reason:
            lines.append(f"  because    {self.reason}")
        if self.verdict == "PASS":
            lines.append(f"  worst      {worst:.2g} of the tolerance")
        lines.append(f"  rule       {RULE}")
        notes = {p.note: p.name for p in reversed(run) if p.note}  # each once, where it was first seen
        lines += [f"  note       {name}: {note}" for note, name in reversed(notes.items())]
        return "\n".join([*lines, *(str(f) for f in self.findings)])

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the report as JSON text; also write it to `path`, whole or not at all, if one is given."""
        text = json.dumps(
            {
                "target": self.target,
                "verdict": self.verdict,
                "reason": self.reason,
                "oracle": self.oracle,
                "rule": RULE,
                "seed": self.seed,
                "seconds": self.seconds,
                "findings": [f.to_dict() for f in self.findings],
                "coverage": [vars(p) for p in self.coverage],
            },
            ensure_ascii=False,
            indent=2,
            default=_plain,
        )
        if path is not None:
            write_atomically(path, _finite(text).encode())
        return _finite(text)

    def to_html(self, path: str | Path) -> None:
        """Write the report as one self-contained page with heat maps, whole or not at all (the extra `html`)."""
        from tinynet.verification.html import write_html

        write_html([self], path)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def _finite(text: str) -> str:
    """JSON has no infinity: write null."""
    return json.dumps(_without_infinities(json.loads(text)), ensure_ascii=False, indent=2)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_infinities(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_infinities(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

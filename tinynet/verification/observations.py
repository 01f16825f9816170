"""What is found wrong, before it is a finding of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinynet.verification.comparison import Comparison
from tinynet.verification.diagnosis.evidence import Spoilt
from tinynet.verification.diagnosis.source import Line
from tinynet.verification.report import Probe


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        gradients: the names of the gradients that it spoils; "y" for the forward pass.
        fault, factor: its key in `tinynet.faults`, and the factor that belongs to it.
        sentence: what was computed and what should have been.
        probe: where it was seen.
        got, expected: the array of the first gradient, where there is one to show.
        tolerance: how far it may be off.
        shapes: the shapes of every input at which it was seen.
        extent: how much is wrong.
        at: the forward's line at the edge; where: the backward's line.
        example, spoilt: what the named mistake makes of the cotangents of a comparison, if that is known.
    """

    gradients: tuple[str, ...]
    fault: str
    sentence: str
    probe: str
    factor: str = ""
    got: Any = None
    expected: Any = None
    tolerance: float = 0.0
    shapes: tuple[str, ...] = ()
    extent: str = ""
    at: Line = Line()  # noqa: RUF009 - an immutable value
    where: Line | str = ""
    example: Comparison | None = None
    spoilt: Spoilt | None = None


@dataclass(frozen=True)
class Observed:
    """What some examples showed; the sum of two is what both showed.

    Attributes:
        comparisons: every comparison made.
        faults: what is wrong besides values.
        coverage: the probes, run or skipped.
        notes: what is unusual and does no harm.
        unreached: branches that no example took.
        reason: why there can be no PASS; "" where nothing stands against it.
        stopped: whether the target hung or wanted to end the process: it is not called again.
    """

    comparisons: tuple[Comparison, ...] = ()
    faults: tuple[Fault, ...] = ()
    coverage: tuple[Probe, ...] = ()
    notes: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    reason: str = ""
    stopped: bool = False

    def __add__(self, other: Observed) -> Observed:
        return Observed(
            self.comparisons + other.comparisons,
            self.faults + other.faults,
            self.coverage + other.coverage,
            self.notes + other.notes,
            self.unreached + other.unreached,
            self.reason or other.reason,
            self.stopped or other.stopped,
        )

    @property
    def failed(self) -> bool:
        return bool(self.faults) or any(c.wrong or c.form for c in self.comparisons)

    def ran(self, probe: str) -> bool:
        """Return whether a probe stands in the coverage."""
        return any(p.name == probe for p in self.coverage)


def skipped(probe: str, why: str, *, dtype: str = "", note: str = "") -> Observed:
    """Return that a probe did not run."""
    return Observed(coverage=(Probe(probe, dtype, skipped=why),), notes=(note,) if note else ())

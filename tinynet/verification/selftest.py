"""The verifier verified: seeded faults in several targets, how many it finds and how many it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tinynet as tn
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.testing import SeededFault, seeded_faults
from tinynet.verification.adapters import constructed
from tinynet.verification.cases import CASES, Case
from tinynet.verification.report import Report
from tinynet.verification.verify import verify

TARGETS: tuple[Layer | Loss, ...] = (
    tn.Linear(4, 3),
    tn.Linear(3, 3),
    tn.Sigmoid(),
    tn.SquaredError(),
    tn.SquaredError("mean"),
    tn.Sequential(tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(3, 3), tn.Sigmoid(), tn.Linear(3, 2)),
)
"""What the faults are seeded into: the document's classes."""

KIT: tuple[Case, ...] = tuple(case for case in CASES if type(case.target) not in set(map(type, TARGETS)))
"""Every other layer and loss of the package."""


@dataclass(frozen=True)
class Outcome:
    """One seeded fault in a target, and what the verifier said of it."""

    seeded: SeededFault
    report: Report
    target: str

    @property
    def found(self) -> bool:
        """Return whether the verdict is FAIL."""
        return self.report.verdict == "FAIL"

    @property
    def named(self) -> bool:
        """Return whether a finding bears the fault's name."""
        return any(f.fault == self.seeded.fault for f in self.report.findings)

    @property
    def misnamed(self) -> bool:
        """Return whether it was given another name, and not its own."""
        return not self.named and any(f.fault != "unknown" for f in self.report.findings)


@dataclass(frozen=True)
class Score:
    """How many of the faults of one name were seeded, found, named and named wrongly."""

    name: str
    seeded: int
    found: int
    named: int
    misnamed: int


def self_test(
    targets: Sequence[Layer | Loss | Case] = TARGETS,
    *,
    every: bool = False,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> list[Outcome]:
    """Verify every seeded fault of every target.

    Args:
        targets: right layers and losses, or cases of them, which bring the shape of their input.
        every: all variants of a fault; otherwise the first for each name, gradient and target.
        progress: wraps the list of faults, as `tqdm` does.
    """
    faults: list[tuple[SeededFault, Case]] = []
    for case in (target if isinstance(target, Case) else Case(target) for target in targets):
        seen: set[tuple[str, str]] = set()
        for fault in faults_in(case):
            if every or (fault.name, fault.gradient) not in seen:
                seen.add((fault.name, fault.gradient))
                faults.append((fault, case))
    return [Outcome(fault, verify(fault.target, inputs=case.inputs), str(case)) for fault, case in progress(faults)]


def faults_in(case: Case) -> tuple[SeededFault, ...]:
    """Return the faults at the case's inputs; none for what is neither a Layer nor a Loss, or has several arrays."""
    target = constructed(case.target) if isinstance(case.target, type) else case.target
    try:
        return seeded_faults(target, inputs=case.inputs) if isinstance(target, (Layer, Loss)) else ()
    except ValueError:
        return ()


def tabulate(outcomes: Sequence[Outcome]) -> list[Score]:
    """Count the outcomes by fault, in the order in which they first occur; the last row counts all."""
    names = list(dict.fromkeys(o.seeded.name for o in outcomes))
    rows = [_score(name, [o for o in outcomes if o.seeded.name == name]) for name in names]
    return [*rows, _score("all", outcomes)]


def _score(name: str, outcomes: Sequence[Outcome]) -> Score:
    counts = (sum(getattr(o, kind) for o in outcomes) for kind in ("found", "named", "misnamed"))
    return Score(name, len(outcomes), *counts)

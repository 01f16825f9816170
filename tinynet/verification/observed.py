"""What is found wrong, before it is a finding of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinynet.verification.diagnosis.source import Line


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

"""What a judgement works with: the subject, its oracles, and what was found out about its shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import Array, Oracle, Subject
from tinynet.verification.examples import Batch, Shapes, cotangent
from tinynet.verification.execution import Watch
from tinynet.verification.jaxpr import is_long
from tinynet.verification.numerical import NumericalOracle
from tinynet.verification.oracle import JaxOracle, find_oracle
from tinynet.verification.probes.lines import Lines
from tinynet.verification.tolerance import LONGER


@dataclass(frozen=True)
class Settings:
    """What a verification was asked for.

    Attributes:
        reference: an independent forward pass; None for none.
        dtypes: the number types to try.
        wanted: the probes.
        seed: of every random number.
        watch: ends a call that does not come back.
    """

    reference: Callable[..., Any] | None
    dtypes: tuple[str, ...]
    wanted: frozenset[str]
    seed: int
    watch: Watch


class Oracles:
    """The oracles of a subject and of the same target in other widths; each is made once."""

    def __init__(self, subject: Subject, oracle: Oracle, shapes: Shapes, watch: Watch) -> None:
        self._subject, self._oracle, self._shapes, self._watch = subject, oracle, shapes, watch
        self._known: dict[int, Oracle] = {}

    def of(self, subject: Subject) -> Oracle:
        """Return the oracle of a subject: the given one where only the arrays differ.

        Raises:
            Exception: whatever the target raises.
        """
        if subject.start is self._subject.start or subject.pure is self._subject.pure:
            return self._oracle
        key = id(subject.pure)
        if key not in self._known:
            dy = cotangent(self._shapes.of(subject, subject.args), np.random.default_rng(0))
            self._known[key] = find_oracle(subject, self._watch, dy)
        return self._known[key]


@dataclass(frozen=True)
class Bench:
    """What a judgement works with, and nothing of what it has seen.

    Attributes:
        subject: the target with the arrays that are given, dy: a cotangent there.
        settings: what was asked for.
        oracle: of the subject, oracles: of it and its variants.
        shapes: the outputs by the shapes of the arrays.
        batches: where the samples are, the likeliest first; none where their number is not free.
        variants: the target in other widths, by label.
        lines: the lines of the target's code that ran.
        rng: of every random number.
        size_of_y: the largest entry of y at the given arrays.
    """

    subject: Subject
    dy: tuple[Array, ...]
    settings: Settings
    oracle: Oracle
    oracles: Oracles
    shapes: Shapes
    batches: tuple[Batch, ...]
    variants: tuple[tuple[str, Subject], ...]
    lines: Lines
    rng: np.random.Generator
    size_of_y: float

    @property
    def watch(self) -> Watch:
        return self.settings.watch

    @property
    def batch(self) -> Batch | None:
        return next(iter(self.batches), None)

    @property
    def numerical(self) -> bool:
        """Whether the oracle is one of differences."""
        return isinstance(self.oracle, NumericalOracle)

    @property
    def is_large(self) -> bool:
        """Whether each run of the target takes long."""
        return self.subject.is_large

    @property
    def takes_long(self) -> bool:
        """Whether each run takes so long that compiling another size is worth it."""
        return sum(a.size for a in self.subject.args.values()) > LONGER

    @property
    def may_grow(self) -> bool:
        """Whether larger arrays than given cost little more."""
        if self.is_large:
            return False
        oracle = self.oracle
        if not isinstance(oracle, JaxOracle):
            return True
        return not oracle.is_slow if oracle.eager else not is_long(oracle.program(self.subject.args))

    def draw(self, subject: Subject) -> tuple[Array, ...] | None:
        """Return a random cotangent for a subject; None where its forward pass raises."""
        try:
            return cotangent(self.shapes.of(subject, subject.args), self.rng)
        except Exception:
            return None

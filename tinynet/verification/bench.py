"""What a judgement works with: the subject, its oracles, and what was found out about its shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import Array, Oracle, Subject
from tinynet.verification.examples import Batch, Shapes, cotangent, find_batches
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


@dataclass(frozen=True)
class Bench:
    """What a judgement works with, and nothing of what it has seen.

    Attributes:
        subject: the target with the arrays that are given, dy: a cotangent there.
        settings: what was asked for.
        oracle: of the subject.
        lines: the lines of the target's code that ran.
        rng: of every random number.
        size_of_y: the largest entry of y at the given arrays.
        shapes: the outputs by the shapes of the arrays.
    """

    subject: Subject
    dy: tuple[Array, ...]
    settings: Settings
    oracle: Oracle
    lines: Lines
    rng: np.random.Generator
    size_of_y: float
    shapes: Shapes
    _oracles: dict[int, Oracle] = field(default_factory=dict)

    def oracle_of(self, subject: Subject) -> Oracle:
        """Return the oracle of the same target, be it in other widths; each is made once.

        Raises:
            Exception: whatever the target raises.
        """
        if subject.start is self.subject.start or subject.pure is self.subject.pure:
            return self.oracle
        if id(subject.pure) not in self._oracles:
            dy = cotangent(self.shapes.of(subject, subject.args), np.random.default_rng(0))
            self._oracles[id(subject.pure)] = find_oracle(subject, self.watch, dy)
        return self._oracles[id(subject.pure)]

    @cached_property
    def batches(self) -> Sequence[Batch]:
        """Where the samples are, the likeliest first; none where their number is not free."""
        try:
            return find_batches(self.subject, self.shapes)
        except Exception:
            return ()

    @cached_property
    def variants(self) -> Sequence[tuple[str, Subject]]:
        """The target in other widths, by label."""
        try:
            return () if self.numerical else self.subject.variants(self.rng)
        except Exception:
            return ()

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

"""Wrong gradients seen from a few directions: what rejects most mistakes by a scalar product instead of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinynet.verification.diagnosis.primitives import Array
from tinynet.verification.diagnosis.tape import Key, Passing, Site, Tape


@dataclass
class Look:
    """Wrong gradients seen from a few random directions v: one number each, ⟨v, ∂E/∂x⟩.

    What passes back into a slot s reaches the gradients by J_sᵀ, J_s = ∂s/∂x, so a change δ of it changes that number
    by ⟨v, J_sᵀ δ⟩ = ⟨J_s v, δ⟩. J_s v is by how much s moves as x does, for all slots found in one run of the tape
    forward.

    Attributes:
        entries: how many entries of the gradients are seen.
        off: what the target's gradients are off by, one number a direction.
        moves: for each direction J_s v by slot.
    """

    tape: Tape
    entries: int
    off: tuple[float, ...]
    moves: tuple[Mapping[int, Array], ...]
    _apart: dict[Key, bool] = field(default_factory=dict)
    _known: dict[Key, tuple[Array, Array]] = field(default_factory=dict)

    @staticmethod
    def of(
        tape: Tape, exact: Mapping[str, Array], off: Mapping[str, Array], seen: Mapping[str, Array] | None = None
    ) -> Look:
        """Look at what some gradients are off by, where `seen`."""
        rng = np.random.default_rng(0)
        numbers, moves = [], []
        for _ in range(3):
            sizes = {n: float(np.max(np.abs(exact[n]), initial=0.0)) or 1.0 for n in off}
            along = {n: rng.standard_normal(exact[n].shape) / sizes[n] for n in off}
            along = {n: a * seen[n] for n, a in along.items()} if seen else along
            numbers.append(sum(float(np.vdot(off[n], a)) for n, a in along.items()))
            moves.append(tape.moved({tape.inputs[n]: a for n, a in along.items()}))
        entries = sum(int(a.sum()) if seen else a.size for a in (seen or off).values())
        return Look(tape, entries, tuple(numbers), tuple(moves))

    def apart(self, site: Site) -> bool:
        """Return whether none of the edges of a site passes on to another of them."""
        if site.key not in self._apart:
            self._apart[site.key] = len(site.edges) == 1 or self.tape.apart(site)
        return self._apart[site.key]

    def along(self, passings: Sequence[Passing]) -> list[list[Array]]:
        """Return for each direction by how much the slots move into which these pass."""
        return [
            [moves[p.into] if p.into in moves else np.zeros(p.right.shape) for p in passings] for moves in self.moves
        ]

    def multiple(self, passings: Sequence[Passing], terms: Sequence[Array | None]) -> float | None:
        """Return by which multiple of these terms, in place of the right ones, the gradients look as they do.

        None if no multiple does; NaN if that cannot be seen.
        """
        if any(t is not None and np.shape(t) != p.right.shape for t, p in zip(terms, passings, strict=True)):
            return math.nan
        parts = [
            sum(float(np.vdot(m, t)) for m, t in zip(move, terms, strict=True) if t is not None)
            for move in self.along(passings)
        ]
        r, size = (a.ravel().tolist() for a in self._aims(passings))
        length = sum(m * m for m in parts)
        for c in (1.0, sum(m * n for m, n in zip(parts, r, strict=True)) / length if length else 0.0):
            if c and all(abs(c * m - n) <= 1e-6 * a for m, n, a in zip(parts, r, size, strict=True)):
                return c
        return None

    def multiples(
        self, parts: Sequence[Array], passings: Sequence[Passing], only_one: bool = False
    ) -> Iterator[tuple[int, int, float]]:
        """Yield the entries of matrices, one a direction, of which a multiple is seen, and that multiple."""
        r, size = self._aims(passings)
        m = np.stack(parts)
        with np.errstate(all="ignore"):
            exactly = np.all(np.abs(m - r) <= 1e-6 * size, axis=0)
            c = np.sum(m * r, axis=0) / np.sum(m * m, axis=0)
            some = np.all(np.abs(c * m - r) <= 1e-6 * size, axis=0) & (np.abs(c) > 1e-6) & np.isfinite(c)
        for i, j in np.argwhere(exactly if only_one else exactly | some):
            yield int(i), int(j), 1.0 if exactly[i, j] else float(c[i, j])

    def _aims(self, passings: Sequence[Passing]) -> tuple[Array, Array]:
        """Return what the terms that pass must give in each direction, and the size of what is right there."""
        key = passings[0].site.key
        if key not in self._known:
            rights, sizes = [], []
            for off, move in zip(self.off, self.along(passings), strict=True):
                terms = [m * p.right for m, p in zip(move, passings, strict=True)]
                rights.append(off + sum(float(t.sum()) for t in terms))
                sizes.append(abs(off) + sum(float(np.abs(t).sum()) for t in terms))
            self._known[key] = np.array(rights)[:, None, None], np.array(sizes)[:, None, None]
        return self._known[key]

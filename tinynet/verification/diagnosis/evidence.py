"""What `diagnose` is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinynet.verification.diagnosis.primitives import Array
from tinynet.verification.diagnosis.source import Line
from tinynet.verification.tolerance import bound, distance


@dataclass(frozen=True)
class Wrong:
    """One run of the target: what it returned beside what is exact. A run in which all was right has an empty `wrong`.

    Attributes:
        forward: from every array by its path name to the arrays of y; pure, traceable by `jax.make_jaxpr` in 64 bits.
        args: every array by path name: "x", "params.W", …
        wrt: the names of those that are differentiated.
        dy: one array for each of y.
        got, exact: the gradients, as the target returned them and as they are; got may have another shape.
        tolerance: how far apart these may be.
        sizes, constants: what a factor may be made of: "m", "n_in", … and numbers of the target's configuration.
    """

    forward: Callable[[Mapping[str, Array]], tuple[Array, ...]] | None
    args: Mapping[str, Array]
    wrt: tuple[str, ...]
    dy: tuple[Array, ...]
    got: Mapping[str, Array]
    exact: Mapping[str, Array]
    tolerance: Mapping[str, float]
    wrong: frozenset[str]
    sizes: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)

    def reproduces(self, name: str, predicted: Array) -> bool:
        """Return whether the target's array is the predicted one, within the tolerance."""
        got = np.asarray(self.got[name])
        if got.shape != np.shape(predicted) or got.dtype.kind not in "fiu" or not np.isfinite(predicted).all():
            return False
        allowed = max(2 * self.tolerance[name], bound(np.asarray(predicted, np.float64), depth=2))
        return bool(distance(got.astype(np.float64), np.asarray(predicted)) <= allowed)


@dataclass(frozen=True)
class Spoilt:
    """What a mistake makes of the cotangents of one run, whether they are kept or returned.

    Attributes:
        run: the run.
        pairs: of each cotangent that it changes, what it is then and what is exact, in the order in which a backward
            comes to the steps of a loop; first of what passes the edges where the mistake is.
    """

    run: Wrong
    pairs: tuple[tuple[Sequence[Array], Sequence[Array]], ...]


@dataclass(frozen=True)
class Diagnosis:
    """A fault and the gradients that it explains.

    Attributes:
        gradients: the wrong ones among those of `Wrong.wrt`.
        fault: a key of `tinynet.faults.FAULTS`.
        factor: of "scaled": "2", "1/m", "1/√d", …; else "".
        sentence: what is wrong, with the forward's own text.
        at: the statement of the forward at whose edge the mistake is.
        spoilt: what the mistake makes of the cotangents, by which the statement that makes it is found.
    """

    gradients: tuple[str, ...]
    fault: str
    factor: str
    sentence: str
    at: Line = Line()  # noqa: RUF009 - an immutable value
    spoilt: Spoilt | None = None

    @property
    def text(self) -> str:
        """The source of that statement."""
        return self.at.text()

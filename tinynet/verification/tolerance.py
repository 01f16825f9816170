"""How far a gradient is from the exact one, and how far it may be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["UNIT", "K", "ulps"]

K = 32
"""How many units a correct layer may be off: it rounds a few times for each entry, and sums in another order."""

UNIT = 2.0**-52
"""The spacing of float64 at 1."""


def ulps(got: npt.ArrayLike, exact: npt.ArrayLike) -> float:
    """Return max|got − exact| in units of 2⁻⁵² · max|exact|.

    The scale is the tensor's, not the entry's: a correct entry that is small because large terms cancel in its sum has
    no small relative error, and none can be asked of it.
    """
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    if got.size == 0:
        return 0.0
    worst, scale = np.max(np.abs(got - exact)), np.max(np.abs(exact))
    return float(worst / (UNIT * scale)) if worst else 0.0

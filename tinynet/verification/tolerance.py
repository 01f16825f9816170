"""One rule for how far a gradient may be from the exact one.

    |mine − exact| ≤ K · max(u · max|exact|, spread)

u is the spacing of the number type at 1, `spread` how far the exact gradient itself moves when its inputs move by one
unit in their last place (and, for float32, how far the oracle in float32 is from the oracle in float64). The scale is
the tensor's, not the entry's: a correct entry that is small because large terms cancel in its sum has no small relative
error, and none can be asked of it. There is no absolute tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RULE", "UNIT", "K", "bound", "distance", "ulps", "unit_of"]

K = 32
"""How many units a correct layer may be off: it rounds a few times for each entry, and sums in another order."""

UNIT = 2.0**-52
"""The spacing of float64 at 1."""

RULE = f"|mine − exact| ≤ {K} · max(u · max|exact|, spread of the exact gradient when its inputs move by ±1 ulp)"


def unit_of(dtype: Any) -> float:
    """Return the spacing of a floating-point type at 1."""
    return float(np.finfo(dtype).eps)


def bound(exact: npt.NDArray[Any], *, unit: float = UNIT, spread: float = 0.0, depth: int = 1) -> float:
    """Return the largest difference that the rule allows, for a gradient that `depth` layers contribute rounding to."""
    return K * depth * max(unit * float(np.max(np.abs(exact), initial=0.0)), spread)


def distance(got: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """Return max|got − exact|; infinite where one is not finite and the other is another thing."""
    if got.size == 0:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(got == exact, 0.0, np.abs(got - exact))
    worst = float(np.max(difference))
    return worst if worst == worst else float("inf")


def ulps(got: npt.ArrayLike, exact: npt.ArrayLike) -> float:
    """Return max|got − exact| in units of 2⁻⁵² · max|exact|."""
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    worst = distance(got, exact)
    return worst / (UNIT * float(np.max(np.abs(exact)))) if worst else 0.0

"""One rule for how far a gradient may be from the exact one, and every number that the verifier decides by.

    |mine − exact| ≤ K · depth · max(u · max|exact|, spread)

u is the spacing of the number type at 1, depth the number of layers of a Sequential, `spread` how far the exact
gradient moves when its inputs move by one unit in their last place and when it is computed with rounding. The scale is
the tensor's, not the entry's: a correct entry that is small because large terms cancel in its sum has no small relative
error, and none can be asked of it. There is no absolute tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

K = 32
"""How many units a correct layer may be off: it rounds a few times for each entry, and sums in another order."""

UNIT = 2.0**-52
"""The spacing of float64 at 1."""

CHOICE = 1e-6
"""How near, relative to the largest entry, values must be to decide how an ambiguous form is read."""

SLOPE = 1e-5
"""At a kink: how near to the slopes on both sides the gradient along a direction must be, relative to them; what
changes by more from one side to the other, relative to its largest entry, is tied."""

STEP = 1e-7
"""At a kink: how far to its sides the slopes are taken, relative to the data."""

JUMP = 1e-3
"""A gradient that moves by more than this under rounding, relative to its largest entry, may have jumped at a tie."""

CANCELLED = 2.0**-40
"""An exact gradient below this, relative to the terms that cancel in it, is zero but for rounding."""

ROUNDS_AWAY = 2.0**-20
"""An error this small beside that of the same call in float32 is rounding: a wrong formula is as wrong in both."""

ROUNDS_ALIKE = 2.0**32
"""An error in float32 is rounding up to this many times that of the same call in float64, whose spacing is 2⁻²⁹."""

ROUNDED = 2.0**16
"""Beyond so many units of the numbers that go in, an error is no rounding of the target's own operations."""

LOST = 2.0**20
"""An output has lost its digits if it moves by more units than this when each operation is off by one."""

LOOSER = 100.0
"""How many times farther off the derivative may be of what a loop ends with when it is close enough."""

COARSEST = 1e-3
"""A derivative that is known no better than this, relative to its largest entry, judges nothing."""

PATIENCE = 60.0
"""How many seconds differences may take in all where each call of the target is slow to follow back."""

SATURATES = (1.0, 0.8, 0.65, 0.5)
"""At which shares of the inputs rounding is compared between number types, one of which saturates before the other."""

ONE_HOT = 32
"""How many outputs are looked at one by one at a kink."""

ROUNDINGS = 6
"""How many times the inputs are moved by one unit in their last place to see the spread."""

HANG_SECONDS = 8.0
"""How long one call of the target may take; a finding follows within two seconds more."""

LONG = 500
"""Beyond this many primitives a program is a loop written out, which grows with its arrays."""

LONG_AS_IT_RUNS = 100
"""The same, where each primitive is called from Python again at every example."""

LARGE = 1 << 16
"""Beyond this many numbers in the arrays, shapes are varied on small inputs and the rest is tried at few values."""

LONGER = 1 << 19
"""Beyond this many numbers, most values are tried on shorter axes."""

RULE = (
    f"|mine − exact| ≤ {K} · {{depth}}max(u · max|exact|, spread of the exact gradient when its inputs move by ±1 ulp)"
)


def rule(depth: int) -> str:
    """Return the rule as it is applied to a chain of `depth` layers."""
    return RULE.format(depth=f"{depth} layers · " if depth > 1 else "")


def unit_of(dtype: Any) -> float:
    """Return the spacing of a floating-point type at 1."""
    return float(np.finfo(dtype).eps)


def largest(a: npt.NDArray[Any]) -> float:
    """Return the size of the largest entry, 0 of none."""
    return float(np.max(np.abs(a), initial=0.0))


def bound(exact: npt.NDArray[Any], *, unit: float = UNIT, spread: float = 0.0, depth: int = 1) -> float:
    """Return the largest difference that the rule allows, for a gradient that `depth` layers contribute rounding to."""
    return K * depth * max(unit * largest(exact), spread)


def distance(got: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """Return max|got − exact|; infinite where one is not finite and the other is another thing."""
    if got.size == 0:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(got == exact, 0.0, np.abs(got - exact))
    worst = float(np.max(difference))
    return worst if worst == worst else float("inf")

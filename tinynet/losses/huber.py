"""The loss that outliers pull on with bounded force."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, namespace
from tinynet.checks import check_floating, check_positive, check_same_shape
from tinynet.losses.loss import Loss, Reduction


@dataclass(frozen=True, init=False)
class Huber(Loss):
    """Half the squared error near the target, linear beyond δ: E = Σ_i Σ_k h(ŷ_ik − y_ik).

    Args:
        delta: δ > 0, where the square turns into a line.
        reduction: "sum" over the samples, or "mean".

    Shapes:
        ŷ and y (..., K), equal; every leading axis counts samples, m of them; E is a scalar.

    Derivation, with c = r clipped to [−δ, δ]:
        h(r) = ½ r² for |r| ≤ δ, δ (|r| − ½ δ) beyond; both are c (r − ½ c)
        h′(r) = r for |r| ≤ δ, δ sign(r) beyond; both are c
    With reduction="mean" both are divided by m, as in (17).

    Source: P. J. Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35 (1964).

    Raises:
        ValueError: delta is not positive; reduction is neither; ŷ and y differ in shape; the mean over no samples.
        TypeError: delta is not a number; ŷ or y is not a floating-point array.
    """

    delta: float = 1.0

    def __init__(self, delta: float = 1.0, reduction: Reduction = "sum") -> None:
        object.__setattr__(self, "reduction", reduction)
        super().__post_init__()
        object.__setattr__(self, "delta", check_positive("Huber", "delta", delta))

    def check(self, y_hat: Array, y: Array) -> None:
        check_floating(self, "y_hat", y_hat)
        check_same_shape(self, "y", y, y_hat.shape, "y_hat")

    def forward(self, y_hat: Array, y: Array) -> tuple[Array, Array]:
        self.check(y_hat, y)
        r = y_hat - y
        c = namespace(r).clip(r, -self.delta, self.delta)
        E = (c * (r - 0.5 * c)).sum()
        E *= self.scale(c)
        return E, c

    def backward(self, c: Array, dE: Array | float = 1.0) -> Array:
        return c * (dE * self.scale(c))

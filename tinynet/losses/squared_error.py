"""The document's loss, equation (4)."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, namespace
from tinynet.checks import check_floating, check_same_shape
from tinynet.losses.loss import Loss


@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared error, E = ½ Σ_i Σ_k (ŷ_ik − y_ik)², over the samples i and the outputs k.

    Shapes:
        ŷ and y (..., K), equal; every leading axis counts samples, m of them; E is a scalar.

    Derivation:
        E_i = ½ Σ_k (ŷ_ik − y_ik)²                                  (4), which is half of (3)
        ∂E/∂ŷ_ik = ŷ_ik − y_ik                                      the first factor of (7), and of (21)
    With reduction="mean" both are divided by m, the mini-batch gradient of (17); the outputs are always summed.

    Source: equations (3), (4), (7), (17), (21).

    Raises:
        ValueError: reduction is neither; ŷ and y differ in shape; the mean over no samples is asked for.
        TypeError: ŷ or y is not a floating-point array.
    """

    def check(self, y_hat: Array, y: Array) -> None:
        check_floating(self, "y_hat", y_hat)
        check_same_shape(self, "y", y, y_hat.shape, "y_hat")

    def forward(self, y_hat: Array, y: Array) -> tuple[Array, Array]:
        self.check(y_hat, y)
        r = y_hat - y
        E = namespace(r).vdot(r, r)
        E *= 0.5 * self.scale(r)  # (4), (17)
        return E, r

    def backward(self, r: Array, dE: Array | float = 1.0) -> Array:
        return r * (dE * self.scale(r))  # (7), (17), (21)

    def each(self, y_hat: Array, y: Array) -> Array:
        r = y_hat - y
        return (r * r).reshape(len(r), -1).sum(axis=1) * (0.5 * self.scale(r[:1]))  # (4)

"""Cross-entropy of yes-or-no answers, on logits."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, has_values, namespace
from tinynet.checks import check_floating, check_same_shape
from tinynet.losses.loss import Loss
from tinynet.special import expit, product


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of logits, E = −Σ_i Σ_k [y_ik log σ(z_ik) + (1 − y_ik) log σ(−z_ik)].

    The network's output ŷ is the logits z; its probabilities are σ(z), so the last layer is affine.

    Shapes:
        z (the argument y_hat) and y (..., K), equal; every leading axis counts samples, m of them; E is a scalar.
        y holds probabilities, 0 ≤ y ≤ 1.

    Derivation. As −log σ(z) = log(1 + e^−z) = max(−z, 0) + log(1 + e^−|z|), and that for −z,
        E_ik = (1 − y) max(z, 0) + y max(−z, 0) + log(1 + e^−|z|)
    in which nothing overflows and nothing cancels. As σ′(z) = σ(z) σ(−z) by (2),
        ∂E/∂z_ik = −y σ(−z) + (1 − y) σ(z), which is σ(z) − y but keeps its digits where σ(z) is near y
    With reduction="mean" both are divided by m, as in (17).

    Source: C. M. Bishop, Pattern Recognition and Machine Learning, 2006, equations (4.90), (4.91).

    Raises:
        ValueError: reduction is neither; z and y differ in shape; y is not from 0 to 1; the mean over no samples.
        TypeError: z or y is not a floating-point array.
    """

    def check(self, y_hat: Array, y: Array) -> None:
        check_floating(self, "y_hat", y_hat)
        check_same_shape(self, "y", y, y_hat.shape, "y_hat")
        if has_values(y) and y.size and not 0 <= y.min() <= y.max() <= 1:
            hint = "; use (y + 1) / 2" if abs(y).max() <= 1 else ""
            raise ValueError(f"{self}: y has values from {y.min():g} to {y.max():g}; expected 0 to 1{hint}")

    def forward(self, z: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
        self.check(z, y)
        xp = namespace(z)
        linear = product(1 - y, xp.maximum(z, 0)) + product(y, xp.maximum(-z, 0))
        E = (linear + xp.log1p(xp.exp(xp.minimum(z, -z)))).sum()
        E *= self.scale(z)
        return E, (z, y)

    def backward(self, cache: tuple[Array, Array], dE: Array | float = 1.0) -> Array:
        z, y = cache
        return ((1 - y) * expit(z) - y * expit(-z)) * (dE * self.scale(z))

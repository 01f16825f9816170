"""Cross-entropy of one answer out of K, on logits."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, namespace
from tinynet.checks import check_last_axis, check_same_shape
from tinynet.losses.loss import Loss


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of logits, E = −Σ_i Σ_k y_ik log p_ik, p = softmax(z) of each sample.

    The network's output ŷ is the logits z, so the last layer is affine.

    Shapes:
        z (the argument y_hat) and y (..., K), equal; every leading axis counts samples, m of them; E is a scalar.
        Each y is one-hot, or any distribution over the K classes.

    Derivation, for one sample, with u_k = z_k − max_j z_j, which leaves p unchanged and keeps e^u from overflowing:
        log p_k = u_k − log Σ_j e^{u_j}
        E = (Σ_k y_k) log Σ_j e^{u_j} − Σ_k y_k u_k
        ∂E/∂z_k = (Σ_j y_j) p_k − y_k, which is p_k − y_k as Σ_j y_j = 1
    With reduction="mean" both are divided by m, as in (17).

    Source: C. M. Bishop, Pattern Recognition and Machine Learning, 2006, equations (4.108), (4.109).

    Raises:
        ValueError: reduction is neither; z and y differ in shape; there is no class; the mean over no samples.
        TypeError: z or y is not a floating-point array.
    """

    def check(self, y_hat: Array, y: Array) -> None:
        check_last_axis(self, "y_hat", y_hat)
        check_same_shape(self, "y", y, y_hat.shape, "y_hat")

    def forward(self, z: Array, y: Array) -> tuple[Array, Array]:
        self.check(z, y)
        xp = namespace(z)
        u = z - z.max(axis=-1, keepdims=True)
        p = xp.exp(u)
        total = p.sum(axis=-1, keepdims=True)
        p /= total
        E = (y * (xp.log(total) - u)).sum()
        E *= self.scale(z)
        return E, y.sum(axis=-1, keepdims=True) * p - y

    def backward(self, r: Array, dE: Array | float = 1.0) -> Array:
        return r * (dE * self.scale(r))

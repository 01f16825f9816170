"""The softmax of each sample."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, Params, namespace, owned_copy
from tinynet.checks import check_last_axis, check_same_shape
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Softmax(Layer, samplewise=True):
    """Softmax a_k = e^{z_k} / Σ_j e^{z_j} over the last axis: K numbers become probabilities.

    Shapes:
        z (the input x), a (the output, a copy of it the cache) and δ are (..., K); every leading axis counts samples.

    Derivation:
        a does not change when all z_k move together, so max_j z_j is subtracted first: no exponential overflows.
        ∂a_k/∂z_j = a_k (1[k = j] − a_j)
        δ_j = ∂E/∂z_j = Σ_k ∂E/∂a_k · ∂a_k/∂z_j = a_j · (∂E/∂a_j − Σ_k ∂E/∂a_k a_k)
    In front of a cross-entropy loss use `SoftmaxCrossEntropy` on z instead: log a_k loses its digits where a_k is
    near 0.

    Source: J. S. Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990.
    Range of a: [0, 1], Σ_k a_k = 1.

    Raises:
        TypeError, ValueError: x is not floating or its last axis is empty; da has another shape than a.
    """

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_last_axis(self, "x", z)
        a = namespace(z).exp(z - z.max(axis=-1, keepdims=True))
        a /= a.sum(axis=-1, keepdims=True)
        return a, owned_copy(a)

    def backward(self, params: Params, a: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, a.shape, "the output")
        return a * (da - (da * a).sum(axis=-1, keepdims=True)), {}

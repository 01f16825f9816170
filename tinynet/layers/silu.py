"""The sigmoid-weighted linear unit."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, Params
from tinynet.checks import check_floating, check_same_shape
from tinynet.layers.layer import Layer
from tinynet.special import expit


@dataclass(frozen=True)
class SiLU(Layer, samplewise=True):
    """Sigmoid-weighted linear unit a = f(z) = z σ(z), entry by entry; also called swish.

    Shapes:
        z (the input x and the cache), a and δ are all of one shape.

    Derivation, with σ′(z) = σ(z) σ(−z) by (2):
        f′(z) = σ(z) + z σ′(z) = σ(z) · (1 + z σ(−z))
        δ = ∂E/∂z = ∂E/∂a ⊗ f′(z)                                                 (20)

    Source: S. Elfwing, E. Uchibe, K. Doya, Sigmoid-weighted linear units for neural network function approximation in
    reinforcement learning, Neural Networks 107 (2018). Range of a: [−0.2785, ∞).

    Raises:
        TypeError, ValueError: x is not floating; da has another shape than a.
    """

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        return z * expit(z), z

    def backward(self, params: Params, z: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, z.shape, "the output")
        return da * (expit(z) * (1 + z * expit(-z))), {}  # (20)

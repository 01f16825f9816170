"""The smooth rectifier."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, Params, namespace
from tinynet.checks import check_floating, check_same_shape
from tinynet.layers.layer import Layer
from tinynet.special import expit


@dataclass(frozen=True)
class Softplus(Layer, samplewise=True):
    """Softplus a = f(z) = log(1 + e^z), entry by entry: a ReLU without the kink.

    Shapes:
        z (the input x and the cache), a and δ are all of one shape.

    Derivation:
        f(z) = max(z, 0) + log(1 + e^−|z|), which cannot overflow; −|z| is written min(z, −z), whose slope at 0
               `jax.grad` takes as 0, the mean of both sides
        f′(z) = e^z / (1 + e^z) = σ(z)
        δ = ∂E/∂z = ∂E/∂a ⊗ f′(z)                                                 (20)

    Source: C. Dugas et al., Incorporating second-order functional knowledge for better option pricing, NIPS 2000.
    Range of a: [0, ∞).

    Raises:
        TypeError, ValueError: x is not floating; da has another shape than a.
    """

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        xp = namespace(z)
        return xp.maximum(z, 0) + xp.log1p(xp.exp(xp.minimum(z, -z))), z

    def backward(self, params: Params, z: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, z.shape, "the output")
        return da * expit(z), {}  # (20)

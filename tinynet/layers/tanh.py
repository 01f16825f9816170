"""The hyperbolic tangent."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, Params, namespace
from tinynet.checks import check_floating, check_same_shape
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Tanh(Layer, samplewise=True):
    """Hyperbolic tangent a = f(z) = (e^z − e^−z) / (e^z + e^−z), entry by entry.

    Shapes:
        z (the input x), a, δ and the cached f′(z) are all of one shape.

    Derivation, with e = e^−2|z|:
        f(z) = sign(z) · (1 − e) / (1 + e)
        f′(z) = 1 − f(z)² = 4e / (1 + e)²
        δ = ∂E/∂z = ∂E/∂a ⊗ f′(z)                                                 (20)
    1 − f(z)² would cancel where the unit is saturated, 4e / (1 + e)² does not. 1 − e would cancel near 0, so there f
    is the library's tanh; from |z| = 1 on it is the quotient, whose derivative keeps its digits too.

    Source: Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, Efficient BackProp, 1998, §4.4. Range of a: [−1, 1].

    Raises:
        TypeError, ValueError: x is not floating; da has another shape than a.
    """

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        xp = namespace(z)
        e = xp.exp(2 * xp.minimum(z, -z))
        d = 1 + e
        a = xp.where(abs(z) < 1, xp.tanh(z), xp.sign(z) * (1 - e) / d)
        return a, 4 * e / (d * d)

    def backward(self, params: Params, df: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, df.shape, "the output")
        return da * df, {}  # (20)

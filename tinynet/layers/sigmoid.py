"""Activations: layers without parameters that act on each entry."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, Params, namespace
from tinynet.checks import check_floating, check_same_shape
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Sigmoid(Layer, samplewise=True):
    """Logistic sigmoid a = f(z) = 1 / (1 + e^−z), entry by entry.

    Shapes:
        z (the input x), a, δ and the cached f′(z) are all of one shape.

    Derivation:
        f(z) = 1 / (1 + e^−z)                                                     (1)
        f′(z) = e^−z / (1 + e^−z)² = f(z) · (1 − f(z)) = f(z) · f(−z)             (2)
        δ = ∂E/∂z = ∂E/∂a ⊗ f′(z)                                                 (20)
    Neither is computed as printed. With e = e^−|z| ≤ 1, which cannot overflow,
        f(z) = e^min(z, 0) / (1 + e),        f′(z) = e / (1 + e)²,
    and f′ keeps every digit where the unit is saturated and 1 − f(z) would cancel. −|z| is written min(z, −z), whose
    slope at 0 `jax.grad` takes as 0, the mean of both sides.

    Source: equations (1), (2), (19), (20). Range of a: [0, 1]; exactly 0 and 1 in the limits.

    Raises:
        TypeError, ValueError: x is not floating; da has another shape than a.
    """

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        xp = namespace(z)
        e = xp.exp(xp.minimum(z, -z))
        d = 1 + e
        a = xp.exp(xp.minimum(z, 0))
        a /= d  # (1), (19)
        e /= d
        e /= d  # (2)
        return a, e

    def backward(self, params: Params, df: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, df.shape, "the output")
        return da * df, {}  # (20)

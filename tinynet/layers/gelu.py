"""The Gaussian error linear unit, exact and with its tanh approximation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tinynet.arrays import Array, Params, namespace, widened
from tinynet.checks import check_choice, check_floating, check_same_shape
from tinynet.layers.layer import Layer
from tinynet.special import expit, normal

_C = math.sqrt(8 / math.pi)


@dataclass(frozen=True)
class GELU(Layer, samplewise=True):
    """Gaussian error linear unit a = f(z) = z Φ(z), entry by entry, Φ the normal distribution function.

    Args:
        approximate: "none" for f itself; "tanh" for f̃(z) = ½ z (1 + tanh(√(2/π) (z + 0.044715 z³))).

    Shapes:
        z (the input x), a, δ and the cached f′(z) are all of one shape.

    Derivation. As Φ′ = φ, the normal density,
        f′(z) = Φ(z) + z φ(z)
    As ½ (1 + tanh u) = σ(2u), f̃(z) = z σ(v) with v = √(8/π) (z + 0.044715 z³), and by (2)
        f̃′(z) = σ(v) + z σ(v) σ(−v) v′ = σ(v) · (1 + z v′ σ(−v)),    v′ = √(8/π) (1 + 3 · 0.044715 z²)
    From |z| = 40 on σ(±v) is 0 or 1 in every dtype, so v is taken at z cut off there, where no power of z overflows.
        δ = ∂E/∂z = ∂E/∂a ⊗ f′(z)                                                 (20)

    Source: D. Hendrycks, K. Gimpel, Gaussian error linear units (GELUs), 2016. Range of a: [−0.17, ∞).

    Raises:
        ValueError: approximate is neither; da has another shape than a.
        TypeError: x or da is not floating.
    """

    approximate: Literal["none", "tanh"] = "none"

    def __post_init__(self) -> None:
        check_choice("GELU", "approximate", self.approximate, ("none", "tanh"))

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        wide = widened(z)
        share, slope = self._share_and_slope(wide)
        return (wide * share).astype(z.dtype, copy=False), slope

    def backward(self, params: Params, df: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, df.shape, "the output")
        return (da * df).astype(da.dtype, copy=False), {}  # (20)

    def _share_and_slope(self, z: Array) -> tuple[Array, Array]:
        """Return f(z) / z and f′(z)."""
        if self.approximate == "none":
            Φ, φ = normal(z)
            return Φ, Φ + z * φ
        v, c = _v(z), _cut_off(z)
        dv = _C * (1 + 3 * 0.044715 * c * c)
        σ = expit(v)
        return σ, σ * (1 + c * dv * expit(-v))


def _v(z: Array) -> Array:
    z = _cut_off(z)
    return _C * z * (1 + 0.044715 * z * z)


def _cut_off(z: Array) -> Array:
    return namespace(z).clip(z, -40, 40)

"""Rectified linear units."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, Params, namespace
from tinynet.checks import check_floating, check_number, check_same_shape
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class ReLU(Layer, samplewise=True):
    """Rectified linear unit a = f(z) = max(z, 0), entry by entry.

    Shapes:
        z (the input x), a, δ and the cached "z > 0" are all of one shape.

    Derivation:
        f′(z) = 1 for z > 0, 0 for z < 0
        δ = ∂E/∂z = ∂E/∂a ⊗ f′(z)                                                 (20)
    At z = 0, where the slopes from the two sides are 0 and 1, f′ is 0 by convention, as in jax.nn.relu and torch.

    Source: V. Nair, G. E. Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010.

    Raises:
        TypeError, ValueError: x is not floating; da has another shape than a.
    """

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        return namespace(z).where(z <= 0, 0, z), z > 0

    def backward(self, params: Params, positive: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, positive.shape, "the output")
        return da * positive, {}  # (20)


@dataclass(frozen=True)
class LeakyReLU(Layer, samplewise=True):
    """Leaky rectified linear unit a = f(z) = z for z > 0, s z for z ≤ 0, entry by entry.

    Args:
        slope: s, any finite number.

    Shapes:
        z (the input x), a, δ and the cached "z > 0" are all of one shape.

    Derivation:
        f′(z) = 1 for z > 0, s for z < 0
        δ = ∂E/∂z = ∂E/∂a ⊗ f′(z)                                                 (20)
    At z = 0, where the slopes from the two sides are s and 1, f′ is s by convention, as in torch.

    Source: A. L. Maas, A. Y. Hannun, A. Y. Ng, Rectifier nonlinearities improve neural network acoustic models, ICML
    2013.

    Raises:
        TypeError, ValueError: slope is not a finite number; x is not floating; da has another shape than a.
    """

    slope: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", check_number("LeakyReLU", "slope", self.slope))

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        return namespace(z).where(z <= 0, self.slope * z, z), z > 0

    def backward(self, params: Params, positive: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, positive.shape, "the output")
        return namespace(da).where(positive, da, self.slope * da), {}  # (20)

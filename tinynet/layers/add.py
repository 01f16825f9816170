"""Several layers on one input, added."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array
from tinynet.checks import check_same_shape
from tinynet.layers.branches import Branches, total


@dataclass(frozen=True, init=False, repr=False)
class Add(Branches):
    """The sum of what several layers make of one input, y = Σ_k f_k(x).

    Shapes:
        x is whatever all layers take; their outputs and y are of one shape.

    Derivation. ∂E/∂f_k = ∂E/∂y for every k; the rest is that of `Branches`.

    Source: the definition; with `Sequential()`, the identity, as one of two branches it is `Residual`.

    Raises:
        TypeError, ValueError: an argument is not a Layer, or there is none; the outputs differ in shape.
    """

    def join(self, outputs: tuple[Array, ...]) -> Array:
        for k, y in enumerate(outputs):
            check_same_shape(self, f"the output of layer {k}", y, outputs[0].shape, "layer 0")
        return total(*outputs)

    def shares(self, dy: Array, outputs: tuple[Array, ...]) -> list[Array]:
        check_same_shape(self, "dy", dy, outputs[0].shape, "the output")
        return [dy] * len(outputs)

"""Each sample as one row."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinynet.arrays import Array, Params, owned_copy
from tinynet.checks import check_floating, check_same_shape
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Flatten(Layer, samplewise=True):
    """The entries of each sample as one row, in their order.

    Shapes:
        a (the input x) (m, …), y (m, n) with n entries per sample.

    Derivation. Each y is one a, so ∂E/∂a is ∂E/∂y in the shape of a. Both are copies: a layer hands out no memory that
    it was handed.

    Source: the definition.

    Raises:
        TypeError, ValueError: x is not floating or has no axis; dy has another shape than y.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        check_floating(self, "x", x)
        if x.ndim == 0:
            raise ValueError(f"{self}: x has shape (); expected (m, …), one row per sample")
        return owned_copy(x.reshape(len(x), math.prod(x.shape[1:]))), x

    def backward(self, params: Params, x: Array, dy: Array) -> tuple[Array, Params]:
        check_same_shape(self, "dy", dy, (len(x), math.prod(x.shape[1:])), "the output")
        return owned_copy(dy.reshape(x.shape)), {}

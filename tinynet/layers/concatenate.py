"""Several layers on one input, side by side."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tinynet.arrays import Array, namespace
from tinynet.checks import check_same_shape
from tinynet.layers.branches import Branches


@dataclass(frozen=True, init=False, repr=False)
class Concatenate(Branches):
    """What several layers make of one input, side by side: y = (f_1(x), …, f_K(x)) along the last axis.

    Shapes:
        x is whatever all layers take; their outputs are (..., n_k) and y is (..., Σ n_k).

    Derivation. ∂E/∂f_k is the slice of ∂E/∂y that f_k filled; the rest is that of `Branches`.

    Source: the definition; C. Szegedy et al., Going deeper with convolutions, CVPR 2015, joins branches so.

    Raises:
        TypeError, ValueError: an argument is not a Layer, or there is none; the outputs differ in a leading axis.
    """

    def join(self, outputs: tuple[Array, ...]) -> Array:
        for k, y in enumerate(outputs):
            check_same_shape(self, f"the output of layer {k}", y, (*outputs[0].shape[:-1], y.shape[-1]), "layer 0")
        return namespace(outputs[0]).concatenate(outputs, axis=-1)

    def shares(self, dy: Array, outputs: tuple[Array, ...]) -> list[Array]:
        ends = list(itertools.accumulate(y.shape[-1] for y in outputs))
        check_same_shape(self, "dy", dy, (*outputs[0].shape[:-1], ends[-1]), "the output")
        return [dy[..., end - y.shape[-1] : end] for y, end in zip(outputs, ends, strict=True)]

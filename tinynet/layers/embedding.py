"""A table of vectors, looked up by number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, add_to_rows, namespace
from tinynet.checks import check_indices, check_param, check_same_shape, convert_ints
from tinynet.initializers import Initializer, standard_normal
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Embedding(Layer, samplewise=True):
    """Look up row x of a table: y = W_x.

    Args:
        n_in: rows of the table, so 0 ≤ x < n_in.
        n_out: entries of a row.
        initializer: draws W, a keyword.

    Shapes:
        x (...) integers, W (n_in, n_out), y (..., n_out).

    Derivation. y = Wᵀ e_x with e_x the unit vector of x, the affine map (18) of a one-hot input, so by (23)
        ∂E/∂W_i = Σ δ over the samples with x = i
    x does not vary continuously: ∂E/∂x is 0, given as zeros of the shape of x.

    Source: Y. Bengio, R. Ducharme, P. Vincent, C. Jauvin, A neural probabilistic language model, JMLR 3 (2003).

    Raises:
        TypeError, ValueError: a size is not a positive int; x does not hold integers, or not of the range (under
            `jax.jit` an integer out of range gives NaN); W or dy has another shape.
    """

    n_in: int
    n_out: int
    initializer: Initializer = field(default=standard_normal, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        convert_ints(self, "n_in", "n_out")

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return {"W": self.initializer(rng, (self.n_in, self.n_out), dtype)}

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        check_indices(self, x, self.n_in)
        W = check_param(self, params, "W", (self.n_in, self.n_out))
        return namespace(W).take(W, x, axis=0), x

    def backward(self, params: Params, x: Array, dy: Array) -> tuple[Array, Params]:
        return namespace(dy).zeros(x.shape, dtype=dy.dtype), self.param_grads(params, x, dy)

    def param_grads(self, params: Params, x: Array, dy: Array) -> Params:
        check_same_shape(self, "dy", dy, (*x.shape, self.n_out), "the output")
        return {"W": add_to_rows(namespace(dy).zeros((self.n_in, self.n_out), dtype=dy.dtype), x, dy)}  # (23)

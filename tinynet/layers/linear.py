"""The affine map, equations (18) and (22)–(26)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, rows
from tinynet.checks import check_features, check_same_shape, convert_ints
from tinynet.initializers import Initializer, glorot_uniform
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Linear(Layer, samplewise=True):
    """Affine map z = W a + b of each sample; for a batch of rows, Z = A Wᵀ + b.

    Shapes:
        a (the input x) (..., n_in), W (n_out, n_in), b (n_out,), z (..., n_out); every leading axis counts samples.

    Derivation, with δ = ∂E/∂z of one sample:
        ∂E/∂W_ij = δ_i · ∂z_i/∂W_ij = δ_i a_j              (23), as a matrix ∂E/∂W = δ aᵀ     (24)
        ∂E/∂b_i  = δ_i · ∂z_i/∂b_i  = δ_i                  (25), as a vector ∂E/∂b = δ        (26)
        ∂E/∂a_j  = Σ_i δ_i · ∂z_i/∂a_j = Σ_i δ_i W_ij,          as a vector ∂E/∂a = Wᵀδ      in (22)
    E adds up over the samples, so the gradients of W and b, which all samples share, are sums over the rows; with
    samples as rows, δ aᵀ summed is ΔᵀA, and Wᵀδ is ΔW.

    Source: equations (18), (22)–(26). W is drawn by `initializer`, a keyword; b starts at 0.

    Raises:
        TypeError, ValueError: a width is not a positive int; x, dz or a parameter has another shape or is not floating.
    """

    n_in: int
    n_out: int
    initializer: Initializer = field(default=glorot_uniform, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        convert_ints(self, "n_in", "n_out")

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        W = self.initializer(rng, (self.n_out, self.n_in), dtype)
        return {"W": W, "b": np.zeros(self.n_out, dtype)}

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        W, b = self._params(params)
        check_features(self, x, self.n_in)
        z = x @ W.T  # (18)
        z += b  # (18)
        return z, x

    def backward(self, params: Params, a: Array, dz: Array) -> tuple[Array, Params]:
        dparams = self.param_grads(params, a, dz)
        return dz @ params["W"], dparams  # (22)

    def param_grads(self, params: Params, a: Array, dz: Array) -> Params:
        check_same_shape(self, "dz", dz, (*a.shape[:-1], self.n_out), "the output")
        A, Δ = rows(a), rows(dz)
        return {"W": Δ.T @ A, "b": Δ.sum(axis=0)}  # (23), (24); (25), (26)

    def _params(self, params: Params) -> tuple[Array, Array]:
        try:
            W, b = params["W"], params["b"]
        except (KeyError, TypeError, IndexError):
            raise ValueError(f'{self}: params is {params!r:.60}; expected a dict with "W" and "b"') from None
        if W.shape != (self.n_out, self.n_in) or b.shape != (self.n_out,):
            raise ValueError(
                f"{self}: params have W {tuple(W.shape)} and b {tuple(b.shape)}; "
                f"expected W {(self.n_out, self.n_in)} and b {(self.n_out,)}"
            )
        return W, b

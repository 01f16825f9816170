"""Normalisation of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, namespace, rows, widened
from tinynet.checks import check_features, check_param, check_positive, check_same_shape, convert_ints
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class LayerNorm(Layer, samplewise=True):
    """Normalise each sample to mean 0 and variance 1 over its features, then scale and shift: y = γ ⊗ x̂ + β.

    Args:
        n: features of a sample.
        eps: ε > 0, added to the variance.

    Shapes:
        x, x̂ and y (..., n), gamma and beta (n,); every leading axis counts samples.

    Derivation, for one sample, with means over its n features:
        μ = mean x,    σ² = mean (x − μ)²,    r = 1 / √(σ² + ε),    x̂ = r (x − μ)
        ∂E/∂γ_k = δ_k x̂_k and ∂E/∂β_k = δ_k, summed over the samples
        g = ∂E/∂x̂ = γ ⊗ δ
        ∂x̂_k/∂x_j = r (1[k = j] − 1/n − x̂_k x̂_j / n), as ∂μ/∂x_j = 1/n and ∂r/∂x_j = −r² x̂_j / n
        ∂E/∂x_j = Σ_k g_k ∂x̂_k/∂x_j = r (g_j − mean g − x̂_j mean (g ⊗ x̂))

    Source: J. L. Ba, J. R. Kiros, G. E. Hinton, Layer normalization, 2016. gamma starts at 1, beta at 0.

    Raises:
        TypeError, ValueError: n or eps is out of range; x, dy or a parameter has another shape or is not floating.
    """

    n: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        convert_ints(self, "n")
        object.__setattr__(self, "eps", check_positive("LayerNorm", "eps", self.eps))

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return {"gamma": np.ones(self.n, dtype), "beta": np.zeros(self.n, dtype)}

    def forward(self, params: Params, x: Array) -> tuple[Array, tuple[Array, Array]]:
        check_features(self, x, self.n)
        gamma = check_param(self, params, "gamma", (self.n,))
        beta = check_param(self, params, "beta", (self.n,))
        wide = widened(x)
        x_hat = wide - wide.mean(axis=-1, keepdims=True)
        r = 1 / namespace(x).sqrt((x_hat * x_hat).mean(axis=-1, keepdims=True) + self.eps)
        x_hat *= r
        return (gamma * x_hat + beta).astype(x.dtype, copy=False), (x_hat, r)

    def backward(self, params: Params, cache: tuple[Array, Array], dy: Array) -> tuple[Array, Params]:
        x_hat, r = cache
        dparams = self.param_grads(params, cache, dy)
        g = widened(dy) * params["gamma"]
        dx = g - g.mean(axis=-1, keepdims=True)
        dx -= x_hat * (g * x_hat).mean(axis=-1, keepdims=True)
        dx *= r
        return dx.astype(dy.dtype, copy=False), dparams

    def param_grads(self, params: Params, cache: tuple[Array, Array], dy: Array) -> Params:
        x_hat, _ = cache
        check_same_shape(self, "dy", dy, x_hat.shape, "the output")
        return {"gamma": rows(dy * x_hat).sum(axis=0).astype(dy.dtype, copy=False), "beta": rows(dy).sum(axis=0)}

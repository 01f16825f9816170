"""Normalisation of each feature over a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params, State, namespace, widened
from tinynet.checks import check_channels, check_number, check_param, check_positive, check_same_shape, convert_ints
from tinynet.layers.layer import Layer
from tinynet.trees import map_leaves


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalise each feature to mean 0 and variance 1 over the batch, then scale and shift: y = γ ⊗ x̂ + β.

    `BatchNorm(n)` is the layer that evaluates, with the running mean and variance of its state; `sample(rng)` gives the
    layer of a training step, which takes both from the batch.

    Args:
        n: features.
        momentum: ρ, the share of the batch in the running statistics, 0 ≤ ρ < 1.
        eps: ε > 0, added to the variance.
        training: take the statistics from the batch; what `sample` sets.

    Shapes:
        x, x̂ and y (m, n, …) as of `Conv2d`, gamma and beta (n,), the state's mean and var (n,).

    Derivation, for one feature, with means over its N values in the batch:
        μ = mean x,    σ² = mean (x − μ)²,    r = 1 / √(σ² + ε),    x̂ = r (x − μ)
        ∂E/∂γ = Σ δ x̂ and ∂E/∂β = Σ δ
        g = ∂E/∂x̂ = γ δ
        ∂x̂_k/∂x_j = r (1[k = j] − 1/N − x̂_k x̂_j / N), as in `LayerNorm`
        ∂E/∂x_j = Σ_k g_k ∂x̂_k/∂x_j = r (g_j − mean g − x̂_j mean (g ⊗ x̂))
    In evaluation μ and σ² are constants, so ∂E/∂x = r g. The running statistics follow, as in torch,
        μ̄ ← (1 − ρ) μ̄ + ρ μ,    σ̄² ← (1 − ρ) σ̄² + ρ σ² N / (N − 1)
    A bias b just before the layer shifts x and μ alike, so in training ∂E/∂b = 0: what is computed is rounding, which
    Adam divides by its own size and takes for a gradient. Freeze such a bias: `Groups({"0.b": None, "*": Adam()})`.

    Source: S. Ioffe, C. Szegedy, Batch normalization, ICML 2015. gamma starts at 1, beta at 0.

    Raises:
        TypeError, ValueError: n, momentum or eps is out of range; x, dy or a parameter has another shape or is not
            floating; the layer that evaluates is given no state.
    """

    n: int
    momentum: float = 0.1
    eps: float = 1e-5
    training: bool = False

    def __post_init__(self) -> None:
        convert_ints(self, "n")
        object.__setattr__(self, "momentum", check_number("BatchNorm", "momentum", self.momentum, 0.0, 1.0))
        object.__setattr__(self, "eps", check_positive("BatchNorm", "eps", self.eps))

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return {"gamma": np.ones(self.n, dtype), "beta": np.zeros(self.n, dtype)}

    def init_state(self, dtype: Any = np.float32) -> State:
        return {"mean": np.zeros(self.n, dtype), "var": np.ones(self.n, dtype)}

    def update_state(self, state: State, cache: Cache) -> State:
        x_hat, _, batch = cache
        if not batch:
            return state
        N, ρ = x_hat.size // self.n, self.momentum
        new = {"mean": batch["mean"], "var": batch["var"] * (N / max(N - 1, 1))}
        return map_leaves(lambda old, now: ((1 - ρ) * old + ρ * now).astype(old.dtype, copy=False), state, new)

    def sample(self, rng: np.random.Generator) -> Layer:
        return self if self.training else replace(self, training=True)

    def samplewise(self) -> bool:
        return not self.training

    def forward(self, params: Params, x: Array, *, state: State | None = None) -> tuple[Array, Cache]:
        check_channels(self, x, self.n)
        gamma, beta = (self._along(check_param(self, params, name, (self.n,)), x) for name in ("gamma", "beta"))
        wide = widened(x)
        if self.training:
            axes, N = self._others(x), max(1, x.size // self.n)
            mean = wide.sum(axis=axes) / N
            x_hat = wide - self._along(mean, x)
            var = (x_hat * x_hat).sum(axis=axes) / N
            batch = {"mean": mean, "var": var}
        elif state:
            mean, var = (widened(check_param(self, state, name, (self.n,))) for name in ("mean", "var"))
            x_hat, batch = wide - self._along(mean, x), {}
        else:
            raise ValueError(f"{self}: forward has no state; hand it over as state=, or use sample(rng) to train")
        r = self._along(1 / namespace(x).sqrt(var + self.eps), x)
        x_hat *= r
        return (gamma * x_hat + beta).astype(x.dtype, copy=False), (x_hat, r, batch)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        x_hat, r, batch = cache
        dparams = self.param_grads(params, cache, dy)
        dx = widened(dy) * self._along(params["gamma"], dy)
        if batch:
            axes, N = self._others(dy), max(1, dy.size // self.n)
            projection = (dx * x_hat).sum(axis=axes, keepdims=True) / N
            dx = dx - dx.sum(axis=axes, keepdims=True) / N - x_hat * projection
        return (dx * r).astype(dy.dtype, copy=False), dparams

    def param_grads(self, params: Params, cache: Cache, dy: Array) -> Params:
        x_hat = cache[0]
        check_same_shape(self, "dy", dy, x_hat.shape, "the output")
        axes = self._others(dy)
        return {"gamma": (dy * x_hat).sum(axis=axes).astype(dy.dtype, copy=False), "beta": dy.sum(axis=axes)}

    def _others(self, x: Array) -> tuple[int, ...]:
        return (0, *range(2, x.ndim))

    def _along(self, v: Array, x: Array) -> Array:
        """View v (n,) so that it broadcasts against x (m, n, …)."""
        return v.reshape(-1, *(1,) * (x.ndim - 2))

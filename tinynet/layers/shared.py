"""One layer for several inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Cache, Params
from tinynet.checks import check_instance
from tinynet.layers.layer import Layer
from tinynet.trees import map_leaves


@dataclass(frozen=True)
class Shared(Layer, samplewise=True):
    """One layer for each of several inputs, y = (f(x_1), …, f(x_K)), as in a siamese network.

    `params` and `dparams` are those of f, `cache` has one entry per input.

    Args:
        f: a layer without state; a `Sequential` for several.

    Shapes:
        x and y are tuples; each x_k is whatever f takes.

    Derivation. All f(x_k) have the parameters θ, so ∂E/∂θ = Σ_k (∂f(x_k)/∂θ)ᵀ ∂E/∂y_k; ∂E/∂x_k is that of f.

    Source: J. Bromley et al., Signature verification using a siamese time delay neural network, NIPS 1993.

    Raises:
        TypeError, ValueError: f is not a Layer; x is not a tuple; whatever f raises.
    """

    f: Layer

    def __post_init__(self) -> None:
        check_instance("Shared", "f", self.f, Layer)

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return self.f.init(rng, dtype)

    def split(self, tree: Any) -> dict[str, Any]:
        return {"f": tree}

    def forward(self, params: Params, x: Any) -> tuple[Any, Cache]:
        if not isinstance(x, (tuple, list)) or not x:
            raise TypeError(f"{self}: x is {x!r:.60}; expected a tuple of inputs")
        y, cache = zip(*(self.f.forward(params, part) for part in x), strict=True)
        return y, cache

    def backward(self, params: Params, cache: Cache, dy: Any) -> tuple[Any, Params]:
        parts = zip(cache, dy, strict=True)
        dx, dparams = zip(*(self.f.backward(params, c, d) for c, d in parts), strict=True)
        return dx, map_leaves(_sum, *dparams)

    def param_grads(self, params: Params, cache: Cache, dy: Any) -> Params:
        return map_leaves(_sum, *(self.f.param_grads(params, c, d) for c, d in zip(cache, dy, strict=True)))


def _sum(first: Any, *others: Any) -> Any:
    return sum(others, first)

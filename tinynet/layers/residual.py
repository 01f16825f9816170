"""A shortcut around a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params, State
from tinynet.checks import check_instance
from tinynet.layers.layer import Layer, forward_with_state


@dataclass(frozen=True)
class Residual(Layer, samplewise=True):
    """A shortcut around a layer, y = x + f(x).

    `params`, `state`, `cache` and `dparams` are those of f.

    Args:
        f: a layer whose output has the shape of its input; a `Sequential` for several.

    Shapes:
        x and y are of one shape, any that f takes.

    Derivation. By the chain rule, x reaches E by both ways:
        ∂E/∂x = ∂E/∂y + (∂f/∂x)ᵀ ∂E/∂y
        ∂E/∂θ = (∂f/∂θ)ᵀ ∂E/∂y for the parameters θ of f

    Source: K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition, CVPR 2016, equation (1).

    Raises:
        TypeError: f is not a Layer.
        ValueError: f changes the shape; whatever f raises.
    """

    f: Layer

    def __post_init__(self) -> None:
        check_instance("Residual", "f", self.f, Layer)

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return self.f.init(rng, dtype)

    def init_state(self, dtype: Any = np.float32) -> State:
        return self.f.init_state(dtype)

    def update_state(self, state: State, cache: Cache) -> State:
        return self.f.update_state(state, cache)

    def split(self, tree: Any) -> dict[str, Any]:
        return {"f": tree}

    def forward(self, params: Params, x: Array, *, state: State | None = None) -> tuple[Array, Cache]:
        y, cache = forward_with_state(self.f, params, x, state)
        if y.shape != x.shape:
            raise ValueError(f"{self}: f turns shape {tuple(x.shape)} into {tuple(y.shape)}; expected the same shape")
        return x + y, cache

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        dx, dparams = self.f.backward(params, cache, dy)
        return dy + dx, dparams

    def param_grads(self, params: Params, cache: Cache, dy: Array) -> Params:
        return self.f.param_grads(params, cache, dy)

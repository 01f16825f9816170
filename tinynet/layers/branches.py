"""Several ways from one input, and how they join."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params, State
from tinynet.checks import check_instance
from tinynet.layers.layer import Layer, forward_with_state
from tinynet.trees import map_leaves


@dataclass(frozen=True, init=False, repr=False)
class Branches(Layer, samplewise=True):
    """Layers that are handed the same input; how their outputs join is for the subclass to say.

    `params`, `state`, `cache` and `dparams` have one entry per branch.

    Derivation. x reaches E through every branch f_k, so ∂E/∂x = Σ_k (∂f_k/∂x)ᵀ ∂E/∂f_k.
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            check_instance(type(self).__name__, f"argument {i}", layer, Layer)
        if not layers:
            raise ValueError(f"{type(self).__name__}: no layer is given; expected at least one")
        object.__setattr__(self, "layers", layers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return tuple(layer.init(rng, dtype) for layer in self.layers)

    def init_state(self, dtype: Any = np.float32) -> State:
        return tuple(layer.init_state(dtype) for layer in self.layers)

    def update_state(self, state: State, cache: Cache) -> State:
        parts = zip(self.layers, state, cache[0], strict=True)
        return tuple(layer.update_state(part, c) for layer, part, c in parts)

    def children(self) -> dict[str, Layer]:
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def with_children(self, children: Mapping[str, Layer]) -> Layer:
        return type(self)(*children.values())

    def forward(self, params: Params, x: Any, *, state: State | None = None) -> tuple[Array, Cache]:
        states = (None,) * len(self.layers) if state is None else state
        parts = zip(self.layers, params, states, strict=True)
        outputs, caches = zip(*(forward_with_state(layer, p, x, s) for layer, p, s in parts), strict=True)
        return self.join(outputs), (caches, outputs)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Any, Params]:
        caches, outputs = cache
        parts = zip(self.layers, params, caches, self.shares(dy, outputs), strict=True)
        dxs, dparams = zip(*(layer.backward(p, c, dy) for layer, p, c, dy in parts), strict=True)
        return map_leaves(total, *dxs), dparams

    @abstractmethod
    def join(self, outputs: tuple[Array, ...]) -> Array:
        """Return y, given the f_k."""

    @abstractmethod
    def shares(self, dy: Array, outputs: tuple[Array, ...]) -> list[Array]:
        """Return ∂E/∂f_k for each k."""


def total(*terms: Any) -> Any:
    """Return the sum of the terms; None if they are None."""
    return None if terms[0] is None else sum(terms[1:], terms[0])

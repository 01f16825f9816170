"""A chain of layers, itself a layer: the recursion of equation (22)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params, State
from tinynet.checks import check_instance
from tinynet.layers.layer import Layer, forward_with_state


@dataclass(frozen=True, init=False, repr=False)
class Sequential(Layer, samplewise=True):
    """The layers one after another: y = f_L(… f_2(f_1(x))).

    `params`, `state`, `cache` and `dparams` are tuples with one entry per layer.

    Derivation. By the chain rule the error passes back through the layers in reverse order, each turning ∂E/∂output
    into ∂E/∂input: (21) at the last layer, (22) from there on. Below the first layer that has parameters nobody asks
    for ∂E/∂input, so `param_grads` stops there.

    Raises:
        TypeError: an argument is not a Layer.
        ValueError: params or state does not have one entry per layer; whatever a layer raises, with a note that says
            which.
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            check_instance("Sequential", f"argument {i}", layer, Layer)
        object.__setattr__(self, "layers", layers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return tuple(layer.init(rng, dtype) for layer in self.layers)

    def init_state(self, dtype: Any = np.float32) -> State:
        return tuple(layer.init_state(dtype) for layer in self.layers)

    def update_state(self, state: State, caches: Cache) -> State:
        self._check("state", state)
        parts = zip(self.layers, state, caches, strict=True)
        return tuple(layer.update_state(part, cache) for layer, part, cache in parts)

    def children(self) -> dict[str, Layer]:
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def with_children(self, children: Mapping[str, Layer]) -> Layer:
        return Sequential(*children.values())

    def forward(self, params: Params, x: Array, *, state: State | None = None) -> tuple[Array, Cache]:
        self._check("params", params)
        if state is None:
            state = (None,) * len(self.layers)
        self._check("state", state)
        caches = []
        for i, layer in enumerate(self.layers):
            try:
                x, cache = forward_with_state(layer, params[i], x, state[i])
            except (TypeError, ValueError) as error:
                error.add_note(f"in layer {i} of Sequential, {layer!r}")
                raise
            caches.append(cache)
        return x, tuple(caches)

    def backward(self, params: Params, caches: Cache, dy: Array) -> tuple[Array, Params]:
        self._check("params", params)
        return self._backward(params, caches, dy, 0)

    def param_grads(self, params: Params, caches: Cache, dy: Array) -> Params:
        self._check("params", params)
        first = next((i for i, part in enumerate(params) if part), len(params))
        dy, dparams = self._backward(params, caches, dy, first + 1)
        with_params = range(first, len(params))[:1]  # that one, or none
        lowest = [self.layers[i].param_grads(params[i], caches[i], dy) for i in with_params]
        return (*({} for _ in range(first)), *lowest, *dparams)

    def _backward(self, params: Params, caches: Cache, dy: Array, stop: int) -> tuple[Array, Params]:
        dparams = []
        for i in reversed(range(stop, len(self.layers))):
            dy, grads = self.layers[i].backward(params[i], caches[i], dy)  # (22)
            dparams.append(grads)
        return dy, tuple(reversed(dparams))

    def _check(self, name: str, tree: Any) -> None:
        if not isinstance(tree, (tuple, list)) or len(tree) != len(self.layers):
            given = f"{len(tree)} entries" if isinstance(tree, (tuple, list)) else type(tree).__name__
            raise ValueError(f"Sequential: {name} is {given}; expected a tuple of {len(self.layers)}, one per layer")

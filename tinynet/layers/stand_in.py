"""A layer in the place of another inside a composite, for those who watch what passes through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinynet.arrays import Cache, Params, State
from tinynet.layers.layer import Layer


class StandIn(Layer):
    """Does what `layer` does; a subclass notes what goes in and what comes out.

    Composites may ask their children for their fields: they get those of `layer`.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return self._layer.init(rng, dtype)

    def init_state(self, dtype: Any = np.float32) -> State:
        return self._layer.init_state(dtype)

    def update_state(self, state: State, cache: Cache) -> State:
        return self._layer.update_state(state, cache)

    def forward(self, params: Params, x: Any, **options: Any) -> tuple[Any, Cache]:
        return self._layer.forward(params, x, **options)

    def backward(self, params: Params, cache: Cache, dy: Any) -> tuple[Any, Params]:
        return self._layer.backward(params, cache, dy)

    def param_grads(self, params: Params, cache: Cache, dy: Any) -> Params:
        return self._layer.param_grads(params, cache, dy)

    def sample(self, rng: np.random.Generator) -> Layer:
        return self._layer.sample(rng)

    def split(self, tree: Any) -> dict[str, Any]:
        return self._layer.split(tree)

    def children(self) -> dict[str, Layer]:
        return {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_layer":
            raise AttributeError(name)
        return getattr(self._layer, name)

    def __deepcopy__(self, memo: Any) -> StandIn:
        return self


def with_watched_children(layer: Layer, path: str, watch: Callable[[Layer, str], Layer]) -> Layer:
    """Return the layer, which is at `path` in a network, with a watch in the place of each child."""
    children = {name: watch(child, f"{path}.{name}".strip(".")) for name, child in layer.children().items()}
    return layer.with_children(children) if children else layer

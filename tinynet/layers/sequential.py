"""A chain of layers, itself a layer: the recursion of equation (22)."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params, describe
from tinynet.layers.layer import Layer

__all__ = ["Sequential"]


@dataclass(frozen=True, init=False, repr=False)
class Sequential(Layer):
    """The layers one after another: y = f_L(… f_2(f_1(x))).

    `params`, `cache` and `dparams` are tuples with one entry a layer.

    Derivation. By the chain rule the error passes back through the layers in reverse order, each turning ∂E/∂output
    into ∂E/∂input: (21) at the last layer, (22) from there on. Below the first layer that has parameters nobody asks
    for ∂E/∂input, so `param_grads` stops there.

    Raises:
        TypeError: an argument is not a Layer.
        ValueError: params does not have one entry a layer; whatever a layer raises, with a note that says which.
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                given = layer.__name__ if isinstance(layer, type) else describe(layer)
                raise TypeError(f"Sequential: argument {i} is {given}; expected an instance of tinynet.Layer")
        object.__setattr__(self, "layers", layers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return tuple(layer.init(rng, dtype) for layer in self.layers)

    def sample(self, rng: np.random.Generator) -> Layer:
        layers = tuple(layer.sample(rng) for layer in self.layers)
        return self if all(map(operator.is_, layers, self.layers)) else Sequential(*layers)

    def samplewise(self) -> bool:
        return type(self) is Sequential and all(layer.samplewise() for layer in self.layers)

    def forward(self, params: Params, x: Array) -> tuple[Array, Cache]:
        self._check_params(params)
        caches = []
        for i, layer in enumerate(self.layers):
            try:
                x, cache = layer.forward(params[i], x)
            except (TypeError, ValueError) as error:
                error.add_note(f"in layer {i} of Sequential, {layer!r}")
                raise
            caches.append(cache)
        return x, tuple(caches)

    def backward(self, params: Params, caches: Cache, dy: Array) -> tuple[Array, Params]:
        self._check_params(params)
        return self._backward(params, caches, dy, 0)

    def param_grads(self, params: Params, caches: Cache, dy: Array) -> Params:
        self._check_params(params)
        for first, part in enumerate(params):  # noqa: B007
            if part:
                break
        else:
            return tuple({} for _ in params)
        dy, dparams = self._backward(params, caches, dy, first + 1)
        lowest = self.layers[first].param_grads(params[first], caches[first], dy)
        return (*({} for _ in range(first)), lowest, *dparams)

    def _backward(self, params: Params, caches: Cache, dy: Array, stop: int) -> tuple[Array, Params]:
        dparams = []
        for i in reversed(range(stop, len(self.layers))):
            dy, grads = self.layers[i].backward(params[i], caches[i], dy)  # (22)
            dparams.append(grads)
        return dy, tuple(reversed(dparams))

    def _check_params(self, params: Params) -> None:
        if not isinstance(params, (tuple, list)) or len(params) != len(self.layers):
            given = f"{len(params)} entries" if isinstance(params, (tuple, list)) else type(params).__name__
            raise ValueError(f"Sequential: params is {given}; expected a tuple of {len(self.layers)}, one a layer")

"""The contract of a layer: a pure function with its derivative written beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params

__all__ = ["Layer"]


class Layer(ABC):
    """A function y = f(params, x) and its vector-Jacobian product.

    Subclasses are frozen dataclasses: their fields are the configuration, never arrays. Parameters go in as a dict of
    arrays and gradients come out as one; what `backward` needs of the forward pass travels in `cache`. So a layer has
    no state, two forward passes cannot be confused, and the same text runs under NumPy, `jax.jit` and `jax.grad`.

    Randomness and mode. A network is a pure function, and `net` itself is the network that evaluates. `net.sample(rng)`
    is the network of one training step: the same layers, each with its random numbers drawn. So

        value_and_grads(net.sample(rng), loss, params, x, y)

    trains, `net.forward` evaluates, and a sampled layer can be verified like any other.

    A new layer is one file: the class, its derivation in the docstring, and one line in the verification cases.
    """

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        """Draw the parameters; `{}` where there are none."""
        return {}

    def sample(self, rng: np.random.Generator) -> Layer:
        """Return the layer with its randomness drawn, for one training step; itself where it has none."""
        return self

    @abstractmethod
    def forward(self, params: Params, x: Array) -> tuple[Array, Cache]:
        """Return (y, cache)."""

    @abstractmethod
    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        """Return (dx, dparams) = (∂E/∂x, ∂E/∂params), given dy = ∂E/∂y; `dparams` has the structure of `params`."""

    def samplewise(self) -> bool:
        """Whether each sample's output depends on that sample alone; then threads may share a batch."""
        return False

    def param_grads(self, params: Params, cache: Cache, dy: Array) -> Params:
        """Return `dparams` alone: the first layer of a network needs no `dx`."""
        return self.backward(params, cache, dy)[1]

"""The oracle: `jax.grad` of the very forward pass that ships, in float64."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from tinynet.arrays import Params
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.trees import map_leaves

__all__ = ["loss_grads"]


def loss_grads(net: Layer, loss: Loss, params: Params, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Params, Any]:
    """Return ∂E/∂params and ∂E/∂x of E = loss(net(params, x), y) as NumPy arrays, by `jax.grad` in float64.

    64-bit mode is on for the length of the call only.
    """

    def E(params: Params, x: Any) -> Any:
        return loss.forward(net.forward(params, x)[0], y64)[0]

    with jax.enable_x64(True):
        params, x64, y64 = jax.tree.map(lambda a: jax.numpy.asarray(a, "float64"), (params, x, y))
        dparams, dx = jax.jit(jax.grad(E, argnums=(0, 1)))(params, x64)
        return map_leaves(np.asarray, dparams), np.asarray(dx)

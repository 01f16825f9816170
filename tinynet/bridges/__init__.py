"""Bridges: a layer with its hand-derived backward inside other frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinynet.arrays import Params, State
from tinynet.bridges.jax import to_custom_vjp
from tinynet.checks import check_instance
from tinynet.layers import Layer
from tinynet.trees import check_like, leaves

if TYPE_CHECKING:
    from tinynet.bridges.torch import TorchLayer

__all__ = ["to_custom_vjp", "to_torch"]


def to_torch(layer: Layer, params: Params = None, *, state: State = None, seed: int = 0) -> TorchLayer:
    """Return a `torch.nn.Module` that computes `layer` on NumPy and differentiates with `layer.backward`.

    Args:
        layer: any tinynet layer, a whole `Sequential` too.
        params: of the layer; drawn in float32 from `seed` if None. The module's parameters share the memory of NumPy
            arrays where PyTorch can (writable, in native byte order, no negative strides), so training the module then
            changes them; others are copied.
        state: of the layers, `result.state.layers` after `fit`; that of a new network if None. The module's buffers.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError, ValueError: layer is not a tinynet.Layer; params or state does not fit it.
    """
    try:
        from tinynet.bridges.torch import TorchLayer
    except ImportError:
        raise ImportError('to_torch needs PyTorch; use pip install "tinynet-grad[torch]"') from None
    check_instance("to_torch", "layer", layer, Layer)
    initial = layer.init(np.random.default_rng(seed))
    if params is None:
        params = initial
    else:
        check_like("to_torch", "params", params, initial, "the layer")
    first = layer.init_state(next((p.dtype for p in leaves(params)), np.float32))
    if state is None:
        state = first
    else:
        check_like("to_torch", "state", state, first, "the layer")
    return TorchLayer(layer, params, state)

"""A layer in a PyTorch program: `torch.autograd.Function` with the derivative written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tinynet.arrays import Array, Params
from tinynet.layers import Layer
from tinynet.trees import leaves, leaves_with_paths, map_leaves


class TorchLayer(torch.nn.Module):
    """A tinynet layer as a module: forward(x) -> y.

    Tensors live on the CPU: y does, and x must. Double backward, `torch.func` and `torch.compile` are not supported.
    """

    def __init__(self, layer: Layer, params: Params) -> None:
        super().__init__()
        self.layer = layer
        self._like = map_leaves(lambda _: None, params)
        for path, array in leaves_with_paths(params):
            name = _name(path)
            while name in dict(self.named_parameters()):
                name += "_"
            self.register_parameter(name, torch.nn.Parameter(_shared(array)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _Apply.apply(self.layer, self._like, x, *self.parameters())
        return y

    def params(self) -> Params:
        """Return the parameters as tinynet has them: NumPy arrays on the same memory."""
        return _fill(self._like, (weight.detach().numpy() for weight in self.parameters()))


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Layer, like: Params, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        for name, tensor in (("x", x), *(("a parameter", weight) for weight in weights)):
            if tensor.device.type != "cpu":
                raise ValueError(f"to_torch: {name} is on {tensor.device}; expected the CPU, where NumPy computes")
            if weights and tensor.is_floating_point() and tensor.dtype != weights[0].dtype:
                raise TypeError(
                    f"to_torch: {name} is {tensor.dtype}; expected {weights[0].dtype}, as the parameters are"
                )
        params = _fill(like, (weight.detach().numpy() for weight in weights))
        array = x.detach().numpy()
        y, cache = layer.forward(params, array)
        result = torch.from_numpy(_apart(y, array, *leaves(params), *leaves(cache)))
        # backward asks for the saved tensors only so that PyTorch notices when one has been overwritten since.
        ctx.save_for_backward(x, *weights)
        ctx.layer, ctx.params, ctx.cache = layer, params, cache
        return result

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "to_torch: a derivative of the derivative was asked for (create_graph=True); "
                "the hand-written backward runs on NumPy, where PyTorch cannot follow it"
            )
        _ = ctx.saved_tensors
        array = dy.detach().numpy()
        dx = None
        if ctx.needs_input_grad[2]:
            dx, dparams = ctx.layer.backward(ctx.params, ctx.cache, array)
        else:
            dparams = ctx.layer.param_grads(ctx.params, ctx.cache, array)
        held = (array, *leaves(ctx.params), *leaves(ctx.cache))
        dweights = [torch.from_numpy(_apart(dw, *held)) for dw in leaves(dparams)]
        return None, None, None if dx is None else torch.from_numpy(_apart(dx, *held)), *dweights


def _name(path: str) -> str:
    """Return a path as the name of a parameter: `0_W` for `[0]["W"]`."""
    return "_".join(re.findall(r"\w+", path))


def _shared(array: Array) -> torch.Tensor:
    """Return a tensor on the memory of `array` where PyTorch can use it, else on a copy."""
    array = np.asarray(array)
    if not array.flags.writeable or not array.dtype.isnative or any(stride < 0 for stride in array.strides):
        array = np.array(array, array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def _apart(array: Array, *others: Any) -> Array:
    """Return `array`, copied where it is a view of another: what PyTorch overwrites must be its own."""
    array = np.asarray(array)
    shares = any(isinstance(other, np.ndarray) and np.may_share_memory(array, other) for other in others)
    return np.array(array, order="C") if shares or any(stride < 0 for stride in array.strides) else array


def _fill(like: Params, weights: Iterator[Array]) -> Params:
    """Return a tree of the structure of `like` with `weights` for its leaves, in their order."""
    if isinstance(like, dict):
        return {key: _fill(like[key], weights) for key in sorted(like)}
    if isinstance(like, (tuple, list)):
        return type(like)([_fill(part, weights) for part in like])
    return next(weights)

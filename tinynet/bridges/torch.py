"""A layer in a PyTorch program: `torch.autograd.Function` with the derivative written by hand."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch._numpy as numpy_of_torch

from tinynet.arrays import Array, Params, State
from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.trees import filled, leaves, leaves_with_paths, map_leaves

_COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge)


class TorchLayer(torch.nn.Module):
    """A tinynet layer as a module: forward(x) -> y.

    Tensors live on the CPU: y does, and x must. After `.train()`, the mode of a new module, it is the layer of a
    training step, which draws from PyTorch's generator and moves the layers' state; after `.eval()` the one that
    evaluates. `torch.export` and `torch.onnx.export` follow the forward pass as operations of PyTorch's, where they are
    called after `.eval()` or no layer draws. Double backward, `torch.func` and `torch.compile` are not supported.
    """

    def __init__(self, layer: Layer, params: Params, state: State) -> None:
        super().__init__()
        self.layer = layer
        self._like, self._like_state = (map_leaves(lambda _: None, tree) for tree in (params, state))
        for path, array in leaves_with_paths(params):
            name = _name(path)
            while name in dict(self.named_parameters()):
                name += "_"
            self.register_parameter(name, torch.nn.Parameter(_shared(array)))
        for path, array in leaves_with_paths(state):
            self.register_buffer(f"state_{_name(path)}", torch.tensor(array))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            return self._exported(x)
        layer = self.layer.sample(_generator()) if self.training else self.layer
        y: torch.Tensor = _Apply.apply(layer, self._like, self.state(), x, *self.parameters())
        return y

    def _exported(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.layer.sample(np.random.default_rng(0)) != self.layer:
            raise ValueError(f"to_torch: {self.layer} draws in training, which cannot be exported; call .eval() first")
        with _arrays_of_torch():
            weights = (numpy_of_torch.asarray(weight) for weight in self.parameters())
            state = filled(self._like_state, map(numpy_of_torch.asarray, self.buffers()))
            y, _ = forward_with_state(self.layer, filled(self._like, weights), numpy_of_torch.asarray(x), state)
        exported: torch.Tensor = y.tensor
        return exported

    def params(self) -> Params:
        """Return the parameters as tinynet has them: NumPy arrays on the same memory."""
        return filled(self._like, (weight.detach().numpy() for weight in self.parameters()))

    def state(self) -> State:
        """Return the layers' state as tinynet has it: NumPy arrays on the memory of the buffers."""
        return filled(self._like_state, (buffer.numpy() for buffer in self.buffers()))


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layer: Layer, like: Params, state: State, x: torch.Tensor, *weights: torch.Tensor
    ) -> torch.Tensor:
        for name, tensor in (("x", x), *(("a parameter", weight) for weight in weights)):
            if tensor.device.type != "cpu":
                raise ValueError(f"to_torch: {name} is on {tensor.device}; expected the CPU, where NumPy computes")
            if weights and tensor.is_floating_point() and tensor.dtype != weights[0].dtype:
                raise TypeError(
                    f"to_torch: {name} is {tensor.dtype}; expected {weights[0].dtype}, as the parameters are"
                )
        params = filled(like, (weight.detach().numpy() for weight in weights))
        array = x.detach().numpy()
        y, cache = forward_with_state(layer, params, array, state)
        map_leaves(np.copyto, state, layer.update_state(state, cache))
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
        if ctx.needs_input_grad[3]:
            dx, dparams = ctx.layer.backward(ctx.params, ctx.cache, array)
        else:
            dparams = ctx.layer.param_grads(ctx.params, ctx.cache, array)
        held = (array, *leaves(ctx.params), *leaves(ctx.cache))
        dweights = [torch.from_numpy(_apart(dw, *held)) for dw in leaves(dparams)]
        return None, None, None, None if dx is None else torch.from_numpy(_apart(dx, *held)), *dweights


def _generator() -> np.random.Generator:
    """Return a generator that `torch.manual_seed` determines."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, ()).item()))


@contextmanager
def _arrays_of_torch() -> Iterator[None]:
    """Let layers compute on tensors that look like NumPy's arrays: PyTorch's own, with what they lack.

    Theirs compare with the tensor of an integer, which ONNX does not take for a float.
    """

    def compared(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda a, b: numpy_of_torch.asarray(compare(a.tensor, getattr(b, "tensor", b)))

    array = numpy_of_torch.ndarray
    astype, largest = array.astype, array.max
    methods: dict[str, Any] = {f"__{compare.__name__}__": compared(compare) for compare in _COMPARISONS} | {
        "__array_namespace__": lambda _: numpy_of_torch,
        "astype": lambda a, dtype, copy=True: astype(a, dtype),
        "max": lambda a, initial=-np.inf, **axes: numpy_of_torch.maximum(largest(a, **axes), initial),
    }
    with ExitStack() as stack:
        for name, method in methods.items():
            stack.enter_context(mock.patch.object(array, name, method, create=True))
        yield


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

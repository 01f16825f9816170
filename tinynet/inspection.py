"""One pass forward and backward with everything kept: each z, a, δ, dW and db, in the document's names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.checks import check_instance
from tinynet.layers import Layer, Linear, Sequential, Sigmoid
from tinynet.losses import Loss, SquaredError
from tinynet.trees import leaves, leaves_with_paths

__all__ = ["Quantity", "Trace", "trace"]

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ASCII = {"delta": "δ", "dE/da": "∂E/∂a"}


@dataclass(frozen=True)
class Quantity:
    """One intermediate value.

    Attributes:
        name: "z1", "a1", "δ1", "dW1", "∂E/∂a1", "E".
        equation: how it came about, with its number in the document where it has one.
        value: the array, a row a sample; dW and db are summed over the samples.
        layer: which layer computed it, counted from 0 in the chain; −1 for the input and the loss.
    """

    name: str
    equation: str
    value: Array
    layer: int

    def __str__(self) -> str:
        return _beside(self.equation, self.value, 0)


@dataclass(frozen=True)
class Trace:
    """What `trace` returns: every quantity in the order of its computation.

    `trace["δ2"]`, or in ASCII `trace["delta2"]` and `trace["dE/da2"]`, is a value by its name. `print(trace)` shows
    each equation beside its value, and of a large value the shape and the range.
    """

    quantities: tuple[Quantity, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(q.name for q in self.quantities)

    def __getitem__(self, name: str) -> Array:
        wanted = name
        for ascii_name, symbol in _ASCII.items():
            wanted = wanted.replace(ascii_name, symbol)
        for q in self.quantities:
            if q.name == wanted:
                return q.value
        raise KeyError(f"trace: {name!r} is not a quantity; expected one of {', '.join(self.names)}")

    def __iter__(self) -> Iterator[Quantity]:
        return iter(self.quantities)

    def __str__(self) -> str:
        width = max(len(q.equation) for q in self.quantities)
        return "\n".join(_beside(q.equation, q.value, width) for q in self.quantities)


def trace(net: Layer, loss: Loss, params: Params, x: Array, y: Array) -> Trace:
    """Return every intermediate value of E = loss(net(params, x), y) and its gradient.

    A layer with parameters opens a level l: its output is z^l, ∂E/∂z^l is δ^l, and its gradients are dW^l, db^l (or
    d + whatever its parameters are called). The output of a layer without parameters is a^l, of a second one a^l′. The
    input is a⁰.

    Shapes:
        x (m, …), y of the shape of the network's output; every value keeps the batch's rows.

    Raises:
        TypeError, ValueError: whatever the layers and the loss raise on input that does not fit.
    """
    check_instance("trace", "net", net, Layer)
    check_instance("trace", "loss", loss, Loss)
    chain = list(_chain(net, params))
    forward, names, caches = [Quantity("a0", f"{_show('a0')} = x", x, -1)], ["a0"], []
    value, level = x, 0
    for i, (layer, layer_params) in enumerate(chain):
        value, cache = layer.forward(layer_params, value)
        caches.append(cache)
        learns = bool(leaves(layer_params))
        level += learns
        name = f"z{level}" if learns else f"a{level}"
        while name in names:
            name += "′"
        forward.append(Quantity(name, _forward_equation(layer, level, name, names[-1]), value, i))
        names.append(name)

    E, residual = loss.forward(value, y)
    error = loss.backward(residual)
    backward = [
        Quantity("E", _loss_equation(loss), E, -1),
        Quantity(_error(names[-1]), _first_error_equation(loss, names[-1]), error, -1),
    ]
    for i in reversed(range(len(chain))):
        layer, layer_params = chain[i]
        error, dparams = layer.backward(layer_params, caches[i], error)
        output, source = names[i + 1], names[i]
        for path, dp in leaves_with_paths(dparams):
            key = re.sub(r"\W+", ".", path).strip(".")
            name = f"d{key}{output[1:]}"
            backward.append(Quantity(name, _gradient_equation(layer, key, output, source), dp, i))
        if i > 0:
            backward.append(Quantity(_error(source), _error_equation(layer, output, source), error, i))
    return Trace(tuple(forward + backward))


def _chain(net: Layer, params: Params) -> Iterator[tuple[Layer, Params]]:
    if not isinstance(net, Sequential):
        yield net, params
        return
    for layer, layer_params in zip(net.layers, params, strict=True):
        yield from _chain(layer, layer_params)


def _show(name: str) -> str:
    return name.translate(_SUPERSCRIPTS)


def _error(name: str) -> str:
    return f"δ{name[1:]}" if name[0] == "z" else f"∂E/∂{name}"


def _forward_equation(layer: Layer, level: int, name: str, source: str) -> str:
    if isinstance(layer, Linear):
        W, b = _show(f"W{level}"), _show(f"b{level}")
        return f"{_show(name)} = {W} {_show(source)} + {b}  (18)"
    if isinstance(layer, Sigmoid):
        return f"{_show(name)} = f({_show(source)})  (19)"
    return f"{_show(name)} = {type(layer).__name__}({_show(source)})"


def _loss_equation(loss: Loss) -> str:
    if isinstance(loss, SquaredError):
        return "E = ½ Σ (ŷ − y)²  (4)" if loss.reduction == "sum" else "E = ½ Σ (ŷ − y)² / m  (4), (17)"
    return f"E = {type(loss).__name__}(ŷ, y)"


def _first_error_equation(loss: Loss, name: str) -> str:
    left = _show(_error(name))
    if isinstance(loss, SquaredError):
        return f"{left} = ŷ − y  (21)" if loss.reduction == "sum" else f"{left} = (ŷ − y) / m  (17), (21)"
    return f"{left} = ∂E/∂ŷ"


def _error_equation(layer: Layer, output: str, source: str) -> str:
    left, right = _show(_error(source)), _show(_error(output))
    if isinstance(layer, Linear):
        return f"{left} = {_show('W' + output[1:])}ᵀ {right}  in (22)"
    if isinstance(layer, Sigmoid):
        return f"{left} = {right} ⊗ f′({_show(source)})  (20)"
    return f"{left} = {right} · ∂{_show(output)}/∂{_show(source)}"


def _gradient_equation(layer: Layer, key: str, output: str, source: str) -> str:
    left, δ = f"d{key}{_show(output[1:])}", _show(_error(output))
    if isinstance(layer, Linear):
        return f"{left} = {δ} ({_show(source)})ᵀ  (24)" if key == "W" else f"{left} = {δ}  (26)"
    return f"{left} = {δ} · ∂{_show(output)}/∂{key}"


def _beside(equation: str, value: Any, width: int) -> str:
    value = np.asarray(value)
    if value.ndim > 2 or value.size > 60:
        shape = " × ".join(map(str, value.shape))
        return f"{equation:<{width}}  {shape}, from {value.min():.4g} to {value.max():.4g}, mean {value.mean():.4g}"
    text = np.array2string(value, precision=5, suppress_small=True, max_line_width=100)
    return f"{equation:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2))

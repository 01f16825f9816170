"""What a network consists of: a table of layers, shapes, parameters and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.checks import check_instance
from tinynet.layers import Conv2d, Layer, Linear, Residual, Sequential
from tinynet.trees import leaves

__all__ = ["Summary", "SummaryRow", "summary"]


@dataclass(frozen=True)
class SummaryRow:
    """One layer.

    Attributes:
        path: where it is: "2", or "3.f.0" for the first layer inside the Residual at 3.
        layer: the layer itself.
        output_shape: of one sample.
        parameters: how many numbers it learns.
        multiply_adds: of its matrix products, for one sample; only Linear and Conv2d have any.
    """

    path: str
    layer: Layer
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """What `summary` returns; `print(summary)` shows the table.

    Attributes:
        input_shape: of one sample.
        rows: one a layer, in order; a Sequential or a Residual is replaced by what is inside.
    """

    input_shape: tuple[int, ...]
    rows: tuple[SummaryRow, ...]

    @property
    def parameters(self) -> int:
        """Of all layers together."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Of all layers together, for one sample forward; backward takes about twice as many."""
        return sum(row.multiply_adds for row in self.rows)

    def __str__(self) -> str:
        table = [
            ("", "layer", "output", "parameters", "multiply-adds"),
            ("", "input", _shape(self.input_shape), "", ""),
        ]
        table += [
            (row.path, repr(row.layer), _shape(row.output_shape), f"{row.parameters:,}", f"{row.multiply_adds:,}")
            for row in self.rows
        ]
        table.append(("", "total", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join([*map(str.ljust, cells[:3], widths[:3]), *map(str.rjust, cells[3:], widths[3:])]).rstrip()
            for cells in table
        ]
        rule = "─" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(net: Layer, x: Array) -> Summary:
    """Return the table of `net` for input like x: shapes and counts are those of one sample.

    Args:
        net: the network.
        x: (m, …), m of at least 1, of which one row is sent through freshly drawn parameters.

    Raises:
        TypeError, ValueError: x has no sample; whatever the layers raise on input that does not fit.
    """
    check_instance("summary", "net", net, Layer)
    x = np.asarray(x)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"summary: x has shape {x.shape}; expected (m, …) with m of at least 1")
    params = net.init(np.random.default_rng(0), x.dtype if x.dtype.kind == "f" else np.float32)
    return Summary(x.shape[1:], tuple(_rows(net, params, x[:1], "")))


def _rows(layer: Layer, params: Params, x: Array, path: str) -> Iterator[SummaryRow]:
    if isinstance(layer, Sequential):
        for i, (part, part_params) in enumerate(zip(layer.layers, params, strict=True)):
            yield from _rows(part, part_params, x, f"{path}.{i}" if path else f"{i}")
            x, _ = part.forward(part_params, x)
    elif isinstance(layer, Residual):
        yield from _rows(layer.f, params, x, f"{path}.f" if path else "f")
    else:
        y, _ = layer.forward(params, x)
        products = y.size * math.prod(params["W"].shape[1:]) if isinstance(layer, (Linear, Conv2d)) else 0
        yield SummaryRow(path, layer, y.shape[1:], sum(p.size for p in leaves(params)), products)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "1"

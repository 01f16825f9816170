"""Pictures (matplotlib, the extra `plot`): each function returns a Figure, to show in a notebook or `savefig`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Array, Params
from tinynet.inspection import Trace
from tinynet.layers import Layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(history: Mapping[str, Array], *, log: bool | None = None) -> Figure:
    """Draw `FitResult.history`: one panel per quantity, training and validation together.

    Args:
        history: one array per quantity, one entry per epoch; "seconds" is not drawn.
        log: whether the loss has a logarithmic axis; if None, when it is positive and spans more than a factor of 20.

    Raises:
        ValueError: there is nothing to draw.
    """
    names = [name for name in history if not name.startswith("validation_") and name != "seconds"]
    if not names:
        raise ValueError(f"learning_curves: history has {sorted(history)}; expected a loss or a metric")
    figure = _figure((4.8 * len(names), 3.4))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        curves = {"training": history[name]}
        if f"validation_{name}" in history:
            curves["validation"] = history[f"validation_{name}"]
        for label, values in curves.items():
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, values, label=label, marker="o" if len(values) < 15 else None, markersize=4)
        if name == "loss" and (_spans(curves.values()) if log is None else log):
            axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_title(name)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend()
    return figure


def weights(W: Array, *, shape: tuple[int, int] | None = None, columns: int | None = None) -> Figure:
    """Draw weights as images: for each unit what it looks for, red for positive, blue for negative, white for 0.

    Args:
        W: (n_out, n_in) of a Linear layer, one image per unit; or (n_out, n_in, K, K) of a Conv2d, one image per pair
            of channels, one row per output.
        shape: (height, width) of the image that the n_in entries of a Linear layer make; square if None.
        columns: images per row; about a square if None.

    Raises:
        ValueError: W has another number of axes; n_in does not fill the shape.
    """
    W = np.asarray(W)
    if W.ndim == 4:
        columns = columns or W.shape[1]
        images = W.reshape(-1, *W.shape[2:])
    elif W.ndim == 2:
        side = math.isqrt(W.shape[1])
        height, width = shape or (side, side)
        if height * width != W.shape[1]:
            raise ValueError(f"weights: W has shape {W.shape}; expected n_in = {height} · {width}; use shape=")
        images = W.reshape(-1, height, width)
    else:
        raise ValueError(f"weights: W has shape {W.shape}; expected (n_out, n_in) or (n_out, n_in, K, K)")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    limit = float(np.abs(images).max()) or 1.0
    figure = _figure((min(1.1 * columns + 1, 12), min(1.1 * rows + 0.3, 14)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image in zip(grid.flat, images, strict=False):
        shown = axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.colorbar(shown, ax=grid, fraction=0.05, pad=0.02, label="weight")
    return figure


def layers_over_time(traces: Sequence[Trace], *, steps: Sequence[float] | None = None) -> Figure:
    """Draw how large activations and gradients are in each layer as training goes on.

    Left the root mean square of each a, right that of each dW; an axis is logarithmic where the curves span more than a
    factor of 20. With sigmoids those on the right lie below each other by layer: the gradient vanishes on its way back.

    Args:
        traces: `tinynet.trace` of one network at several times, on the same batch.
        steps: when each was taken; 0, 1, 2, … if None.

    Raises:
        ValueError: there is no trace, not as many steps as traces, or the traces are of different networks.
    """
    if not traces or len({t.names for t in traces}) > 1:
        raise ValueError(f"layers_over_time: traces has {len(traces)} of them; expected some, all of one network")
    if steps is not None and len(steps) != len(traces):
        raise ValueError(f"layers_over_time: steps has {len(steps)} entries; expected {len(traces)}, one per trace")
    steps = range(len(traces)) if steps is None else steps
    gradients = [name for name in traces[0].names if name.startswith("dW")][::-1]
    outputs = [name for name in traces[0].names if name.startswith("a") and name != "a0"]
    outputs = outputs or [name for name in traces[0].names if name.startswith("z")]
    figure = _figure((10, 3.8))
    titles = "activations: root mean square", "gradients: root mean square"
    for axes, title, names in zip(figure.subplots(1, 2), titles, (outputs, gradients), strict=True):
        colours = _colours("viridis", np.linspace(0, 0.9, len(names)))
        curves: list[list[float]] = []
        for name, colour in zip(names, colours, strict=True):
            sizes = [float(np.sqrt(np.mean(np.square(t[name])))) for t in traces]
            curves.append(sizes)
            axes.plot(steps, sizes, color=colour, label=name, marker="o" if len(traces) < 15 else None, markersize=4)
        if _spans(curves):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, reverse=True)
    return figure


def decision_surface(net: Layer, params: Params, x: Array, y: Array, *, points: int = 200) -> Figure:
    """Draw the outputs of a network with two inputs all over the plane, with the samples on top.

    With one output, its value; with several, the class of the largest, paler where it leads by less.

    Args:
        net, params: the network.
        x: (m, 2), the samples.
        y: (m, K), the targets: one column of values, or one-hot rows.
        points: grid points per axis.

    Raises:
        ValueError: x is not (m, 2) or y not (m, K).
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] != 2 or y.ndim != 2 or len(y) != len(x):
        raise ValueError(f"decision_surface: x and y have shapes {x.shape} and {y.shape}; expected (m, 2) and (m, K)")
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.1 * np.where(high > low, high - low, 1)
    axis = [np.linspace(a, b, points) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = np.stack(np.meshgrid(*axis), axis=-1)
    value = np.asarray(net.forward(params, grid.reshape(-1, 2).astype(x.dtype))[0]).reshape(points, points, -1)
    extent = (axis[0][0], axis[0][-1], axis[1][0], axis[1][-1])
    figure = _figure((5.4, 4.4))
    axes = figure.subplots()
    if y.shape[1] == 1:
        shown = axes.imshow(value[..., 0], origin="lower", extent=extent, aspect="auto", cmap="RdBu_r", alpha=0.5)
        figure.colorbar(shown, ax=axes, label="ŷ")
        axes.scatter(x[:, 0], x[:, 1], c=y[:, 0], cmap="RdBu_r", edgecolors="black", linewidths=0.6, s=22)
    else:
        palette = _colours("tab10", np.arange(y.shape[1]) % 10)[:, :3]
        axes.imshow(_class_colours(value, palette), origin="lower", extent=extent, aspect="auto")
        for k, colour in enumerate(palette):
            chosen = y.argmax(axis=1) == k
            axes.scatter(
                x[chosen, 0], x[chosen, 1], color=colour, edgecolors="black", linewidths=0.6, s=22, label=f"class {k}"
            )
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.set_xlabel("x₁")
    axes.set_ylabel("x₂")
    return figure


def _figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure of `size` inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('tinynet.plot needs matplotlib; use pip install "tinynet-grad[plot]"') from None
    return Figure(figsize=size, layout="constrained")


def _colours(name: str, at: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (…, 4): the colours of a colour map of matplotlib at the places `at`."""
    from matplotlib import colormaps

    colours: npt.NDArray[Any] = colormaps[name](at)
    return colours


def _class_colours(value: npt.NDArray[Any], palette: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mix the colour of the largest output with white by how far it leads the second."""
    second, first = np.sort(value, axis=-1)[..., -2:].transpose(2, 0, 1)
    lead = np.clip((first - second) / (np.percentile(first - second, 90) or 1), 0, 1)[..., None]
    colours: npt.NDArray[Any] = 1 - (1 - palette[value.argmax(axis=-1)]) * (0.1 + 0.5 * lead)
    return colours


def _spans(curves: Any) -> bool:
    values = np.concatenate([np.asarray(v, float) for v in curves])
    return bool((values > 0).all() and values.max() > 20 * values.min())

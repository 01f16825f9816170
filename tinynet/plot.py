"""Pictures (matplotlib, the extra `plot`): each function returns a Figure, to show in a notebook or `savefig`."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Array, Params
from tinynet.inspection import Trace
from tinynet.layers import Layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(result: Any, *, log: bool | None = None) -> Figure:
    """Draw a result of `fit`, or its history: one panel per quantity, training and validation together.

    Where there is a validation loss, the epoch at which it is smallest is marked. Of several runs the mean is drawn,
    with a band from the smallest to the largest, for each group.

    Args:
        result: a FitResult; or a mapping like its history, one array per quantity, one entry per epoch. "seconds" is
            not drawn. Or several: a SweepResult, grouped by the settings other than the seed; a list of results; or a
            dict name of the group -> result, or list of results.
        log: whether the loss has a logarithmic axis; if None, when it is positive and spans more than a factor of 20.

    Raises:
        ValueError: there is nothing to draw.
    """
    groups = _groups(result)
    best = None
    if groups is not None:
        names = [name for name in next(iter(groups.values()))[0] if name != "seconds"]
        panels = {name: {label: [run[name] for run in runs] for label, runs in groups.items()} for name in names}
    else:
        history: Mapping[str, Array] = getattr(result, "history", result)
        names = [name for name in history if not name.startswith("validation_") and name != "seconds"]
        if not names:
            raise ValueError(f"learning_curves: history has {sorted(history)}; expected a loss or a metric")
        panels = {name: {"training": [history[name]]} for name in names}
        for name in names:
            if f"validation_{name}" in history:
                panels[name]["validation"] = [history[f"validation_{name}"]]
        watched = np.asarray(history.get("validation_loss", ()), float)
        best = int(np.nanargmin(watched)) + 1 if np.isfinite(watched).any() else None
    figure = _figure((4.8 * len(panels), 3.4))
    for axes, (name, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        means = [_curve(axes, label, runs, dots=groups is None) for label, runs in curves.items()]
        if best is not None:
            axes.axvline(best, color="black", linestyle=":", label=f"best: epoch {best}")
        if name.endswith("loss") and (_spans(means) if log is None else log):
            axes.set_yscale("log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", title=name)
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend()
    return figure


def _curve(axes: Any, label: str, runs: list[Array], *, dots: bool) -> Array:
    """Draw the mean of some runs and the band that they fill; return the finite numbers of the mean."""
    epochs = np.arange(1, max(map(len, runs)) + 1)
    values = np.full((len(runs), len(epochs)), np.nan)  # a run may end before the others
    for row, run in zip(values, runs, strict=True):
        row[: len(run)] = run
    masked = np.ma.masked_invalid(values)
    mean = masked.mean(axis=0)
    (line,) = axes.plot(epochs, mean, label=label, marker="o" if dots and len(epochs) < 15 else None, markersize=4)
    if len(runs) > 1:
        band = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
        axes.fill_between(epochs, masked.min(axis=0), masked.max(axis=0), **band)
    return mean.compressed()


def _groups(result: Any) -> dict[str, list[Mapping[str, Array]]] | None:
    """Return the histories of several runs by group; None for a single run."""
    if hasattr(result, "settings") and hasattr(result, "results"):
        groups: dict[str, list[Any]] = {}
        for settings, run in zip(result.settings, result.results, strict=True):
            label = ", ".join(f"{name}={value}" for name, value in settings.items() if name != "seed")
            groups.setdefault(label, []).append(run.history)
        return groups
    if isinstance(result, (list, tuple)):
        result = {"": result}
    elif not isinstance(result, Mapping) or not all(map(_are_runs, result.values())):
        return None
    groups = {str(name): list(runs) if isinstance(runs, (list, tuple)) else [runs] for name, runs in result.items()}
    if not all(groups.values()):
        raise ValueError("learning_curves: result is an empty list; expected at least one run")
    return {name: [getattr(run, "history", run) for run in runs] for name, runs in groups.items()}


def _are_runs(value: Any) -> bool:
    runs = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(run, Mapping) or hasattr(run, "history") for run in runs)


def network(trace: Trace, *, sample: int = 0) -> Figure:
    """Draw a network of dense layers: a in each node, w as each edge's colour and width; blue positive, red negative.

    Of a layer of more than 12 units the first 8 and the last 3 are drawn.

    Args:
        trace: what `tinynet.trace` returned.
        sample: which row of the batch.

    Raises:
        ValueError: a layer is neither Linear nor a function of each entry, which this drawing cannot show.
    """
    columns: list[tuple[str, Any]] = [("a0", None)]
    for q in trace:
        if q.rule == "affine":
            columns.append((q.name, trace[q.factors[0]]))
        elif q.rule == "entrywise":
            columns[-1] = (q.name, columns[-1][1])
        elif q.rule == "layer" and q.factors[0][0] in "az":
            raise ValueError(f"network: {q.equation} is no dense layer; expected Linear and functions of each entry")
    values = [np.atleast_2d(np.asarray(trace[name]))[sample] for name, _ in columns]
    shown = [np.arange(len(v)) if len(v) <= 12 else np.r_[:8, len(v) - 3 : len(v)] for v in values]
    places = [_heights(len(v), len(units)) for v, units in zip(values, shown, strict=True)]
    top = max(ys.max() for ys in places)
    figure = _figure((2.4 * len(columns), 0.75 * (2 * top + 2)))
    axes: Any = figure.subplots()
    axes.axis("off")
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-top - 0.7, top + 1.1))
    for c, ((name, W), a, units, ys) in enumerate(zip(columns, values, shown, places, strict=True)):
        if W is not None:
            _edges(axes, c, np.asarray(W)[np.ix_(units, shown[c - 1])], places[c - 1], ys)
        fill = _colours("RdBu", 0.5 + 0.25 * a[units] / (np.abs(a).max() or 1))
        axes.scatter(np.full(len(ys), c), ys, s=1300, c=fill, edgecolors="black", linewidths=0.8, zorder=3)
        for y, value in zip(ys, a[units], strict=True):
            axes.text(c, y, f"{value:.3g}", ha="center", va="center", fontsize=9, zorder=4)
        if len(units) < len(a):
            axes.text(c, (ys[7] + ys[8]) / 2, f"⋮\n{len(a)} units", ha="center", va="center", fontsize=8)
        axes.text(c, top + 0.8, name, ha="center", fontsize=11)
    return figure


def _edges(axes: Any, c: int, W: npt.NDArray[Any], sources: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
    """Draw the weights between the columns c − 1 and c, with their numbers where there are few."""
    size = np.abs(W) / (np.abs(W).max() or 1)
    colours = _colours("RdBu", 0.5 + 0.45 * np.sign(W) * np.maximum(size, 0.3))
    for i, j in np.ndindex(W.shape):
        axes.plot([c - 1, c], [sources[j], targets[i]], color=colours[i, j], linewidth=0.4 + 2.6 * size[i, j], zorder=1)
        if W.size <= 12:
            x, y = c - 0.66, sources[j] + 0.34 * (targets[i] - sources[j])
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axes.text(x, y, f"{W[i, j]:.3g}", ha="center", va="center", fontsize=8, bbox=paper, zorder=2)


def _heights(n: int, shown: int) -> npt.NDArray[np.float64]:
    """Return the heights of the nodes of a layer, from the top down and about 0, with a gap where it is folded."""
    rows = np.arange(shown, dtype=float)
    if shown < n:
        rows[8:] += 1
    return np.asarray(rows[-1] / 2 - rows)


def confusion(y_hat: Array, y: Array, *, labels: Sequence[Any] | None = None) -> Figure:
    """Draw how often each class (a row) was predicted to be each class (a column), with the numbers.

    The darker a square, the larger its share of the row.

    Args:
        y_hat: (m, K), of which the largest in a row is the prediction; or (m,), the predicted classes from 0 on.
        y: (m, K), one-hot rows; or (m,), the classes.
        labels: the names of the K classes; 0, 1, 2, … if None.

    Raises:
        ValueError: y_hat and y are of different length or of other shapes, K is 1, or labels are too few.
    """
    shapes = f"{np.shape(y_hat)} and {np.shape(y)}"
    if any(np.ndim(a) == 2 and np.shape(a)[1] == 1 for a in (y_hat, y)):
        raise ValueError(
            f"confusion: y_hat and y have shapes {shapes}; for one output give the classes, (y_hat[:, 0] > 0.5) and "
            "y[:, 0]; of a logit, > 0"
        )
    predicted, true = (a.argmax(axis=1) if a.ndim == 2 else a for a in map(np.asarray, (y_hat, y)))
    if predicted.shape != true.shape or true.ndim != 1 or len(true) == 0:
        raise ValueError(f"confusion: y_hat and y have shapes {shapes}; expected (m, K) or (m,), m of at least 1")
    classes = int(max(predicted.max(), true.max())) + 1 if np.ndim(y_hat) == 1 else np.shape(y_hat)[1]
    names = list(range(classes) if labels is None else labels)
    if len(names) < classes:
        raise ValueError(f"confusion: labels has {len(names)} entries; expected {classes}, one per class")
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (true.astype(int), predicted.astype(int)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(10.0, 1.8 + 0.5 * len(names))
    figure = _figure((side + 0.6, side))
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        if count:
            axes.text(j, i, count, ha="center", va="center", color="white" if share[i, j] > 0.5 else "black")
    axes.set_xticks(range(len(names)), names, rotation=90 if max(len(str(name)) for name in names) > 3 else 0)
    axes.set_yticks(range(len(names)), names)
    right = np.trace(counts)
    axes.set(xlabel="predicted", ylabel="true", title=f"{right} of {len(true)} right ({right / len(true):.1%})")
    return figure


def weights(W: Array, *, shape: tuple[int, int] | None = None, columns: int | None = None) -> Figure:
    """Draw weights as images: for each unit what it looks for, blue for positive, red for negative, white for 0.

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
        shown = axes.imshow(image, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
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
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, reverse=True)
    return figure


def decision_surface(net: Layer, params: Params, x: Array, y: Array, *, points: int = 200) -> Figure:
    """Draw the outputs of a network with two inputs all over the plane, with the samples on top.

    With one output, its value; with several, the class of the largest, paler where it leads by less.

    Args:
        net, params: the network.
        x: (m, 2), the samples.
        y: (m, K), the targets: one column of values, or one-hot rows; or (m,), values or classes from 0 on.
        points: grid points per axis.

    Raises:
        ValueError: x is not (m, 2) or y neither (m, K) nor (m,).
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] != 2 or y.ndim not in (1, 2) or len(y) != len(x):
        shapes = f"{x.shape} and {y.shape}"
        raise ValueError(f"decision_surface: x and y have shapes {shapes}; expected (m, 2) and (m, K) or (m,)")
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.1 * np.where(high > low, high - low, 1)
    axis = [np.linspace(a, b, points) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = np.stack(np.meshgrid(*axis), axis=-1)
    value = np.asarray(net.forward(params, grid.reshape(-1, 2).astype(x.dtype))[0]).reshape(points, points, -1)
    if y.ndim == 1:
        y = y[:, None] if value.shape[2] == 1 else np.eye(value.shape[2])[y]
    extent = (axis[0][0], axis[0][-1], axis[1][0], axis[1][-1])
    figure = _figure((5.4, 4.4))
    axes: Any = figure.subplots()
    if y.shape[1] == 1:
        ends = {"vmin": min(value.min(), y.min()), "vmax": max(value.max(), y.max())}
        colours: dict[str, Any] = {"cmap": "coolwarm", **ends}
        shown = axes.imshow(value[..., 0], origin="lower", extent=extent, aspect="auto", alpha=0.45, **colours)
        figure.colorbar(shown, ax=axes, label="ŷ")
        kinds = np.unique(y)
        if len(kinds) == 2 and value.min() < kinds.mean() < value.max():
            lines = axes.contour(*axis, value[..., 0], levels=[kinds.mean()], colors="black", linewidths=1.5)
            axes.clabel(lines, fmt=f"ŷ = {kinds.mean():g}")
        markers = dict(zip(kinds, "os", strict=True)) if len(kinds) == 2 else {None: "o"}
        for kind, marker in markers.items():
            chosen = np.full(len(y), True) if kind is None else y[:, 0] == kind
            dots = {"s": 34, "marker": marker, "edgecolors": "black", "linewidths": 0.9, "label": f"y = {kind}"}
            axes.scatter(x[chosen, 0], x[chosen, 1], c=y[chosen, 0], **dots, **colours)
        if len(kinds) == 2:
            axes.legend(loc="upper left", framealpha=0.9)
    else:
        palette = _colours("tab10", np.arange(y.shape[1]) % 10)[:, :3]
        axes.imshow(_class_colours(value, palette), origin="lower", extent=extent, aspect="auto")
        for k, colour in enumerate(palette):
            chosen = y.argmax(axis=1) == k
            dots = {"s": 22, "edgecolors": "black", "linewidths": 0.6, "label": f"class {k}"}
            axes.scatter(x[chosen, 0], x[chosen, 1], color=colour, **dots)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.set(xlabel="x₁", ylabel="x₂")
    return figure


def _figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure of `size` inches, which a notebook shows without `%matplotlib` too."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('tinynet.plot needs matplotlib; use pip install "tinynet-grad[plot]"') from None
    figure: Any = Figure(figsize=size, layout="constrained")
    figure._repr_png_ = partial(_png, figure)
    return figure  # type: ignore[no-any-return]


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _colours(name: str, at: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (…, 4): the colours of a colour map of matplotlib at the places `at`."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](at))


def _class_colours(value: npt.NDArray[Any], palette: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mix the colour of the largest output with white by how far it leads the second."""
    second, first = np.sort(value, axis=-1)[..., -2:].transpose(2, 0, 1)
    lead = np.clip((first - second) / (np.percentile(first - second, 90) or 1), 0, 1)[..., None]
    return np.asarray(1 - (1 - palette[value.argmax(axis=-1)]) * (0.1 + 0.5 * lead))


def _spans(curves: Any) -> bool:
    values = np.concatenate([np.asarray(v, float) for v in curves])
    return bool(values.size and (values > 0).all() and values.max() > 20 * values.min())

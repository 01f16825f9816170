"""Write what a training run did as one page that needs nothing else."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tinynet as tn
from tinynet.arrays import Array, Params
from tinynet.cli.tables import Split, Table
from tinynet.files.atomic import write_atomically
from tinynet.pages import fill

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 24
"""How many columns of a table a row of weights may have."""


def write_page(
    path: Path, facts: Mapping[str, str], net: tn.Sequential, result: tn.FitResult, table: Table, data: Split
) -> None:
    """Write the learning curves, the confusion of classes, the layers and the first weights of a run.

    `facts` are the lines that the command printed, by their first word.
    """
    sections = {"Learning curves": f'<div class="curves">{"".join(map(_curve, _panels(result.history)))}</div>'}
    if data.task == "classify":
        y_hat = tn.predict(net, result.params, data.x_test)
        names = [str(name) for name in data.classes]
        sections["Held-out rows by class"] = _svg(
            tn.plot.confusion(y_hat, data.y_test, labels=names), "true classes by predicted ones", on="light"
        )
    sections["Layers"] = f'<div class="scroll layers" tabindex="0">{tn.summary(net, data.x_train)._repr_html_()}</div>'
    if weights := _weights(result.params, table):
        sections["Weights of the first layer"] = weights
    write_atomically(
        path,
        fill(
            "training.html",
            title=escape(f"tinynet train: {table.name}"),
            facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()),
            sections="\n".join(f"<section><h2>{name}</h2>{part}</section>" for name, part in sections.items()),
        ).encode(),
    )


def _panels(history: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the history of each quantity by itself, with that by which the best epoch is found."""
    names = [name for name in history if not name.startswith("validation_") and name != "seconds"]
    return [{n: history[n] for n in (name, f"validation_{name}", "validation_loss") if n in history} for name in names]


def _curve(panel: Mapping[str, Array]) -> str:
    return _svg(tn.plot.learning_curves(panel), f"{next(iter(panel))} after each epoch")


def _svg(figure: Figure, label: str, *, on: str = "paper") -> str:
    """Return a figure as SVG whose black is the colour of the text, on the page's paper or on light ground."""
    import matplotlib

    for axes in figure.axes:
        if legend := axes.get_legend():
            legend.get_frame().set_facecolor("none")
    file = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "tinynet"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # text stays text: the browser has other fonts
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    _, tag, svg = file.getvalue().replace("#000000", "currentColor").partition("<svg")
    return f'<figure class="{on}">{tag} role="img" aria-label="{label}"{svg}</figure>'


def _weights(params: Params, table: Table) -> str:
    """Return the weights of the first layer: images where its inputs are one, else a table by column."""
    W = params[0]["W"]
    side = math.isqrt(W.shape[1])
    if not table.columns and side * side == W.shape[1]:
        return _svg(tn.plot.weights(W), "weights of each unit", on="light")
    if not 0 < len(table.columns) <= _SHOWN:
        return ""
    return f'<div class="scroll" tabindex="0">{_matrix(W, table.columns)}</div>'


def _matrix(W: Array, columns: Sequence[Any]) -> str:
    largest = float(np.max(np.abs(W), initial=0.0)) or 1.0
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    rows = []
    for i, row in enumerate(W, 1):
        cells = "".join(
            f'<td style="background: color-mix(in srgb, var(--{"plus" if w > 0 else "minus"}) '
            f'{45 * abs(w) / largest:.0f}%, transparent)">{w:.3f}</td>'
            for w in row.tolist()
        )
        rows.append(f"<tr><th>{i}</th>{cells}</tr>")
    return f"<table><thead><tr><th>unit</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

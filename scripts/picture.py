"""Draw the picture of README.md: a small network, forward and backward, with the numbers of one real pass.

    python scripts/picture.py > .github/picture.svg

Each little square is an entry of an array: red where it is positive, blue where it is negative, the darker the larger
within its array. Rows are samples; dW and db have the shapes of W and b.
"""

from __future__ import annotations

import numpy as np

import tinynet as tn
from tinynet.arrays import Array
from tinynet.inspection import Quantity

WIDTH, HEIGHT, CELL = 920, 408, 13
COLUMNS = [60, 220, 380, 540, 700, 860]
FORWARD, LAYERS, BACKWARD, PARAMETERS = 50, 146, 222, 332
RED, BLUE, INK, PALE = (178, 24, 43), (33, 102, 172), "#24292f", "#6e7781"
PLACES = {
    "a0": (COLUMNS[0], FORWARD),
    "z1": (COLUMNS[1], FORWARD),
    "a1": (COLUMNS[2], FORWARD),
    "z2": (COLUMNS[3], FORWARD),
    "a2": (COLUMNS[4], FORWARD),
    "E": (COLUMNS[5], FORWARD),
    "∂E/∂a2": (COLUMNS[4], BACKWARD),
    "δ2": (COLUMNS[3], BACKWARD),
    "∂E/∂a1": (COLUMNS[2], BACKWARD),
    "δ1": (COLUMNS[1], BACKWARD),
    "dW2": (COLUMNS[2] + 50, PARAMETERS),
    "db2": (COLUMNS[3] + 10, PARAMETERS),
    "dW1": (COLUMNS[0] + 30, PARAMETERS),
    "db1": (COLUMNS[1] - 30, PARAMETERS),
}
"""Where the middle of each array is."""


def main() -> None:
    """Print the picture."""
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = np.array([[0.0], [1.0], [1.0], [0.0]])
    net = tn.Sequential(tn.Linear(2, 4), tn.Sigmoid(), tn.Linear(4, 1), tn.Sigmoid())
    loss = tn.SquaredError()
    trace = tn.trace(net, loss, net.init(np.random.default_rng(0), np.float64), x, y)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" role="img">',
        "<title>A network of two layers: every value on the way forward and every gradient on the way back</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="white"/>',
        *(layer(i, type(part).__name__) for i, part in enumerate([*net.layers, loss])),
        *(quantity(q, *PLACES[q.name]) for q in trace),
        "</svg>",
    ]
    print("\n".join(lines))


def layer(i: int, name: str) -> str:
    """Draw layer i, with an arrow above it for the way forward and one below it for the way back."""
    left, right = COLUMNS[i] + 42, COLUMNS[i + 1] - 42
    box = f'<rect x="{left - 8}" y="{LAYERS - 15}" width="{right - left + 16}" height="30" rx="5" fill="#eaeef2"/>'
    arrows = arrow(left, right, FORWARD) + (arrow(right, left, BACKWARD) if i > 0 else "")
    return box + text((left + right) / 2, LAYERS + 4, name) + arrows


def quantity(q: Quantity, x: float, y: float) -> str:
    """Draw an array around (x, y), and below it the equation that it comes from, with its number."""
    equation, _, number = q.equation.partition("  ")
    entries = cells(q.value, x, y) if np.ndim(q.value) else text(x, y + 5, f"{float(q.value):.3f}", 15)
    return entries + text(x, y + 44, equation) + text(x, y + 59, number, colour=PALE)


def cells(value: Array, x: float, y: float) -> str:
    """Draw a matrix as squares, a vector as a column, with its middle at (x, y)."""
    matrix = value.reshape(len(value), -1)
    left, top = x - CELL * matrix.shape[1] / 2, y - CELL * matrix.shape[0] / 2
    return "".join(
        f'<rect x="{left + CELL * j:g}" y="{top + CELL * i:g}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill="{colour(entry / np.abs(matrix).max())}"/>'
        for (i, j), entry in np.ndenumerate(matrix)
    )


def colour(share: float) -> str:
    """Return white for 0, red for 1, blue for −1, and what is between."""
    full = RED if share > 0 else BLUE
    return "#" + "".join(f"{round(240 + (c - 240) * abs(share)):02x}" for c in full)


def arrow(start: float, end: float, y: float) -> str:
    """Draw a horizontal arrow."""
    back = end - 7 if end > start else end + 7
    return (
        f'<path d="M{start} {y}H{back}" stroke="{PALE}" stroke-width="1.5"/>'
        f'<path d="M{end} {y}L{back} {y - 4}V{y + 4}z" fill="{PALE}"/>'
    )


def text(x: float, y: float, words: str, size: int = 12, *, colour: str = INK) -> str:
    """Write words centred at x."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="middle">{words}</text>'


if __name__ == "__main__":
    main()

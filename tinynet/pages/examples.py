"""Networks small enough to be followed by hand: (net, loss, params, x, y), what `trace` takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.layers import Linear, Sequential, Sigmoid
from tinynet.losses import Loss, SquaredError

Example = tuple[Sequential, Loss, Params, Array, Array]


def mazur() -> Example:
    """Return the network of M. Mazur, A step by step backpropagation example, 2015: 2-2-2, one sample, η = 0.5."""
    net = Sequential(Linear(2, 2), Sigmoid(), Linear(2, 2), Sigmoid())
    params: Any = (
        {"W": np.array([[0.15, 0.20], [0.25, 0.30]]), "b": np.array([0.35, 0.35])},
        {},
        {"W": np.array([[0.40, 0.45], [0.50, 0.55]]), "b": np.array([0.60, 0.60])},
        {},
    )
    return net, SquaredError(), params, np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])


def xor() -> Example:
    """Return a 2-3-1 network and the four samples of exclusive or, with (17): the mean over the samples."""
    net = Sequential(Linear(2, 3), Sigmoid(), Linear(3, 1), Sigmoid())
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = np.array([[0.0], [1.0], [1.0], [0.0]])
    return net, SquaredError("mean"), net.init(np.random.default_rng(0), np.float64), x, y


EXAMPLES = {"mazur": mazur, "xor": xor}

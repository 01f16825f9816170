"""What `tinynet verify --all tinynet` verifies: each public layer and loss, with an independent forward pass.

A new layer adds a line here. A reference is another formulation, from JAX or NumPy, and never tinynet's own code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinynet as tn

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """One thing to verify.

    Attributes:
        target, inputs, reference: as for `tinynet.verify`.
        name: for the report; the target's own if empty.
    """

    target: Any
    inputs: Any = None
    reference: Callable[..., Any] | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or (self.target.__name__ if isinstance(self.target, type) else repr(self.target))


def _affine(params: Any, x: Any) -> Any:
    return np.einsum("ij,...j->...i", params["W"], x) + params["b"]


def _sigmoid(_params: Any, x: Any) -> Any:
    import jax

    with jax.enable_x64(True):
        return np.asarray(jax.nn.sigmoid(x))


def _sigmoid_network(params: Any, x: Any) -> Any:
    for p in params:
        x = _affine(p, x) if p else _sigmoid(p, x)
    return x


def _half_squared_distance(y_hat: Any, y: Any) -> Any:
    return np.linalg.norm(y_hat - y) ** 2 / 2


def _mean_half_squared_distance(y_hat: Any, y: Any) -> Any:
    return np.mean(np.linalg.norm(y_hat - y, axis=-1) ** 2) / 2


CASES: tuple[Case, ...] = (
    Case(tn.Linear(4, 3), reference=_affine),
    Case(tn.Linear(4, 3), inputs=(2, 5, 4), reference=_affine, name="Linear(n_in=4, n_out=3), x (2, 5, 4)"),
    Case(tn.Sigmoid(), reference=_sigmoid),
    Case(
        tn.Sequential(tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(3, 2)),
        reference=_sigmoid_network,
        name="Sequential(Linear(4, 3), Sigmoid(), Linear(3, 2))",
    ),
    Case(tn.SquaredError("sum"), reference=_half_squared_distance),
    Case(tn.SquaredError("mean"), reference=_mean_half_squared_distance),
)
"""Every public layer and loss of tinynet."""

"""The numbers of an epoch: its loss, and what is evaluated after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.training.batches import cast, release
from tinynet.training.engines import Losses

__all__ = ["Metric", "evaluate", "join"]

Metric = Callable[[Any, Any], float]
"""(ŷ, y) -> a number to watch, over the whole of a data set."""

_EVALUATE_AT_ONCE = 8192


def join(loss: Loss, losses: Losses) -> float:
    """Return the loss of an epoch from those of its batches, as the loss joins samples."""
    if loss.reduction == "sum":
        return sum(E for E, _ in losses)
    return sum(E * m for E, m in losses) / sum(m for _, m in losses)


def evaluate(
    net: Layer,
    loss: Loss,
    params: Params,
    x: Array,
    y: Array,
    metrics: Mapping[str, Metric],
    prefix: str,
    dtype: Any,
) -> dict[str, float]:
    """Return metrics of the network on (x, y), and its loss where they have a `prefix`, by name."""
    parts = []
    for i in range(0, len(x), _EVALUATE_AT_ONCE):
        parts.append(net.forward(params, cast(x[i : i + _EVALUATE_AT_ONCE], dtype))[0])
        release(x)
    y_hat, y = np.concatenate(parts), cast(y, dtype)
    row = {prefix + "loss": float(loss.forward(y_hat, y)[0])} if prefix else {}
    return row | {prefix + name: float(metric(y_hat, y)) for name, metric in metrics.items()}

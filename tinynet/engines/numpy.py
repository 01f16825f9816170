"""The NumPy engine: one update after the other, in place on parameters that the engine owns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinynet.arrays import Array, Params
from tinynet.gradients import value_and_grads
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer

__all__ = ["run_epoch"]


def run_epoch(
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    params: Params,
    state: Any,
    batches: Iterable[tuple[Array, Array]],
) -> tuple[Params, Any, list[float]]:
    """Return (params, state, the loss of each batch before its update); params and state are given away.

    The epoch ends at the first batch whose loss is not finite, without an update for it; its loss is the last one.
    """
    losses = []
    for x, y in batches:
        E, grads = value_and_grads(net, loss, params, x, y)
        losses.append(float(E))
        if not math.isfinite(losses[-1]):
            break
        params, state = optimizer.step(params, grads, state)
    return params, state, losses

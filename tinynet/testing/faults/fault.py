"""The names that a fault can have, and what a seeded one is."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.layers import Layer
from tinynet.losses import Loss

__all__ = ["FAULTS", "SeededFault"]

FAULTS = (
    "sign", "transpose", "zero", "missing", "scaled by m", "scaled by 1/m", "scaled by 2", "scaled by 1/2",
    "scaled by 1/n_out", "scaled by a constant", "not summed over the batch", "summed over everything",
    "kept a dimension", "wrong dtype", "float32 inside", "constant offset", "weight decay", "absolute value", "clipped",
    "shifted", "one sample left out", "only one sample used", "ignores dy", "σ′ missing", "σ′ of the output",
    "another activation's derivative", "W for Wᵀ", "already updated W", "stale cache", "accumulates",
    "not deterministic", "mutates x", "mutates params", "mutates dy", "shares memory", "wrong only for a layout",
    "wrong only at batch 1", "wrong only when saturated", "one entry", "one row", "one column", "non-finite",
)  # fmt: skip
"""The names a fault can have."""


@dataclass(frozen=True)
class SeededFault:
    """One way to be wrong.

    Attributes:
        name: one of `FAULTS`.
        gradient: the gradient that is wrong: "x", "params.W", "y_hat", or "" where it is more than one. In a chain,
            "params[0].W", or "layers[1].x" where what is wrong is the error that a layer hands down.
        target: the layer or loss, its forward pass right and its backward pass wrong.
        description: what it does instead of the right thing.
    """

    name: str
    gradient: str
    target: Layer | Loss
    description: str

"""What a layer or a loss says of itself: that it acts sample by sample, and what each sample's loss is."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.losses import Loss
from tinynet.trees import map_leaves
from tinynet.verification.observed import Fault
from tinynet.verification.tolerance import CHOICE


def check_samplewise(layer: Layer, params: Any, x: Any) -> list[Fault]:
    """Return a fault if a layer says that it acts sample by sample and does not."""
    if not isinstance(x, np.ndarray) or len(x) < 2 or not layer.samplewise():
        return []
    try:
        state = layer.init_state(x.dtype)
        whole = forward_with_state(layer, params, x.copy(), state)[0]
        parts = [forward_with_state(layer, params, x[i : i + 1].copy(), state)[0] for i in range(len(x))]
        same = np.allclose(np.concatenate(parts), whole, rtol=CHOICE, atol=CHOICE)
    except Exception:
        same = False
    text = "samplewise() is True, and the output for a sample depends on the others of its batch"
    return [] if same else [Fault(("y",), "forward differs", text, "forward")]


def check_each(loss: Loss, y_hat: Any, y: Any) -> list[Fault]:
    """Return a fault if the losses of the samples do not join to the loss of the batch."""
    if type(loss).each is Loss.each or not loss.samplewise():
        return []  # what is inherited follows from forward and `reduction`, and claims nothing
    try:
        copies = map_leaves(np.array, (y_hat, y) if y is not None else (y_hat,))
        each = np.asarray(loss.each(*copies, *([None] if y is None else [])), float)
        E = float(loss.forward(*map_leaves(np.array, copies), *([None] if y is None else []))[0])
    except Exception:
        return []
    if each.ndim != 1 or not np.isfinite(each).all() or not np.isfinite(E):
        return []
    total = each.sum() / (len(each) if loss.reduction == "mean" else 1)
    if np.isclose(total, E, rtol=CHOICE, atol=CHOICE * float(np.max(np.abs(each), initial=0))):
        return []
    text = f"each() gives losses of the samples that join to {total:.6g}; forward gives {E:.6g}"
    return [Fault(("y",), "forward differs", text, "forward")]

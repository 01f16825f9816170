"""What a layer or a loss says of itself: that it acts sample by sample, and what each sample's loss is."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.losses import Loss
from tinynet.trees import leaves, map_leaves
from tinynet.verification.observations import Fault
from tinynet.verification.tolerance import CHOICE, largest


def check_samplewise(layer: Layer, params: Any, x: Any) -> list[Fault]:
    """Return a fault if a layer says that it acts sample by sample and does not."""
    m = min((len(a) for a in leaves(x) if np.ndim(a)), default=0)
    if m < 2 or not layer.samplewise():
        return []

    def outputs(samples: slice) -> list[Any]:
        part = map_leaves(lambda a: None if a is None else a[samples].copy(), x)
        return leaves(forward_with_state(layer, params, part, layer.init_state(np.float64))[0])

    try:
        alone = zip(*[outputs(slice(i, i + 1)) for i in range(m)], strict=True)
        whole = outputs(slice(m))
        same = all(np.allclose(np.concatenate(a), y, CHOICE, CHOICE) for a, y in zip(alone, whole, strict=True))
    except Exception:
        same = False
    text = "samplewise() is True, and the output for a sample depends on the others of its batch"
    return [] if same else [Fault(("y",), "forward differs", text, "forward")]


def check_each(loss: Loss, y_hat: Any, y: Any) -> list[Fault]:
    """Return a fault if the losses of the samples do not join to the loss of the batch."""
    if type(loss).each is Loss.each or not loss.samplewise():
        return []  # what is inherited follows from forward and `reduction`, and claims nothing
    try:
        each = np.asarray(loss.each(*_copies(y_hat, y)), float)
        E = float(loss.forward(*_copies(y_hat, y))[0])
    except Exception:
        return []
    if each.ndim != 1 or not np.isfinite(each).all() or not np.isfinite(E):
        return []
    total = each.sum() / (len(each) if loss.reduction == "mean" else 1)
    if np.isclose(total, E, rtol=CHOICE, atol=CHOICE * largest(each)):
        return []
    text = f"each() gives losses of the samples that join to {total:.6g}; forward gives {E:.6g}"
    return [Fault(("y",), "forward differs", text, "forward")]


def _copies(*trees: Any) -> Any:
    return map_leaves(lambda a: None if a is None else np.array(a), trees)

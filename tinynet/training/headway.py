"""A warning after a training that made no headway."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping

import numpy as np

import tinynet
from tinynet.arrays import Array
from tinynet.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy, SquaredError
from tinynet.training.batches import Samples, Stream, mapping

_SHARE = 0.9
"""Of what a network without inputs would reach; above that nothing was learned worth the name."""
_EPOCHS = 10
"""Fewer say nothing."""


class NoHeadwayWarning(UserWarning):
    """A training ended about where the best constant prediction is, or where it began."""


def warn_without_headway(loss: Loss, data: Samples | Stream, history: Mapping[str, Array], *, from_start: bool) -> None:
    """Warn if the loss of the last epoch is above 0.9 times that of the best constant prediction.

    For losses whose best constant is not known here it is compared with the first epoch, in a run `from_start`. The
    warning is at the line that called tinynet.
    """
    losses = history["loss"]
    if len(losses) < _EPOCHS:
        return
    E, what = best_constant(loss, data), "the best constant prediction has"
    if E is None and from_start:
        E, what = float(losses[0]), "the first epoch had"
    if E is not None and losses[-1] > _SHARE * E > 0:
        warnings.warn(
            f"fit: no headway: after {len(losses)} epochs the loss is {losses[-1]:.4g}; {what} {E:.4g}. Scale the "
            'inputs to mean 0 and variance 1, use reduction="mean", or try other learning rates, smaller and larger',
            NoHeadwayWarning,
            stacklevel=_first_caller(),
        )


def _first_caller() -> int:
    """Return the `stacklevel`, for a warning by the caller of this, of the first line that is not tinynet's."""
    package = os.path.dirname(tinynet.__file__) + os.sep
    level = 1
    while sys._getframe(level).f_code.co_filename.startswith(package):
        level += 1
    return level


def best_constant(loss: Loss, data: Samples | Stream) -> float | None:
    """Return the loss of the best prediction that is the same for all samples, where that is known.

    It is the mean for the squared error, and the logits of the mean for the cross-entropies.
    """
    y = data.y
    plain = isinstance(data, Samples) and data.weights is None and isinstance(y, np.ndarray) and mapping(y) is None
    if not plain:
        return None
    with np.errstate(divide="ignore"):
        if type(loss) is SquaredError:
            constant = y.mean(axis=0)
        elif type(loss) is BinaryCrossEntropy:
            p = np.clip(y.mean(axis=0), 1e-12, 1 - 1e-12)
            constant = np.log(p / (1 - p))
        elif type(loss) is SoftmaxCrossEntropy and not loss.label_smoothing:
            if y.dtype.kind in "iu":
                counted = y[y != loss.ignore_index]
                if not counted.size:
                    return None
                shares = np.bincount(counted) / counted.size
            else:
                shares = y.mean(axis=tuple(range(y.ndim - 1)))
            constant = np.log(np.maximum(shares, 1e-12))
        else:
            return None
    labels = y.dtype.kind in "iu"
    shape = (*y.shape, *constant.shape) if labels else y.shape
    constant = np.asarray(constant, np.float32 if labels else y.dtype)
    return float(loss.forward(np.broadcast_to(constant, shape), y)[0])

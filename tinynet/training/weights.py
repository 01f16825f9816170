"""How much each sample counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from tinynet.arrays import Array, describe
from tinynet.training.batches import as_array

__all__ = ["sample_weights"]


def sample_weights(
    y: Array, sample_weight: Any, class_weight: Mapping[int, float] | Literal["balanced"] | None
) -> Array | None:
    """Return the weight of each sample, (m,), or None where all count the same.

    Args:
        y: (m,) or (m, 1) whole numbers that are classes, or (m, K), the class being the largest entry's column.
        sample_weight: (m,), at least 0.
        class_weight: a weight at least 0 for every class in y; "balanced" for m / (classes · samples of the class).

    Raises:
        TypeError, ValueError: the weights do not fit y.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(len(y))
    if sample_weight is not None:
        weights = as_array("sample_weight", sample_weight).astype(np.float64)
        if weights.shape != (len(y),):
            raise ValueError(f"fit: sample_weight has shape {weights.shape}; expected {(len(y),)}, one a sample")
    if class_weight is not None:
        weights *= _of_classes(_classes(y), class_weight)
    if (weights < 0).any():
        raise ValueError("fit: a weight of a sample is negative; expected at least 0")
    return weights


def _of_classes(classes: Array, class_weight: Any) -> Array:
    present, index, count = np.unique(classes, return_inverse=True, return_counts=True)
    if class_weight == "balanced":
        return (len(classes) / (len(present) * count))[index]
    if not isinstance(class_weight, Mapping):
        raise TypeError(f'fit: class_weight is {describe(class_weight)}; expected a dict or "balanced"')
    missing = [c for c in present.tolist() if c not in class_weight]
    if missing:
        raise ValueError(f"fit: class_weight has no weight for class {missing[0]!r}, which is in y")
    return as_array("class_weight", [class_weight[c] for c in present.tolist()]).astype(np.float64)[index]


def _classes(y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] > 1:
        return y.argmax(axis=1)
    if y.ndim <= 2 and np.array_equal(y, np.rint(y)):
        return y.reshape(-1).astype(np.int64)
    raise ValueError(f"fit: class_weight needs y of classes, (m,), (m, 1) or (m, K); y has shape {y.shape}")

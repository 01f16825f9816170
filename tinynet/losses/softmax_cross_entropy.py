"""Cross-entropy of one answer out of K, on logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, is_array, namespace
from tinynet.checks import check_labels, check_last_axis, check_same_shape, convert_ints, convert_numbers
from tinynet.losses.loss import Loss
from tinynet.special import product


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of logits, E = −Σ_i w_i Σ_k t_ik log p_ik, p = softmax(z) of each sample.

    The network's output ŷ is the logits z, so the last layer is affine.

    Args:
        reduction: "sum" over the samples, or "mean": divided by the number of those that are not ignored.
        ignore_index: samples with this integer as their target count nothing, as padding in a batch of texts.
        label_smoothing: s, 0 ≤ s < 1: t = (1 − s) y + s / K.

    Shapes:
        z (the argument y_hat) (..., K); every leading axis counts samples, m of them; E is a scalar. y is
        (..., K) floating, one-hot or any distribution over the K classes; or (...) integers from 0 to K − 1, which
        stand for one-hot rows; or a tuple (y, w) with weights w ≥ 0 (...) of the samples, else 1.

    Derivation, for one sample, with u_k = z_k − max_j z_j, which leaves p unchanged and keeps e^u from overflowing:
        log p_k = u_k − log Σ_j e^{u_j}
        E = w Σ_k t_k (log Σ_j e^{u_j} − u_k)
        ∂E/∂z_k = w ((Σ_j t_j) p_k − t_k), which is w (p_k − t_k) as Σ_j t_j = 1
    With reduction="mean" both are divided by m, as in (17).

    Source: C. M. Bishop, Pattern Recognition and Machine Learning, 2006, equations (4.108), (4.109); label smoothing:
    C. Szegedy et al., Rethinking the Inception architecture, CVPR 2016, §7.

    Raises:
        ValueError: reduction or label_smoothing is out of range; z, y and w differ in shape; an integer is out of
            range; there is no class; the mean over no samples.
        TypeError: z, y or w is of another kind.
    """

    ignore_index: int | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ignore_index is not None:
            convert_ints(self, "ignore_index", least=-math.inf)
        convert_numbers(self, "label_smoothing", below=1)

    def check(self, z: Array, y: Any) -> None:
        check_last_axis(self, "y_hat", z)
        y, w = y if isinstance(y, tuple) else (y, None)
        if is_array(y) and y.dtype.kind in "iu" and y.ndim < z.ndim:
            check_labels(self, y, z.shape, self.ignore_index)
        elif is_array(y) and y.dtype.kind == "f" and y.shape == z.shape[:-1] and z.shape[-1] > 1:
            raise ValueError(
                f"{self}: y has shape {tuple(y.shape)}; expected {tuple(z.shape)}, that of y_hat; for classes use "
                "y.astype(int)"
            )
        else:
            check_same_shape(self, "y", y, z.shape, "y_hat")
        if w is not None:
            check_same_shape(self, "the weights in y", w, z.shape[:-1], "y_hat but for the last axis")

    def samplewise(self) -> bool:
        return self.reduction == "sum" or self.ignore_index is None

    def forward(self, z: Array, y: Any) -> tuple[Array, tuple[Array, Array | float]]:
        self.check(z, y)
        xp = namespace(z)
        t, w, scale = self._target(z, y)
        u = z - z.max(axis=-1, keepdims=True)
        p = xp.exp(u)
        total = p.sum(axis=-1, keepdims=True)
        p /= total
        E = (w * product(t, xp.log(total) - u)).sum()
        E *= scale
        return E, (w * (t.sum(axis=-1, keepdims=True) * p - t), scale)

    def backward(self, cache: tuple[Array, Array | float], dE: Array | float = 1.0) -> Array:
        r, scale = cache
        return r * (dE * scale)

    def _target(self, z: Array, y: Any) -> tuple[Array, Array | float, Array | float]:
        """Return t (..., K), w (..., 1) or 1, and what E is divided by for the mean as a factor."""
        xp, K, scale = namespace(z), z.shape[-1], self.scale(z)
        y, w = y if isinstance(y, tuple) else (y, None)
        w = 1.0 if w is None else w[..., None].astype(z.dtype, copy=False)
        if y.ndim < z.ndim:
            labels, y = y[..., None], (y[..., None] == xp.arange(K)).astype(z.dtype)
            if self.ignore_index is not None:
                counted = (labels != self.ignore_index).astype(z.dtype)
                w = w * counted
                scale = 1.0 if self.reduction == "sum" else 1 / xp.maximum(counted.sum(), 1)
        if self.label_smoothing:
            y = (1 - self.label_smoothing) * y + self.label_smoothing / K
        return y, w, scale

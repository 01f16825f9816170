"""The contract of a loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

from tinynet.arrays import Array, Cache, namespace
from tinynet.checks import check_choice

__all__ = ["Loss", "Reduction"]

Reduction = Literal["sum", "mean"]


class Loss(ABC):
    """A scalar E of the prediction ŷ and the target y, and ∂E/∂ŷ.

    `reduction` says how the samples of a batch join in E: "sum" adds them up, "mean" divides that by their number. The
    outputs of one sample are always summed. Subclasses are frozen dataclasses, as layers are.
    """

    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        check_choice(type(self).__name__, "reduction", self.reduction, ("sum", "mean"))

    @abstractmethod
    def forward(self, y_hat: Array, y: Array) -> tuple[Array, Cache]:
        """Return (E, cache), E a scalar array."""

    @abstractmethod
    def backward(self, cache: Cache, dE: Array | float = 1.0) -> Array:
        """Return ∂E/∂ŷ, scaled by `dE`."""

    def each(self, y_hat: Array, y: Array) -> Array:
        """Return the losses of the m samples one by one, shape (m,), before they join; weights need them.

        This way works for every loss whose samples add up; a subclass may write a faster one.
        """
        one = [self.forward(y_hat[i : i + 1], y[i : i + 1])[0] for i in range(len(y_hat))]
        return namespace(y_hat).stack(one)

    def scale(self, y_hat: Array) -> float:
        """Return the factor of a sample in E: 1 for the sum, 1/m for the mean over the m samples of ŷ (..., K).

        Raises:
            ValueError: the mean over no samples is asked for.
        """
        if self.reduction == "sum":
            return 1.0
        m = math.prod(y_hat.shape[:-1]) if y_hat.ndim and y_hat.shape[-1] else 0
        if m == 0:
            raise ValueError(f"{self}: y_hat has shape {tuple(y_hat.shape)}; the mean over no samples is undefined")
        return 1 / m

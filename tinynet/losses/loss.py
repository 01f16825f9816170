"""The contract of a loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from tinynet.arrays import Array, Cache, namespace
from tinynet.checks import check_choice
from tinynet.trees import leaves, map_leaves

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class Loss(ABC):
    """A scalar E of the prediction ŷ and the target y, and ∂E/∂ŷ.

    `reduction` says how the samples of a batch join in E: "sum" adds them up, "mean" divides that by their number. The
    outputs of one sample are always summed. Subclasses are frozen dataclasses, as layers are, and have `reduction` as
    their first field: `MyLoss("mean")`. Own fields follow it and have defaults.

    ŷ and y are arrays or tuples and dicts of arrays with one common first axis; what y must be is for `check` to say.
    """

    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        check_choice(type(self).__name__, "reduction", self.reduction, ("sum", "mean"))

    def check(self, y_hat: Any, y: Any) -> None:  # noqa: B027
        """Raise TypeError or ValueError, saying what is expected, unless `y` is a target for `y_hat`.

        `fit` asks before the first step, `forward` of tinynet's losses at every one; a loss that takes anything leaves
        it as it is.
        """

    @abstractmethod
    def forward(self, y_hat: Array, y: Array) -> tuple[Array, Cache]:
        """Return (E, cache), E a scalar array."""

    @abstractmethod
    def backward(self, cache: Cache, dE: Array | float = 1.0) -> Array:
        """Return ∂E/∂ŷ, scaled by `dE`."""

    def samplewise(self) -> bool:
        """Return whether E is the sum or the mean of one term per sample; weights and threads need that."""
        return True

    def each(self, y_hat: Array, y: Array) -> Array:
        """Return the losses of the m samples one by one, shape (m,), before they join; weights need them.

        This way works for every loss whose samples add up; a subclass may write a faster one.

        Raises:
            ValueError: the loss is not `samplewise`.
        """
        if not self.samplewise():
            raise ValueError(f"{self}: the loss of one sample depends on the others; it has no weights per sample")

        def one(i: int) -> Array:
            return self.forward(*map_leaves(lambda a: None if a is None else a[i : i + 1], (y_hat, y)))[0]

        E = [one(i) for i in range(len(leaves(y_hat)[0]))]
        return namespace(E[0]).stack(E) if E else namespace(leaves(y_hat)[0]).zeros(0)

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

"""Losses: E = loss(ŷ, y), a scalar, and its gradient ∂E/∂ŷ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from tinynet.arrays import Array, Cache, namespace
from tinynet.checks import check_floating, check_same_shape

__all__ = ["Loss", "Reduction", "SquaredError"]

Reduction = Literal["sum", "mean"]


class Loss(ABC):
    """A scalar E of the prediction ŷ and the target y, and ∂E/∂ŷ.

    `reduction` says how the samples of a batch join in E: "sum" adds them up, "mean" divides that by their number.
    Subclasses are frozen dataclasses, as layers are.
    """

    reduction: Reduction = "sum"

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


@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared error, E = ½ Σ_i Σ_k (ŷ_ik − y_ik)², over the samples i and the outputs k.

    Shapes:
        ŷ and y (..., K), equal; every leading axis counts samples, m of them; E is a scalar.

    Derivation:
        E_i = ½ Σ_k (ŷ_ik − y_ik)²                                  (4), which is half of (3)
        ∂E/∂ŷ_ik = ŷ_ik − y_ik                                      the first factor of (7), and of (21)
    With reduction="mean" both are divided by m, the mini-batch gradient of (17); the outputs are always summed.

    Source: equations (3), (4), (7), (17), (21).

    Raises:
        ValueError: reduction is neither; ŷ and y differ in shape; the mean over no samples is asked for.
        TypeError: ŷ or y is not a floating-point array.
    """

    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f'SquaredError: reduction is {self.reduction!r}; expected "sum" or "mean"')

    def forward(self, y_hat: Array, y: Array) -> tuple[Array, Array]:
        check_floating(self, "y_hat", y_hat)
        check_same_shape(self, "y", y, y_hat.shape, "y_hat")
        r = y_hat - y
        E = namespace(r).vdot(r, r)
        E *= 0.5 * self._scale(r)  # (4), (17)
        return E, r

    def backward(self, r: Array, dE: Array | float = 1.0) -> Array:
        return r * (dE * self._scale(r))  # (7), (17), (21)

    def each(self, y_hat: Array, y: Array) -> Array:
        r = y_hat - y
        return (r * r).reshape(len(r), -1).sum(axis=1) * (0.5 * self._scale(r[:1]))  # (4)

    def _scale(self, r: Array) -> float:
        if self.reduction == "sum":
            return 1.0
        m = r.size // r.shape[-1] if r.ndim and r.shape[-1] else 0
        if m == 0:
            raise ValueError(f"{self}: y_hat has shape {tuple(r.shape)}; the mean over no samples is undefined")
        return 1 / m

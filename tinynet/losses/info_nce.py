"""The contrastive loss: each sample finds its partner among all of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, Cache, describe, namespace, widened
from tinynet.checks import check_floating, check_positive, check_same_shape
from tinynet.losses.loss import Loss

_TINY = 1e-24


@dataclass(frozen=True)
class InfoNCE(Loss):
    """Contrastive cross-entropy E = −Σ_i log p_ii, p = softmax(S) by rows, S_ij = cos(a_i, b_j) / τ.

    Args:
        reduction: "sum" over the samples, or "mean".
        temperature: τ > 0.

    Shapes:
        ŷ is a tuple (a, b) of two arrays (m, n), partners in the same row; y is None; E is a scalar.

    Derivation, with r = 1 / √(|a_i|² + 10⁻²⁴) and â_i = r a_i, and likewise b̂_j:
        S = â b̂ᵀ / τ
        ∂E/∂S_ij = p_ij − 1[i = j], as in `SoftmaxCrossEntropy`
        ∂E/∂â = ∂E/∂S b̂ / τ,    ∂E/∂b̂ = (∂E/∂S)ᵀ â / τ
        ∂â_k/∂a_j = r (1[k = j] − â_k â_j), so ∂E/∂a = r (g − (g · â) â) with g = ∂E/∂â
    With reduction="mean" all are divided by m, as in (17). E of one sample depends on the others, so samples have no
    weights.

    Source: A. van den Oord, Y. Li, O. Vinyals, Representation learning with contrastive predictive coding, 2018,
    equation (4); with the cosine and τ, T. Chen et al., A simple framework for contrastive learning, ICML 2020.

    Raises:
        ValueError: reduction is neither; temperature is not positive; a and b differ in shape; y is not None; the mean
            over no samples is asked for.
        TypeError: ŷ is not a tuple of two floating-point arrays.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        temperature = check_positive(type(self).__name__, "temperature", self.temperature)
        object.__setattr__(self, "temperature", temperature)

    def check(self, y_hat: Any, y: None) -> None:
        if not isinstance(y_hat, (tuple, list)) or len(y_hat) != 2:
            raise TypeError(f"{self}: y_hat is {describe(y_hat)}; expected a tuple of two arrays, (a, b)")
        if y is not None:
            raise ValueError(f"{self}: y is {describe(y)}; expected None, as the partner in the row is the target")
        a, b = y_hat
        check_floating(self, "a", a)
        check_same_shape(self, "b", b, a.shape, "a")
        if a.ndim != 2:
            raise ValueError(f"{self}: a has shape {tuple(a.shape)}; expected (m, n)")

    def samplewise(self) -> bool:
        return False

    def forward(self, y_hat: tuple[Array, Array], y: None = None) -> tuple[Array, Cache]:
        self.check(y_hat, y)
        xp = namespace(y_hat[0])
        r_a, r_b = (1 / xp.sqrt((widened(v) ** 2).sum(axis=1, keepdims=True) + _TINY) for v in y_hat)
        a, b = ((v * r).astype(v.dtype, copy=False) for v, r in zip(y_hat, (r_a, r_b), strict=True))
        S = a @ b.T / self.temperature
        S -= S.max(axis=1, keepdims=True, initial=xp.finfo(S.dtype).min)
        p = xp.exp(S)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        E = (xp.log(total[:, 0]) - xp.diagonal(S)).sum() * self.scale(S)
        return E, (a, r_a, b, r_b, p - xp.eye(len(p), dtype=p.dtype))

    def backward(self, cache: Cache, dE: Array | float = 1.0) -> tuple[Array, Array]:
        a, r_a, b, r_b, dS = cache
        dS = dS * (dE * self.scale(dS) / self.temperature)
        return _through_norm(dS @ b, a, r_a), _through_norm(dS.T @ a, b, r_b)


def _through_norm(g: Array, a: Array, r: Array) -> Array:
    return (r * (g - (g * a).sum(axis=1, keepdims=True) * a)).astype(a.dtype, copy=False)

"""Changes of the gradient before an optimizer follows it: an optimizer around an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, Params, namespace
from tinynet.checks import check_positive, convert_numbers
from tinynet.optimizers.learning_rate import in_dtype_of
from tinynet.optimizers.optimizer import Wrapper
from tinynet.trees import leaves, map_leaves


class Transform(Wrapper):
    """An optimizer that follows another gradient; the state is that of the optimizer inside."""

    def init(self, params: Params) -> Any:
        return self.optimizer.init(params)

    def learning_rate(self, state: Any) -> float | None:
        return self.optimizer.learning_rate(state)

    def observe(self, state: Any, row: Mapping[str, float]) -> Any:
        return self.optimizer.observe(state, row)


@dataclass(frozen=True)
class ClipByGlobalNorm(Transform):
    """Shorten the gradient to at most `max_norm`, then follow `optimizer`: ∇w ← ∇w · c / max(‖∇‖, c).

    ‖∇‖ is the norm of all gradients as one vector, so the direction does not change. The state is the optimizer's.

    Args:
        optimizer: what follows the gradient.
        max_norm: c > 0.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural networks, ICML 2013,
    algorithm 1.

    Raises:
        TypeError, ValueError: optimizer is not an Optimizer; max_norm is not a positive number.
    """

    traced = ("max_norm",)

    max_norm: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "max_norm", check_positive("ClipByGlobalNorm", "max_norm", self.max_norm))

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        norm = global_norm(grads)
        factor = self.max_norm / namespace(norm).maximum(norm, self.max_norm)
        grads = map_leaves(lambda g: g * in_dtype_of(g, factor), grads)
        return self.optimizer.step(params, grads, state)


@dataclass(frozen=True)
class WeightDecay(Transform):
    """Add λ w to the gradient, that of ½ λ ‖w‖², then follow `optimizer`. The state is the optimizer's.

    Args:
        optimizer: what follows the gradient.
        decay: λ ≥ 0, on every parameter.

    Source: A. Krogh, J. A. Hertz, A simple weight decay can improve generalization, NIPS 1991.

    Raises:
        TypeError, ValueError: optimizer is not an Optimizer; decay is not a number of at least 0.
    """

    traced = ("decay",)

    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        convert_numbers(self, "decay")

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        grads = map_leaves(lambda g, p: g + self.decay * p, grads, params)
        return self.optimizer.step(params, grads, state)


def global_norm(tree: Params) -> Array:
    """Return the root of the sum of the squares of all entries; the largest is taken out, so no square overflows."""
    parts = [g for g in leaves(tree) if g.size]
    if not parts:
        raise ValueError("global_norm: the gradients have no entry; expected at least one")
    xp = namespace(parts[0])
    largest = xp.max(xp.stack([abs(g).max() for g in parts]))
    unit = xp.where(largest > 0, largest, 1)
    return largest * xp.sqrt(sum(((g / unit) ** 2).sum() for g in parts))

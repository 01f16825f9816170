"""Larger batches than fit in memory: the gradients of several make one update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, Params, choose
from tinynet.checks import convert_ints
from tinynet.optimizers.learning_rate import first_step, in_dtype_of, next_step
from tinynet.optimizers.optimizer import Wrapper, zeros_like
from tinynet.trees import map_leaves


@dataclass(frozen=True)
class Accumulate(Wrapper):
    """Follow `optimizer` once for every k batches, on the mean of their gradients.

    The mean is ḡ ← ḡ + (∇w − ḡ) / n for n = 1 … k; then `optimizer` makes its update, and ḡ and n start at 0 again.

    Args:
        optimizer: what follows the mean.
        every: k ≥ 1.

    The state is {"count", "mean", "optimizer"}.

    Raises:
        TypeError, ValueError: optimizer is not an Optimizer; every is not an int of at least 1.
    """

    every: int

    def __post_init__(self) -> None:
        super().__post_init__()
        convert_ints(self, "every")

    def init(self, params: Params) -> Any:
        return {"count": first_step(), "mean": zeros_like(params), "optimizer": self.optimizer.init(params)}

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        n = next_step(state["count"])

        def join(mean: Array, g: Array) -> Array:
            mean += (g - mean) / in_dtype_of(mean, n)
            return mean

        def update(params: Params, mean: Params, inner: Any) -> tuple[Params, Any]:
            zeros = zeros_like(mean)
            params, inner = self.optimizer.step(params, mean, inner)
            return params, {"count": n - n, "mean": zeros, "optimizer": inner}

        def wait(params: Params, mean: Params, inner: Any) -> tuple[Params, Any]:
            return params, {"count": n, "mean": mean, "optimizer": inner}

        mean = map_leaves(join, state["mean"], grads)
        return choose(n == self.every, update, wait, params, mean, state["optimizer"])  # type: ignore[no-any-return]

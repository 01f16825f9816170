"""The average of the parameters on their way, which is often better than where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinynet.arrays import Array, Params, owned_copy
from tinynet.checks import convert_numbers
from tinynet.optimizers.optimizer import Wrapper
from tinynet.trees import map_leaves


@dataclass(frozen=True)
class AverageWeights(Wrapper):
    """Follow `optimizer` and keep the average of the parameters: w̄ ← d w̄ + (1 − d) w after each update.

    w̄ starts at the first parameters. It is in the state: `result.state.optimizer["average"]` after `fit`.

    Args:
        optimizer: what makes the updates.
        decay: d, 0 ≤ d < 1.

    The state is {"average", "optimizer"}.

    Source: B. T. Polyak, A. B. Juditsky, Acceleration of stochastic approximation by averaging, 1992; the exponential
    form is that of D. P. Kingma, J. Ba, Adam, ICLR 2015, §7.2.

    Raises:
        TypeError, ValueError: optimizer is not an Optimizer; decay is not a number in its range.
    """

    traced = ("decay",)

    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        convert_numbers(self, "decay", below=1)

    def init(self, params: Params) -> Any:
        return {"average": map_leaves(owned_copy, params), "optimizer": self.optimizer.init(params)}

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        params, inner = self.optimizer.step(params, grads, state["optimizer"])

        def join(average: Array, p: Array) -> Array:
            average *= self.decay
            average += (1 - self.decay) * p
            return average

        return params, {"average": map_leaves(join, state["average"], params), "optimizer": inner}

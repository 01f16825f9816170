"""Smaller steps where a number of the history improves no longer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, namespace, owned_copy
from tinynet.checks import convert_ints, convert_numbers
from tinynet.optimizers.learning_rate import first_step, in_dtype_of
from tinynet.optimizers.optimizer import Wrapper
from tinynet.trees import map_leaves


@dataclass(frozen=True)
class ReduceOnPlateau(Wrapper):
    """Follow `optimizer` with its updates scaled by s, which shrinks when an epoch's number has not improved for long.

        w ← w + s Δw,    s = 1 at first
        s ← factor · s   after `patience` epochs in a row with monitor ≥ (1 − rtol) · best

    Args:
        optimizer: what makes the updates Δw.
        monitor: the number's name in the history; less is better.
        factor: 0 < factor < 1.
        patience: at least 1.
        rtol: how much better, relative to the best so far, counts as better; 0 ≤ rtol < 1.

    The state is {"scale", "best", "waited", "optimizer"}.

    Raises:
        TypeError, ValueError: an argument is out of its range; after the first epoch, monitor is not in the history.
    """

    traced = ("factor", "rtol")

    monitor: str = "validation_loss"
    factor: float = 0.1
    patience: int = 10
    rtol: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        convert_numbers(self, "factor", "rtol", below=1)
        convert_ints(self, "patience")

    def init(self, params: Params) -> Any:
        watched = {"scale": np.ones(()), "best": np.full((), np.inf), "waited": first_step()}
        return {**watched, "optimizer": self.optimizer.init(params)}

    def learning_rate(self, state: Any) -> float | None:
        lr = super().learning_rate(state)
        return None if lr is None else lr * float(state["scale"])

    def observe(self, state: Any, row: Mapping[str, float]) -> Any:
        if self.monitor not in row:
            raise ValueError(
                f"ReduceOnPlateau: monitor is {self.monitor!r}, which is not measured; expected one of {sorted(row)}, "
                "or fit(validation=…)"
            )
        best, waited = state["best"], state["waited"]
        xp = namespace(best)
        value = xp.asarray(row[self.monitor], dtype=best.dtype)
        improved = value < (1 - self.rtol) * best
        waited = xp.where(improved, 0, waited + 1)
        reached = waited >= self.patience
        return super().observe(state, row) | {
            "scale": xp.where(reached, self.factor * state["scale"], state["scale"]),
            "best": xp.where(improved, value, best),
            "waited": xp.where(reached, 0, waited).astype(state["waited"].dtype),
        }

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        before = map_leaves(owned_copy, params)
        params, inner = self.optimizer.step(params, grads, state["optimizer"])

        def scale(p: Array, old: Array) -> Array:
            p -= old
            p *= in_dtype_of(p, state["scale"])
            p += old
            return p

        return map_leaves(scale, params, before), {**state, "optimizer": inner}

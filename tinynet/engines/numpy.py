"""The NumPy engine: one update after the other, in place on parameters that the engine owns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Params
from tinynet.batches import Batch
from tinynet.engines import Carry, Losses, OnStep
from tinynet.engines.threads import blas_threads
from tinynet.gradients import value_and_grads
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.trees import map_leaves

__all__ = ["NumpyEngine"]


@dataclass(frozen=True)
class NumpyEngine:
    """Training on NumPy arrays.

    Args:
        net, loss, optimizer: what to train, on what and how.
        work: floating-point operations in a step, about.
        threads: threads of the matrix products; None to choose by `work`.
    """

    net: Layer
    loss: Loss
    optimizer: Optimizer
    work: float = 0.0
    threads: int | None = None

    def session(self) -> AbstractContextManager[Any]:
        _keep_freed_memory()
        return blas_threads(self.work, self.threads)

    def start(self, params: Params) -> Carry:
        params = map_leaves(np.array, params)
        return params, self.optimizer.init(params)

    def epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None = None
    ) -> tuple[Carry, Losses]:
        """Make an update a batch, until a loss is not finite: that batch is the last one and makes no update."""
        params, state = carry
        dE, rule = self.optimizer.scaled()
        net = self.net
        is_random = net.sample(np.random.default_rng(0)) is not net
        losses: Losses = []
        with np.errstate(over="ignore", invalid="ignore"):
            for i, (x, y, weights) in enumerate(batches):
                if is_random:
                    net = self.net.sample(rng)
                E, grads = value_and_grads(net, self.loss, params, x, y, weights=weights, dE=dE)
                losses.append((float(E), len(x)))
                if not math.isfinite(E):
                    break
                params, state = rule.step(params, grads, state)
                if on_step and on_step(i, losses[-1][0], params, x, y):
                    break
        return (params, state), losses

    def copy(self, carry: Carry) -> Carry:
        params, state = carry
        return map_leaves(np.copy, params), map_leaves(np.copy, state)

    def params(self, carry: Carry) -> Params:
        return carry[0]


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 32 MiB for the next step.

    It hands large blocks back to the kernel, and a step that asks for them again waits for the pages to be cleared:
    4 ms for 20 MiB. It stops doing so below the size of the largest block freed so far, up to 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD). The block asked for here is never touched and takes no memory.
    """
    np.empty(2**25 - 2**16, np.uint8)

"""The NumPy engine: one update after the other, in place on parameters that the engine owns."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from tinynet.arrays import Array, Params, is_array
from tinynet.gradients import backpropagate, check_like_params, value_and_grads
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.training.batches import Batch, count, rows_of
from tinynet.training.engines import Carry, Losses, OnStep, TrainingState, first_layers_state, is_sampled
from tinynet.training.engines.processes import Processes
from tinynet.training.engines.threads import blas_threads, shares
from tinynet.trees import leaves, leaves_with_paths, map_leaves


@dataclass(frozen=True)
class NumpyEngine:
    """Training on NumPy arrays, on so many `threads`; None to choose by `work`, about the operations in a step.

    They may share a batch where it `joins`: where the losses of samples join to that of their batch.
    """

    stops_anywhere: ClassVar[bool] = True
    processes: ClassVar[Processes] = Processes()

    net: Layer
    loss: Loss
    optimizer: Optimizer
    work: float = 0.0
    threads: int | None = None
    joins: bool = True

    @cached_property
    def _shares(self) -> int:
        apart = self.net.samplewise() and self.joins and self.loss.samplewise() and not leaves(self.net.init_state())
        return shares(self.work, self.threads) if apart else 1

    def session(self) -> AbstractContextManager[Any]:
        _keep_freed_memory()
        return blas_threads(self.work, self.threads) if self._shares == 1 else blas_threads(0, 1)

    def start(self, params: Params, state: TrainingState | None = None) -> Carry:
        params = map_leaves(np.array, params)
        dtype = next((p.dtype for p in leaves(params)), np.float32)
        layers = map_leaves(_own, first_layers_state(self.net, dtype, state))
        first = self.optimizer.init(params)
        if state is None:
            return Carry(params, first, layers)
        if _shapes(state.optimizer) != _shapes(first):
            raise ValueError("fit: state.optimizer is not a state of this optimizer on these parameters")
        return Carry(params, map_leaves(_own, state.optimizer), layers)

    def epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None = None
    ) -> tuple[Carry, Losses]:
        """Make one update per batch, until a loss is not finite: that batch is the last one and makes no update."""
        params, state, layers = carry
        has_state, sampled, net = bool(leaves(layers)), is_sampled(self.net), self.net
        dE, rule = self.optimizer.scaled()
        losses: Losses = []
        with np.errstate(over="ignore", invalid="ignore"), _pool(self._shares) as pool:
            for i, (x, y, weights) in enumerate(batches):
                if sampled:
                    net = self.net.sample(rng)
                if pool is None or net is not self.net:  # numbers that are drawn belong to the batch as a whole
                    E, grads, cache = backpropagate(
                        net, self.loss, params, x, y, weights=weights, dE=dE, state=layers if has_state else None
                    )
                else:
                    E, grads = self._shared(pool, params, (x, y, weights), dE)
                losses.append((float(E), count(x)))
                if not math.isfinite(E):
                    break
                if has_state:
                    layers = net.update_state(layers, cache)
                told = (
                    (map_leaves(lambda g: g / dE, grads), net, self.optimizer.learning_rate(state)) if on_step else ()
                )
                before = params
                if i == 0:
                    check_like_params("gradient of", grads, params)
                params, state = rule.step(params, grads, state)
                if i == 0:
                    check_like_params("update of", params, before)
                if on_step and on_step(i, losses[-1][0], params, x, y, *told):
                    break
        return Carry(params, state, layers), losses

    def _shared(self, pool: Executor, params: Params, batch: Batch, dE: float) -> tuple[Array, Params]:
        """Let each thread take a share of the samples; their losses and gradients add up, as (17) says."""
        m = count(batch[0])
        n = min(self._shares, m)
        edges = [m * i // n for i in range(n + 1)]

        def share(start: int, stop: int) -> tuple[Array, Params]:
            x, y, weights = rows_of(batch, slice(start, stop))
            part = (stop - start) / m if self.loss.reduction == "mean" else 1.0
            E, grads = value_and_grads(self.net, self.loss, params, x, y, weights=weights, dE=dE * part)
            return E * part, grads

        others = [pool.submit(copy_context().run, share, i, j) for i, j in itertools.pairwise(edges[1:])]
        E, grads = share(edges[0], edges[1])
        for other in others:
            E_other, grads_other = other.result()
            E = E + E_other
            grads = map_leaves(operator.iadd, grads, grads_other)
        return E, grads

    def observe(self, carry: Carry, row: Mapping[str, float]) -> Carry:
        return carry._replace(optimizer=self.optimizer.observe(carry.optimizer, row))

    def copy(self, carry: Carry) -> Carry:
        return Carry(*(map_leaves(_own, part) for part in carry))

    def params(self, carry: Carry) -> Params:
        return carry.params

    def state(self, carry: Carry) -> TrainingState:
        return TrainingState(carry.optimizer, carry.layers)


def _own(leaf: Any) -> Any:
    """Copy an array; a number in an optimizer's state stays one."""
    return np.array(leaf) if is_array(leaf) else leaf


def _shapes(tree: Any) -> list[tuple[str, tuple[int, ...]]]:
    return [(path, np.shape(leaf)) for path, leaf in leaves_with_paths(tree)]


def _pool(threads: int) -> AbstractContextManager[Executor | None]:
    return ThreadPoolExecutor(threads - 1) if threads > 1 else nullcontext()


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 32 MiB for the next step.

    It hands large blocks back to the kernel, and a step that asks for them again waits for the pages to be cleared:
    4 ms for 20 MiB. It stops doing so below the size of the largest block freed so far, up to 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD). The block asked for here is never touched and takes no memory.
    """
    np.empty(2**25 - 2**16, np.uint8)

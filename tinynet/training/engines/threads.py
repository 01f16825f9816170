"""The threads of the NumPy engine.

NumPy's matrix products can use several threads by themselves, but those wait for each other by spinning: where other
programs keep the cores busy, each wait costs a slice of the scheduler's time, some milliseconds. So a product gets one
thread, and the threads share the samples of a batch instead: they sleep while they wait, and meet once a step.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tinynet.arrays import Params
from tinynet.trees import leaves

SHARE_WORK = 1e8
"""Floating-point operations in a step that are worth a thread of their own, about a millisecond."""

PRODUCT_WORK = 1e11
"""Floating-point operations in a step from which the products get every thread, where a batch cannot be shared."""


def step_work(params: Params, batch: int) -> float:
    """Return about how many floating-point operations a step is: per weight and sample 2 forward and 4 backward."""
    return 6.0 * sum(int(p.size) for p in leaves(params)) * batch


def shares(work: float, threads: int | None) -> int:
    """Return into how many parts to split a batch, given the operations in a step and the `threads` asked for."""
    return threads or max(1, min(_cores(), int(work / SHARE_WORK)))


def blas_threads(work: float, threads: int | None) -> AbstractContextManager[Any]:
    """Limit the threads of NumPy's matrix products within a `with`, for steps of `work` floating-point operations.

    Args:
        threads: this many; None for one, or all of them from `PRODUCT_WORK` on.

    The limits that held before are restored at the end, also after an exception.
    """
    if threads is None and work >= PRODUCT_WORK:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=threads or 1, user_api="blas")  # type: ignore[no-any-return]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

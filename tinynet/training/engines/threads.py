"""The threads of the NumPy engine.

NumPy's matrix products can use several threads by themselves, but those wait for each other by spinning: where other
programs keep the cores busy, each wait costs a slice of the scheduler's time, some milliseconds. So a product gets one
thread, and the threads share the samples of a batch instead: they sleep while they wait, and meet once a step.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def blas_threads(work: float, threads: int | None) -> Iterator[None]:
    """Limit NumPy's matrix products to so many `threads`; None for one, or all of them from `PRODUCT_WORK` on.

    The limit is that of the whole process: of several at a time the latest holds, and the last one to end restores what
    held before the first, also after an exception.
    """
    if threads is None and work >= PRODUCT_WORK:
        yield
        return
    with _LIMITS.held(threads or 1):
        yield


class _Limits:
    """The limits that hold now, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[object, int] = {}
        self._before: Any = None

    @contextmanager
    def held(self, threads: int) -> Iterator[None]:
        key = object()
        with self._lock:
            limited = _limited(threads)
            self._before = self._before or limited
            self._held[key] = threads
        try:
            yield
        finally:
            with self._lock:
                del self._held[key]
                if self._held:
                    _limited(next(reversed(self._held.values())))
                else:
                    self._before.restore_original_limits()
                    self._before = None
                    _let_others_limit()


def _limited(threads: int) -> Any:
    """Limit the threads of BLAS; return what can restore those that were allowed before."""
    from threadpoolctl import threadpool_limits

    limited = threadpool_limits(threads, user_api="blas")
    _let_others_limit()
    return limited


def _let_others_limit() -> None:
    """End the hold that newer threadpoolctl gives the first thread that limits OpenBLAS: another may be last to end."""
    from threadpoolctl import OpenBLASController

    getattr(OpenBLASController, "clear_controlling_thread", lambda: None)()


_LIMITS = _Limits()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""How many threads the matrix products get."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tinynet.checks import check_positive_int

__all__ = ["ALL_THREADS_FROM", "blas_threads"]

ALL_THREADS_FROM = 1e11
"""Multiply-adds and additions in a step from which its products get every thread.

The threads of a product wait for each other by spinning. Where other programs keep the cores busy, each such wait costs
a slice of the scheduler's time, some milliseconds; a step must be long for that not to matter.
"""


def blas_threads(work: float, threads: int | None) -> AbstractContextManager[Any]:
    """Limit the threads of NumPy's matrix products within a `with`, for steps of `work` floating-point operations.

    Args:
        threads: this many; None for one, or all of them from `ALL_THREADS_FROM` on.

    The limits that held before are restored at the end, also after an exception.

    Raises:
        TypeError, ValueError: threads is not a positive int.
    """
    if threads is not None:
        check_positive_int("fit", "threads", threads)
    elif work >= ALL_THREADS_FROM:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=threads or 1, user_api="blas")  # type: ignore[no-any-return]

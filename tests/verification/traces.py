"""What a process is like, and targets that change it."""

import os
import random
import signal
import sys
import threading
import warnings
from typing import Any

import jax
import numpy as np


def state_of_process() -> dict[str, Any]:
    """Return what a verification may not change, as values that can be compared."""
    return {
        "x64": jax.config.jax_enable_x64,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "numpy": dict(vars(np)),
        "print options": {k: str(v) for k, v in np.get_printoptions().items()},
        "floating-point errors": np.geterr(),
        "signals": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "warnings": (list(warnings.filters), warnings.showwarning),
        "random": (random.getstate(), str(np.random.get_state())),  # noqa: NPY002
        "recursion": sys.getrecursionlimit(),
        "tracing": (sys.gettrace(), sys.getprofile()),
        "threads": sorted(t.name for t in threading.enumerate() if t.name.startswith("tinynet")),
    }


def _x64() -> None:
    jax.config.update("jax_enable_x64", not jax.config.jax_enable_x64)


def _exit() -> None:
    sys.exit(0)


HABITS = {
    "64-bit mode": _x64,
    "folder": lambda: os.chdir("/"),
    "environment": lambda: os.environ.update(TINYNET_TRACE="1"),
    "NumPy's functions": lambda: setattr(np, "tanh", np.sinh),
    "print options": lambda: np.set_printoptions(precision=2),
    "floating-point errors": lambda: np.seterr(all="raise"),
    "warnings": lambda: warnings.simplefilter("error"),
    "random": lambda: (random.random(), np.random.rand()),  # noqa: NPY002
    "recursion": lambda: sys.setrecursionlimit(5000),
    "exit": _exit,
    "nothing": lambda: None,
}
"""What a target does in its backward pass besides, by name."""


def target(habit: str, factor: float = 1.0) -> tuple[Any, Any]:
    """Return a pair whose backward pass has a habit; it is right if the factor is 1."""

    def backward(args: Any, dy: Any) -> tuple[Any]:
        HABITS[habit]()
        return (dy * dy.dtype.type(factor) * 2 * args[0],)

    return lambda x: x * x, backward

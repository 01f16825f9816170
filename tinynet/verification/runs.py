"""Calling the target: on copies, watched, with everything that it does noted and nothing that it does escaping."""

from __future__ import annotations

import contextlib
import ctypes
import random
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from tinynet.verification.subjects import MISSING, Args, Gradients, Session, Subject

__all__ = ["LAYOUTS", "Run", "Watchdog", "call", "copy_of", "is_nothing", "leave_no_trace", "problem_with"]


@dataclass
class Run:
    """What one forward and backward pass did.

    Attributes:
        y: what came out, as it was then.
        grads: the gradients, as they were then: an array that the target goes on writing into does not change here.
        handed_out: the very objects that were returned.
        error, stage: what it raised, and whether in "forward" or "backward".
        mutated: names of arrays that it wrote into.
        by_jax: whether y is an array of JAX's.
        shared: for each gradient, the name of an array that it shares memory with.
    """

    y: Any = None
    grads: Gradients = field(default_factory=dict)
    handed_out: Gradients = field(default_factory=dict)
    error: BaseException | None = None
    stage: str = ""
    mutated: tuple[str, ...] = ()
    shared: dict[str, str] = field(default_factory=dict)
    context: Any = None
    by_jax: bool = False


class Hang(BaseException):
    """Raised inside the target when it does not come back. Not an Exception: the target must not swallow it."""


class Watchdog:
    """Interrupts a call that takes longer than `seconds`; one thread for as long as the `with` block lasts."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None
        self._caller = threading.get_ident()
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Watchdog:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the code of the block."""
        self._deadline = time.monotonic() + self.seconds
        try:
            yield
        finally:
            with self._lock:
                self._deadline = None

    def _watch(self) -> None:
        while not self._stop.wait(min(0.2, self.seconds / 4)):
            with self._lock:
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._deadline = None
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._caller), ctypes.py_object(Hang))


@contextlib.contextmanager
def leave_no_trace() -> Iterator[None]:
    """Put NumPy's error state, the warnings filters and the global random states back as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - it is the target that may use them
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _fortran(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array(a, order="F")


def _strided(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 7, a.dtype) if a.ndim else a.copy()
    if a.ndim:
        wide[..., ::2] = a
        return wide[..., ::2]
    return wide


def _reversed(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip]


def _read_only(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    a = a.copy()
    a.setflags(write=False)
    return a


LAYOUTS = {"Fortran order": _fortran, "strided": _strided, "reversed": _reversed, "read-only": _read_only}
"""The same numbers, laid out in memory in other ways; a broadcast array (stride 0) has other numbers too."""


def copy_of(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy `a` with its layout: strides, order and flags."""
    for lay_out in (_read_only,) if not a.flags.writeable and 0 not in a.strides else ():
        return lay_out(a)
    if a.flags.c_contiguous or a.ndim == 0:
        return a.copy()
    if a.flags.f_contiguous:
        return _fortran(a)
    if 0 in a.strides:
        return np.broadcast_to(a[:1].copy(), a.shape)
    return _reversed(a) if a.strides[0] < 0 else _strided(a)


def call(
    subject: Subject,
    args: Args,
    dy: npt.NDArray[Any],
    watchdog: Watchdog,
    *,
    session: Session | None = None,
    context: Any = MISSING,
) -> Run:
    """Run forward and backward on copies of `args` and `dy`; with a `context`, only that backward."""
    run = Run(context=context)
    given = {name: copy_of(a) for name, a in args.items()}
    given_dy = copy_of(dy)
    session = session or subject.session()
    run.stage = "forward"
    try:
        with watchdog.watching(), _full_precision() if subject.by_jax else contextlib.nullcontext():
            if context is MISSING:
                run.y, run.context = session.forward(given)
                run.mutated = _changed(given, args)
                run.by_jax = hasattr(run.y, "__array_namespace__") and not isinstance(run.y, (np.ndarray, np.generic))
                run.y = _snapshot(run.y)
            run.stage = "backward"
            run.handed_out = session.backward(run.context, given_dy)
    except (Exception, Hang) as error:
        run.error = error
        return run
    run.grads = {name: g.copy() if isinstance(g, np.ndarray) else g for name, g in run.handed_out.items()}
    everything, pristine = given | {"dy": given_dy}, args | {"dy": dy}
    run.mutated = _changed(everything | session.params_now(), pristine)
    for name, grad in run.handed_out.items():
        if isinstance(grad, np.ndarray) and grad.size:
            other = next((n for n, a in everything.items() if a.size and np.shares_memory(grad, a)), None)
            if other is not None:
                run.shared[name] = other
    return run


def problem_with(grad: Any, like: npt.NDArray[Any]) -> tuple[str, str]:
    """Return what is wrong with the form of a gradient, as (fault, explanation); ("", "") if nothing is.

    A wrong shape is the fault "shape": its values can tell more.
    """
    if grad is MISSING:
        return "missing", "no such gradient is returned"
    if grad is None:
        return "missing", "None is returned"
    if hasattr(grad, "__array_namespace__") and not isinstance(grad, (np.ndarray, np.generic)):
        grad = np.asarray(grad)
    if not isinstance(grad, (np.ndarray, np.generic)):
        return "not an array", f"a {type(grad).__name__} is returned; expected an array of shape {like.shape}"
    if grad.dtype.kind not in "fiubc":
        return "wrong dtype", f"dtype {grad.dtype} is returned; expected {like.dtype}"
    if grad.shape != like.shape:
        return "shape", f"shape {grad.shape} is returned; expected {like.shape}"
    if grad.dtype != like.dtype:
        return "wrong dtype", f"dtype {grad.dtype} is returned; expected {like.dtype}"
    return "", ""


def is_nothing(grad: Any) -> bool:
    """Whether a gradient by what does not vary says so: nothing at all, None, or zeros, of whatever kind."""
    if grad is MISSING or grad is None:
        return True
    try:
        return not np.any(np.asarray(grad))
    except (TypeError, ValueError):
        return False


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """JAX in 64 bits, and products of float32 as such: GPUs would round their operands to fewer bits."""
    with jax.enable_x64(True), jax.default_matmul_precision("float32"):
        yield


def _changed(given: Args, pristine: Args) -> tuple[str, ...]:
    return tuple(name for name, a in given.items() if a.tobytes() != pristine[name].tobytes())


def _snapshot(y: Any) -> Any:
    return np.array(y) if isinstance(y, (float, int)) or hasattr(y, "__array_namespace__") else y

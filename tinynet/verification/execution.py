"""Calling the target: on copies, watched, with everything that it does noted and nothing that it does escaping."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from tinynet.verification.adapters.subject import Args, Array, Malformed, Session, Subject

T = TypeVar("T")


class Hang(BaseException):
    """Raised inside the target when it does not come back. Not an Exception: the target must not swallow it."""


class Abandoned(Exception):
    """A call did not come back and could not be ended: its thread still runs; the text is the line at which it was."""


@dataclass
class Watch:
    """How long the call that is under way may still take; written by the verifier's thread, read by its caller's.

    Attributes:
        seconds: how long one call may take.
        where: the line at which the call was that took too long.
    """

    seconds: float
    deadline: float | None = None
    fired: bool = False
    where: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, function: Callable[[], T]) -> T:
        """Return what `function` returns.

        Raises:
            Hang: it took too long.
            RuntimeError: it raises what is no Exception, and no request to end the process either.
        """
        with self.lock:
            self.deadline, self.fired = time.monotonic() + self.seconds, False
        try:
            return function()
        except (Exception, Hang, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise RuntimeError(told(error)).with_traceback(error.__traceback__) from error
        finally:
            with self.lock:
                self.deadline, late = None, self.fired
            if late:
                time.sleep(0.01)  # where an exception that is on its way arrives
                raise Hang(self.where)  # or was taken back, since nobody waits any more


def watched(work: Callable[[Watch], T], seconds: float) -> T:
    """Do the work in a thread of its own, so that a call that never comes back cannot keep its caller.

    Raises:
        Abandoned: a call did not come back and took no exception, as compiled code does not.
        BaseException: whatever the work raises.
    """
    watch = Watch(seconds)
    outcome: list[Any] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append((True, work(watch)))
        except BaseException as error:
            outcome.append((False, error))
        finally:
            done.set()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), daemon=True, name="tinynet.verify")
    thread.start()
    fired_at = None
    try:
        while not done.wait(0.02 if fired_at is None else 0.2):
            with watch.lock:
                late = watch.deadline is not None and time.monotonic() > watch.deadline
                if late and not watch.fired:
                    watch.fired, fired_at = True, time.monotonic()
                    watch.where = _line_of_thread(thread)
                    _interrupt(thread, Hang)
                elif not late:
                    fired_at = None
            if fired_at is not None and time.monotonic() > fired_at + 1.0:
                _leave(thread)
                raise Abandoned(watch.where)
    except KeyboardInterrupt:
        _interrupt(thread, KeyboardInterrupt)
        done.wait(5.0)
        raise
    thread.join()
    ok, value = outcome[0]
    if not ok:
        raise value
    return value  # type: ignore[no-any-return]


def _interrupt(thread: threading.Thread, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))


class _Delivered(BaseException):
    """Sent by a thread to itself."""


def _leave(thread: threading.Thread) -> None:
    """Take back the exception that a thread has not taken.

    As long as one is on its way, Python 3.11 runs no function that is traced: it looks for it again and again. That it
    is gone is noticed by a thread that takes one itself.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), None)
    try:
        _interrupt(threading.current_thread(), _Delivered)
        while True:
            time.sleep(0)
    except _Delivered:
        pass


def _line_of_thread(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return _innermost(traceback.extract_stack(frame)) if frame is not None else ""


def line_of_error(error: BaseException) -> str:
    """Return `file.py:line` of the innermost frame of the target's code; "" if there is none."""
    return _innermost(traceback.extract_tb(error.__traceback__))


def _innermost(frames: traceback.StackSummary) -> str:
    own = [f for f in frames if is_targets_file(f.filename)]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def is_targets_file(filename: str) -> bool:
    """Return whether a file is the target's, not the verifier's, a library's or the interpreter's."""
    parts = ("/site-packages/", "/tinynet/verification/", "/lib/python3", "<frozen", "threading.py", "contextlib.py")
    return not any(part in filename for part in parts)


_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def leave_no_trace() -> Iterator[None]:
    """Put back what a target may change of the process: it is then as it was, whatever the target did.

    Random states, NumPy's functions, error state and print options, warnings, environment, folder, signal handlers, and
    JAX's 64-bit mode. One verification at a time: two would undo each other's.
    """
    with _ONE_AT_A_TIME:
        numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - the target may use them
        options, functions, environment, folder = np.get_printoptions(), dict(vars(np)), dict(os.environ), os.getcwd()
        x64, limit = _x64(), sys.getrecursionlimit()
        handlers = _handlers()
        torch = sys.modules.get("torch")
        torch_state = torch.get_rng_state() if torch is not None else None
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
            for name, value in functions.items():
                if vars(np).get(name) is not value:
                    setattr(np, name, value)
            np.set_printoptions(**options)
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)
            with contextlib.suppress(OSError):
                if os.getcwd() != folder:
                    os.chdir(folder)
            if _x64() != x64:
                jax.config.update("jax_enable_x64", x64)  # type: ignore[no-untyped-call]
            sys.setrecursionlimit(limit)
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
            if torch is not None:
                torch.set_rng_state(torch_state)


def _x64() -> bool:
    return bool(jax.config.read("jax_enable_x64"))  # type: ignore[no-untyped-call]


def _handlers() -> dict[Any, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    known = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in known.items() if handler is not None}


@dataclass(frozen=True)
class Run:
    """What one forward and backward pass did.

    Attributes:
        y: what came out, as it was then, with its structure.
        grads: the gradients, as they were then: an array that the target goes on writing into does not change here.
        short_grads: those of `param_grads`, where the target has it.
        handed_out: the very objects that were returned for gradients, `handed_y` for y.
        error, stage: what it raised, and whether in "forward", "backward" or "param_grads".
        mutated: names of arrays that it wrote into.
        shared: for each gradient, the names of arrays that it shares memory with.
        context: what the forward pass left for the backward pass.
    """

    y: Any = None
    grads: Mapping[str, Any] = field(default_factory=dict)
    short_grads: Mapping[str, Any] | None = None
    handed_out: Mapping[str, Any] = field(default_factory=dict)
    handed_y: Any = None
    error: BaseException | None = None
    stage: str = ""
    mutated: tuple[str, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)
    context: Any = None


def execute(
    subject: Subject,
    args: Args,
    dy: tuple[Array, ...] | None,
    watch: Watch,
    *,
    session: Session | None = None,
    after: Run | None = None,
) -> Run:
    """Run forward and backward on copies of `args` and `dy`.

    Args:
        dy: one array for each of y; None for the forward pass alone.
        session: a copy of the target that has been called before; a new one if None.
        after: a run whose forward pass is the one that this backward pass belongs to; a new one if None.
    """
    session = session if session is not None else subject.start()
    given: dict[str, Any] = {n: a.copy() if n in subject.updates else copy_of(a) for n, a in args.items()}
    args = {n: a for n, a in args.items() if n not in subject.updates}
    stage = "forward"
    y, handed_y, context = (None, None, None) if after is None else (after.y, after.handed_y, after.context)
    short: Mapping[str, Any] | None = None
    try:
        with full_precision() if subject.library == "jax" else contextlib.nullcontext():
            if after is None:
                seed_generators(subject.library)
                handed_y, context = watch.call(lambda: session.forward(given))
                y = watch.call(lambda: _snapshot(handed_y))
            if dy is None:
                return Run(y=y, context=context, mutated=_changed(given, args))
            stage = "backward"
            cotangent = like(y, dy)
            handed_out = watch.call(lambda: _at_rest(session.backward(context, cotangent)))
            grads = _copied(handed_out, subject)
            param_grads = getattr(session, "param_grads", None)
            if param_grads is not None:
                stage = "param_grads"
                short = _copied(watch.call(lambda: _at_rest(param_grads(context, like(y, dy)))), subject)
    except (Exception, Hang, SystemExit) as error:
        return Run(y=y, error=error, stage=stage, context=context, mutated=_changed(given, args))
    if hasattr(session, "params_now"):  # an object's own, which no one handed in
        given |= session.params_now()
    everything = given | {f"dy{i or ''}": c for i, c in enumerate(jax.tree.leaves(cotangent))}
    pristine = {**args, **{f"dy{i or ''}": d for i, d in enumerate(dy)}}
    shared = {n: other for n, g in handed_out.items() if (other := _shares_with(g, everything))}
    mutated = _changed(everything, pristine)
    return Run(y, grads, short, handed_out, handed_y, mutated=mutated, shared=shared, context=context)


def _shares_with(grad: Any, arrays: Mapping[str, Any]) -> str:
    """Return the name of the first array that a gradient shares memory with; "" for none."""

    def is_array(a: Any) -> bool:
        return isinstance(a, np.ndarray) and a.size > 0

    return next((n for n, a in arrays.items() if is_array(grad) and is_array(a) and np.shares_memory(grad, a)), "")


def _copied(grads: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    """Return gradients with copies of the arrays; a single number, of NumPy's or in no contract, is one, too."""
    numbers = (np.ndarray, np.floating) if subject.contract else (np.ndarray, np.floating, float)
    return {n: np.array(g) if isinstance(g, numbers) else g for n, g in grads.items()}


def seed_generators(library: str) -> None:
    """Set the generators that a forward pass may draw from to one state: what still differs is not chance."""
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    if library == "torch":
        sys.modules["torch"].manual_seed(0)


def like(y: Any, dy: tuple[Array, ...]) -> Any:
    """Return copies of dy in the structure and the number types of y."""
    leaves, structure = jax.tree.flatten(y)
    types = [np.asarray(leaf).dtype for leaf in leaves]
    casts = [copy_of(np.asarray(d, t) if t.kind == "f" else d) for d, t in zip(dy, types, strict=True)]
    return jax.tree.unflatten(structure, casts)


def _at_rest(grads: Mapping[str, Any]) -> dict[str, Any]:
    """Wait for arrays of JAX's, which are handed out before they are computed, and return them as NumPy's."""
    return {n: np.asarray(g) if isinstance(g, jax.Array) else g for n, g in grads.items()}


def _snapshot(y: Any) -> Any:
    def array(leaf: Any) -> Any:
        if isinstance(leaf, (float, int, np.generic)) or hasattr(leaf, "__array__"):
            return np.array(leaf)
        raise Malformed(f"the forward pass returns {type(leaf).__name__}; expected an array of floating-point numbers")

    return jax.tree.map(array, y, is_leaf=lambda leaf: leaf is None)


def _changed(given: Mapping[str, Any], pristine: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the arrays that are not as they were."""

    def same(a: Array, b: Array) -> bool:
        return np.array_equal(a, b) or (a.dtype.kind == "f" and np.array_equal(a, b, equal_nan=True))

    arrays = {n: a for n, a in given.items() if isinstance(a, np.ndarray) and n in pristine}
    return tuple(n for n, a in arrays.items() if not same(a, np.asarray(pristine[n], a.dtype)))


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """JAX in 64 bits, and products of float32 as such: GPUs would round their operands to fewer bits."""
    with jax.enable_x64(True), jax.default_matmul_precision("float32"):
        yield


def _fortran(a: Array) -> Array:
    return np.array(a, order="F")


def _strided(a: Array) -> Array:
    if not a.ndim:
        return a.copy()
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 7, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _reversed(a: Array) -> Array:
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip]


def _read_only(a: Array) -> Array:
    a = a.copy()
    a.setflags(write=False)
    return a


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "Fortran order": _fortran,
    "strided": _strided,
    "reversed": _reversed,
    "read-only": _read_only,
}
"""The same numbers, laid out in memory in other ways."""


def copy_of(a: Array) -> Array:
    """Copy `a` with its layout: strides, order and flags."""
    a = np.asarray(a)
    if not a.flags.writeable and 0 not in a.strides:
        return _read_only(a)
    if a.flags.c_contiguous or a.ndim == 0:
        return a.copy()
    if a.flags.f_contiguous:
        return _fortran(a)
    if 0 in a.strides:
        return np.broadcast_to(a[:1].copy(), a.shape) if a.strides[0] == 0 else a.copy()
    return _reversed(a) if a.strides[0] < 0 else _strided(a)


def told(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]

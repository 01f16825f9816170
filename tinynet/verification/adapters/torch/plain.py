"""Run a PyTorch forward pass as plain mathematics: no derivative that somebody wrote by hand is left in it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_LIBRARY = (str(Path(torch.__file__).parent), __file__)
_HERE = str(Path(__file__).parent)
_LOW = (torch.float32, torch.float16, torch.bfloat16)
_STOPS = (torch.Tensor.detach, torch.Tensor.detach_, torch.detach, torch.Tensor.data.__get__)
_HOOKS = (torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook)
_LEAVING = frozenset("numpy item tolist __array__ __float__ data_ptr".split())
"""Methods by which values leave PyTorch, so that what comes of them has no derivative."""

EVERYWHERE, IN_FUNCTIONS, NOWHERE = 0, 1, float("inf")


class Context(torch.autograd.function.FunctionCtx):
    """A `ctx` that remembers for the forward pass alone."""

    non_differentiable: tuple[Any, ...] = ()

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return getattr(self, "to_save", ())


class Plain(TorchFunctionMode):
    """Follows a forward pass: bodies of Functions in place of their rules, in float64, in-place writes and all.

    Attributes:
        ignores_from: how deep in bodies of Functions `detach`, `.data` and `no_grad` stop no derivative: `NOWHERE`,
            `IN_FUNCTIONS` (PyTorch runs such a body without derivatives, so there they may stand for nothing),
            `EVERYWHERE`.
        functions: the Functions and operators whose rules would have been used (not those in the body of another),
            each with its arguments at the first call.
        stopped: the lines where a derivative is stopped, and whether that is in the body of one of them.
        left: the lines where values left PyTorch.
    """

    def __init__(self, ignores_from: float) -> None:
        super().__init__()
        self.ignores_from = ignores_from
        self.functions: dict[Any, tuple[Any, ...]] = {}
        self.stopped: dict[str, bool] = {}
        self.left: dict[str, None] = {}
        self._depth = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _HOOKS:
            return _NoHook()
        operator = _custom_op(func)
        if operator is not None:
            self._meet(operator, args)
            with self:
                return self._body(operator._init_fn, args, kwargs)
        moving = bool(args) and isinstance(args[0], torch.Tensor) and args[0].requires_grad
        if moving and getattr(func, "__name__", "") in _LEAVING:
            self.left[line()] = None
            args = (args[0].detach(), *args[1:])
        stops = func in _STOPS if moving else func is torch._C._set_grad_enabled and not args[0]
        if stops and (at := line()):
            self.stopped[at] = self._depth > 0
            if self._depth >= self.ignores_from:
                return args[0].view_as(args[0]) if moving else None
        return self._in_float64(func, args, kwargs)

    def _in_float64(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func in (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16):
            func = torch.Tensor.double
        writes = getattr(func, "__name__", "").endswith("_")
        if not writes:
            args = tuple(_raised(a) for a in args)
        out = kwargs.pop("out", None)
        result = func(*args, **{key: _raised(value) for key, value in kwargs.items()})
        if isinstance(out, torch.Tensor):
            return out.copy_(result)
        return _raised(result) if not writes and not isinstance(result, torch.nn.Parameter) else result

    def apply(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the body of a Function's forward pass instead of `function.apply`."""
        split = function.setup_context is not torch.autograd.Function.setup_context
        needs = tuple(isinstance(a, torch.Tensor) and a.requires_grad for a in args)
        context = Context(needs)
        self._meet(function, args)
        if not split:
            out = self._body(function.forward, (context, *args), kwargs)
        else:
            out = self._body(function.forward, args, kwargs)
            self._body(function.setup_context, (context, args, out), {})
        if not any(needs) or not torch.is_grad_enabled():
            return out
        moving = [a for a, need in zip(args, needs, strict=True) if need]
        outs = tuple(
            _output(o, context.non_differentiable, moving) for o in (out if isinstance(out, tuple) else (out,))
        )
        return outs if isinstance(out, tuple) else outs[0]

    def _meet(self, function: Any, args: tuple[Any, ...]) -> None:
        if not self._depth:
            self.functions.setdefault(function, args)

    def _body(self, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._depth += 1
        try:
            return forward(*args, **kwargs)
        finally:
            self._depth -= 1


@contextlib.contextmanager
def plain(ignores_from: float) -> Iterator[Plain]:
    """Follow what this thread computes, as `Plain` says; derivatives have to be taken inside too."""
    mode = Plain(ignores_from)
    with _bodies_for(mode), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved), mode:
        yield mode


def line() -> str:
    """Return the innermost line of the target's code that is running, "file.py:12"; "" if PyTorch runs by itself."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(_HERE):
        return ""
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class _NoHook:
    """In place of the handle of a hook that was not registered."""

    def remove(self) -> None:
        """Do nothing."""


def _output(out: Any, non_differentiable: tuple[Any, ...], moving: list[torch.Tensor]) -> Any:
    """Return an output that needs a gradient exactly where that of a Function does."""
    if not isinstance(out, torch.Tensor) or not out.is_floating_point():
        return out
    if any(out is n for n in non_differentiable):
        with torch._C.DisableTorchFunction():
            return out.detach()
    if out.requires_grad:
        return out
    return attached(out, moving)


def attached(out: torch.Tensor, moving: list[torch.Tensor]) -> torch.Tensor:
    """Return `out` as something that depends on the tensors `moving`, with derivatives 0."""
    never = torch.zeros((), dtype=torch.bool, device=out.device)
    return torch.where(never, sum(m.sum() for m in moving), out)


def _raised(value: Any) -> Any:
    """Return float64 for what is in lower precision, and everything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.dtype in _LOW else value
    return torch.float64 if isinstance(value, torch.dtype) and value in _LOW else value


def _custom_op(func: Any) -> Any:
    """Return the definition of an operator that was made with `torch.library.custom_op`, else None."""
    if not type(func).__module__.startswith("torch._ops"):
        return None
    name = func.name() if isinstance(func, torch._ops.OpOverload) else getattr(func, "_qualified_op_name", "")
    op = torch._library.custom_ops.OPDEFS.get(name)
    return None if op is None or (op._init_fn.__module__ or "").startswith("torch.") else op


# Every `Function.apply`, also one that was bound long ago (`relu = MyReLU.apply`), calls the method of its base class.
# While a forward pass is followed that method is ours; in other threads, and outside, it does what it always does.

_BASE: Any = torch.autograd.Function.__mro__[1]
_FOLLOWING: ContextVar[Plain | None] = ContextVar("following", default=None)
_lock = threading.Lock()
_followers: list[Plain] = []


def _apply(function: Any, *args: Any, **kwargs: Any) -> Any:
    mode = _FOLLOWING.get()
    if mode is None or (function.__module__ or "").startswith("torch."):
        return super(_BASE, function).apply(*args, **kwargs)
    return mode.apply(function, args, kwargs)


@contextlib.contextmanager
def _bodies_for(mode: Plain) -> Iterator[None]:
    token = _FOLLOWING.set(mode)
    with _lock:
        _followers.append(mode)
        _BASE.apply = classmethod(_apply)
    try:
        yield
    finally:
        _FOLLOWING.reset(token)
        with _lock:
            _followers.remove(mode)
            if not _followers:
                del _BASE.apply

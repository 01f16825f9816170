"""The forward pass of a PyTorch target as a function of JAX's: each operation of ATen, recorded as it runs, once more.

Only names of mistakes are looked for along it. What it gives is compared with the oracle's before, so an operation that
is missing here, or read wrongly, costs a name and nothing else.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tinynet.verification.adapters.subject import Args, Array
from tinynet.verification.adapters.torch.operations import OPERATIONS, part
from tinynet.verification.adapters.torch.oracle import TorchOracle
from tinynet.verification.adapters.torch.plain import plain
from tinynet.verification.adapters.torch.sessions import is_differentiable, one_thread, same_draws, tensors_of
from tinynet.verification.execution import is_targets_file

Frame = tuple[str, int, int, int]
"""Of a frame of the target's: its file, where its function begins, the instruction, and its line."""


@dataclass(frozen=True)
class _Call:
    """One operation: what it was given, what it gave, and who called it."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    frames: tuple[Frame, ...]
    turn: int


@dataclass
class _Recorder(TorchDispatchMode):
    """Keeps every operation that runs."""

    calls: list[_Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        frames = _frames()
        turn = self.calls[-1].turn + 1 if self.calls and self.calls[-1].frames == frames else 0
        self.calls.append(_Call(func._schema.name.partition("::")[2], args, kwargs or {}, out, frames, turn))
        return out


def _frames() -> tuple[Frame, ...]:
    frame, found = sys._getframe(2), []
    while frame is not None:
        code = frame.f_code
        if is_targets_file(code.co_filename) and not code.co_filename.startswith("<"):
            found.append((code.co_filename, code.co_firstlineno, frame.f_lasti, frame.f_lineno))
        elif found:
            break
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


def recorded(oracle: TorchOracle, args: Args) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return the forward pass, as it ran at these arrays, from arrays of JAX's by name to those of y."""
    given = {
        n: torch.from_numpy(np.array(a)).to(oracle.device).requires_grad_(n in oracle.wrt) for n, a in args.items()
    }
    call, recorder = oracle.start(), _Recorder()
    with same_draws(oracle.device), one_thread(), torch.enable_grad(), plain(oracle.ignores_from), recorder:
        outs = [t for t in tensors_of(call({n: t.clone() for n, t in given.items()})) if is_differentiable(t)]

    def forward(arrays: Mapping[str, Any]) -> tuple[Any, ...]:
        known = {id(t): arrays[n] for n, t in given.items()}
        parts: dict[int, tuple[Any, Any]] = {}
        places: dict[Any, int] = {}
        for c in recorder.calls:
            place = (c.name, *(f[:3] for f in c.frames), c.turn)
            if c.name in ("select", "slice"):
                parts[id(c.out)] = c.args[0], part(c.name, *c.args, **c.kwargs)
            _repeat(c, known, parts, places.setdefault(place, len(places) + 1))
        return tuple(_read(known, t) for t in outs)

    return forward


def _read(known: Mapping[int, Any], value: Any) -> Any:
    """Return what stands for an argument: of a tensor that no input moves, its numbers."""
    if isinstance(value, torch.Tensor):
        return known[id(value)] if id(value) in known else jnp.asarray(value.detach().cpu().numpy())
    if isinstance(value, (list, tuple)):
        return [_read(known, v) for v in value]
    return value


def _repeat(c: _Call, known: dict[int, Any], parts: Mapping[int, tuple[Any, Any]], place: int) -> None:
    """Do one operation in JAX, and enter what it gives; what holds no floating-point numbers stays as it was.

    What is written into a part of a tensor, `y[:, t] = h`, is written into the tensor, too: `parts` says where it is.
    """
    outs = list(tensors_of(c.out))
    moved = any(id(t) in known for t in tensors_of((c.args, dict(c.kwargs))))
    if not moved or not any(t.is_floating_point() for t in outs):
        return
    operation = OPERATIONS.get(c.name.removesuffix("_") if c.name in _IN_PLACE else c.name)
    if operation is None:
        raise NotImplementedError(c.name)
    arguments = [_read(known, a) for a in c.args]
    keywords = {k: _read(known, v) for k, v in c.kwargs.items() if k not in _NOT_NUMBERS}
    results = _called_from(c.frames, place, functools.partial(operation, *arguments, **keywords))
    for tensor, result in zip(outs, results if isinstance(results, (list, tuple)) else [results], strict=False):
        known[id(tensor)] = result
    if c.name in _IN_PLACE:
        written, value = c.args[0], known[id(outs[0])]
        known[id(written)] = value
        while id(written) in parts:
            whole, index = parts[id(written)]
            put = functools.partial(_read(known, whole).at[index].set, value)
            written, value = whole, _called_from(c.frames, place, put)
            known[id(whole)] = value


_NOT_NUMBERS = ("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking")


def _called_from(frames: Sequence[Frame], place: int, f: Callable[[], Any]) -> Any:
    """Call a function so that JAX takes the target's own lines for those that call it."""
    call: Callable[[], Any] = f
    for file, first, line in [("/site-packages/aten", place, 1), *((f[0], 1, f[3]) for f in frames)]:
        call = functools.partial(_run, _code(file, first, line), call)
    return call()


def _run(code: Any, f: Callable[[], Any]) -> Any:
    out: list[Any] = []
    exec(code, {"f": f, "out": out})
    return out[0]


@functools.lru_cache(maxsize=4096)
def _code(file: str, first: int, line: int) -> Any:
    return compile("\n" * (line - 1) + "out.append(f())", file, "exec").replace(co_firstlineno=first)


_IN_PLACE = frozenset(f"{name}_" for name in OPERATIONS)


def forward_of(oracle: Any, args: Args) -> Callable[[Mapping[str, Array]], tuple[Any, ...]] | None:
    """Return what `recorded` does; None for an oracle that cannot say how it came to its numbers."""
    return recorded(oracle, args) if isinstance(oracle, TorchOracle) else None

"""The forward pass of a PyTorch target as a function of JAX's: each operation of ATen, recorded as it runs, once more.

Only names of mistakes are looked for along it. What it gives is compared with the oracle's before, so an operation that
is missing here, or read wrongly, costs a name and nothing else.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tinynet.verification.adapters.subject import Args, Array
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
        places: dict[Any, int] = {}
        for c in recorder.calls:
            place = (c.name, *(f[:3] for f in c.frames), c.turn)
            _repeat(c, known, places.setdefault(place, len(places) + 1))
        return tuple(_read(known, t) for t in outs)

    return forward


def _read(known: Mapping[int, Any], value: Any) -> Any:
    """Return what stands for an argument: of a tensor that no input moves, its numbers."""
    if isinstance(value, torch.Tensor):
        return known[id(value)] if id(value) in known else jnp.asarray(value.detach().cpu().numpy())
    if isinstance(value, (list, tuple)):
        return [_read(known, v) for v in value]
    return value


def _repeat(c: _Call, known: dict[int, Any], place: int) -> None:
    """Do one operation in JAX, and enter what it gives; what holds no floating-point numbers stays as it was."""
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
        known[id(c.args[0])] = known[id(outs[0])]


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


def _sum(x: Any, dim: Any = None, keepdim: bool = False, reduce: Callable[..., Any] = jnp.sum) -> Any:
    axes = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    return reduce(x, axis=None if axes == () else axes, keepdims=keepdim)


def _var(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: Any = None) -> Any:
    ddof = int(unbiased) if correction is None else correction
    return jnp.var(x, axis=tuple(dim) if isinstance(dim, list) else dim, ddof=ddof, keepdims=keepdim)


def _slice(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, None if end is None else min(end, x.shape[dim]), step),)]


def _split(x: Any, sizes: Any, dim: int = 0) -> Any:
    ends = range(sizes, x.shape[dim], sizes) if isinstance(sizes, int) else list(itertools.accumulate(sizes))[:-1]
    return jnp.split(x, list(ends), axis=dim)


def _softmax(x: Any, dim: int, *_: Any) -> Any:
    e = jnp.exp(x - jax.lax.stop_gradient(x.max(axis=dim, keepdims=True)))
    return e / e.sum(axis=dim, keepdims=True)


def _log_softmax(x: Any, dim: int, *_: Any) -> Any:
    z = x - jax.lax.stop_gradient(x.max(axis=dim, keepdims=True))
    return z - jnp.log(jnp.exp(z).sum(axis=dim, keepdims=True))


def _clamp(x: Any, low: Any = None, high: Any = None, **named: Any) -> Any:
    low, high = named.get("min", low), named.get("max", high)
    x = x if low is None else jnp.maximum(x, low)
    return x if high is None else jnp.minimum(x, high)


def _largest(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return x.max() if dim is None else (x.max(axis=dim, keepdims=keepdim),)


def _same(x: Any, **_: Any) -> Any:
    return x


def _squeeze(x: Any, dim: Any = None) -> Any:
    axes = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return jnp.squeeze(x, tuple(a for a in axes if x.shape[a] == 1))


def _expand(x: Any, size: Sequence[int], **_: Any) -> Any:
    shape = [*[1] * (len(size) - x.ndim), *x.shape]
    return jnp.broadcast_to(x, tuple(n if n >= 0 else s for n, s in zip(size, shape, strict=True)))


def _logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    return jax.nn.logsumexp(x, axis=tuple(dim), keepdims=keepdim)


def _index(x: Any, indices: Sequence[Any]) -> Any:
    return x[tuple(slice(None) if i is None else i for i in indices)]


def _gather(x: Any, dim: int, index: Any, **_: Any) -> Any:
    kept = [slice(None) if a == dim % x.ndim else slice(n) for a, n in enumerate(index.shape)]
    return jnp.take_along_axis(x[tuple(kept)], index, axis=dim)


def _index_add(x: Any, dim: int, index: Any, source: Any, alpha: float = 1) -> Any:
    return x.at[(slice(None),) * (dim % x.ndim) + (index,)].add(alpha * source)


def _gelu(x: Any, approximate: str = "none") -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _convolution(
    x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, _: Any, groups: int
) -> Any:
    if transposed:
        raise NotImplementedError("transposed convolution")
    pads = [(p, p) for p in padding]
    y = jax.lax.conv_general_dilated(x, w, stride, pads, rhs_dilation=dilation, feature_group_count=groups)
    return y if b is None else y + b.reshape(1, -1, *[1] * (x.ndim - 2))


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{n: getattr(jnp, n) for n in ("exp", "log", "log1p", "expm1", "tanh", "sqrt", "sin", "cos", "tan", "sinh")},
    **{n: getattr(jnp, n) for n in ("cosh", "abs", "sign", "square", "reciprocal", "maximum", "minimum", "where")},
    **{
        n: getattr(jnp, n)
        for n in ("round", "floor", "ceil", "flip", "stack", "exp2", "log2", "tril", "triu", "dot", "roll")
    },
    "neg": jnp.negative,
    "sigmoid": jax.nn.sigmoid,
    "relu": lambda x: jnp.maximum(x, 0),
    "rsqrt": lambda x: 1 / jnp.sqrt(x),
    "erf": jax.scipy.special.erf,
    "silu": lambda x: x * jax.nn.sigmoid(x),
    "softplus": lambda x, beta=1, threshold=20: jnp.logaddexp(beta * x, 0.0) / beta,
    "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "add": lambda x, y, alpha=1: x + (y if alpha == 1 else alpha * y),
    "sub": lambda x, y, alpha=1: x - (y if alpha == 1 else alpha * y),
    "rsub": lambda x, y, alpha=1: y - (x if alpha == 1 else alpha * x),
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "mm": lambda x, y: x @ y,
    "bmm": lambda x, y: x @ y,
    "mv": lambda x, y: x @ y,
    "addmm": lambda b, x, y, beta=1, alpha=1: beta * b + alpha * (x @ y) if (beta, alpha) != (1, 1) else x @ y + b,
    "sum": _sum,
    "mean": functools.partial(_sum, reduce=jnp.mean),
    "amax": functools.partial(_sum, reduce=jnp.max),
    "amin": functools.partial(_sum, reduce=jnp.min),
    "max": _largest,
    "var": _var,
    "std": lambda *args, **keywords: jnp.sqrt(_var(*args, **keywords)),
    "logsumexp": _logsumexp,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "masked_fill": lambda x, mask, value: jnp.where(mask, value, x),
    "view": lambda x, size: x.reshape(tuple(size)),
    "reshape": lambda x, size: x.reshape(tuple(size)),
    "_unsafe_view": lambda x, size: x.reshape(tuple(size)),
    "t": lambda x: x.T,
    "transpose": lambda x, a, b: jnp.swapaxes(x, a, b),
    "permute": lambda x, dims: jnp.transpose(x, tuple(dims)),
    "unsqueeze": lambda x, dim: jnp.expand_dims(x, dim),
    "squeeze": _squeeze,
    "expand": _expand,
    "slice": _slice,
    "select": lambda x, dim, index: jnp.take(x, index % x.shape[dim], axis=dim),
    "unbind": lambda x, dim=0: [jnp.take(x, i, axis=dim) for i in range(x.shape[dim])],
    "split": _split,
    "split_with_sizes": _split,
    "cat": lambda xs, dim=0: jnp.concatenate(xs, axis=dim),
    "index_select": lambda x, dim, index: jnp.take(x, index, axis=dim),
    "gather": _gather,
    "index": _index,
    "index_add": _index_add,
    "gelu": _gelu,
    "convolution": _convolution,
    "embedding": lambda w, index, *_: w[index],
    **dict.fromkeys(("clone", "alias", "detach", "_to_copy", "contiguous", "lift_fresh", "copy"), _same),
}
"""What each operation of ATen is in JAX."""

_IN_PLACE = frozenset(f"{name}_" for name in OPERATIONS) - {"copy_"}


def forward_of(oracle: Any, args: Args) -> Callable[[Mapping[str, Array]], tuple[Any, ...]] | None:
    """Return what `recorded` does; None for an oracle that cannot say how it came to its numbers."""
    return recorded(oracle, args) if isinstance(oracle, TorchOracle) else None

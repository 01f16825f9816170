"""What each operation of ATen is in JAX; an operation that is missing costs the name of a mistake and nothing else."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def _sum(x: Any, dim: Any = None, keepdim: bool = False, reduce: Callable[..., Any] = jnp.sum) -> Any:
    axes = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    return reduce(x, axis=None if axes == () else axes, keepdims=keepdim)


def _var_mean(x: Any, dim: Any = None, **named: Any) -> Any:
    return _var(x, dim, **named), _sum(x, dim, named.get("keepdim", False), jnp.mean)


def _var(x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: Any = None) -> Any:
    ddof = int(unbiased) if correction is None else correction
    return jnp.var(x, axis=tuple(dim) if isinstance(dim, list) else dim, ddof=ddof, keepdims=keepdim)


def part(name: str, x: Any, dim: int = 0, *given: Any, **named: Any) -> tuple[Any, ...]:
    """Return the index of a part of x: of `select(x, dim, index)` or `slice(x, dim, start, end, step)`."""
    if name == "select":
        (index,) = (*given, *named.values())
        return (*[slice(None)] * (dim % x.ndim), index % x.shape[dim])
    asked = dict(zip(("start", "end", "step"), given, strict=False)) | named
    start, end, step = (asked.get(name) for name in ("start", "end", "step"))
    return (*[slice(None)] * (dim % x.ndim), slice(start, None if end is None else min(end, x.shape[dim]), step))


def _unfold(x: Any, dim: int, size: int, step: int) -> Any:
    starts = jnp.arange(0, x.shape[dim] - size + 1, step)
    return jnp.moveaxis(jnp.take(x, starts[:, None] + jnp.arange(size), axis=dim), dim % x.ndim + 1, -1)


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


def _extreme(reduce: Callable[..., Any], x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return reduce(x) if dim is None else (reduce(x, axis=dim, keepdims=keepdim),)


def _norm(x: Any, p: float = 2, dim: Any = None, keepdim: bool = False) -> Any:
    axes = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    return jnp.sum(x * x if p == 2 else abs(x) ** p, axis=axes, keepdims=keepdim) ** (1 / p)


def _normalised(x: Any, axes: Sequence[int], w: Any, b: Any, eps: float) -> Any:
    centred = x - x.mean(axis=tuple(axes), keepdims=True)
    y = centred / jnp.sqrt((centred * centred).mean(axis=tuple(axes), keepdims=True) + eps)
    y = y if w is None else y * w
    return (y if b is None else y + b,)


def _layer_norm(x: Any, shape: Sequence[int], w: Any, b: Any, eps: float) -> Any:
    return _normalised(x, range(-len(shape), 0), w, b, eps)


def _batch_norm(x: Any, w: Any, b: Any, _mean: Any, _var: Any, training: bool, _: float, eps: float) -> Any:
    if not training:
        raise NotImplementedError("batch normalisation by running statistics")
    w, b = (None if a is None else a.reshape(1, -1, *[1] * (x.ndim - 2)) for a in (w, b))
    return _normalised(x, [0, *range(2, x.ndim)], w, b, eps)


def _pooled(x: Any, size: Any, stride: Any, padding: Any, first: float, reduce: Callable[..., Any]) -> Any:
    lead = (1,) * (x.ndim - 2)
    pads = [(0, 0)] * (x.ndim - 2) + [(p, p) for p in _pair(padding)]
    return jax.lax.reduce_window(x, first, reduce, lead + _pair(size), lead + _pair(stride or size), pads)


def _pair(n: Any) -> tuple[int, int]:
    return (n, n) if isinstance(n, int) else (n[0], n[-1])


def _padded(x: Any, pad: Sequence[int], value: float = 0) -> Any:
    ends = [*zip(pad[::2], pad[1::2], strict=True)][::-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - len(ends)) + ends, constant_values=value)


def _scattered(x: Any, dim: int, index: Any, values: Any, add: bool = False) -> Any:
    at = x.at[tuple(index if a == dim % x.ndim else i for a, i in enumerate(jnp.indices(index.shape)))]
    values = jnp.broadcast_to(values, index.shape) if jnp.ndim(values) == 0 else values[tuple(map(slice, index.shape))]
    return at.add(values) if add else at.set(values)


def _put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    at = x.at[tuple(slice(None) if i is None else i for i in indices)]
    return at.add(values) if accumulate else at.set(values)


def _attended(q: Any, k: Any, v: Any, _: float = 0, causal: bool = False, **named: Any) -> Any:
    scale, mask = named.get("scale"), named.get("attn_mask")
    s = q @ jnp.swapaxes(k, -1, -2) * (1 / jnp.sqrt(q.shape[-1]) if scale is None else scale)
    s = jnp.where(jnp.tril(jnp.ones(s.shape[-2:], bool)), s, -jnp.inf) if causal else s
    return (_softmax(s if mask is None else s + mask, -1) @ v,)


def _joined(errors: Any, reduction: int) -> Any:
    """Reduce the errors of the entries: 0 not at all, 1 to their mean, 2 to their sum."""
    return errors if reduction == 0 else errors.mean() if reduction == 1 else errors.sum()


def _nll(logp: Any, y: Any, weight: Any = None, reduction: int = 1, ignored: int = -100) -> Any:
    if weight is not None:
        raise NotImplementedError("weights of classes")
    terms = jnp.where(y == ignored, 0, -jnp.take_along_axis(logp, jnp.where(y == ignored, 0, y)[:, None], axis=1)[:, 0])
    return (terms.sum() / (y != ignored).sum() if reduction == 1 else _joined(terms, reduction),)


def _binary(p: Any, y: Any, weight: Any = None, reduction: int = 1) -> Any:
    terms = -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))
    return _joined(terms if weight is None else terms * weight, reduction)


def _huber(x: Any, y: Any, reduction: int = 1, delta: float = 1, smooth: bool = False) -> Any:
    d = abs(x - y)
    terms = jnp.where(d < delta, d * d / 2, delta * (d - delta / 2))
    return _joined(terms / delta if smooth else terms, reduction)


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


def _glu(x: Any, dim: int = -1) -> Any:
    a, b = jnp.split(x, 2, axis=dim)
    return a * jax.nn.sigmoid(b)


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
    **{n: getattr(jnp, n) for n in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "logaddexp", "trace")},
    **{n: getattr(jnp, n) for n in ("cumsum", "cumprod", "diagonal", "remainder", "hypot", "log10")},
    **{n: getattr(jax.scipy.special, n) for n in ("erf", "erfc", "digamma", "logit", "xlogy")},
    "lgamma": jax.scipy.special.gammaln,
    "neg": jnp.negative,
    "sigmoid": jax.nn.sigmoid,
    "relu": lambda x: jnp.maximum(x, 0),
    "rsqrt": lambda x: 1 / jnp.sqrt(x),
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
    "baddbmm": lambda b, x, y, beta=1, alpha=1: beta * b + alpha * (x @ y),
    "addcmul": lambda x, a, b, value=1: x + value * (a * b),
    "addcdiv": lambda x, a, b, value=1: x + value * (a / b),
    "lerp": lambda x, y, weight: x + weight * (y - x),
    "addmm": lambda b, x, y, beta=1, alpha=1: beta * b + alpha * (x @ y) if (beta, alpha) != (1, 1) else x @ y + b,
    "sum": _sum,
    "mean": functools.partial(_sum, reduce=jnp.mean),
    "amax": functools.partial(_sum, reduce=jnp.max),
    "amin": functools.partial(_sum, reduce=jnp.min),
    "max": functools.partial(_extreme, jnp.max),
    "min": functools.partial(_extreme, jnp.min),
    "prod": functools.partial(_sum, reduce=jnp.prod),
    "linalg_vector_norm": _norm,
    "var_mean": _var_mean,
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
    "slice": lambda x, *given, **named: x[part("slice", x, *given, **named)],
    "select": lambda x, dim, index: jnp.take(x, index % x.shape[dim], axis=dim),
    "unfold": _unfold,
    "constant_pad_nd": _padded,
    "repeat": lambda x, times: jnp.tile(x, tuple(times)),
    "sort": lambda x, dim=-1, descending=False: (-jnp.sort(-x, axis=dim) if descending else jnp.sort(x, axis=dim),),
    "scatter": _scattered,
    "scatter_add": functools.partial(_scattered, add=True),
    "index_put": _put,
    "unbind": lambda x, dim=0: [jnp.take(x, i, axis=dim) for i in range(x.shape[dim])],
    "split": _split,
    "split_with_sizes": _split,
    "cat": lambda xs, dim=0: jnp.concatenate(xs, axis=dim),
    "index_select": lambda x, dim, index: jnp.take(x, index, axis=dim),
    "gather": _gather,
    "index": _index,
    "index_add": _index_add,
    "gelu": _gelu,
    "elu": lambda x, alpha=1: jnp.where(x > 0, x, alpha * jnp.expm1(x)),
    "hardtanh": lambda x, low=-1, high=1: _clamp(x, low, high),
    "glu": _glu,
    "log_sigmoid_forward": lambda x: (-jnp.logaddexp(-x, 0.0),),
    "native_layer_norm": _layer_norm,
    "native_batch_norm": _batch_norm,
    "_scaled_dot_product_flash_attention_for_cpu": _attended,
    "max_pool2d_with_indices": lambda x, size, stride=(), padding=0: (
        _pooled(x, size, stride, padding, -jnp.inf, jax.lax.max),
    ),
    "avg_pool2d": lambda x, size, stride=(), padding=0: (
        _pooled(x, size, stride, padding, 0.0, jax.lax.add) / math.prod(_pair(size))
    ),
    "nll_loss_forward": _nll,
    "binary_cross_entropy": _binary,
    "mse_loss": lambda x, y, reduction=1: _joined((x - y) ** 2, reduction),
    "huber_loss": _huber,
    "smooth_l1_loss": functools.partial(_huber, smooth=True),
    "linalg_inv_ex": lambda x: (jnp.linalg.inv(x),),
    "linalg_cholesky_ex": lambda x: (jnp.linalg.cholesky(x),),
    "_linalg_det": lambda x: (jnp.linalg.det(x),),
    "_linalg_solve_ex": lambda x, y: (jnp.linalg.solve(x, y),),
    "convolution": _convolution,
    "embedding": lambda w, index, *_: w[index],
    **dict.fromkeys(("clone", "alias", "detach", "_to_copy", "contiguous", "lift_fresh"), _same),
    "copy": lambda x, y, *_: jnp.broadcast_to(y, x.shape),
}
"""What each operation of ATen is in JAX."""

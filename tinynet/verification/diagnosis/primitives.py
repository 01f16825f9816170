"""The operations that a traced forward consists of, and the chain rule of each, in NumPy.

With C = ∂E/∂(output), `pull` returns the term of ∂E/∂(operand) that this one use of the operand contributes:

    y = f(a, b, …), entry by entry     C ⊗ ∂f/∂a
    y = A · B                          C · Bᵀ,  Aᵀ · C
    y = Σ a                            C, repeated along what was summed
    y holds entries of a (moves)       each entry of C, added where its value came from

Nothing is compiled. What stands in none of the tables is evaluated and differentiated by JAX.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Params = Mapping[str, Any]


def _logistic(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1.0) / (1 + e))


UNARY: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], tuple[Any, ...]]]] = {
    "neg": (np.negative, lambda x, y: (-1.0,)),
    "exp": (np.exp, lambda x, y: (y,)),
    "exp2": (np.exp2, lambda x, y: (y, math.log(2))),
    "expm1": (np.expm1, lambda x, y: (y + 1,)),
    "log": (np.log, lambda x, y: (1 / x,)),
    "log1p": (np.log1p, lambda x, y: (1 / (1 + x),)),
    "tanh": (np.tanh, lambda x, y: (1 - y * y,)),
    "logistic": (_logistic, lambda x, y: (y, 1 - y)),
    "sin": (np.sin, lambda x, y: (np.cos(x),)),
    "cos": (np.cos, lambda x, y: (-1.0, np.sin(x))),
    "tan": (np.tan, lambda x, y: (1 + y * y,)),
    "asin": (np.arcsin, lambda x, y: (1 / np.sqrt(1 - x * x),)),
    "acos": (np.arccos, lambda x, y: (-1.0, 1 / np.sqrt(1 - x * x))),
    "atan": (np.arctan, lambda x, y: (1 / (1 + x * x),)),
    "sinh": (np.sinh, lambda x, y: (np.cosh(x),)),
    "cosh": (np.cosh, lambda x, y: (np.sinh(x),)),
    "sqrt": (np.sqrt, lambda x, y: (0.5, 1 / y)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), lambda x, y: (-0.5, y, 1 / x)),
    "cbrt": (np.cbrt, lambda x, y: (1 / 3, y, 1 / x)),
    "square": (np.square, lambda x, y: (2.0, x)),
    "abs": (np.abs, lambda x, y: (np.sign(x),)),
    "sign": (np.sign, lambda x, y: (0.0,)),
    "floor": (np.floor, lambda x, y: (0.0,)),
    "ceil": (np.ceil, lambda x, y: (0.0,)),
    "copy": (np.copy, lambda x, y: (1.0,)),
    "copy_p": (np.copy, lambda x, y: (1.0,)),
    "real": (np.real, lambda x, y: (1.0,)),
}
"""y = f(x), and the factors whose product is ∂y/∂x."""

BINARY: dict[str, tuple[Callable[[Array, Array], Array], tuple[Callable[[Array, Array, Array], Any], ...]]] = {
    "add": (np.add, (lambda a, b, y: (1.0,), lambda a, b, y: (1.0,))),
    "add_any": (np.add, (lambda a, b, y: (1.0,), lambda a, b, y: (1.0,))),
    "sub": (np.subtract, (lambda a, b, y: (1.0,), lambda a, b, y: (-1.0,))),
    "mul": (np.multiply, (lambda a, b, y: (b,), lambda a, b, y: (a,))),
    "div": (np.divide, (lambda a, b, y: (1 / b,), lambda a, b, y: (-1.0, a, 1 / b, 1 / b))),
    "pow": (np.power, (lambda a, b, y: (b, np.power(a, b - 1.0)), lambda a, b, y: (y, np.log(a)))),
    "max": (np.maximum, (lambda a, b, y: (_share(a > b, a == b),), lambda a, b, y: (_share(b > a, a == b),))),
    "min": (np.minimum, (lambda a, b, y: (_share(a < b, a == b),), lambda a, b, y: (_share(b < a, a == b),))),
    "atan2": (np.arctan2, (lambda a, b, y: (b, 1 / (a * a + b * b)), lambda a, b, y: (-1.0, a, 1 / (a * a + b * b)))),
}
"""y = f(a, b), and the factors of ∂y/∂a and ∂y/∂b; at a tie each side counts half, as in JAX."""


def _share(ahead: Any, tied: Any) -> Array:
    return np.asarray(ahead + 0.5 * tied)


ELEMENTWISE = frozenset({*UNARY, *BINARY, "integer_pow", "select_n", "clamp", "convert_element_type", "erf", "lgamma"})
"""Operations each of whose entries depends on the operands' entries at the same place."""

LOGIC: dict[str, Callable[..., Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert, "is_finite": np.isfinite,
}  # fmt: skip


def _broadcast(p: Params, x: Array) -> Array:
    shape = [1] * len(p["shape"])
    for axis, n in zip(p["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = n
    return np.broadcast_to(x.reshape(shape), p["shape"])


def _slice(p: Params, x: Array) -> Array:
    steps = p["strides"] or [1] * x.ndim
    return x[tuple(map(slice, p["start_indices"], p["limit_indices"], steps))]


MOVES: dict[str, Callable[..., Any]] = {
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "squeeze": lambda p, x: x.squeeze(tuple(p["dimensions"])),
    "expand_dims": lambda p, x: np.expand_dims(x, tuple(p["dimensions"])),
    "broadcast_in_dim": lambda p, x, *_: _broadcast(p, x),
    "slice": _slice,
    "rev": lambda p, x: np.flip(x, tuple(p["dimensions"])),
    "concatenate": lambda p, *xs: np.concatenate(xs, axis=p["dimension"]),
    "stack": lambda p, *xs: np.stack(xs, axis=p["axis"]),
    "split": lambda p, x: np.split(x, np.cumsum(p["sizes"])[:-1], axis=p["axis"]),
}
MOVES_OF_JAX = frozenset({"gather", "dynamic_slice", "dynamic_update_slice", "pad", "scatter"})


def evaluate(primitive: Any, params: Params, operands: Sequence[Array]) -> tuple[Array, ...]:
    """Return the outputs of one operation."""
    name = primitive.name
    with np.errstate(all="ignore"):
        if name in UNARY:
            return (np.asarray(UNARY[name][0](*operands)),)
        if name in BINARY:
            return (np.asarray(BINARY[name][0](*operands)),)
        if name in LOGIC:
            return (np.asarray(LOGIC[name](*operands)),)
        if name in MOVES:
            moved = MOVES[name](params, *operands)
            return tuple(moved) if isinstance(moved, list) else (np.asarray(moved),)
        if name == "integer_pow":
            return (np.asarray(np.power(operands[0], float(params["y"]))),)
        if name == "dot_general":
            a, b, y = _subscripts(params, operands)
            return (np.einsum(f"{a},{b}->{y}", *operands),)
        if name == "reduce_sum":
            return (np.asarray(np.sum(operands[0], axis=tuple(params["axes"]))),)
        if name in ("reduce_max", "reduce_min"):
            reduce = np.max if name == "reduce_max" else np.min
            return (np.asarray(reduce(operands[0], axis=tuple(params["axes"]))),)
        if name == "select_n" and operands[0].dtype == bool:
            return (np.where(operands[0], operands[2], operands[1]),)
        if name == "convert_element_type":
            return (np.asarray(operands[0]).astype(params["new_dtype"]),)
        if name == "stop_gradient":
            return tuple(operands)
    return _by_jax(primitive, params, operands)


Rule = Callable[[Sequence[Array | None]], Array | None]


def rule(primitive: Any, params: Params, k: int, operands: Sequence[Array], y: Sequence[Array]) -> Rule:
    """Return the chain rule of operand `k`: from the cotangents of the outputs `y` (None: zero) to its term.

    A cotangent may have the shape of what the output is later broadcast to: so does a sum over the wrong axis.
    """
    name, shape, ndim = primitive.name, operands[k].shape, operands[k].ndim
    if name in MOVES or name in MOVES_OF_JAX:
        return _rule_of_a_move(primitive, params, k, operands)
    if len(y) != 1:
        return lambda cts: _pull_by_jax(primitive, params, k, cts, operands, y)
    given = factors(primitive, params, k, operands, y)
    if given:
        slope, same = np.asarray(math.prod(given)), y[0].shape
        return lambda cts: _shaped_if(_one(cts) * slope, shape, same, cts)
    if name == "dot_general":
        a, b, out = _subscripts(params, operands)
        other = operands[1 - k]
        path = f"{out},{b}->{a}" if k == 0 else f"{out},{a}->{b}"
        return lambda cts: np.einsum(path, _one(cts), other)
    axes = tuple(params.get("axes", ()))
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    if name == "reduce_sum":
        ones = np.ones(shape)
        return lambda cts: _one(cts) if _one(cts).ndim == ndim and axes else _one(cts).reshape(kept) * ones
    if name in ("reduce_max", "reduce_min"):
        tied = operands[k] == y[0].reshape(kept)
        share = tied / tied.sum(axis=axes, keepdims=True)
        return lambda cts: _one(cts).reshape(kept) * share
    return lambda cts: _pull_by_jax(primitive, params, k, cts, operands, y)


def push(
    primitive: Any, params: Params, operands: Sequence[Array], y: Sequence[Array], along: Sequence[Array | None]
) -> Sequence[Array]:
    """Return by how much the outputs `y` of one operation move as its operands move `along` arrays (None: not)."""
    name, moving = primitive.name, [(k, t) for k, t in enumerate(along) if t is not None]
    if name in MOVES or name in MOVES_OF_JAX or name in ("reduce_sum", "cumsum"):
        still = [np.zeros(a.shape) if a.dtype.kind == "f" else a for a in operands]
        return evaluate(primitive, params, [s if t is None else t for s, t in zip(still, along, strict=True)])
    if name == "dot_general":
        one = [evaluate(primitive, params, [*operands[:k], t, *operands[k + 1 :]])[0] for k, t in moving]
        return [np.asarray(sum(one))]
    given = [factors(primitive, params, k, operands, y) for k, _ in moving]
    if all(given):
        terms = (math.prod(f, start=t) for f, (_, t) in zip(given, moving, strict=True))
        return [sum(terms, start=np.zeros(y[0].shape))]
    ends = (
        evaluate(primitive, params, [a if t is None else a + by * t for a, t in zip(operands, along, strict=True)])
        for by in (1e-5, -1e-5)
    )
    return [(ahead - behind) / 2e-5 for ahead, behind in zip(*ends, strict=True)]


def _one(cts: Sequence[Array | None]) -> Array:
    assert cts[0] is not None
    return cts[0]


def _shaped_if(term: Array, shape: tuple[int, ...], same: tuple[int, ...], cts: Sequence[Array | None]) -> Array:
    return shaped(term, shape) if _one(cts).shape == same else term


def factors(primitive: Any, params: Params, k: int, operands: Sequence[Array], y: Sequence[Array]) -> tuple[Any, ...]:
    """Return the factors of ∂y/∂(operand k) of an operation that acts entry by entry; none for others."""
    name = primitive.name
    with np.errstate(all="ignore"):
        if name in UNARY:
            return UNARY[name][1](operands[0], y[0])
        if name in BINARY:
            found: tuple[Any, ...] = BINARY[name][1][k](operands[0], operands[1], y[0])
            return found
        if name == "integer_pow":
            return float(params["y"]), np.power(operands[0], params["y"] - 1.0)
        if name == "select_n" and k > 0:
            return (operands[0] == k - 1,)
        if name == "clamp" and k == 1:
            low, x, high = operands
            return ((x > low) & (x < high),)
    return (1.0,) if name == "convert_element_type" else ()


def shaped(ct: Array, shape: tuple[int, ...] | None) -> Array:
    """Sum over the axes along which the operand was repeated: those of length 1, and all of them for a scalar."""
    if shape is None or ct.shape == shape:
        return ct
    repeated = tuple(axis for axis, n in enumerate(ct.shape) if not shape or shape[axis] != n)
    return np.asarray(ct.sum(axis=repeated, keepdims=bool(shape)))


def disturbed(a: Array) -> Array:
    """Return an array that differs from this one in every entry, each by an amount of its own."""
    size = float(np.max(np.abs(a), initial=0.0)) or 1.0
    return np.asarray(a + size * np.cos(np.arange(1.0, a.size + 1)).reshape(a.shape))


def _subscripts(params: Params, operands: Sequence[Array]) -> tuple[str, str, str]:
    (contract_a, contract_b), (batch_a, batch_b) = params["dimension_numbers"]
    letters = iter(string.ascii_letters)
    a = [next(letters) for _ in range(operands[0].ndim)]
    b = [next(letters) for _ in range(operands[1].ndim)]
    for i, j in zip((*contract_a, *batch_a), (*contract_b, *batch_b), strict=True):
        b[j] = a[i]
    batch = [a[i] for i in batch_a]
    free = [c for i, c in enumerate(a) if i not in (*contract_a, *batch_a)]
    free += [c for j, c in enumerate(b) if j not in (*contract_b, *batch_b)]
    return "".join(a), "".join(b), "".join(batch + free)


def _rule_of_a_move(primitive: Any, params: Params, k: int, operands: Sequence[Array]) -> Rule:
    """Move positions instead of values, and take each cotangent back to where its value came from.

    Position 0 is "from elsewhere".
    """
    shape, size = operands[k].shape, operands[k].size
    sources = [(at.ravel(), at.size) for at in _came_from(primitive, params, k, operands)]

    def pull(cts: Sequence[Array | None]) -> Array | None:
        total = None
        for (at, n), ct in zip(sources, cts, strict=True):
            if ct is None:
                continue
            if ct.size != n:
                return ct
            term = np.bincount(at, ct.ravel(), size + 1)[1:]
            total = term if total is None else total + term
        return None if total is None else total.reshape(shape)

    return pull


def _came_from(primitive: Any, params: Params, k: int, operands: Sequence[Array]) -> list[Array]:
    """Return for each output the position in operand `k` from which each of its entries came, counted from 1."""
    movable = 1 if primitive.name in ("gather", "dynamic_slice", "broadcast_in_dim") else len(operands)
    positions = [np.zeros(a.shape) if j < movable and a.dtype.kind == "f" else a for j, a in enumerate(operands)]
    positions[k] = np.arange(1.0, operands[k].size + 1).reshape(operands[k].shape)
    return [np.nan_to_num(at).astype(np.intp) for at in evaluate(primitive, params, positions)]


def overwritten(primitive: Any, params: Params, operands: Sequence[Array], ct: Array) -> Array:
    """Return what passes a gather if of several cotangents of one entry the last stays, instead of their sum."""
    (at,) = _came_from(primitive, params, 0, operands)
    total = np.zeros(operands[0].size + 1)
    total[at.ravel()] = ct.ravel()
    return total[1:].reshape(operands[0].shape)


def _by_jax(primitive: Any, params: Params, operands: Sequence[Any]) -> tuple[Array, ...]:
    with jax.enable_x64(True):
        outs = _bind(primitive, params, operands)
    return tuple(np.asarray(o) for o in (outs if primitive.multiple_results else [outs]))


def _bind(primitive: Any, params: Params, operands: Sequence[Any]) -> Any:
    given = primitive.get_bind_params(params)
    functions, rest = given if isinstance(given, tuple) else ((), given)  # a tuple before JAX 0.10
    return primitive.bind(*functions, *operands, **rest)


def _pull_by_jax(
    primitive: Any, params: Params, k: int, cts: Sequence[Any], operands: Sequence[Array], y: Sequence[Array]
) -> Array:
    with jax.enable_x64(True):

        def f(x: Any) -> Any:
            return _bind(primitive, params, [*operands[:k], x, *operands[k + 1 :]])

        full = [np.zeros(o.shape) if c is None else c for c, o in zip(cts, y, strict=True)]
        _, back = jax.vjp(f, operands[k])
        return np.asarray(back(full if primitive.multiple_results else full[0])[0])

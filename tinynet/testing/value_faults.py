"""The faults that show in a single call: right gradients spoilt, or the right formulas given something wrong."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinynet.arrays import Array, is_floating, namespace, owned_copy
from tinynet.layers import Layer, Sequential
from tinynet.losses import Loss
from tinynet.testing.wrong_targets import Backward, Call, Grads, Wrong, named
from tinynet.trees import leaves, map_leaves


def value_faults(target: Layer | Loss, call: Call) -> Iterator[Wrong]:
    """Yield what can be wrong in a call of `target`; some of it may make no difference there."""
    names = list(call.grads())
    if isinstance(target, Sequential):
        edits = (fault for name in names for fault in _edits(name))
        yield from (e for e in edits if e.factor == "1/m" or e.fault in ("sign", "missing", "one entry"))
        return
    for name in names:
        yield from _edits(name)
    table = list(BACKWARDS)
    if isinstance(target, Layer):
        table += LAYER_BACKWARDS
    if any(name.startswith("params") for name in names):
        table += PARAMS_BACKWARDS
    if _is_activation(call):
        table += ACTIVATION_BACKWARDS
    for fault, description, backward in table:
        yield Wrong(fault, description, backward)
        if fault in ("ignores dy", "not summed over the batch", "one sample left out") and len(names) > 1:
            for name in names:
                yield Wrong(fault, description, _in_one(name, backward))


def _in_one(name: str, backward: Backward) -> Backward:
    return lambda call: call.grads() | {name: backward(call)[name]}


def _is_activation(call: Call) -> bool:
    """Return whether the layer has no parameters and each entry of x acts on its own entry of y alone."""
    if isinstance(call.right, Loss) or leaves(call.params) or np.shape(call.x) != call.y.shape:
        return False
    first = set_at(0 * call.dy, _entry(call.dy, 0), 1)
    return bool((call.with_dy(first).grads().get("x", call.dy) != 0).sum() <= 1)


# ---- one gradient, spoilt after it was computed -----------------------------------------------------------------


def _index(g: Array, axis: int, i: int) -> Any:
    """Return True at index `i` of an axis of `g`, to be broadcast over the others."""
    shape = [1] * g.ndim
    shape[axis] = n = g.shape[axis]
    return (np.arange(n) == i % max(n, 1)).reshape(shape)


def _entry(g: Array, i: int) -> Any:
    """Return True where every index is `i`."""
    hit = np.ones(g.shape, bool)
    for axis in range(g.ndim):
        hit = hit & _index(g, axis, i)
    return hit


def _scaled(g: Array, hit: Any, factor: float) -> Array:
    return namespace(g).where(hit, factor * g, g)


def set_at(g: Array, hit: Any, value: float) -> Array:
    """Return `g` with `value` where `hit` is true."""
    return namespace(g).where(hit, value, g)


def narrowed(a: Any) -> Any:
    """Return `a` in float32 where it is an array of floating-point numbers."""
    return a.astype(np.float32) if is_floating(a) else a


def _scaled_slice(g: Array, axis: int, factor: float, i: int) -> Array:
    """Scale a row (axis −2) or a column (axis −1) of a matrix."""
    return _scaled(g, _index(g, axis, i), factor) if g.ndim > 1 else g


def _cast(g: Array, dtype: str) -> Array:
    return g.astype(dtype) if isinstance(g, np.ndarray) else g


def _roll(g: Array, places: int, axis: int) -> Array:
    return namespace(g).roll(g, places, axis=axis)


SCALES: list[tuple[str, str, Callable[[Call], float]]] = [
    ("2", "2g: the ½ of the loss forgotten", lambda call: 2),
    ("1/2", "g/2: the ½ of the loss counted twice", lambda call: 1 / 2),
    ("m", "m·g", lambda call: call.m),
    ("1/m", "g/m: the mean over the batch", lambda call: 1 / call.m),
    ("1/n_out", "g/n_out: the mean over the outputs", lambda call: 1 / call.n_out),
    ("0.9", "0.9·g", lambda call: 0.9),
    ("1.000001", "(1 + 10⁻⁶)·g", lambda call: 1 + 1e-6),
    ("1/255", "g/255: pixels scaled in one place only", lambda call: 1 / 255),
]


EDITS: list[tuple[str, str, Callable[[Array, Array | None], Any]]] = [
    ("zero", "zeros of the right shape", lambda g, _: 0 * g),
    ("missing", "None", lambda g, _: None),
    ("sign", "−g", lambda g, _: -g),
    ("absolute value", "|g|", lambda g, _: abs(g)),
    ("transpose", "gᵀ", lambda g, _: g.T),
    ("transpose", "gᵀ, reshaped until it fitted", lambda g, _: g.T.reshape(g.shape)),
    ("summed over everything", "Σg in every entry", lambda g, _: 0 * g + g.sum()),
    ("summed over everything", "Σg, a scalar", lambda g, _: g.sum()),
    ("kept a dimension", "a leading axis of length 1: keepdims", lambda g, _: g[None]),
    ("kept a dimension", "a last axis of length 1", lambda g, _: g[..., None]),
    ("wrong dtype", "float32 whatever came in", lambda g, _: _cast(g, "float32")),
    ("wrong dtype", "float64 whatever came in", lambda g, _: _cast(g, "float64")),
    ("wrong dtype", "collected in an array of int64", lambda g, _: _cast(g, "int64")),
    ("float32 inside", "rounded to float32, widened again", lambda g, _: narrowed(g).astype(g.dtype)),
    ("constant offset", "g + 10⁻³", lambda g, _: g + 1e-3),
    ("constant offset", "g + 10⁻⁸: the ε of a division, in the wrong place", lambda g, _: g + 1e-8),
    ("constant offset", "g − 1", lambda g, _: g - 1),
    ("weight decay", "g + 10⁻² p", lambda g, p: g if p is None else g + 1e-2 * p),
    ("weight decay", "g + 5·10⁻⁴ p", lambda g, p: g if p is None else g + 5e-4 * p),
    ("clipped", "to [−0.1, 0.1]", lambda g, _: g.clip(-0.1, 0.1)),
    ("clipped", "to [0, ∞)", lambda g, _: namespace(g).maximum(g, 0)),
    ("clipped", "to a norm of 1", lambda g, _: g / namespace(g).maximum((g**2).sum() ** 0.5, 1)),
    ("shifted", "one place along the last axis, round the end", lambda g, _: _roll(g, 1, -1)),
    ("shifted", "one place along the first axis, round the end", lambda g, _: _roll(g, -1, 0)),
    ("shifted", "one place, a zero first", lambda g, _: set_at(_roll(g, 1, -1), _index(g, -1, 0), 0)),
    # A row of zeros in ∂E/∂x is a sample left out, too; in a parameter's gradient it is a row and nothing else.
    ("one row", "the first is zero", lambda g, p: g if p is None else _scaled_slice(g, -2, 0, 0)),
    ("one row", "the last has the wrong sign", lambda g, _: _scaled_slice(g, -2, -1, -1)),
    ("one column", "the last is zero", lambda g, _: _scaled_slice(g, -1, 0, -1)),
    ("one column", "the first is doubled", lambda g, _: _scaled_slice(g, -1, 2, 0)),
    ("one entry", "the first is zero", lambda g, _: set_at(g, _entry(g, 0), 0)),
    ("one entry", "the last is 10⁻⁴ too large", lambda g, _: _scaled(g, _entry(g, -1), 1 + 1e-4)),
    ("one entry", "the second along each axis has the wrong sign", lambda g, _: _scaled(g, _entry(g, 1), -1)),
    ("non-finite", "NaN in the last entry", lambda g, _: set_at(g, _entry(g, -1), np.nan)),
    ("non-finite", "∞ in the first entry", lambda g, _: set_at(g, _entry(g, 0), np.inf)),
    ("non-finite", "NaN everywhere", lambda g, _: g * np.nan),
]
"""What becomes of a gradient g; p is the parameter that it is the gradient of, if it is one."""


def _edits(name: str) -> Iterator[Wrong]:
    def edited(edit: Callable[[Array, Any], Any], other: Callable[[Call], Any]) -> Backward:
        return lambda call: (grads := call.grads()) | {name: edit(grads[name], other(call))}

    for factor, description, value in SCALES:
        yield Wrong("scaled", description, edited(operator.mul, value), factor=factor)
    for fault, description, edit in EDITS:
        yield Wrong(fault, description, edited(edit, lambda call: named(call.params, "params").get(name)))
    if name in ("x", "y_hat"):
        zero_to_nan = edited(lambda g, x: set_at(g, x == 0, np.nan), lambda call: call.x)
        yield Wrong("non-finite", "NaN where the input is 0: a division", zero_to_nan)


# ---- the right formulas, given something wrong ------------------------------------------------------------------


def _params_of(grads: Grads) -> Grads:
    return {name: g for name, g in grads.items() if name.startswith("params")}


def _float32(call: Call) -> Grads:
    low = call.with_params(map_leaves(narrowed, call.params)).with_x(map_leaves(narrowed, call.x))
    return {name: g.astype(call.y.dtype) for name, g in low.with_dy(narrowed(call.dy)).grads().items()}


def _samples_kept(keep: Callable[[Array], Any]) -> Backward:
    """Take the gradients of the parameters from some of the samples, `keep(i)` says which."""

    def backward(call: Call) -> Grads:
        kept = keep(np.arange(call.dy.shape[0])).reshape(-1, *[1] * (call.dy.ndim - 1))
        return call.grads() | _params_of(call.with_dy(namespace(call.dy).where(kept, call.dy, 0)).grads())

    return backward


def _one_by_one(call: Call) -> Grads:
    """Return the gradient of the parameters by each sample, never summed: (m, …)."""
    m = len(call.dy)
    each = [
        call.with_x(map_leaves(lambda x, i=i: x[i : i + 1], call.x)).with_dy(call.dy[i : i + 1]).grads()
        for i in range(m)
    ]
    grads = call.grads()
    stacked = {name: namespace(grads[name]).stack([g[name] for g in each]) for name in _params_of(grads) if m}
    return grads | stacked


def _x_from(params: Callable[[Call], Any]) -> Backward:
    """Pass δ back through other parameters."""

    def backward(call: Call) -> Grads:
        grads = call.grads()
        return call.with_params(params(call)).grads() | _params_of(grads)

    return backward


def _updated(lr: float) -> Callable[[Call], Any]:
    """Return W − lr·∂E/∂W."""
    return lambda call: map_leaves(lambda p, g: p - lr * g, call.params, call.nested(call.grads())[1])


def _untransposed(call: Call) -> Any:
    return map_leaves(lambda p: p.T if p.ndim == 2 and p.shape[0] == p.shape[1] else p, call.params)


def _at_batch_1(change: Callable[[Array], Any]) -> Backward:
    return lambda call: {n: change(g) for n, g in call.grads().items()} if call.m == 1 else call.grads()


_LAYOUTS: dict[str, Callable[[Array], bool]] = {
    "not contiguous": lambda a: not a.flags.c_contiguous,
    "Fortran": lambda a: a.flags.f_contiguous and not a.flags.c_contiguous,
    "reversed": lambda a: any(step < 0 for step in a.strides),
    "broadcast": lambda a: a.size > 1 and 0 in a.strides,
}


def _misreads(what: str, layout: str) -> Backward:
    """Read an argument in the order in which it lies in memory, wherever it has the `layout`."""

    def read(a: Array) -> Array:
        if not isinstance(a, np.ndarray) or not _LAYOUTS[layout](a):
            return a
        if 0 in a.strides:
            return np.where(np.arange(a.size).reshape(a.shape) < 1, a, 0)
        memory = a[tuple(slice(None, None, -1 if step < 0 else 1) for step in a.strides)]
        return memory.ravel(order="K").reshape(a.shape)

    return lambda call: {
        "x": lambda: call.with_x(map_leaves(read, call.x)),
        "dy": lambda: call.with_dy(read(call.dy)),
        "params": lambda: call.with_params(map_leaves(read, call.params)),
    }[what]().grads()


BACKWARDS: list[tuple[str, str, Backward]] = [
    ("ignores dy", "ones are taken for dy", lambda call: call.with_dy(1 + 0 * call.dy).grads()),
    ("float32 inside", "x, the parameters and dy are cast to float32, the results back", _float32),
    ("wrong only at some batch sizes", "doubled at m = 1", _at_batch_1(lambda g: 2 * g)),
    ("wrong only at some batch sizes", "squeezed at m = 1", _at_batch_1(lambda g: g.squeeze())),
    ("non-finite", "NaN at m = 1: divided by m − 1", _at_batch_1(lambda g: g * np.nan)),
    ("wrong only for a layout", "x is read as it lies in memory", _misreads("x", "not contiguous")),
    ("wrong only for a layout", "x is read as it lies in memory, if in Fortran order", _misreads("x", "Fortran")),
    ("wrong only for a layout", "x is read backwards, if strides are negative", _misreads("x", "reversed")),
]

LAYER_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("wrong only for a layout", "dy is read as it lies in memory", _misreads("dy", "not contiguous")),
    ("wrong only for a layout", "of a dy that is broadcast only the first entry counts", _misreads("dy", "broadcast")),
    ("wrong only for a layout", "W is read as it lies in memory, if in Fortran order", _misreads("params", "Fortran")),
]

PARAMS_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("not summed over the batch", "one gradient per sample, (m, …)", _one_by_one),
    ("only one sample used", "the last: = in the loop where += is meant", _samples_kept(lambda i: i == len(i) - 1)),
    ("only one sample used", "the first", _samples_kept(lambda i: i == 0)),
    ("one sample left out", "the last: range(m − 1)", _samples_kept(lambda i: i < len(i) - 1)),
    ("one sample left out", "the first: range(1, m)", _samples_kept(lambda i: i > 0)),
    ("W for Wᵀ", "W δ in place of Wᵀ δ, which a square W allows", _x_from(_untransposed)),
    ("already updated W", "δ goes back through W − 0.1·∂E/∂W", _x_from(_updated(0.1))),
    ("already updated W", "δ goes back through W − 0.003·∂E/∂W", _x_from(_updated(0.003))),
]


def _derivative(slope: Callable[[Call], Array]) -> Backward:
    """Return dx = dy ⊗ slope."""
    return lambda call: {"x": (call.dy * slope(call)).astype(call.x.dtype)}


def _logistic(call: Call) -> Array:
    return (1 + namespace(call.x).tanh(call.x / 2)) / 2


def _saturated(factor: float, side: Callable[[Array], Array]) -> Backward:
    return lambda call: {"x": _scaled(call.grads()["x"], side(call.x), factor)}


ACTIVATION_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("σ′ missing", "dx = dy", lambda call: {"x": owned_copy(call.dy)}),
    ("σ′ of the output", "f′(a) in place of f′(z)", lambda call: call.with_x(call.y).grads()),
    ("another activation's derivative", "1 − tanh(z)²", _derivative(lambda c: 1 - namespace(c.x).tanh(c.x) ** 2)),
    ("another activation's derivative", "1 − a²", _derivative(lambda c: 1 - c.y * c.y)),
    ("another activation's derivative", "a (1 − a)", _derivative(lambda c: c.y * (1 - c.y))),
    ("another activation's derivative", "that of ReLU", _derivative(lambda c: c.x > 0)),
    ("another activation's derivative", "that of softplus", _derivative(_logistic)),
    ("wrong only when saturated", "0 where |z| > 4", _saturated(0, lambda z: abs(z) > 4)),
    ("wrong only when saturated", "the wrong sign where z < −5", _saturated(-1, lambda z: z < -5)),
    ("non-finite", "NaN where |z| > 8", _saturated(np.nan, lambda z: abs(z) > 8)),
]  # fmt: skip

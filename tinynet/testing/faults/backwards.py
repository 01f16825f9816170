"""Faults of a whole backward pass: the right formulas, given something wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinynet.arrays import Array, namespace, owned_copy
from tinynet.testing.faults.edits import narrow, scaled
from tinynet.testing.faulty import Backward, Call, Grads
from tinynet.trees import map_leaves

__all__ = ["ACTIVATION_BACKWARDS", "BACKWARDS", "LAYER_BACKWARDS", "PARAMS_BACKWARDS"]


def _float32(call: Call) -> Grads:
    low = call.with_params(map_leaves(narrow, call.params)).with_x(narrow(call.x)).with_dy(narrow(call.dy))
    grads: Grads = map_leaves(lambda g: g.astype(call.y.dtype), low.grads())
    return grads


def _ignores_dy(call: Call) -> Grads:
    return call.with_dy(1 + 0 * call.dy).grads()


def _samples_kept(keep: Callable[[Array], Any]) -> Backward:
    """The gradients of the parameters from some of the samples, `keep(i)` says which."""

    def backward(call: Call) -> Grads:
        i = np.arange(call.dy.shape[0])
        kept = keep(i).reshape(-1, *[1] * (call.dy.ndim - 1))
        return {**call.grads(), "params": call.with_dy(namespace(call.dy).where(kept, call.dy, 0)).grads()["params"]}

    return backward


def _one_by_one(call: Call) -> Grads:
    """The gradient of the parameters by each sample, never summed: (m, …)."""
    per_sample = [
        call.with_x(call.x[i : i + 1]).with_dy(call.dy[i : i + 1]).grads()["params"] for i in range(len(call.x))
    ]
    grads = call.grads()
    if per_sample:
        grads["params"] = map_leaves(lambda *gs: namespace(gs[0]).stack(gs), *per_sample)
    return grads


def _updated_first(lr: float) -> Backward:
    """W ← W − lr·∂E/∂W comes before Wᵀδ."""

    def backward(call: Call) -> Grads:
        grads = call.grads()
        updated = map_leaves(lambda p, g: p - lr * g, call.params, grads["params"])
        return {**grads, "x": call.with_params(updated).grads()["x"]}

    return backward


def _untransposed(call: Call) -> Grads:
    def transposed(p: Array) -> Array:
        return p.T if p.ndim == 2 and p.shape[0] == p.shape[1] else p

    return {**call.grads(), "x": call.with_params(map_leaves(transposed, call.params)).grads()["x"]}


def _at_batch_1(change: Callable[[Array], Any]) -> Backward:
    return lambda call: map_leaves(change, call.grads()) if call.m == 1 else call.grads()


def _misread(wrong: Callable[[Array], bool]) -> Callable[[Array], Array]:
    """Read the memory of an array in the order in which it lies there, wherever its layout is a `wrong` one."""

    def read(a: Array) -> Array:
        if not isinstance(a, np.ndarray) or not wrong(a):
            return a
        if 0 in a.strides:
            return np.where(np.arange(a.size).reshape(a.shape) < 1, a, 0)
        memory = a[tuple(slice(None, None, -1 if step < 0 else 1) for step in a.strides)]
        return memory.ravel(order="K").reshape(a.shape)

    return read


def _not_contiguous(a: Array) -> bool:
    return not a.flags.c_contiguous


def _fortran(a: Array) -> bool:
    return a.flags.f_contiguous and not a.flags.c_contiguous


def _reversed(a: Array) -> bool:
    return any(step < 0 for step in a.strides)


def _broadcast(a: Array) -> bool:
    return a.size > 1 and 0 in a.strides


def _misreads(what: str, wrong: Callable[[Array], bool]) -> Backward:
    read = _misread(wrong)

    def backward(call: Call) -> Grads:
        if what == "dy":
            return call.with_dy(read(call.dy)).grads()
        if what == "params":
            return call.with_params(map_leaves(read, call.params)).grads()
        return call.with_x(read(call.x)).grads()

    return backward


BACKWARDS: list[tuple[str, str, Backward]] = [
    ("ignores dy", "ones are taken for dy", _ignores_dy),
    ("float32 inside", "x, the parameters and dy are cast to float32, the results back", _float32),
    ("wrong only at batch 1", "doubled there", _at_batch_1(lambda g: 2 * g)),
    ("wrong only at batch 1", "squeezed there", _at_batch_1(lambda g: g.squeeze())),
    ("wrong only at batch 1", "divided by m − 1 there", _at_batch_1(lambda g: g * np.nan)),
    ("wrong only for a layout", "x is read as it lies in memory", _misreads("x", _not_contiguous)),
    ("wrong only for a layout", "x is read as it lies in memory, if in Fortran order", _misreads("x", _fortran)),
    ("wrong only for a layout", "x is read backwards, if strides are negative", _misreads("x", _reversed)),
]

LAYER_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("wrong only for a layout", "dy is read as it lies in memory", _misreads("dy", _not_contiguous)),
    ("wrong only for a layout", "of a dy that is broadcast only the first entry counts", _misreads("dy", _broadcast)),
    ("wrong only for a layout", "W is read as it lies in memory, if in Fortran order", _misreads("params", _fortran)),
]

PARAMS_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("not summed over the batch", "one gradient a sample, (m, …)", _one_by_one),
    ("only one sample used", "the last: = in the loop where += is meant", _samples_kept(lambda i: i == len(i) - 1)),
    ("only one sample used", "the first", _samples_kept(lambda i: i == 0)),
    ("one sample left out", "the last: range(m − 1)", _samples_kept(lambda i: i < len(i) - 1)),
    ("one sample left out", "the first: range(1, m)", _samples_kept(lambda i: i > 0)),
    ("W for Wᵀ", "W δ in place of Wᵀ δ, which a square W allows", _untransposed),
    ("already updated W", "δ goes back through W − 0.1·∂E/∂W", _updated_first(0.1)),
    ("already updated W", "δ goes back through W − 0.003·∂E/∂W", _updated_first(0.003)),
]


def _derivative(slope: Callable[[Call], Array]) -> Backward:
    """dx = dy ⊗ slope."""
    return lambda call: {**call.grads(), "x": (call.dy * slope(call)).astype(call.x.dtype)}


def _saturated(factor: float, side: Callable[[Array], Array]) -> Backward:
    def backward(call: Call) -> Grads:
        grads = call.grads()
        return {**grads, "x": scaled(grads["x"], side(call.x), factor)}

    return backward


def _logistic(z: Array) -> Array:
    return (1 + namespace(z).tanh(z / 2)) / 2


ACTIVATION_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("σ′ missing", "dx = dy", lambda call: {**call.grads(), "x": owned_copy(call.dy)}),
    ("σ′ of the output", "f′(a) in place of f′(z)", lambda call: call.with_x(call.y).grads()),
    ("another activation's derivative", "1 − tanh(z)²", _derivative(lambda c: 1 - namespace(c.x).tanh(c.x) ** 2)),
    ("another activation's derivative", "1 − a²", _derivative(lambda c: 1 - c.y * c.y)),
    ("another activation's derivative", "a (1 − a)", _derivative(lambda c: c.y * (1 - c.y))),
    ("another activation's derivative", "that of ReLU", _derivative(lambda c: c.x > 0)),
    ("another activation's derivative", "that of softplus", _derivative(lambda c: _logistic(c.x))),
    ("wrong only when saturated", "0 where |z| > 4", _saturated(0, lambda z: abs(z) > 4)),
    ("wrong only when saturated", "the wrong sign where z < −5", _saturated(-1, lambda z: z < -5)),
    ("wrong only when saturated", "NaN where |z| > 8", _saturated(np.nan, lambda z: abs(z) > 8)),
]

"""Seeded faults: the ways in which people get a gradient wrong, each built into a right layer or loss.

Who tests gradients can score the test with them: how many does it find, how many does it name?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from tinynet.arrays import Array, Params, is_floating, namespace, owned_copy
from tinynet.layers import Layer, Sequential
from tinynet.losses import Loss
from tinynet.testing.faulty import (
    Backward,
    Call,
    Grads,
    Path,
    Watch,
    faulty,
    gradient_name,
    leaf_at,
    leaf_paths,
    put,
)
from tinynet.trees import leaves, map_leaves

__all__ = ["FAULTS", "SeededFault", "seeded_faults"]

FAULTS = (
    "sign", "transpose", "zero", "missing", "scaled by m", "scaled by 1/m", "scaled by 2", "scaled by 1/2",
    "scaled by 1/n_out", "scaled by a constant", "not summed over the batch", "summed over everything",
    "kept a dimension", "wrong dtype", "float32 inside", "constant offset", "weight decay", "absolute value", "clipped",
    "shifted", "one sample left out", "only one sample used", "ignores dy", "σ′ missing", "σ′ of the output",
    "another activation's derivative", "W for Wᵀ", "already updated W", "stale cache", "accumulates",
    "not deterministic", "mutates x", "mutates params", "mutates dy", "shares memory", "wrong only for a layout",
    "wrong only at batch 1", "wrong only when saturated", "one entry", "one row", "one column", "non-finite",
)  # fmt: skip
"""The names a fault can have."""


@dataclass(frozen=True)
class SeededFault:
    """One way to be wrong.

    Attributes:
        name: one of `FAULTS`.
        gradient: the gradient that is wrong: "x", "params.W", "y_hat", or "" where it is more than one. In a chain,
            "params[0].W", or "layers[1].x" where what is wrong is the error that a layer hands down.
        target: the layer or loss, its forward pass right and its backward pass wrong.
        description: what it does instead of the right thing.
    """

    name: str
    gradient: str
    target: Layer | Loss
    description: str


def seeded_faults(target: Layer | Loss, *, inputs: tuple[Array, ...] | None = None) -> tuple[SeededFault, ...]:
    """Return every fault that `target` can have, and that makes a difference there.

    A fault of values is left out where a simpler one, earlier in `FAULTS` or in the list of its kind, gives the very
    same gradients: the transpose of a vector is no fault, one row of a matrix with one row is all of it.

    Args:
        target: a right layer or loss. A `Sequential` gets the faults of its layers that show in a chain, too.
        inputs: a batch that fits it, (x,) for a layer and (ŷ, y) for a loss. By default 5 samples, as wide as the
            target's `n_in` or else 4.

    Raises:
        TypeError: target is neither a layer nor a loss.
    """
    if not isinstance(target, (Layer, Loss)):
        raise TypeError(
            f"seeded_faults: target is {target!r:.60}; expected an instance of tinynet.Layer or tinynet.Loss"
        )
    samples = _samples(target, inputs)
    if isinstance(target, Sequential):
        edits = [edit for edit in _EDITS if edit[0] in _EDITS_OF_A_CHAIN]
        return (*_of_values(target, samples, edits), *_of_behaviour(target, samples[0]), *_of_layers(target, samples))
    return (*_of_values(target, samples, _EDITS), *_of_behaviour(target, samples[0]))


# ---- one gradient, corrupted after it was computed --------------------------------------------------------------


@dataclass(frozen=True)
class _Right:
    """A right gradient, and the call and the path that it comes from."""

    g: Array
    call: Call
    path: Path

    @property
    def of_params(self) -> bool:
        return self.path[0] == "params"

    @property
    def p(self) -> Array:
        """The parameter that it is the gradient of."""
        return leaf_at(self.call.params, self.path[1:])


_Edit: TypeAlias = Callable[[_Right], Any]


def _index(g: Array, axis: int, i: int) -> Any:
    """True at index `i` of an axis of `g`, to be broadcast over the others."""
    n = g.shape[axis]
    shape = [1] * g.ndim
    shape[axis] = n
    return (np.arange(n) == i % max(n, 1)).reshape(shape)


def _entry(g: Array, i: int) -> Any:
    """True where every index is `i`."""
    hit = np.ones(g.shape, bool)
    for axis in range(g.ndim):
        hit = hit & _index(g, axis, i)
    return hit


def _scaled(g: Array, hit: Any, factor: float) -> Array:
    return namespace(g).where(hit, factor * g, g)


def _set(g: Array, hit: Any, value: float) -> Array:
    return namespace(g).where(hit, value, g)


def _scaled_slice(axis: int, factor: float, i: int) -> _Edit:
    """Scale a row (axis −2) or a column (axis −1) of a matrix."""
    return lambda right: _scaled(right.g, _index(right.g, axis, i), factor) if right.g.ndim > 1 else right.g


def _to_norm_1(right: _Right) -> Array:
    return right.g / namespace(right.g).maximum((right.g**2).sum() ** 0.5, 1)


def _always(dtype: str) -> _Edit:
    return lambda right: right.g.astype(dtype) if isinstance(right.g, np.ndarray) else right.g


def _weight_decay(rate: float) -> _Edit:
    return lambda right: right.g + rate * right.p if right.of_params else right.g


def _roll(right: _Right, places: int, axis: int) -> Array:
    return namespace(right.g).roll(right.g, places, axis=axis)


def _nan_at_0(right: _Right) -> Array:
    return right.g if right.of_params else _set(right.g, right.call.x == 0, np.nan)


_EDITS: list[tuple[str, str, _Edit]] = [
    ("zero", "zeros of the right shape", lambda right: 0 * right.g),
    ("missing", "None", lambda _: None),
    ("sign", "−g", lambda right: -right.g),
    ("scaled by 2", "2g: the ½ of the loss forgotten", lambda right: 2 * right.g),
    ("scaled by 1/2", "g/2: the ½ of the loss counted twice", lambda right: right.g / 2),
    ("scaled by m", "m·g", lambda right: right.g * right.call.m),
    ("scaled by 1/m", "g/m: the mean over the batch", lambda right: right.g / right.call.m),
    ("scaled by 1/n_out", "g/n_out: the mean over the outputs", lambda right: right.g / right.call.n_out),
    ("scaled by a constant", "0.9·g", lambda right: 0.9 * right.g),
    ("scaled by a constant", "(1 + 10⁻⁶)·g", lambda right: (1 + 1e-6) * right.g),
    ("scaled by a constant", "g/255: pixels scaled in one place only", lambda right: right.g / 255),
    ("absolute value", "|g|", lambda right: abs(right.g)),
    ("transpose", "gᵀ", lambda right: right.g.T),
    ("transpose", "gᵀ, reshaped until it fitted", lambda right: right.g.T.reshape(right.g.shape)),
    ("summed over everything", "Σg in every entry", lambda right: 0 * right.g + right.g.sum()),
    ("summed over everything", "Σg, a scalar", lambda right: right.g.sum()),
    ("kept a dimension", "a leading axis of length 1: keepdims", lambda right: right.g[None]),
    ("kept a dimension", "a last axis of length 1", lambda right: right.g[..., None]),
    ("wrong dtype", "float32 whatever came in", _always("float32")),
    ("wrong dtype", "float64 whatever came in", _always("float64")),
    ("wrong dtype", "collected in an array of int64", _always("int64")),
    ("float32 inside", "rounded to float32, widened again", lambda right: _narrow(right.g).astype(right.g.dtype)),
    ("constant offset", "g + 10⁻³", lambda right: right.g + 1e-3),
    ("constant offset", "g + 10⁻⁸: the ε of a division, in the wrong place", lambda right: right.g + 1e-8),
    ("constant offset", "g − 1", lambda right: right.g - 1),
    ("weight decay", "g + 10⁻² p", _weight_decay(1e-2)),
    ("weight decay", "g + 5·10⁻⁴ p", _weight_decay(5e-4)),
    ("clipped", "to [−0.1, 0.1]", lambda right: right.g.clip(-0.1, 0.1)),
    ("clipped", "to [0, ∞)", lambda right: namespace(right.g).maximum(right.g, 0)),
    ("clipped", "to a norm of 1", _to_norm_1),
    ("shifted", "one place along the last axis, round the end", lambda right: _roll(right, 1, -1)),
    ("shifted", "one place along the first axis, round the end", lambda right: _roll(right, -1, 0)),
    ("shifted", "one place, a zero first", lambda right: _set(_roll(right, 1, -1), _index(right.g, -1, 0), 0)),
    # A row of zeros in ∂E/∂x is a sample left out, too; in a parameter's gradient it is a row and nothing else.
    ("one row", "the first is zero", lambda right: _scaled_slice(-2, 0, 0)(right) if right.of_params else right.g),
    ("one row", "the last has the wrong sign", _scaled_slice(-2, -1, -1)),
    ("one column", "the last is zero", _scaled_slice(-1, 0, -1)),
    ("one column", "the first is doubled", _scaled_slice(-1, 2, 0)),
    ("one entry", "the first is zero", lambda right: _set(right.g, _entry(right.g, 0), 0)),
    ("one entry", "the last is 10⁻⁴ too large", lambda right: _scaled(right.g, _entry(right.g, -1), 1 + 1e-4)),
    (
        "one entry",
        "the second along each axis has the wrong sign",
        lambda right: _scaled(right.g, _entry(right.g, 1), -1),
    ),
    ("non-finite", "NaN in the last entry", lambda right: _set(right.g, _entry(right.g, -1), np.nan)),
    ("non-finite", "∞ in the first entry", lambda right: _set(right.g, _entry(right.g, 0), np.inf)),
    ("non-finite", "NaN everywhere", lambda right: right.g * np.nan),
    ("non-finite", "NaN where the input is 0: a division", _nan_at_0),
]

_EDITS_OF_A_CHAIN = {"sign", "missing", "scaled by 1/m", "one entry"}


# ---- the whole backward pass, given something wrong -------------------------------------------------------------


def _narrow(a: Any) -> Any:
    return a.astype("float32") if hasattr(a, "astype") and is_floating(a) else a


def _float32(call: Call) -> Grads:
    narrow = call.with_params(map_leaves(_narrow, call.params)).with_x(_narrow(call.x)).with_dy(_narrow(call.dy))
    grads: Grads = map_leaves(lambda g: g.astype(call.x.dtype), narrow.grads())
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


_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("ignores dy", "ones are taken for dy", _ignores_dy),
    ("float32 inside", "x, the parameters and dy are cast to float32, the results back", _float32),
    ("wrong only at batch 1", "doubled there", _at_batch_1(lambda g: 2 * g)),
    ("wrong only at batch 1", "squeezed there", _at_batch_1(lambda g: g.squeeze())),
    ("wrong only at batch 1", "divided by m − 1 there", _at_batch_1(lambda g: g * np.nan)),
    ("wrong only for a layout", "x is read as it lies in memory", _misreads("x", _not_contiguous)),
    ("wrong only for a layout", "x is read as it lies in memory, if in Fortran order", _misreads("x", _fortran)),
    ("wrong only for a layout", "x is read backwards, if strides are negative", _misreads("x", _reversed)),
]

_LAYER_BACKWARDS: list[tuple[str, str, Backward]] = [
    ("wrong only for a layout", "dy is read as it lies in memory", _misreads("dy", _not_contiguous)),
    ("wrong only for a layout", "of a dy that is broadcast only the first entry counts", _misreads("dy", _broadcast)),
    ("wrong only for a layout", "W is read as it lies in memory, if in Fortran order", _misreads("params", _fortran)),
]

_PARAMS_BACKWARDS: list[tuple[str, str, Backward]] = [
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
        return {**grads, "x": _scaled(grads["x"], side(call.x), factor)}

    return backward


def _logistic(z: Array) -> Array:
    return (1 + namespace(z).tanh(z / 2)) / 2


_ACTIVATION_BACKWARDS: list[tuple[str, str, Backward]] = [
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


def _is_activation(call: Call) -> bool:
    """Whether the layer has no parameters and each entry of x acts on its own entry of y alone."""
    if isinstance(call.right, Loss) or leaves(call.params) or call.x.shape != call.y.shape:
        return False
    first = _set(0 * call.dy, _entry(call.dy, 0), 1)
    return bool((call.with_dy(first).grads()["x"] != 0).sum() <= 1)


def _of_values(target: Layer | Loss, samples: list[Call], edits: list[tuple[str, str, _Edit]]) -> Iterator[SeededFault]:
    """Yield the faults that show in a single call."""
    right = [call.grads() for call in samples]
    known: dict[str, list[list[Grads]]] = {}

    def seeded(name: str, description: str, backward: Backward) -> Iterator[SeededFault]:
        wrong = [backward(call) for call in samples]
        differing = _differences(right, wrong)
        gradient = differing.pop() if len(differing) == 1 else ""
        alike = known.setdefault(gradient, [right])
        if not any(_same(wrong, other) for other in alike):
            alike.append(wrong)
            yield SeededFault(name, gradient, faulty(target, backward), description)

    paths = list(leaf_paths(right[0]))
    for path in paths:
        for name, description, edit in edits:
            for fault in seeded(name, description, _edited(path, edit)):
                yield fault
                if name == "scaled by 1/m" and path[0] == "params" and not isinstance(target, Sequential):
                    alone = faulty(target, _edited(path, edit), only="param_grads")
                    yield replace(fault, target=alone, description=f"{description}; in param_grads alone")
    if isinstance(target, Sequential):
        return
    backwards = list(_BACKWARDS)
    if isinstance(target, Layer):
        backwards += _LAYER_BACKWARDS
    if len(paths) > 1:
        backwards += _PARAMS_BACKWARDS
    if _is_activation(samples[0]):
        backwards += _ACTIVATION_BACKWARDS
    for name, description, backward in backwards:
        yield from seeded(name, description, backward)
        if name in ("ignores dy", "not summed over the batch", "one sample left out") and len(paths) > 1:
            for path in paths:
                yield from seeded(name, description, _in_one(path, backward))


def _edited(path: Path, edit: _Edit) -> Backward:
    def backward(call: Call) -> Grads:
        grads = call.grads()
        edited: Grads = put(grads, path, edit(_Right(leaf_at(grads, path), call, path)))
        return edited

    return backward


def _in_one(path: Path, backward: Backward) -> Backward:
    def only_there(call: Call) -> Grads:
        grads: Grads = put(call.grads(), path, leaf_at(backward(call), path))
        return grads

    return only_there


def _same(a: Any, b: Any) -> bool:
    """Whether two trees of gradients have the same dtypes, shapes and values, but for rounding."""
    return all(_same_leaf(g, h) for g, h in zip(leaves(a), leaves(b), strict=True))


def _same_leaf(g: Any, h: Any) -> bool:
    if g is None or h is None or g.shape != h.shape or g.dtype != h.dtype:
        return g is h
    if g.tobytes() == h.tobytes():
        return True
    if not is_floating(g) or not np.isfinite(g).all():
        return False
    return bool(abs(g - h).max() <= 64 * np.finfo(g.dtype).eps * abs(g).max())


def _differences(right: list[Grads], wrong: list[Grads]) -> set[str]:
    """Name the gradients that differ in one of the calls."""
    return {
        gradient_name(path)
        for r, w in zip(right, wrong, strict=True)
        for path in leaf_paths(r)
        if not _same(leaf_at(r, path), leaf_at(w, path))
    }


# ---- what a single call does not show ---------------------------------------------------------------------------


# What a layer remembers here and should not are NumPy arrays only: a tracer must not outlive its trace.


def _like(a: Any, b: Any) -> bool:
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape and a.dtype == b.dtype


def _stale(which: int) -> tuple[Backward, Watch]:
    """Take the cache of another forward pass: 0 the first, −2 the last but one, −1 the last, whoever made it."""
    calls: list[Call] = []

    def watch(call: Call) -> None:
        if isinstance(call.x, np.ndarray):
            calls[1:] = [*calls[1:][-1:], call]

    def backward(call: Call) -> Grads:
        if len(calls) >= max(-which, 1) and _like(calls[which].x, call.x):
            return replace(call, cache=calls[which].cache).grads()
        return call.grads()

    return backward, watch


def _stale_params() -> tuple[Backward, Watch]:
    """Keep the parameters of the first forward pass."""
    first: list[Params] = []

    def watch(call: Call) -> None:
        if not first and all(isinstance(p, np.ndarray) for p in leaves(call.params)):
            first.append(map_leaves(owned_copy, call.params))

    def backward(call: Call) -> Grads:
        fits = first and all(_like(a, b) for a, b in zip(leaves(first[0]), leaves(call.params), strict=True))
        return (call.with_params(first[0]) if fits else call).grads()

    return backward, watch


def _accumulates(prefix: str, decay: float) -> Backward:
    """Add to what the last call returned."""
    last: dict[Path, Array] = {}

    def backward(call: Call) -> Grads:
        grads = call.grads()
        for path in leaf_paths(grads):
            g = leaf_at(grads, path)
            if path[0] == prefix and isinstance(g, np.ndarray):
                before = last.get(path)
                last[path] = decay * before + g if before is not None and _like(before, g) else g
                grads = put(grads, path, last[path])
        return grads

    return backward


def _noisy(scale: float) -> Backward:
    """Multiply each entry by 1 + scale · N(0, 1)."""
    rng = np.random.default_rng(0)

    def noise(g: Array) -> Array:
        return (g * (1 + scale * rng.standard_normal(g.shape))).astype(g.dtype)

    return lambda call: map_leaves(noise, call.grads())


def _drops_entries() -> Backward:
    """Leave out one entry in ten, another each time."""
    rng = np.random.default_rng(0)
    return lambda call: map_leaves(lambda g: g * (rng.random(g.shape) > 0.1), call.grads())


def _shared(buffers: int) -> Backward:
    """Return the same few arrays in turn, overwritten each time."""
    memory: dict[Any, list[Array]] = {}

    def backward(call: Call) -> Grads:
        grads = call.grads()
        for path in leaf_paths(grads):
            g = leaf_at(grads, path)
            if isinstance(g, np.ndarray):
                turn = memory.setdefault((path, g.shape, g.dtype), [np.empty_like(g) for _ in range(buffers)])
                turn.append(turn.pop(0))
                np.copyto(turn[-1], g)
                grads = put(grads, path, turn[-1])
        return grads

    return backward


def _in_cache(call: Call) -> Array | None:
    """Find an array in the cache of a loss that equals its gradient."""
    g = call.grads()["y_hat"]
    return next((kept for kept in leaves(call.cache) if _like(kept, g) and np.array_equal(kept, g)), None)


def _hands_out_the_cache(call: Call) -> Grads:
    kept = _in_cache(call)
    return call.grads() if kept is None else {"y_hat": kept}


def _and_then(spoil: Callable[[Call], None]) -> Backward:
    """The right gradients, and then something else."""

    def backward(call: Call) -> Grads:
        grads = call.grads()
        spoil(call)
        return grads

    return backward


def _step(a: Array, g: Array, lr: float = 0.1) -> None:
    a -= lr * g


def _scale(a: Array, factor: float) -> None:
    a *= factor


def _step_x(call: Call) -> None:
    grads = call.grads()
    _step(call.x, grads["y_hat" if isinstance(call.right, Loss) else "x"])


def _step_params(call: Call) -> None:
    map_leaves(_step, call.params, call.grads()["params"])


def _decay_params(call: Call) -> None:
    map_leaves(lambda p: _scale(p, 0.99), call.params)


def _of_behaviour(target: Layer | Loss, sample: Call) -> Iterator[SeededFault]:
    """Yield the faults of state and of purity, which show in what comes before or after a call."""
    paths = list(leaf_paths(sample.grads()))
    gradient = gradient_name(paths[0]) if len(paths) == 1 else ""
    has_params = any(path[0] == "params" for path in paths)

    def seeded(name: str, description: str, backward: Backward, watch: Watch | None = None) -> SeededFault:
        return SeededFault(name, gradient, faulty(target, backward, watch=watch), description)

    yield seeded("stale cache", "the cache of the forward pass before, if it fits", *_stale(-2))
    yield seeded("stale cache", "the cache of the first forward pass, if it fits", *_stale(0))
    yield seeded("stale cache", "the cache of the last forward pass, if it fits", *_stale(-1))
    yield seeded("not deterministic", "noise of 10⁻⁶, relative", _noisy(1e-6))
    yield seeded("not deterministic", "one entry in ten left out, by chance", _drops_entries())
    yield seeded("shares memory", "the same buffer every time", _shared(1))
    yield seeded("shares memory", "two buffers in turn", _shared(2))
    yield seeded("mutates x", "x −= 0.1 dx in backward", _and_then(_step_x))
    yield seeded("mutates x", "x is scaled in forward", Call.grads, lambda call: _scale(call.x, 0.5))
    if has_params:
        yield seeded("accumulates", "the parameters' gradients add up over calls", _accumulates("params", 1.0))
        yield seeded("accumulates", "0.9 of the last call's is added", _accumulates("params", 0.9))
        yield seeded("mutates params", "the update happens in backward", _and_then(_step_params))
        yield seeded("mutates params", "the weights decay in forward", Call.grads, _decay_params)
        yield seeded("stale cache", "the parameters of the first forward pass", *_stale_params())
    else:
        yield seeded("accumulates", "the gradient adds up over calls", _accumulates(str(paths[0][0]), 1.0))
    if isinstance(target, Loss):
        yield seeded("mutates x", "ŷ −= y in forward", Call.grads, lambda call: _step(call.x, call.params, 1))
        if _in_cache(sample.with_dy(1.0)) is not None:
            yield seeded("shares memory", "the array in the cache", _hands_out_the_cache)
    else:
        yield seeded("mutates dy", "dy is scaled in place", _and_then(lambda call: _scale(call.dy, 0.5)))
        yield seeded("mutates dy", "dy is zeroed after use", _and_then(lambda call: _scale(call.dy, 0)))


# ---- chains -----------------------------------------------------------------------------------------------------

_NAMES_IN_A_CHAIN = {
    "not summed over the batch", "ignores dy", "σ′ missing", "σ′ of the output", "another activation's derivative",
    "W for Wᵀ", "already updated W", "stale cache",
}  # fmt: skip
_NAMES_OF_A_NETWORK = {"σ′ missing", "W for Wᵀ", "already updated W"}


def _of_layers(chain: Sequential, samples: list[Call]) -> Iterator[SeededFault]:
    """Yield the chain with a fault in one of its layers: as a layer, and with the chain's own backward pass wrong."""
    x = samples[0].x
    for i, layer in enumerate(chain.layers):
        for fault in seeded_faults(layer, inputs=(x,)):
            if fault.name not in _NAMES_IN_A_CHAIN:
                continue
            path = f"layers[{i}].{fault.gradient}".removesuffix(".")
            gradient = path.replace("layers[0].x", "x").replace(f"layers[{i}].params", f"params[{i}]")
            wrong = Sequential(*chain.layers[:i], fault.target, *chain.layers[i + 1 :])  # type: ignore[arg-type]
            yield SeededFault(fault.name, gradient, wrong, f"layer {i}: {fault.description}")
            if fault.name in _NAMES_OF_A_NETWORK and i > 0:
                text = f"layer {i} of a network written as one: {fault.description}"
                yield SeededFault(fault.name, gradient, faulty(chain, _as_one(wrong)), text)
        x = layer.forward(samples[0].params[i], x)[0]


def _as_one(wrong: Layer) -> Backward:
    def backward(call: Call) -> Grads:
        return Call(wrong, call.params, None, call.x, None, call.dy).with_x(call.x).grads()

    return backward


# ---- inputs on which a fault must show --------------------------------------------------------------------------


def _samples(target: Layer | Loss, inputs: tuple[Array, ...] | None) -> list[Call]:
    """Calls that differ in values, batch size, layout and dtype; the first is an ordinary one."""
    rng = np.random.default_rng(0)
    if inputs is None:
        shape = (5, _width(target))
        inputs = (rng.standard_normal(shape),) if isinstance(target, Layer) else tuple(rng.standard_normal((2, *shape)))
    x = inputs[0]
    params: Params
    if isinstance(target, Loss):
        params = inputs[1]
    else:
        drawn = target.init(rng, np.float64)
        params = map_leaves(lambda p: p + 0.1 * rng.standard_normal(p.shape), drawn)

    def call(x: Array, params: Params = params) -> Call:
        made = Call(target, params, None, x, None, 0.7).with_x(x)
        return (
            made if isinstance(target, Loss) else made.with_dy(rng.standard_normal(made.y.shape).astype(made.y.dtype))
        )

    first, one = call(x), call(x[:1], params[:1] if isinstance(target, Loss) else params)
    samples = [first, one, call(np.asfortranarray(x)), call(x[::-1])]
    if isinstance(target, Layer):
        samples.append(first.with_dy(np.asfortranarray(first.dy)))
        samples.append(first.with_dy(np.broadcast_to(first.dy[:1], first.dy.shape)))
        samples.append(first.with_params(map_leaves(np.asfortranarray, params)))
    if is_floating(x):
        samples += [call(6 * x), call(np.where(np.arange(x.size).reshape(x.shape) % 3, x, 0))]
        samples.append(call(x.astype(np.float32), map_leaves(lambda p: p.astype(np.float32), params)))
    return samples


def _width(target: object) -> int:
    """The width of the input that a target asks for: its `n_in`, or that of its first layer that has one."""
    for part in (target, *getattr(target, "layers", ())):
        width = getattr(part, "n_in", None) or (
            _width(part) if hasattr(part, "layers") and part is not target else None
        )
        if isinstance(width, int):
            return width
    return 4

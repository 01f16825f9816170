"""The faults of state and of purity, which a single call does not show.

What a layer remembers here and should not are NumPy arrays only: a tracer must not outlive its trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, is_floating, owned_copy
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.testing.wrong_targets import Backward, Call, Grads, Watch, Wrong
from tinynet.trees import leaves, map_leaves


def state_faults(target: Layer | Loss, sample: Call, other: Call) -> Iterator[Wrong]:
    """Yield the faults of state and of purity that `target` can have.

    A cache that says nothing of the input cannot be stale: `other` is a call with another input of the same shape.
    """
    right = sample.grads()
    has_params = any(name.startswith("params") for name in right)
    if not _equal(right, replace(sample, cache=other.cache).grads()):
        yield Wrong("stale cache", "the cache of the forward pass before, if it fits", *_stale(-2))
        yield Wrong("stale cache", "the cache of the first forward pass, if it fits", *_stale(0))
        yield Wrong("stale cache", "the cache of the last forward pass, if it fits", *_stale(-1))
    noise = _by_chance(lambda rng, shape: 1 + 1e-6 * rng.standard_normal(shape))
    yield Wrong("not deterministic", "noise of 10⁻⁶, relative", noise)
    dropped = _by_chance(lambda rng, shape: rng.random(shape) > 0.1)
    yield Wrong("not deterministic", "one entry in ten left out, by chance", dropped)
    yield Wrong("shares memory", "the same buffer every time", _shared(1))
    yield Wrong("shares memory", "two buffers in turn", _shared(2))
    yield Wrong("mutates x", "x −= 0.1 dx in backward", _and_then(_step_x))
    yield Wrong("mutates x", "x is scaled in forward", Call.grads, lambda call: map_leaves(_halve, call.x))
    if has_params:
        yield Wrong("accumulates", "the parameters' gradients add up over calls", _accumulates("params", 1.0))
        yield Wrong("accumulates", "0.9 of the last call's is added", _accumulates("params", 0.9))
        yield Wrong("mutates params", "the update happens in backward", _and_then(_step_params))
        decay = lambda call: map_leaves(lambda p: _scale(p, 0.99), call.params)  # noqa: E731
        yield Wrong("mutates params", "the weights decay in forward", Call.grads, decay)
        if not _equal(right, sample.with_params(map_leaves(lambda p: 2 * p, sample.params)).grads()):
            yield Wrong("stale cache", "the parameters of the first forward pass", *_stale_params())
    else:
        yield Wrong("accumulates", "the gradient adds up over calls", _accumulates("", 1.0))
    if isinstance(target, Loss):
        if [np.shape(a) for a in leaves(sample.x)] == [np.shape(a) for a in leaves(sample.params)]:  # not of classes
            yield Wrong("mutates x", "ŷ −= y in forward", Call.grads, lambda call: _step(call.x, call.params, 1))
        if _in_cache(sample.with_dy(1.0)) is not None:
            yield Wrong("shares memory", "the array in the cache", _hands_out_the_cache)
    else:
        yield Wrong("mutates dy", "dy is scaled in place", _and_then(lambda call: _scale(call.dy, 0.5)))
        yield Wrong("mutates dy", "dy is zeroed after use", _and_then(lambda call: _scale(call.dy, 0)))


def _equal(a: Grads, b: Grads) -> bool:
    return all(map(np.array_equal, a.values(), b.values()))


def _alike(a: Any, b: Any) -> bool:
    """Return whether two trees hold NumPy arrays of the same shapes and dtypes."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(isinstance(p, np.ndarray) and p.shape == np.shape(q) and p.dtype == q.dtype for p, q in pairs)


def _stale(which: int) -> tuple[Backward, Watch]:
    """Take the cache of another forward pass: 0 the first, −2 the last but one, −1 the last, whoever made it."""
    calls: list[Call] = []

    def watch(call: Call) -> None:
        if _alike(call.x, call.x):
            calls[1:] = [*calls[1:][-1:], call]

    def backward(call: Call) -> Grads:
        if len(calls) >= max(-which, 1) and _alike(calls[which].x, call.x):
            return replace(call, cache=calls[which].cache).grads()
        return call.grads()

    return backward, watch


def _stale_params() -> tuple[Backward, Watch]:
    """Keep the parameters of the first forward pass."""
    first: list[Params] = []

    def watch(call: Call) -> None:
        if not first and _alike(call.params, call.params):
            first.append(map_leaves(owned_copy, call.params))

    def backward(call: Call) -> Grads:
        return (call.with_params(first[0]) if first and _alike(first[0], call.params) else call).grads()

    return backward, watch


def _accumulates(prefix: str, decay: float) -> Backward:
    """Add to what the last call returned."""
    last: dict[str, Array] = {}

    def add(name: str, g: Array) -> Array:
        if name.startswith(prefix) and isinstance(g, np.ndarray):
            last[name] = g = decay * last[name] + g if name in last and _alike(last[name], g) else g
        return g

    return lambda call: {name: add(name, g) for name, g in call.grads().items()}


def _by_chance(factor: Callable[[np.random.Generator, tuple[int, ...]], Array]) -> Backward:
    """Multiply the gradients by other numbers each time."""
    rng = np.random.default_rng(0)
    return lambda call: {name: (g * factor(rng, g.shape)).astype(g.dtype) for name, g in call.grads().items()}


def _shared(buffers: int) -> Backward:
    """Return the same few arrays in turn, overwritten each time."""
    memory: dict[Any, list[Array]] = {}

    def into_buffer(name: str, g: Array) -> Array:
        if not isinstance(g, np.ndarray):
            return g
        turn = memory.setdefault((name, g.shape, g.dtype), [np.empty_like(g) for _ in range(buffers)])
        turn.append(turn.pop(0))
        np.copyto(turn[-1], g)
        return turn[-1]

    return lambda call: {name: into_buffer(name, g) for name, g in call.grads().items()}


def _in_cache(call: Call) -> Array | None:
    """Return the array in the cache of a loss that equals its gradient, if there is one."""
    g = call.grads()["y_hat"]
    return next((kept for kept in leaves(call.cache) if _alike(kept, g) and np.array_equal(kept, g)), None)


def _hands_out_the_cache(call: Call) -> Grads:
    kept = _in_cache(call)
    return call.grads() if kept is None else {"y_hat": kept}


def _and_then(spoil: Callable[[Call], None]) -> Backward:
    """Return the right gradients after doing something else."""

    def backward(call: Call) -> Grads:
        grads = call.grads()
        spoil(call)
        return grads

    return backward


def _step(a: Array, g: Array, lr: float = 0.1) -> None:
    a -= lr * g


def _scale(a: Array, factor: float) -> None:
    a *= factor


def _halve(a: Array) -> None:
    if is_floating(a):
        _scale(a, 0.5)
    else:
        a[...] //= 2


def _step_x(call: Call) -> None:
    dx = call.grads()["y_hat"] if isinstance(call.right, Loss) else call.nested(call.grads())[0]

    def step(x: Array, g: Array) -> None:
        if is_floating(x):
            _step(x, g)
        else:
            x[...] = 0

    map_leaves(step, call.x, dx)


def _step_params(call: Call) -> None:
    map_leaves(_step, call.params, call.nested(call.grads())[1])

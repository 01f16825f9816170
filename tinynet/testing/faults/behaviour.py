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
from tinynet.testing.faults.fault import SeededFault
from tinynet.testing.faulty import Backward, Call, Grads, Path, Watch, faulty, gradient_name, leaf_at, leaf_paths, put
from tinynet.trees import leaves, map_leaves

__all__ = ["of_behaviour"]


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
    if not is_floating(call.x):
        call.x[...] = 0
        return
    grads = call.grads()
    _step(call.x, grads["y_hat" if isinstance(call.right, Loss) else "x"])


def _halve_x(call: Call) -> None:
    if is_floating(call.x):
        _scale(call.x, 0.5)
    else:
        call.x[...] //= 2


def _step_params(call: Call) -> None:
    map_leaves(_step, call.params, call.grads()["params"])


def _decay_params(call: Call) -> None:
    map_leaves(lambda p: _scale(p, 0.99), call.params)


def _same(a: Grads, b: Grads) -> bool:
    return all(map(np.array_equal, leaves(a), leaves(b)))


def of_behaviour(target: Layer | Loss, sample: Call, other: Call) -> Iterator[SeededFault]:
    """Yield the faults of state and of purity, which show in what comes before or after a call.

    A cache that says nothing of the input cannot be stale: `other` is a call with another input of the same shape.
    """
    right, paths = sample.grads(), sample.paths()
    gradient = gradient_name(paths[0]) if len(paths) == 1 else ""
    has_params = any(path[0] == "params" for path in paths)

    def seeded(name: str, description: str, backward: Backward, watch: Watch | None = None) -> SeededFault:
        return SeededFault(name, gradient, faulty(target, backward, watch=watch), description)

    if not _same(right, replace(sample, cache=other.cache).grads()):
        yield seeded("stale cache", "the cache of the forward pass before, if it fits", *_stale(-2))
        yield seeded("stale cache", "the cache of the first forward pass, if it fits", *_stale(0))
        yield seeded("stale cache", "the cache of the last forward pass, if it fits", *_stale(-1))
    yield seeded("not deterministic", "noise of 10⁻⁶, relative", _noisy(1e-6))
    yield seeded("not deterministic", "one entry in ten left out, by chance", _drops_entries())
    yield seeded("shares memory", "the same buffer every time", _shared(1))
    yield seeded("shares memory", "two buffers in turn", _shared(2))
    yield seeded("mutates x", "x −= 0.1 dx in backward", _and_then(_step_x))
    yield seeded("mutates x", "x is scaled in forward", Call.grads, _halve_x)
    if has_params:
        yield seeded("accumulates", "the parameters' gradients add up over calls", _accumulates("params", 1.0))
        yield seeded("accumulates", "0.9 of the last call's is added", _accumulates("params", 0.9))
        yield seeded("mutates params", "the update happens in backward", _and_then(_step_params))
        yield seeded("mutates params", "the weights decay in forward", Call.grads, _decay_params)
        if not _same(right, sample.with_params(map_leaves(lambda p: 2 * p, sample.params)).grads()):
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

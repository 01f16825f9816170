"""Every fault that a target can have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinynet.arrays import Array, Params, is_floating
from tinynet.layers import Layer, Sequential
from tinynet.losses import Loss
from tinynet.testing.faults.behaviour import of_behaviour
from tinynet.testing.faults.edits import EDITS, EDITS_OF_A_CHAIN
from tinynet.testing.faults.fault import SeededFault
from tinynet.testing.faults.values import of_values
from tinynet.testing.faulty import Backward, Call, Grads, faulty
from tinynet.trees import map_leaves

__all__ = ["seeded_faults"]

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
        edits = [edit for edit in EDITS if edit[0] in EDITS_OF_A_CHAIN]
        return (
            *of_values(target, samples, edits),
            *of_behaviour(target, samples[0], samples[3]),
            *_of_layers(target, samples),
        )
    return (*of_values(target, samples, EDITS), *of_behaviour(target, samples[0], samples[3]))


def _samples(target: Layer | Loss, inputs: tuple[Array, ...] | None) -> list[Call]:
    """Calls that differ in values, batch size, layout and dtype; the first is ordinary, the fourth its reverse."""
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

"""Seeded faults: the ways in which people get a gradient wrong, each built into a right layer or loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.arrays import is_array, is_floating
from tinynet.faults import name as printed
from tinynet.layers import Layer, Sequential
from tinynet.layers.layer import forward_with_state
from tinynet.losses import Loss
from tinynet.testing.state_faults import state_faults
from tinynet.testing.value_faults import narrowed, value_faults
from tinynet.testing.wrong_targets import Backward, Call, faulty
from tinynet.trees import leaves, map_leaves


@dataclass(frozen=True)
class SeededFault:
    """One way to be wrong.

    Attributes:
        fault: a key of `tinynet.faults.FAULTS`.
        factor: of "scaled": "2", "1/m"; "" for the others.
        gradient: the gradient that is wrong: "x", "params.W", "y_hat", or "" where it is more than one. In a chain,
            "params.0.W", or "layers.1.x" where what is wrong is the error that a layer hands down.
        target: the layer or loss, its forward pass right and its backward pass wrong.
        description: what it does instead of the right thing.
    """

    fault: str
    factor: str
    gradient: str
    target: Layer | Loss
    description: str

    @property
    def name(self) -> str:
        """The fault as it is printed, "scaled by 1/m"."""
        return printed(self.fault, self.factor)


def seeded_faults(target: Layer | Loss, *, inputs: Any = None) -> tuple[SeededFault, ...]:
    """Return every fault that `target` can have, and that makes a difference there.

    A fault of values is left out where a simpler one, earlier in the list of its kind, gives the very same gradients:
    the transpose of a vector is no fault, one row of a matrix with one row is all of it.

    Args:
        target: a right layer or loss. A `Sequential` gets the faults of its layers that show in a chain, too.
        inputs: a batch that fits it, as for `tinynet.verify`: an array or a shape, (x,) for a layer, (ŷ, y) for a loss.
            By default 5 samples, as wide as the target's `n_in` or `n`, or else 4.

    Raises:
        TypeError: target is neither a layer nor a loss.
        ValueError: it gives or compares several arrays: faults are seeded where it is one.
    """
    if not isinstance(target, (Layer, Loss)):
        raise TypeError(
            f"seeded_faults: target is {target!r:.60}; expected an instance of tinynet.Layer or tinynet.Loss"
        )
    calls = _calls(target, inputs)
    found = [*_of_values(target, calls), *_of_state(target, calls)]
    return (*found, *_of_layers(target, calls[0])) if isinstance(target, Sequential) else tuple(found)


def _of_values(target: Layer | Loss, calls: list[Call]) -> Iterator[SeededFault]:
    right = [call.grads() for call in calls]
    known: dict[str, list[list[Any]]] = {}
    for fault in value_faults(target, calls[0]):
        wrong = [fault.backward(call) for call in calls]

        def same(name: str, others: list[Any], wrong: list[Any] = wrong) -> bool:
            return all(_same(g[name], h[name], r[name]) for g, h, r in zip(wrong, others, right, strict=True))

        differing = [name for name in right[0] if not same(name, right)]
        gradient = differing[0] if len(differing) == 1 else ""
        alike = known.setdefault(gradient, [right])
        if any(all(same(name, others) for name in right[0]) for others in alike):
            continue
        alike.append(wrong)
        seeded = SeededFault(fault.fault, fault.factor, gradient, faulty(target, fault.backward), fault.description)
        yield seeded
        if fault.factor == "1/m" and gradient.startswith("params") and not isinstance(target, Sequential):
            alone = faulty(target, fault.backward, only="param_grads")
            yield replace(seeded, target=alone, description=f"{fault.description}; in param_grads alone")


def _of_state(target: Layer | Loss, calls: list[Call]) -> Iterator[SeededFault]:
    names = list(calls[0].grads())
    for fault in state_faults(target, calls[0], calls[3]):
        wrong = faulty(target, fault.backward, watch=fault.watch)
        yield SeededFault(fault.fault, "", names[0] if len(names) == 1 else "", wrong, fault.description)


_IN_A_NETWORK = {"σ′ missing", "W for Wᵀ", "already updated W"}
_IN_A_CHAIN = _IN_A_NETWORK | {
    "not summed over the batch", "ignores dy", "σ′ of the output", "another activation's derivative", "stale cache",
}  # fmt: skip


def _of_layers(chain: Sequential, call: Call) -> Iterator[SeededFault]:
    """Yield the chain with a fault in one of its layers: as a layer, and with the chain's own backward pass wrong."""
    x = call.x
    for i, layer in enumerate(chain.layers):
        for fault in seeded_faults(layer, inputs=(x,)):
            if fault.fault not in _IN_A_CHAIN:
                continue
            gradient = fault.gradient.replace("params", f"params.{i}", 1)
            if gradient == "x" and i > 0:
                gradient = f"layers.{i}.x"
            elif not gradient:
                gradient = f"layers.{i}"
            wrong = Sequential(*chain.layers[:i], fault.target, *chain.layers[i + 1 :])  # type: ignore[arg-type]
            yield replace(fault, gradient=gradient, target=wrong, description=f"layer {i}: {fault.description}")
            if fault.fault in _IN_A_NETWORK and i > 0:
                text = f"layer {i} of a network written as one: {fault.description}"
                yield replace(fault, gradient=gradient, target=faulty(chain, _as_one(wrong)), description=text)
        x = layer.forward(call.params[i], x)[0]


def _as_one(wrong: Layer) -> Backward:
    return lambda call: Call(wrong, call.params, None, call.x, None, call.dy).with_x(call.x).grads()


def _calls(target: Layer | Loss, inputs: Any) -> list[Call]:
    """Return calls that differ in values, batch size, layout and dtype; the fourth is the first in reverse."""
    rng = np.random.default_rng(0)
    x, params = example(target, inputs, rng)
    y = x if isinstance(target, Loss) else forward_with_state(target, params, x, target.init_state(np.float64))[0]
    if not is_array(y) or (isinstance(target, Loss) and not is_array(params)):
        raise ValueError(f"seeded_faults: {target!r:.60} gives or compares several arrays; expected one")

    def call(change: Callable[[Any], Any], like: Any = params) -> Call:
        given = map_leaves(change, x)
        made = Call(target, like, None, given, None, 0.7).with_x(given)
        if isinstance(target, Loss):
            return made
        return made.with_dy(rng.standard_normal(made.y.shape).astype(made.y.dtype))

    first_row = map_leaves(lambda y: y[:1], params) if isinstance(target, Loss) else params
    first = call(lambda a: a)
    calls = [first, call(lambda a: a[:1], first_row), call(np.asfortranarray), call(lambda a: a[::-1])]
    if isinstance(target, Layer):
        calls.append(first.with_dy(np.asfortranarray(first.dy)))
        calls.append(first.with_dy(np.broadcast_to(first.dy[:1], first.dy.shape)))
        calls.append(first.with_params(map_leaves(np.asfortranarray, params)))
    if any(map(is_floating, leaves(x))):
        calls += [
            call(lambda a: 6 * a if is_floating(a) else a),
            call(lambda a: np.where(np.arange(a.size).reshape(a.shape) % 3, a, 0) if is_floating(a) else a),
            call(narrowed, map_leaves(narrowed, params)),
        ]
    return calls


def example(target: Layer | Loss, inputs: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return (x, params) of a layer, (ŷ, y) of a loss."""

    def array(given: Any) -> Any:
        """Draw an array where a shape is given."""
        if isinstance(given, tuple) and all(isinstance(n, int) for n in given):
            return rng.standard_normal(given)
        return given

    if inputs is None:
        inputs = (5, _width(target))
    given = array(inputs)
    if isinstance(target, Loss):
        return tuple(map(array, given)) if isinstance(given, tuple) else (given, _target(target, given, rng))
    x = map_leaves(np.asarray, array(given[0])) if isinstance(given, tuple) else np.asarray(given)
    params = map_leaves(lambda p: p + 0.1 * rng.standard_normal(p.shape), target.init(rng, np.float64))
    try:
        target.forward(params, x)
    except TypeError:  # as of Embedding, whose input is integers
        x = rng.integers(0, _width(target), len(x))
    return x, params


def _target(loss: Loss, y_hat: Any, rng: np.random.Generator) -> Any:
    """Return a y that the loss takes: real numbers, else numbers between 0 and 1."""
    y = rng.standard_normal(y_hat.shape)
    try:
        loss.check(y_hat, y)
    except ValueError:
        y = rng.random(y_hat.shape)
    return y


def _width(target: object) -> int:
    """Return the width of the input that a target asks for: its `n_in`, or that of its first layer that has one."""
    for part in (target, *getattr(target, "layers", ())):
        width = getattr(part, "n_in", None) or getattr(part, "n", None)
        if width is None and part is not target and hasattr(part, "layers"):
            width = _width(part)
        if isinstance(width, int):
            return width
    return 4


def _same(g: Any, h: Any, right: Any) -> bool:
    """Return whether two results have one dtype, one shape and, to the rounding of the right one, the same values."""
    if g is None or h is None or g.shape != h.shape or g.dtype != h.dtype:
        return g is h
    if g.tobytes() == h.tobytes():
        return True
    if not is_floating(g) or not np.isfinite(g).all() or not np.isfinite(h).all():
        return False
    return bool(abs(g - h).max() <= 64 * np.finfo(g.dtype).eps * abs(right).max(initial=0))

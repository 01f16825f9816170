"""The faults that show in a single call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinynet.arrays import is_floating
from tinynet.layers import Layer, Sequential
from tinynet.losses import Loss
from tinynet.testing.faults.backwards import ACTIVATION_BACKWARDS, BACKWARDS, LAYER_BACKWARDS, PARAMS_BACKWARDS
from tinynet.testing.faults.edits import Edit, Right, entry, set_at
from tinynet.testing.faults.fault import SeededFault
from tinynet.testing.faulty import Backward, Call, Grads, Path, faulty, gradient_name, leaf_at, put
from tinynet.trees import leaves

__all__ = ["of_values"]


def _is_activation(call: Call) -> bool:
    """Whether the layer has no parameters and each entry of x acts on its own entry of y alone."""
    if isinstance(call.right, Loss) or leaves(call.params) or call.x.shape != call.y.shape:
        return False
    first = set_at(0 * call.dy, entry(call.dy, 0), 1)
    return bool((call.with_dy(first).grads()["x"] != 0).sum() <= 1)


def of_values(target: Layer | Loss, samples: list[Call], edits: list[tuple[str, str, Edit]]) -> Iterator[SeededFault]:
    """Yield the faults that show in a single call."""
    paths = samples[0].paths()

    def in_order(grads: Grads) -> list[Any]:
        return [leaf_at(grads, path) for path in paths]

    right = [in_order(call.grads()) for call in samples]
    known: dict[str, list[list[list[Any]]]] = {}

    def same(results: list[list[Any]], others: list[list[Any]], places: Iterable[int]) -> bool:
        return all(_same(g[i], h[i], r[i]) for g, h, r in zip(results, others, right, strict=True) for i in places)

    def seeded(name: str, description: str, backward: Backward) -> Iterator[SeededFault]:
        wrong = [in_order(backward(call)) for call in samples]
        differing = [path for i, path in enumerate(paths) if not same(wrong, right, [i])]
        gradient = gradient_name(differing.pop()) if len(differing) == 1 else ""
        alike = known.setdefault(gradient, [right])
        if not any(same(wrong, other, range(len(paths))) for other in alike):
            alike.append(wrong)
            yield SeededFault(name, gradient, faulty(target, backward), description)

    for path in paths:
        for name, description, edit in edits:
            for fault in seeded(name, description, _edited(path, edit)):
                yield fault
                if name == "scaled by 1/m" and path[0] == "params" and not isinstance(target, Sequential):
                    alone = faulty(target, _edited(path, edit), only="param_grads")
                    yield replace(fault, target=alone, description=f"{description}; in param_grads alone")
    if isinstance(target, Sequential):
        return
    backwards = list(BACKWARDS)
    if isinstance(target, Layer):
        backwards += LAYER_BACKWARDS
    if any(path[0] == "params" for path in paths):
        backwards += PARAMS_BACKWARDS
    if _is_activation(samples[0]):
        backwards += ACTIVATION_BACKWARDS
    for name, description, backward in backwards:
        yield from seeded(name, description, backward)
        if name in ("ignores dy", "not summed over the batch", "one sample left out") and len(paths) > 1:
            for path in paths:
                yield from seeded(name, description, _in_one(path, backward))


def _edited(path: Path, edit: Edit) -> Backward:
    def backward(call: Call) -> Grads:
        grads = call.grads()
        edited: Grads = put(grads, path, edit(Right(leaf_at(grads, path), call, path)))
        return edited

    return backward


def _in_one(path: Path, backward: Backward) -> Backward:
    def only_there(call: Call) -> Grads:
        grads: Grads = put(call.grads(), path, leaf_at(backward(call), path))
        return grads

    return only_there


def _same(g: Any, h: Any, right: Any) -> bool:
    """Whether two results have one dtype, one shape and the same values, but for the rounding of the right one."""
    if g is None or h is None or g.shape != h.shape or g.dtype != h.dtype:
        return g is h
    if g.tobytes() == h.tobytes():
        return True
    if not is_floating(g) or not np.isfinite(g).all() or not np.isfinite(h).all():
        return False
    return bool(abs(g - h).max() <= 64 * np.finfo(g.dtype).eps * abs(right).max(initial=0))

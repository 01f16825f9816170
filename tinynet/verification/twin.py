"""The same target on shorter axes: where each run takes long, most examples are tried on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinynet.verification.adapters.subject import Subject, shortened, shorter
from tinynet.verification.examples import Shapes

_DIVISORS = (64, 32, 16, 8, 4, 2)


def find_twin(subject: Subject, shapes: Shapes) -> Subject | None:
    """Return the target with the fewest numbers that it accepts, all axes divided by one divisor; None for none.

    Axes that differ in length go on to differ, and the output has the shape that follows.
    """
    lengths = {k for a in subject.args.values() for k in a.shape}
    outputs = [y.shape for y in shapes.of(subject, subject.args)]
    sizes = {}
    for divisor in _DIVISORS:
        if len({shorter(k, divisor) for k in lengths}) == len(lengths):
            sizes[divisor] = sum(np.prod([shorter(k, divisor) for k in a.shape]) for a in subject.args.values())
    for divisor in sorted(sizes, key=sizes.__getitem__):
        try:
            twin = _shorter(subject, divisor)
            y = shapes.of(twin, twin.args)
        except Exception:
            continue
        expected = [tuple(shorter(k, divisor) for k in shape) for shape in outputs]
        if [a.shape for a in y] == expected and all(np.isfinite(a).all() for a in y) and not twin.is_large:
            return twin
    return None


def _shorter(subject: Subject, divisor: int) -> Subject:
    if subject.narrower is not None:
        return subject.narrower(divisor).judged_for(subject.wrt)
    args = {n: shortened(a, divisor) for n, a in subject.args.items()}
    return replace(subject, args=args, variants=lambda rng: [], parts=list)

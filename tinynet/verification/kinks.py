"""At a kink of the forward pass any value between the one-sided slopes is right."""

from __future__ import annotations

import numpy as np

from tinynet.verification.diagnosis import Evidence

__all__ = ["beyond_kinks"]

STEP = 1e-7


def beyond_kinks(e: Evidence, rng: np.random.Generator) -> tuple[frozenset[str], str]:
    """Return which of the wrong gradients are not between the one-sided ones, and what the target has at a kink.

    The one-sided gradients are the exact ones beside the inputs: above and below them all, and on random sides.
    """
    moving = [n for n in e.subject.batched if e.args[n].dtype.kind == "f"]
    signs = [{n: rng.choice([-1.0, 1.0], e.args[n].shape) for n in moving} for _ in range(8)]
    signs += [{n: np.full(e.args[n].shape, sign) for n in moving} for sign in (-1.0, 1.0)]
    sides = [e.vjp({**e.args, **{n: e.args[n].astype(float) + STEP * s[n] for n in moving}}, e.dy).grads for s in signs]
    remaining, note = set(), ""
    for name in sorted(e.wrong):
        got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
        if got.shape != want.shape:
            remaining.add(name)
            continue
        every = np.stack([*(s[name] for s in sides), want])
        slack = 100 * STEP * float(np.max(np.abs(every), initial=0))
        low, high = every.min(axis=0) - slack, every.max(axis=0) + slack
        off = ~(np.abs(got - want) <= e.tolerance[name])
        kink = (high - low) > 4 * slack
        if np.any(off & ~kink) or not np.all((low <= got) & (got <= high)):
            remaining.add(name)
        elif name in e.subject.batched and not note:
            i = tuple(np.argwhere(off)[0])
            d = e.dy[i] if e.dy.shape == got.shape and e.dy[i] else 1.0
            note = f"at a kink the layer's slope is {got[i] / d:.3g}, JAX's {want[i] / d:.3g}"
    return frozenset(remaining), "" if remaining else note

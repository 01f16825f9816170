"""Hypotheses about ∂E/∂y: the right formulas, started from a wrong one, which spoils every gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from tinynet.verification.diagnosis.evidence import FAULTS, Array, Diagnosis, Evidence, explains

__all__ = ["of_dy"]


def of_dy(failing: Sequence[Evidence], wrong: Sequence[str], only: bool = False) -> Diagnosis | None:
    """A wrong ∂E/∂y that explains every gradient; with `only`, these gradients whatever the others are."""
    for fault, transform in _WRONG_DY.items():
        if all(any(explains(e, wrong, e.vjp(e.args, dy).grads, only) for dy in transform(e)) for e in failing):
            return Diagnosis(fault, tuple(wrong), FAULTS[fault])
    return _clipped_dy(failing, wrong, only)


def _shifted_dys(e: Evidence) -> Iterator[Array]:
    for axis in range(e.dy.ndim):
        for step in (1, -1):
            yield np.roll(e.dy, step, axis)


def _dys_without(e: Evidence, keep: bool) -> Iterator[Array]:
    for i in {0, e.m - 1, *range(min(e.m, 4))} if e.dy.ndim and e.dy.shape[0] == e.m and e.m > 1 else ():
        dy = np.zeros_like(e.dy) if keep else e.dy.copy()
        dy[i] = e.dy[i] if keep else 0
        yield dy


_WRONG_DY: dict[str, Callable[[Evidence], Iterable[Array]]] = {
    "sign": lambda e: (-e.dy,),
    "scaled by 1/m": lambda e: (e.dy / e.m,) if e.m else (),
    "scaled by m": lambda e: (e.dy * e.m,),
    "scaled by 2": lambda e: (e.dy * 2,),
    "scaled by 1/2": lambda e: (e.dy / 2,),
    "scaled by 1/n_out": lambda e: (e.dy / e.n_out,),
    "scaled by n_out": lambda e: (e.dy * e.n_out,),
    "ignores dy": lambda e: (np.ones_like(e.dy),),
    "absolute value": lambda e: (np.abs(e.dy),),
    "transpose": lambda e: (e.dy.T,) if e.dy.ndim == 2 and e.dy.shape[0] == e.dy.shape[1] else (),
    "summed over everything": lambda e: (
        *(np.broadcast_to(e.dy.sum(axis=a, keepdims=True), e.dy.shape) for a in range(e.dy.ndim)),
        np.full(e.dy.shape, e.dy.sum()),
        *(np.broadcast_to(e.dy.mean(axis=a, keepdims=True), e.dy.shape) for a in range(e.dy.ndim)),
    ),
    "shifted": _shifted_dys,
    "reversed": lambda e: (np.flip(e.dy, axis) for axis in range(e.dy.ndim)),
    "one sample left out": lambda e: _dys_without(e, keep=False),
    "only one sample used": lambda e: _dys_without(e, keep=True),
}


def _clipped_dy(failing: Sequence[Evidence], wrong: Sequence[str], only: bool) -> Diagnosis | None:
    for c in (1.0, 0.5, 0.1, 2.0, 5.0):
        if all(explains(e, wrong, e.vjp(e.args, np.clip(e.dy, -c, c)).grads, only) for e in failing):
            return Diagnosis("clipped", tuple(wrong), f"dy is cut off at ±{c:g} before it is used")
    return None

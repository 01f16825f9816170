"""What a run of the target showed, and the table of the names that a fault can have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.verification.oracle import Exact
from tinynet.verification.subjects import Args, Subject
from tinynet.verification.tolerance import bound, distance

__all__ = ["FAULTS", "Array", "Diagnosis", "Evidence", "explains", "fit"]

Array = npt.NDArray[Any]

FAULTS = {
    "sign": "every entry is the negative of the exact value",
    "transpose": "the transpose of the exact value is returned",
    "zero": "every entry is zero",
    "missing": "no gradient is returned",
    "scaled by m": "every entry is m times the exact value, and m is the batch size",
    "scaled by 1/m": (
        "every entry is 1/m of the exact value, and m is the batch size: the mean over the batch is returned where the "
        "forward pass needs the sum"
    ),
    "scaled by 2": "every entry is twice the exact value",
    "scaled by 1/2": "every entry is half the exact value",
    "scaled by n_out": "every entry is n times the exact value, and n is the width of the output",
    "scaled by 1/n_out": "every entry is 1/n of the exact value, and n is the width of the output",
    "scaled by a constant": "every entry is the same multiple of the exact value at every shape",
    "not summed over the batch": "the gradient of each sample is returned; their sum is the gradient",
    "summed over everything": "the sum of all entries is returned in place of each",
    "kept a dimension": "the values are right, with an axis of length 1 too many",
    "wrong dtype": "the values are of another number type than the array that they are the gradient of",
    "float32 inside": "the values are right to float32 only: somewhere on the way they were rounded to it",
    "constant offset": "the same number was added to every entry",
    "weight decay": "a multiple of the parameter itself was left in its gradient",
    "absolute value": "the absolute value of the exact gradient is returned",
    "clipped": "the exact gradient is cut off at a bound",
    "shifted": "the entries stand in the wrong places: shifted along an axis",
    "reversed": "the entries stand in the wrong places: reversed along an axis",
    "one sample left out": "one sample of the batch contributes nothing",
    "only one sample used": "one sample of the batch contributes, the others do not",
    "ignores dy": "the gradient is that for ∂E/∂y = 1: what is handed in as dy is not used",
    "σ′ missing": "the derivative of the activation was left out",
    "σ′ of the output": "the derivative of the activation was taken at its output a where it belongs at z",
    "another activation's derivative": "another factor stands where the derivative of the activation belongs",
    "W for Wᵀ": "a matrix goes back through the chain rule untransposed",
    "already updated W": "the error was passed back through a weight matrix that had already been updated",
    "mutates its cache": "the backward pass wrote into what the forward pass left for it",
    "stale cache": "the result depends on another forward pass than the one it belongs to",
    "accumulates": "each call adds to the result of the one before",
    "not deterministic": "the same call gives another result each time",
    "mutates x": "the input x was written into",
    "mutates params": "the parameters were written into",
    "mutates dy": "the incoming gradient dy was written into",
    "shares memory": "the result shares memory with an array of the caller's or with an earlier result",
    "wrong only for a layout": "the values are right for contiguous arrays and wrong for another layout in memory",
    "wrong only at batch 1": "the values are right for every batch but that of one sample",
    "wrong only when saturated": "the values are right for moderate inputs and wrong for large ones",
    "wrong only for small inputs": "the values are right for moderate inputs and wrong for small ones",
    "wrong only on an empty batch": "the values are right for every batch but the empty one",
    "wrong only at kinks": "at a kink of the forward pass the value is not between the one-sided slopes",
    "off-diagonal terms missing": "each output passes its error to its own input only, where it depends on others too",
    "one entry": "one entry is wrong, every other one is right",
    "one row": "one row is wrong, every other one is right",
    "one column": "one column is wrong, every other one is right",
    "non-finite": "there is an infinity or a NaN where the exact value is finite",
    "raises": "the backward pass raises where the forward pass does not",
    "hangs": "the call does not come back",
    "not an array": "something other than an array is returned",
    "malformed": "what is returned cannot be matched with what went in",
    "wrong shape": "the shape is not that of the array that it is the gradient of",
    "forward differs": "the forward pass under NumPy and under JAX give different values",
    "forward differs from the reference": "the forward pass and the independent reference give different values",
    "param_grads differs": "param_grads and backward give different gradients",
    "compiled differs": "under jax.jit the backward pass gives another result than without",
    "unknown": "the values are wrong, and no known mistake reproduces them",
}
"""The fault table: every name that a finding can bear, and what it says."""


@dataclass(frozen=True)
class Evidence:
    """One run of the target whose values were looked at: what it gave beside what is exact."""

    probe: str
    subject: Subject
    args: Args
    dy: Array
    exact: Exact
    got: Mapping[str, Any]
    tolerance: Mapping[str, float]
    wrong: frozenset[str]
    vjp: Callable[[Args, Array], Exact]
    rerun: Callable[[float], Evidence | None] = field(default=lambda _: None, compare=False)
    """Run again with the input scaled by a factor."""

    @property
    def m(self) -> int:
        """The batch size."""
        name = self.subject.batched[0] if self.subject.batched else ""
        return self.args[name].shape[0] if name and self.args[name].ndim else 1

    @property
    def rows(self) -> int:
        """How many rows the input has: the batch size, where every leading axis counts samples."""
        name = self.subject.batched[0] if self.subject.batched else ""
        return math.prod(self.args[name].shape[:-1]) if name and self.args[name].ndim > 1 else self.m

    @property
    def n_out(self) -> int:
        """The width of the output; of ŷ for a loss."""
        shape = self.exact.y.shape or next((self.args[n].shape for n in ("y_hat", "y") if n in self.args), ())
        return int(shape[-1]) if shape else 1

    @property
    def n_in(self) -> int:
        """The width of the input."""
        name = self.subject.batched[0] if self.subject.batched else ""
        return int(self.args[name].shape[-1]) if name and self.args[name].ndim else 1

    def reproduces(self, name: str, predicted: Array) -> bool:
        """Whether the user's array is the predicted one, within the tolerance."""
        got = np.asarray(self.got[name])
        if got.shape != predicted.shape or got.dtype.kind not in "fiu":
            return False
        allowed = max(self.tolerance[name], bound(np.asarray(predicted, np.float64), depth=2 * self.subject.depth))
        return distance(got.astype(np.float64), predicted) <= allowed


@dataclass(frozen=True)
class Diagnosis:
    """A fault, the gradients that it explains, and what to say about it."""

    fault: str
    gradients: tuple[str, ...]
    explanation: str


def explains(e: Evidence, wrong: Sequence[str], predicted: Mapping[str, Array], only: bool) -> bool:
    return all(e.reproduces(name, predicted[name]) for name in (wrong if only else e.subject.wrt))


def fit(triples: Sequence[tuple[Array, Array, Array]]) -> float | None:
    """The t with got ≈ exact + t · (moved − exact), by least squares."""
    top = bottom = 0.0
    for got, exact, moved in triples:
        if got.shape != exact.shape:
            return None
        d = moved - exact
        top, bottom = top + float(np.vdot(d, got - exact)), bottom + float(np.vdot(d, d))
    return top / bottom if bottom else None

"""What can be verified, brought to one form: named arrays in, an output, named gradients out."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.verification.subjects.likeness import drawn_like, nearby

__all__ = ["MISSING", "Args", "Gradients", "Malformed", "Session", "Subject", "TargetError", "fresh", "pair", "short"]

Args = dict[str, npt.NDArray[Any]]
"""The arrays that go in, by name: "x", "params.W", "params[0].b", "y_hat", …"""

Gradients = dict[str, Any]
"""What came out, by the same names, exactly as the target gave it: not necessarily arrays."""

MISSING = object()
"""Stands for a gradient that is not there at all."""


class TargetError(ValueError):
    """The target, or what was given with it, cannot be verified as it stands."""


class Malformed(Exception):
    """A backward pass returned something that cannot be matched with the arrays that went in."""


class Session(ABC):
    """One life of the target: state that it keeps between calls is kept within a session, and nowhere else."""

    @abstractmethod
    def forward(self, args: Args) -> tuple[Any, Any]:
        """Return (y, context for `backward`)."""

    @abstractmethod
    def backward(self, context: Any, dy: Any) -> Gradients:
        """Return the gradient of every array of `wrt`."""

    def params_now(self) -> Args:
        """Return the parameters that a target keeps on itself, as they are now."""
        return {}

    keeps_one_cache = False
    """Whether a second forward pass replaces the cache of the first by design."""


class Subject(ABC):
    """A target with arrays of fixed shapes.

    Attributes:
        name: for the report.
        args: example arrays, float64 where they are floating.
        wrt: the names that gradients are taken by.
        batched: the names whose first axis counts samples.
        depth: how many layers deep, the number of times rounding may add up.
        code: the functions that compute gradients, to find the line at fault.
        key: equal for subjects with one forward function; None if that cannot be known.
        parts: the layers and losses that `key` speaks of; two may have one forward pass and differ going back.
        rebound: trace a copy of the target in which NumPy's names stand for jax.numpy's.
        by_jax: the target computes with JAX itself, and is called in 64-bit mode.
    """

    name: str
    args: Args
    wrt: tuple[str, ...]
    batched: tuple[str, ...] = ("x",)
    depth: int = 1
    code: tuple[Callable[..., Any], ...] = ()
    key: Any = None
    parts: tuple[Any, ...] = ()
    rebound: bool = False
    by_jax: bool = False

    @abstractmethod
    def session(self) -> Session:
        """Start a life with nothing remembered."""

    @abstractmethod
    def pure(self, args: Mapping[str, Any]) -> Any:
        """Compute y of `args`, to be traced by JAX."""

    def with_args(self, args: Args) -> Subject:
        """Return the same subject with other arrays."""
        other = copy.copy(self)
        other.args = args
        return other

    def resized(self, rng: np.random.Generator) -> list[tuple[str, Subject]]:
        """Return the subject in other widths: every size that occurs, but the batch's, becomes another one.

        Whether the target accepts them is for its forward pass to say.
        """
        sizes = sorted({n for name, a in self.args.items() for n in a.shape[int(name in self.batched) :]})
        variants: list[tuple[str, Subject]] = []
        for label, to in (("square", lambda i: 3), ("width 1", lambda i: 1), ("larger", lambda i: 9 + 4 * i)):
            new = {n: to(i) for i, n in enumerate(sizes)}
            args = {}
            for name, a in self.args.items():
                batch = a.shape[: int(name in self.batched)]
                shape = (*batch, *(new[n] for n in a.shape[len(batch) :]))
                args[name] = drawn_like(a, shape, rng)
            variants.append((label, self.with_args(args)))
        return variants if sizes else []

    def shares_forward(self, other: Subject) -> bool:
        """Whether the two differ in their arrays only."""
        return self.key == other.key if self.key is not None else type(self) is type(other)

    def with_batch(self, m: int, rng: np.random.Generator) -> Subject:
        """Return the subject with m samples, each near one of its own."""
        args = dict(self.args)
        for name in self.batched:
            args[name] = nearby(args[name][rng.integers(0, len(args[name]), m)], 0.2, rng)
        return self.with_args(args)


def pair(out: Any, of: str, form: str) -> tuple[Any, Any]:
    """Return `out` if it is a pair.

    Raises:
        Malformed: it is not; names what it is the result `of`, and the `form` expected.
    """
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        given = f"{len(out)} values" if isinstance(out, (tuple, list)) else type(out).__name__
        raise Malformed(f"{of} returned {given}; expected {form}")
    return out[0], out[1]


def fresh(target: Any) -> Any:
    """Copy the target with all that it remembers; a function has nothing that could be copied."""
    try:
        return copy.deepcopy(target)
    except Exception:
        return copy.copy(target)


def short(target: Any) -> str:
    """Name a target in a line."""
    text = repr(target)
    return text if len(text) <= 60 else f"{type(target).__name__}(…)"

"""Classes of two static methods whose first argument is a context, as minitorch's and the first tinygrad's are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinynet.verification.adapters.arguments import signature_of
from tinynet.verification.adapters.functions import adapt_pair
from tinynet.verification.adapters.subject import Subject, short


class Context:
    """What forward keeps for backward, by the names that such code knows."""

    saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *values: Any) -> None:
        """Keep values."""
        self.saved_tensors = self.saved_values = values


def adapt_context(target: Any, inputs: Any, rng: np.random.Generator) -> list[Subject] | None:
    """Return the readings of `forward(ctx, *args)` with `backward(ctx, dy, …)`; None of anything else."""
    if not isinstance(target, type):
        return None
    passes = [inspect.getattr_static(target, name, None) for name in ("forward", "backward")]
    if not all(isinstance(f, staticmethod) and _takes_context(f.__func__) for f in passes):
        return None

    ahead, back = (f.__func__ for f in passes)

    def forward(*args: Any) -> Any:
        ctx = Context()
        return ahead(ctx, *args), ctx

    def backward(dy: Any, ctx: Any) -> Any:
        return back(ctx, *(dy if isinstance(dy, (tuple, list)) else (dy,)))

    found = adapt_pair(_without_first(ahead, forward), backward, inputs, rng)
    return [replace(s, name=short(target), code=(ahead, back)) for s in found]


def _takes_context(f: Callable[..., Any]) -> bool:
    return next((p.name for p in signature_of(f)), "") in ("ctx", "context")


def _without_first(f: Callable[..., Any], made: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that goes by the name of another, and has all but the first of its arguments."""
    made = functools.wraps(f)(made)
    made.__signature__ = inspect.Signature(signature_of(f)[1:])  # type: ignore[attr-defined]
    return made

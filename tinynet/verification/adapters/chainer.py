"""Functions as Chainer has them: forward(inputs) -> outputs, backward(indexes, gys) -> gradients, all tuples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.verification.adapters.arguments import signature_of
from tinynet.verification.adapters.functions import adapt_pair
from tinynet.verification.adapters.subject import MISSING, Args, Gradients, Subject, fresh


@dataclass
class _NodeSession:
    node: Any
    names: tuple[str, ...]
    wrt: tuple[str, ...]

    def forward(self, args: Args) -> tuple[Any, Any]:
        return self.node.forward(tuple(args[n] for n in self.names)), None

    def backward(self, context: Any, dy: Any) -> Gradients:
        indexes = tuple(i for i, n in enumerate(self.names) if n in self.wrt)
        found = self.node.backward(indexes, dy)
        found = found if isinstance(found, tuple) else (found,)
        return {self.names[i]: found[k] if k < len(found) else MISSING for k, i in enumerate(indexes)}


def adapt_function_node(target: Any, inputs: Any, rng: np.random.Generator) -> Subject | None:
    """Return an object in the manner of `chainer.FunctionNode` as a subject; None where the target is none.

    Raises:
        TargetError: the inputs do not fit.
    """
    names = [p.name for p in signature_of(getattr(target, "backward", None) or _nothing)]
    if len(names) != 2 or "index" not in names[0] or isinstance(target, type):
        return None

    def forward(*inputs: Any) -> Any:
        return fresh(target).forward(inputs)

    [subject, *_] = adapt_pair(forward, _nothing, inputs, rng)
    session = _NodeSession(target, subject.inputs, subject.wrt)
    return replace(
        subject,
        name=type(target).__name__,
        start=lambda: fresh(session),
        code=(type(target).forward, type(target).backward),
        one_cache=True,
        notes=(),
    )


def _nothing(args: Any, dy: Any) -> None:
    """Stand for a backward pass that is not run."""

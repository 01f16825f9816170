"""Functions as Chainer has them: all arguments are tuples.

forward(inputs) -> outputs, with backward(indexes, gys) or backward(inputs, gys) -> gradients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.verification.adapters.arguments import is_numbers, is_shape, signature_of
from tinynet.verification.adapters.functions import adapt_pair
from tinynet.verification.adapters.parts import fresh
from tinynet.verification.adapters.subject import MISSING, Args, Gradients, Subject

_TUPLE = re.compile(r"(in_?)?(inputs|xs|data|arrays)")


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

    [subject, *_] = adapt_pair(forward, _nothing, _one_by_one(inputs), rng)
    session = _NodeSession(target, subject.inputs, subject.wrt)
    return replace(
        subject,
        name=type(target).__name__,
        start=lambda: fresh(session),
        code=(type(target).forward, type(target).backward),
        one_cache=True,
        notes=(),
    )


def as_one_tuple(target: Any, inputs: Any) -> Any:
    """Return inputs= as one tuple where an object takes and returns tuples, as `chainer.Function` does."""
    forward, backward = (
        [p.name for p in signature_of(getattr(target, name, None) or _nothing)] for name in ("forward", "backward")
    )
    if inputs is None or len(backward) != 2 or forward != backward[:1] or not _TUPLE.fullmatch(forward[0]):
        return inputs
    arrays = _one_by_one(inputs)
    try:
        out = fresh(target).forward(tuple(np.ones(a) if is_shape(a) else np.array(a) for a in arrays))
    except Exception:
        return inputs
    return (arrays,) if isinstance(out, tuple) and all(isinstance(y, np.ndarray) for y in out) else inputs


def _one_by_one(inputs: Any) -> Any:
    """Return the arrays of inputs=, which may be one of them, a tuple of them, or a tuple in a tuple or a dict."""
    if isinstance(inputs, Mapping) and len(inputs) == 1:
        inputs = next(iter(inputs.values()))
    if not isinstance(inputs, (tuple, list)) or is_shape(inputs) or is_numbers(inputs):
        return inputs if inputs is None or isinstance(inputs, Mapping) else (inputs,)
    if len(inputs) == 1 and isinstance(inputs[0], (tuple, list)):
        return _one_by_one(inputs[0])
    return tuple(inputs)


def _nothing(args: Any, dy: Any) -> None:
    """Stand for a backward pass that is not run."""

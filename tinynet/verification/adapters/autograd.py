"""Primitives of HIPS autograd, whose derivatives were given with `defvjp`, as subjects."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from autograd import numpy as wrapped
from autograd.core import primitive_vjps

from tinynet.verification.adapters.arguments import Arguments, Slot, match, signature_of
from tinynet.verification.adapters.functions import adapt_pair
from tinynet.verification.adapters.parts import fresh
from tinynet.verification.adapters.subject import MISSING, Args, Gradients, Subject, TargetError, short


@dataclass
class _PrimitiveSession:
    """The function below a primitive, and the rule that was registered for it.

    Attributes:
        function: computes y.
        rule: rule(argnums, y, args, kwargs)(dy) gives a gradient for each of the arguments `argnums`.
        argnums: the arguments with floating-point arrays.
    """

    function: Callable[..., Any]
    rule: Callable[..., Callable[[Any], Any]]
    arguments: Arguments
    argnums: tuple[int, ...]

    def forward(self, args: Args) -> tuple[Any, Any]:
        positional, keywords = self.arguments.filled(args)
        y = self.function(*positional, **keywords)
        return y, (y, positional, keywords)

    def backward(self, context: Any, dy: Any) -> Gradients:
        try:
            found = tuple(self.rule(self.argnums, *context)(dy))
        except NotImplementedError:
            found = tuple(self._alone(i, context, dy) for i in self.argnums)
        grads: dict[str, Any] = {}
        for i, g in zip(self.argnums, found, strict=True):
            grads |= match(self.arguments.positional[i], g)
        return grads

    def _alone(self, i: int, context: Any, dy: Any) -> Any:
        try:
            return next(iter(self.rule((i,), *context)(dy)))
        except NotImplementedError:
            return MISSING


def adapt_autograd(
    target: Any, inputs: Any, params: Mapping[str, Any] | None, rng: np.random.Generator
) -> Subject | None:
    """Return a primitive of autograd, or a function with the makers of its vjps; None where it is neither.

    Args:
        target: a function made with `autograd.extend.primitive` that has a rule, or (function, vjp, …) with one maker
            vjp(ans, *args) -> (g -> gradient) for each argument, as `defvjp` takes them.
        inputs: for the function.
        params: None, as a function has no parameters.
        rng: for what is drawn.

    Raises:
        TargetError: the inputs do not fit; params were given; a primitive has no rule.
    """
    primitive: Any
    if isinstance(target, tuple) and len(target) > 1 and all(map(_makes_vjp, target[1:])):
        primitive, rule = target[0], _rule_of(target[1:])
        code: tuple[Callable[..., Any], ...] = target[1:]
    elif _is_primitive(target):
        if target not in primitive_vjps:
            raise TargetError(f"{short(target.fun)}: is a primitive of autograd without a rule; see defvjp")
        primitive, rule, code = target, primitive_vjps[target], ()
    else:
        return None
    if params:
        raise TargetError(f"{short(primitive)}: params= has {', '.join(params)}; a function has none, use inputs=")
    function = _below(primitive.fun if _is_primitive(primitive) else primitive)
    [subject, *_] = adapt_pair(function, lambda args, dy: (), inputs, rng)
    arguments: Arguments = subject.start().arguments  # type: ignore[attr-defined]
    argnums = tuple(i for i, part in enumerate(arguments.positional) if _moves(part, subject))
    return replace(
        subject,
        name=short(function),
        start=lambda: _PrimitiveSession(fresh(function), rule, arguments, argnums),
        code=(function, *code),
    )


def _below(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with NumPy for autograd's NumPy, and without the rules of the primitives that it calls."""
    if not isinstance(function, types.FunctionType):
        return function

    def below(value: Any) -> Any:
        return np if value is wrapped else getattr(value, "fun", value) if _is_primitive(value) else value

    names = {n: below(v) for n, v in function.__globals__.items()}
    same = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    return functools.update_wrapper(same, function)


def _is_primitive(value: Any) -> bool:
    return getattr(value, "_is_autograd_primitive", False) is True


def _rule_of(makers: Sequence[Callable[..., Any]]) -> Callable[..., Callable[[Any], Any]]:
    def rule(argnums: Sequence[int], y: Any, args: Any, kwargs: Any) -> Callable[[Any], Any]:
        if max(argnums) >= len(makers):
            raise NotImplementedError
        pulls = [makers[i](y, *args, **kwargs) for i in argnums]
        return lambda g: (pull(g) for pull in pulls)

    return rule


def _makes_vjp(part: Any) -> bool:
    """Return whether a function is written as `defvjp` wants it: of (ans, *args)."""
    return callable(part) and [p.name for p in signature_of(part)[:1]] == ["ans"]


def _moves(part: Any, subject: Subject) -> bool:
    return isinstance(part, Slot) and part.name in subject.wrt

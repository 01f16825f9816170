"""Functions of JAX's with rules of the user's own: `custom_vjp`, `custom_jvp`, functions that use some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tinynet.verification.adapters.arguments import Arguments, Slot, floats, read_arguments
from tinynet.verification.adapters.subject import Args, Array, Gradients, Subject, TargetError, short
from tinynet.verification.jaxpr import bind, evaluate_until, is_users_rule, rule_name, walk


@dataclass
class _JaxSession:
    function: Callable[..., Any]
    arguments: Arguments
    moving: tuple[str, ...]

    def forward(self, args: Args) -> tuple[Any, Any]:
        fixed = {n: jnp.asarray(a) for n, a in args.items()}

        def of(*values: Any) -> Any:
            return self.arguments.call(self.function, fixed | dict(zip(self.moving, values, strict=True)))

        y, pull = jax.vjp(of, *(fixed[n] for n in self.moving))
        return jax.tree.map(np.asarray, y), (pull, y)

    def backward(self, context: Any, dy: Any) -> Gradients:
        pull, y = context
        grads = pull(jax.tree.map(lambda d, v: jnp.asarray(d, v.dtype), dy, y))
        return dict(zip(self.moving, map(np.asarray, grads), strict=True))


def adapt_jax(function: Callable[..., Any], inputs: Any, rng: np.random.Generator) -> Subject | None:
    """Return a JAX function that holds rules of the user's own; None if it has none or is no function of JAX's.

    What the rules are judged by is the primal with every one of them left out.

    Raises:
        TargetError: the inputs do not fit.
    """
    is_rule = isinstance(function, (jax.custom_vjp, jax.custom_jvp))
    plain = getattr(function, "fun", getattr(function, "__wrapped__", function)) if is_rule else function
    arguments, arrays = read_arguments(plain, inputs, rng, name=short(plain))
    fixed = getattr(function, "nondiff_argnums", ()) if is_rule else ()
    moving = tuple(
        n
        for n in floats(arrays)
        if not any(n.split(".")[0] == arguments.names[i] for i in fixed if i < len(arguments.names))
    )

    try:
        with jax.enable_x64(True):
            closed = jax.make_jaxpr(lambda args: arguments.call(function, args))(arrays)
        rules = [eqn for eqn in walk(closed.jaxpr) if is_users_rule(eqn)]
    except Exception as error:
        if is_rule:
            raise TargetError(f"{short(plain)}: JAX cannot trace it: {type(error).__name__}: {error}") from error
        return None
    if not rules:
        return None

    def parts() -> list[tuple[str, Subject]]:
        if len(rules) < 2 and is_rule:
            return []
        return [(rule_name(eqn), _rule_subject(eqn, operands)) for eqn, operands in evaluate_until(closed, arrays)]

    return Subject(
        name=short(plain),
        args=arrays,
        wrt=moving,
        inputs=tuple(arrays),
        start=lambda: _JaxSession(function, arguments, moving),
        pure=lambda args, _: arguments.call(function, args),
        parts=parts,
        library="jax",
        code=(plain,),
        reference=lambda f, args: arguments.call(f, args),
    )


def _rule_subject(eqn: Any, operands: list[Array]) -> Subject:
    """Return one rule, on the operands that reach it."""
    names = tuple(f"operand {i}" for i in range(len(operands)))
    args = dict(zip(names, operands, strict=True))
    arguments = Arguments(tuple(Slot(n) for n in names), {}, names)

    def call(*values: Any) -> Any:
        results = bind(eqn, values)
        return tuple(results) if len(results) > 1 else results[0]

    return Subject(
        name=rule_name(eqn),
        args=args,
        wrt=floats(args),
        inputs=names,
        start=lambda: _JaxSession(call, arguments, floats(args)),
        pure=lambda args, _: call(*args.values()),
        library="jax",
    )

"""Functions as targets: pairs in every convention, functions that return (y, backprop) or (E, gradient)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.arguments import (
    Arguments,
    floats,
    has_structure,
    match,
    named_entry,
    read_arguments,
    turned,
    with_mappings,
)
from tinynet.verification.adapters.conventions import (
    BACKPROP,
    BACKPROP_ALONE,
    E_AND_GRADIENT,
    Convention,
    fitting,
    of_pair,
    takes,
    takes_each,
    times_dy,
    y_and_backprop,
)
from tinynet.verification.adapters.generators import seeder
from tinynet.verification.adapters.parts import followed, fresh
from tinynet.verification.adapters.subject import (
    MISSING,
    Args,
    Array,
    Gradients,
    Malformed,
    Subject,
    TargetError,
    short,
)


@dataclass
class _FunctionSession:
    forward_of: Callable[..., Any]
    backward_of: Callable[..., Any]
    arguments: Arguments
    how: Convention
    seed: Callable[[], None]

    def forward(self, args: Args) -> tuple[Any, Any]:
        positional, keywords = self.arguments.filled(args)
        self.seed()
        y, rest = self.how.unpack(self.forward_of(*positional, **keywords))
        return y, (rest, (*positional, *keywords.values()))

    def backward(self, context: Any, dy: Any) -> Gradients:
        rest, values = context
        result = self.how.pull(self.backward_of, rest, values, dy)
        return named(times_dy(result, dy) if self.how.times else result, self.arguments)


def named(result: Any, arguments: Arguments) -> Gradients:
    """Name the gradients that a function returns by the arrays that it takes.

    One result for one argument; a tuple with an entry for each argument, or for each that holds arrays; a dict by the
    names of the arguments, or one that has the structure of an argument.
    """
    result = with_mappings(result)
    every = [*zip(arguments.names, arguments.positional, strict=True), *arguments.keywords.items()]
    parts = arguments.parts()
    if isinstance(result, Mapping) and (by_name := _by_argument(result, parts)):
        grads: dict[str, Any] = {}
        for name, tree in parts:
            grads |= match(tree, by_name.get(name, MISSING))
        return grads
    several = isinstance(result, (tuple, list)) and not isinstance(parts[0][1], (tuple, list, Mapping))
    if len(parts) == 1 and not (isinstance(result, (tuple, list)) and (several or len(result) in (1, len(every)))):
        return match(parts[0][1], result)
    values = list(result) if isinstance(result, (tuple, list)) else [result]
    among = every if len(values) == len(every) and len(every) != len(parts) else parts
    found: dict[str, Any] = {}
    for i, (_, tree) in enumerate(among):
        found |= match(tree, values[i] if i < len(values) else MISSING)
    if len(values) > len(among):
        raise Malformed(f"backward returned {len(values)} gradients; expected {len(among)}, one for each argument")
    return found


def _by_argument(result: Mapping[Any, Any], parts: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the gradients in a dict by the arguments that they belong to; nothing where it does not tell.

    Its keys are names of arguments, unless what stands there has another structure than the argument, and the whole
    dict has that of one of them.
    """
    by_name = {n: g for n, _ in parts if (g := named_entry(result, n)) is not MISSING}
    if by_name and all(has_structure(t, g) for n, t in parts if (g := by_name.get(n)) is not None):
        return by_name
    alike = next((n for n, tree in parts if has_structure(tree, result)), None)
    return by_name if alike is None else {alike: result}


def _read(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Any,
    rng: np.random.Generator,
    ways: Callable[[Arguments], Sequence[Convention]],
) -> tuple[Arguments, dict[str, Array]]:
    """Return the arguments of a forward pass and the arrays in them.

    A single number is one where a gradient of it is returned, and else stays as it was given.

    Args:
        ways: how the two may be called, given the arguments.

    Raises:
        TargetError: the inputs do not fit.
    """
    numbers: set[str] = set()
    arguments, arrays = read_arguments(forward, inputs, rng, name=name, numbers=numbers)
    judged: set[str] = set()
    for how in ways(arguments) if numbers else ():
        copied = fresh(forward)
        session = _FunctionSession(copied, backward, arguments, how, seeder(copied))
        try:
            y, context = session.forward({n: a.copy() for n, a in arrays.items()})
            grads = session.backward(context, jax.tree.map(np.ones_like, y))
        except Exception:
            continue
        if judged := {n for n in numbers if _is_nonzero(grads.get(n))}:
            break
    constants = {n: float(arrays[n]) for n in numbers - judged}
    return arguments.with_constants(constants), {n: a for n, a in arrays.items() if n not in constants}


def _is_nonzero(grad: Any) -> bool:
    return isinstance(grad, (float, np.ndarray, np.generic)) and np.size(grad) == 1 and bool(np.any(grad))


def _subject(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    arguments: Arguments,
    arrays: dict[str, Array],
    how: Convention,
) -> Subject:
    seed = seeder(forward)

    follow = followed(forward, lambda f, args: how.unpack(arguments.call(f, args))[0])

    def pure(args: Mapping[str, Any], numpy_manners: bool) -> Any:
        seed()
        return follow(args, numpy_manners)

    def start() -> _FunctionSession:
        copied = fresh(forward)  # a plain function is no copy
        return _FunctionSession(copied, backward, arguments, how, seed if copied is forward else seeder(copied))

    return Subject(
        name=name,
        args=arrays,
        wrt=floats(arrays),
        inputs=tuple(arrays),
        start=start,
        modes=lambda: [
            (flag, _subject(name, forward, backward, mode, arrays, how)) for flag, mode in turned(forward, arguments)
        ],
        pure=pure,
        reference=lambda f, args: arguments.call(f, args),
        code=(forward, backward) if backward is not forward else (forward,),
        notes=how.notes,
    )


def adapt_pair(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any, rng: np.random.Generator
) -> list[Subject]:
    """Return a pair of functions in each convention that it can be of, the likeliest first.

    Raises:
        TargetError: the inputs do not fit, or backward takes another number of arguments than in any convention.
    """
    name = f"({short(forward)}, {short(backward)})"
    arguments, arrays = _read(name, forward, backward, inputs, rng, partial(fitting, backward))
    found = fitting(backward, arguments)
    if not found:
        known = "; ".join(c.text for c in of_pair(arguments))
        raise TargetError(f"{name}: backward takes {inspect.signature(backward)}; expected one of: {known}")
    subjects = [(how, _subject(name, forward, backward, arguments, arrays, how)) for how in found]
    return [replace(s, one_cache=how.arity == 1) for how, s in subjects]  # given dy alone, it keeps a cache of its own


def adapt_closure(function: Callable[..., Any], out: Any, inputs: Any, rng: np.random.Generator) -> Subject:
    """Return a function that gives (y, backprop); backprop may be run once a forward pass.

    Args:
        out: what it gave: backprop takes dy, or one for each output, or nothing where dy multiplies what it returns.

    Raises:
        TargetError: the inputs do not fit, or backprop takes other arguments.
    """
    y, backprop = y_and_backprop(out)
    how = BACKPROP if takes_each(backprop, y) else None
    how = how or next((c for c in (BACKPROP, BACKPROP_ALONE) if takes(backprop, c.arity)), None)
    if how is None:
        given = inspect.signature(backprop)
        raise TargetError(f"{short(function)}: returns a function of {given}; expected one of (dy), which is like y")
    name = short(function)
    arguments, arrays = _read(name, function, function, inputs, rng, lambda _: [how])
    return replace(_subject(name, function, function, arguments, arrays, how), one_cache=True)


def adapt_value_and_gradient(function: Callable[..., Any], inputs: Any, rng: np.random.Generator) -> Subject:
    """Return a function that gives (E, gradient); the arguments that it gives no gradient of are data."""
    name, how = short(function), E_AND_GRADIENT
    arguments, arrays = _read(name, function, function, inputs, rng, lambda _: [how])
    subject = _subject(name, function, function, arguments, arrays, how)
    _, gradient = how.unpack(arguments.call(function, {n: a.copy() for n, a in arrays.items()}))
    grads = named(gradient, arguments)
    judged = tuple(n for n in subject.wrt if grads.get(n, MISSING) is not MISSING and grads[n] is not None)
    return replace(subject, wrt=judged, may_lack=frozenset(arrays) - set(judged))

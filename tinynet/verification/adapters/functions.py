"""Functions as targets: pairs in every convention, functions that return (y, backprop) or (E, gradient)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.verification.adapters.arguments import (
    Arguments,
    floats,
    match,
    named_entry,
    read_arguments,
    signature_of,
    slots,
)
from tinynet.verification.adapters.subject import MISSING, Args, Array, Gradients, Malformed, Subject, fresh, short
from tinynet.verification.tracing import Traced, raw, rebound

Unpack = Callable[[Any], tuple[Any, Any]]
"""From what forward returns to (y, what backward needs of it)."""


@dataclass
class _FunctionSession:
    forward_of: Callable[..., Any]
    arguments: Arguments
    unpack: Unpack
    pull: Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], Any]

    def forward(self, args: Args) -> tuple[Any, Any]:
        positional, keywords = self.arguments.filled(args)
        y, rest = self.unpack(self.forward_of(*positional, **keywords))
        return y, (rest, positional, keywords)

    def backward(self, context: Any, dy: Any) -> Gradients:
        rest, positional, keywords = context
        return named(self.pull(rest, positional, keywords, dy), self.arguments)


def named(result: Any, arguments: Arguments) -> Gradients:
    """Name the gradients that a function returns by the arrays that it takes.

    One result for one argument; a tuple with an entry for each argument, or for each that holds arrays; a dict by the
    names of the arguments.
    """
    every = [*zip(arguments.names, arguments.positional, strict=True), *arguments.keywords.items()]
    parts = arguments.parts()
    if isinstance(result, Mapping) and any(named_entry(result, n) is not MISSING for n, _ in parts):
        grads: dict[str, Any] = {}
        for name, tree in parts:
            grads |= match(tree, named_entry(result, name))
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


def _subject(
    name: str,
    forward: Callable[..., Any],
    arguments: Arguments,
    arrays: dict[str, Array],
    unpack: Unpack,
    pull: Callable[..., Any],
    **more: Any,
) -> Subject:
    def pure(args: Mapping[str, Any], numpy_manners: bool) -> Any:
        function = rebound(forward) if numpy_manners else forward
        filled = {n: Traced(a) for n, a in args.items()} if numpy_manners else args
        positional, keywords = arguments.filled(filled)
        return raw(unpack(function(*positional, **keywords))[0])

    return Subject(
        name=name,
        args=arrays,
        wrt=floats(arrays),
        inputs=tuple(arrays),
        start=lambda: _FunctionSession(fresh(forward), arguments, unpack, pull),
        pure=pure,
        reference=lambda f, args: arguments.call(f, args),
        **more,
    )


def _whole(out: Any) -> tuple[Any, Any]:
    return out, None


def _first(out: Any) -> tuple[Any, Any]:
    if not isinstance(out, (tuple, list)) or len(out) < 2:
        raise Malformed(f"forward returned {type(out).__name__}; expected (y, cache)")
    return out[0], out[1] if len(out) == 2 else tuple(out[1:])


def _all_but_last(out: Any) -> tuple[Any, Any]:
    if not isinstance(out, (tuple, list)) or len(out) < 3:
        raise Malformed(f"forward returned {type(out).__name__}; expected (y1, y2, …, cache)")
    return tuple(out[:-1]), out[-1]


def adapt_pair(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any, rng: np.random.Generator
) -> list[Subject]:
    """Return a pair of functions in each convention that it can be of, the likeliest first.

    `forward(*args) -> y` goes with `backward(args, dy)`, `backward(*args, dy)` or `backward(dy, *args)`;
    `forward(*args) -> (y, cache)` with `backward(dy, cache)`, `backward(cache, dy)` or
    `backward(dy, cache, *constants)`, the constants as the forward pass takes them ("relu"); with several outputs also
    `(y1, y2, cache)` with `backward(dy1, dy2, cache)`.
    """
    name = f"({short(forward)}, {short(backward)})"
    arguments, arrays = read_arguments(forward, inputs, rng, name=name)
    n = len(signature_of(backward))
    constants = [value for value in arguments.positional if not any(True for _ in slots(value))]
    args = "backward(args, dy)"
    conventions: list[tuple[str, Unpack, Callable[..., Any]]] = [
        (args, _whole, lambda rest, p, k, dy: backward((*p, *k.values()), dy)),
        ("forward -> (y, cache), backward(dy, cache)", _first, lambda rest, p, k, dy: backward(dy, rest)),
        ("forward -> (y, cache), backward(cache, dy)", _first, lambda rest, p, k, dy: backward(rest, dy)),
    ]
    if n > 2 or n == 0:
        conventions += [
            ("backward(*args, dy)", _whole, lambda rest, p, k, dy: backward(*p, *k.values(), dy)),
            ("backward(dy, *args)", _whole, lambda rest, p, k, dy: backward(dy, *p, *k.values())),
            (
                "forward -> (y1, y2, …, cache), backward(dy1, dy2, …, cache)",
                _all_but_last,
                lambda rest, p, k, dy: backward(*dy, rest),
            ),
        ]
    if constants and n == 2 + len(constants):
        text = "forward -> (y, cache), backward(dy, cache, *constants)"
        conventions.append((text, _first, lambda rest, p, k, dy: backward(dy, rest, *constants)))
    return [
        _subject(
            name,
            forward,
            arguments,
            arrays,
            unpack,
            pull,
            code=(forward, backward),
            notes=(f"read as {text}",)[text == args :],
        )
        for text, unpack, pull in conventions
    ]


def adapt_closure(function: Callable[..., Any], inputs: Any, rng: np.random.Generator) -> Subject:
    """Return a function that gives (y, backprop); backprop may be run once a forward pass."""
    arguments, arrays = read_arguments(function, inputs, rng, name=short(function))
    return _subject(
        short(function),
        function,
        arguments,
        arrays,
        _first,
        lambda backprop, p, k, dy: backprop(dy),
        code=(function,),
        one_cache=True,
    )


def value_and_gradient(out: Any) -> tuple[Any, Any] | None:
    """Return (E, gradient) of (E, gradient), (gradient, E) or (E, gradient, gradient, …); None of anything else."""
    if not isinstance(out, (tuple, list)) or len(out) < 2:
        return None
    if _is_number(out[0]):
        return out[0], out[1] if len(out) == 2 else tuple(out[1:])
    return (out[1], out[0]) if len(out) == 2 and _is_number(out[1]) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, (tuple, list, Mapping)):
        return False
    value = value if hasattr(value, "dtype") else np.asarray(value)
    return value.ndim == 0 and value.dtype.kind in "fV"


def _value_and_gradient(out: Any) -> tuple[Any, Any]:
    found = value_and_gradient(out)
    if found is None:
        raise Malformed(f"the function returned {type(out).__name__}; expected (E, gradient)")
    return found


def adapt_value_and_gradient(function: Callable[..., Any], inputs: Any, rng: np.random.Generator) -> Subject:
    """Return a function that gives (E, gradient); the arguments that it gives no gradient of are data."""
    arguments, arrays = read_arguments(function, inputs, rng, name=short(function))
    positional, keywords = arguments.filled({n: a.copy() for n, a in arrays.items()})
    grads = named(_value_and_gradient(function(*positional, **keywords))[1], arguments)
    judged = tuple(n for n in floats(arrays) if grads.get(n, MISSING) is not MISSING and grads[n] is not None)

    subject = _subject(
        short(function),
        function,
        arguments,
        arrays,
        _value_and_gradient,
        lambda g, p, k, dE: _scaled(g, dE),
        code=(function,),
        notes=("read as (E, gradient)",),
    )
    data = frozenset(slots([t for _, t in arguments.parts()])) - set(judged)
    return Subject(**{**vars(subject), "wrt": judged, "may_lack": data})


def _scaled(gradient: Any, dE: Any) -> Any:
    if isinstance(gradient, Mapping):
        return {key: _scaled(part, dE) for key, part in gradient.items()}
    if isinstance(gradient, (tuple, list)):
        return [_scaled(part, dE) for part in gradient]
    return gradient if gradient is None else gradient * np.asarray(dE, np.asarray(gradient).dtype)

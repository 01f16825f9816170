"""Functions as targets: pairs in every convention, functions that return (y, backprop) or (E, gradient)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinynet.verification.adapters.arguments import (
    COTANGENT,
    Arguments,
    floats,
    has_structure,
    match,
    named_entry,
    read_arguments,
    signature_of,
    slots,
    turned,
)
from tinynet.verification.adapters.generators import seed_own
from tinynet.verification.adapters.subject import (
    MISSING,
    Args,
    Array,
    Gradients,
    Malformed,
    Subject,
    TargetError,
    fresh,
    short,
)
from tinynet.verification.numpy_as_jax import Traced, raw, rebound

E_AND_GRADIENT = "read as (E, gradient)"
"""The note of a function that returns the gradient beside E."""

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
        seed_own(self.forward_of)
        y, rest = self.unpack(self.forward_of(*positional, **keywords))
        return y, (rest, positional, keywords)

    def backward(self, context: Any, dy: Any) -> Gradients:
        rest, positional, keywords = context
        return named(self.pull(rest, positional, keywords, dy), self.arguments)


def named(result: Any, arguments: Arguments) -> Gradients:
    """Name the gradients that a function returns by the arrays that it takes.

    One result for one argument; a tuple with an entry for each argument, or for each that holds arrays; a dict by the
    names of the arguments, or one that has the structure of an argument.
    """
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
        seed_own(forward)
        return raw(unpack(function(*positional, **keywords))[0])

    return Subject(
        name=name,
        args=arrays,
        wrt=floats(arrays),
        inputs=tuple(arrays),
        start=lambda: _FunctionSession(fresh(forward), arguments, unpack, pull),
        modes=lambda: [
            (flag, _subject(name, forward, mode, arrays, unpack, pull, **more))
            for flag, mode in turned(forward, arguments)
        ],
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


def returns_backprop(out: Any) -> bool:
    """Return whether what a forward pass gave is (y, backprop), or (y1, y2, …, backprop)."""
    return isinstance(out, (tuple, list)) and len(out) >= 2 and callable(out[-1])


def y_and_backprop(out: Any) -> tuple[Any, Any]:
    """Return y, one array or a tuple, and the function that gives its gradients.

    Raises:
        Malformed: it is something else.
    """
    if not returns_backprop(out):
        raise Malformed(f"forward returned {type(out).__name__}; expected (y, backprop)")
    return out[0] if len(out) == 2 else tuple(out[:-1]), out[-1]


def _all_but_last(out: Any) -> tuple[Any, Any]:
    if not isinstance(out, (tuple, list)) or len(out) < 3:
        raise Malformed(
            f"forward returned {type(out).__name__}; expected (y1, y2, …, cache) by the number of backward's arguments"
        )
    return tuple(out[:-1]), out[-1]


def adapt_pair(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any, rng: np.random.Generator
) -> list[Subject]:
    """Return a pair of functions in each convention that it can be of, the likeliest first.

    Raises:
        TargetError: the inputs do not fit, or backward takes another number of arguments than in any convention.
    """
    name = f"({short(forward)}, {short(backward)})"
    numbers: set[str] = set()
    arguments, arrays = read_arguments(forward, inputs, rng, name=name, numbers=numbers)
    arguments, arrays = _without_constants(
        arguments,
        arrays,
        numbers,
        lambda a: [_FunctionSession(forward, a, c.unpack, c.pull) for c in _fitting(backward, a)],
    )
    conventions = _conventions(backward, arguments)
    fitting = _fitting(backward, arguments)
    if not fitting:
        known = "; ".join(c.text for c in conventions)
        raise TargetError(f"{name}: backward takes {inspect.signature(backward)}; expected one of: {known}")
    return [
        _subject(
            name,
            forward,
            arguments,
            arrays,
            c.unpack,
            c.pull,
            code=(forward, backward),
            notes=(f"read as {c.text}",)[c.text == conventions[0].text :],
        )
        for c in fitting
    ]


def _fitting(backward: Callable[..., Any], arguments: Arguments) -> list[_Convention]:
    """Return the conventions of which backward takes as many arguments, the likeliest first."""
    fitting = [c for c in _conventions(backward, arguments) if _takes(backward, c.arity)]
    if COTANGENT.fullmatch(next((p.name for p in signature_of(backward)), "")):
        fitting.sort(key=lambda c: "(dy" not in c.text)
    return fitting


def _without_constants(
    arguments: Arguments,
    arrays: dict[str, Array],
    numbers: set[str],
    sessions: Callable[[Arguments], Iterable[_FunctionSession]],
) -> tuple[Arguments, dict[str, Array]]:
    """Return arguments and arrays with each single number as it was given, unless a gradient of it is returned."""
    judged: set[str] = set()
    for session in sessions(arguments) if numbers else ():
        try:
            with np.errstate(all="ignore"):
                y, context = fresh(session).forward({n: a.copy() for n, a in arrays.items()})
                grads = session.backward(context, _ones_like(y))
        except Exception:
            continue
        if judged := {n for n in numbers if _is_nonzero(grads.get(n))}:
            break
    constants = {n: float(arrays[n]) for n in numbers - judged}
    return arguments.with_constants(constants), {n: a for n, a in arrays.items() if n not in constants}


def _ones_like(y: Any) -> Any:
    if isinstance(y, Mapping):
        return {key: _ones_like(part) for key, part in y.items()}
    return tuple(map(_ones_like, y)) if isinstance(y, (tuple, list)) else np.ones_like(y)


def _is_nonzero(grad: Any) -> bool:
    return isinstance(grad, (float, np.ndarray, np.generic)) and np.size(grad) == 1 and bool(np.any(grad))


class _Convention(NamedTuple):
    """How a pair is called; `arity` arguments go to backward, or more than two if it is None."""

    text: str
    arity: int | None
    unpack: Unpack
    pull: Callable[..., Any]


def _conventions(backward: Callable[..., Any], arguments: Arguments) -> list[_Convention]:
    """Return every convention of pairs, the likeliest first.

    Arguments of the forward pass that hold no array ("relu") are constants, and backward may take them again.
    """
    constants = [value for value in arguments.positional if not any(True for _ in slots(value))]
    every = len(arguments.positional) + len(arguments.keywords)
    cached, several = "forward -> (y, cache), ", "forward -> (y1, y2, …, cache), backward(dy1, dy2, …, cache)"
    return [
        _Convention("backward(args, dy)", 2, _whole, lambda rest, p, k, dy: backward((*p, *k.values()), dy)),
        _Convention(f"{cached}backward(dy, cache)", 2, _first, lambda rest, p, k, dy: backward(dy, rest)),
        _Convention(f"{cached}backward(cache, dy)", 2, _first, lambda rest, p, k, dy: backward(rest, dy)),
        _Convention("backward(*args, dy)", every + 1, _whole, lambda rest, p, k, dy: backward(*p, *k.values(), dy)),
        _Convention("backward(dy, *args)", every + 1, _whole, lambda rest, p, k, dy: backward(dy, *p, *k.values())),
        _Convention("backward(dy)", 1, _whole, lambda rest, p, k, dy: backward(dy)),
        _Convention(several, None, _all_but_last, lambda rest, p, k, dy: backward(*dy, rest)),
        _Convention(
            f"{cached}backward(dy, cache, *constants)",
            2 + len(constants),
            _first,
            lambda rest, p, k, dy: backward(dy, rest, *constants),
        ),
    ][: 8 if constants else 7]


def _takes(backward: Callable[..., Any], n: int | None) -> bool:
    """Return whether a function takes n arguments, or more than 2 if n is None, as far as Python can tell."""
    try:
        signature = inspect.signature(backward, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    if n is None:
        positional = [p for p in signature.parameters.values() if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
        return len(positional) > 2 or any(p.kind is p.VAR_POSITIONAL for p in positional)
    try:
        signature.bind(*range(n))
    except TypeError:
        return False
    return True


def adapt_closure(
    function: Callable[..., Any], backprop: Callable[..., Any], inputs: Any, rng: np.random.Generator
) -> Subject:
    """Return a function that gives (y, backprop); backprop may be run once a forward pass.

    Args:
        backprop: one that it gave: it takes dy, or nothing where dy multiplies what it returns.

    Raises:
        TargetError: the inputs do not fit, or backprop takes other arguments.
    """
    takes_dy = _takes(backprop, 1)
    if not (takes_dy or _takes(backprop, 0)):
        takes = inspect.signature(backprop)
        raise TargetError(f"{short(function)}: returns a function of {takes}; expected one of (dy), which is like y")

    def pull(backprop: Callable[..., Any], _positional: Any, _keywords: Any, dy: Any) -> Any:
        return backprop(dy) if takes_dy else _scaled(backprop(), dy)

    numbers: set[str] = set()
    arguments, arrays = read_arguments(function, inputs, rng, name=short(function), numbers=numbers)
    arguments, arrays = _without_constants(
        arguments, arrays, numbers, lambda a: [_FunctionSession(function, a, y_and_backprop, pull)]
    )
    return _subject(
        short(function),
        function,
        arguments,
        arrays,
        y_and_backprop,
        pull,
        code=(function,),
        one_cache=True,
        notes=() if takes_dy else ("read as dy times backprop()",),
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

    def pull(gradient: Any, _positional: Any, _keywords: Any, dE: Any) -> Any:
        return _scaled(gradient, dE)

    numbers: set[str] = set()
    arguments, arrays = read_arguments(function, inputs, rng, name=short(function), numbers=numbers)
    arguments, arrays = _without_constants(
        arguments, arrays, numbers, lambda a: [_FunctionSession(function, a, _value_and_gradient, pull)]
    )
    positional, keywords = arguments.filled({n: a.copy() for n, a in arrays.items()})
    grads = named(_value_and_gradient(function(*positional, **keywords))[1], arguments)
    judged = tuple(n for n in floats(arrays) if grads.get(n, MISSING) is not MISSING and grads[n] is not None)

    subject = _subject(
        short(function),
        function,
        arguments,
        arrays,
        _value_and_gradient,
        pull,
        code=(function,),
        notes=(E_AND_GRADIENT,),
    )
    data = frozenset(slots([t for _, t in arguments.parts()])) - set(judged)
    return Subject(**{**vars(subject), "wrt": judged, "may_lack": data})


def _scaled(gradient: Any, dE: Any) -> Any:
    if isinstance(gradient, Mapping):
        return {key: _scaled(part, dE) for key, part in gradient.items()}
    if isinstance(gradient, (tuple, list)):
        return [_scaled(part, dE) for part in gradient]
    return gradient if gradient is None else gradient * np.asarray(dE, np.asarray(gradient).dtype)

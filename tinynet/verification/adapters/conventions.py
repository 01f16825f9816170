"""How people call their two passes: what forward returns, and what backward is given, in which order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.verification.adapters.arguments import COTANGENT, LEARNING_RATE, Arguments, mapped, signature_of, slots
from tinynet.verification.adapters.subject import Malformed, TargetError, short


@dataclass(frozen=True)
class Convention:
    """One way of calling forward and backward.

    Attributes:
        text: what the report says.
        arity: how many arguments backward must be given; None for more than two.
        unpack: from what forward returns to (y, what backward needs of it).
        pull: (backward, what it needs, the arguments of forward, dy) -> what backward returns.
        times: whether dy still multiplies that.
        rate: the argument of backward that is the learning rate, by which it moves the parameters itself; "" if none.
        usual: whether it goes without saying.
    """

    text: str
    arity: int | None
    unpack: Callable[[Any], tuple[Any, Any]]
    pull: Callable[[Callable[..., Any], Any, tuple[Any, ...], Any], Any]
    times: bool = False
    rate: str = ""
    usual: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """The note of a target that is called so."""
        return () if self.usual else (f"read as {self.text}",)


def whole(out: Any) -> tuple[Any, Any]:
    """Return all that forward gives as y, with nothing for backward."""
    return out, None


def first(out: Any) -> tuple[Any, Any]:
    """Return y of what a forward method gives: all of it, or the first of (y, cache), with nothing for backward."""
    several = isinstance(out, tuple) and out and not all(map(_is_numeric, out))
    return out[0] if several else out, None


def y_and_cache(out: Any) -> tuple[Any, Any]:
    """Return (y, cache); the cache is a tuple where forward gives more than two."""
    if not isinstance(out, (tuple, list)) or len(out) < 2:
        raise Malformed(f"forward returned {type(out).__name__}; expected (y, cache)")
    return out[0], out[1] if len(out) == 2 else tuple(out[1:])


def _outputs_and_cache(out: Any) -> tuple[Any, Any]:
    if isinstance(out, (tuple, list)) and len(out) == 2 and isinstance(out[0], (tuple, list)):
        return tuple(out[0]), out[1]
    if not isinstance(out, (tuple, list)) or len(out) < 3:
        raise Malformed(
            f"forward returned {type(out).__name__}; expected (y1, y2, …, cache) by the number of backward's arguments"
        )
    return tuple(out[:-1]), out[-1]


def returns_backprop(out: Any) -> bool:
    """Return whether what a forward pass gave is (y, backprop), or (y1, y2, …, backprop)."""
    return isinstance(out, (tuple, list)) and len(out) >= 2 and callable(out[-1])


def y_and_backprop(out: Any) -> tuple[Any, Any]:
    """Return (y, backprop); y is a tuple where forward gives more than two."""
    if not returns_backprop(out):
        raise Malformed(f"forward returned {type(out).__name__}; expected (y, backprop)")
    return out[0] if len(out) == 2 else tuple(out[:-1]), out[-1]


def value_and_gradient(out: Any) -> tuple[Any, Any] | None:
    """Return (E, gradient) of (E, gradient), (gradient, E) or (E, gradient, gradient, …); None of anything else."""
    if not isinstance(out, (tuple, list)) or len(out) < 2:
        return None
    if _is_number(out[0]):
        return out[0], out[1] if len(out) == 2 else tuple(out[1:])
    return (out[1], out[0]) if len(out) == 2 and _is_number(out[1]) else None


def times_dy(grads: Any, dy: Any) -> Any:
    """Return gradients times dy, where that has the shape of one or an entry for each of its rows."""

    def scaled(grad: Any) -> Any:
        if not isinstance(grad, float) and not hasattr(grad, "dtype"):
            return grad
        array, shape = np.asarray(grad), np.shape(dy)
        if array.shape[: len(shape)] != shape:
            return grad
        return array * np.asarray(dy, array.dtype).reshape(shape + (1,) * (array.ndim - len(shape)))

    return mapped(scaled, grads)


def _e_and_gradient(out: Any) -> tuple[Any, Any]:
    found = value_and_gradient(out)
    if found is None:
        raise Malformed(f"the function returned {type(out).__name__}; expected (E, gradient)")
    return found


def _is_numeric(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") in ("f", "c", "V", "O")


def _is_number(value: Any) -> bool:
    if isinstance(value, (tuple, list, Mapping)):
        return False
    value = value if hasattr(value, "dtype") else np.asarray(value)
    return value.ndim == 0 and getattr(value.dtype, "kind", "f") in "fV"  # a tensor's number type tells no kind


def takes_each(backprop: Callable[..., Any], y: Any) -> bool:
    """Return whether a backprop takes one dy for each of several outputs, in place of all of them as y is."""
    return isinstance(y, (tuple, list)) and not takes(backprop, 1) and takes(backprop, len(y))


BACKPROP = Convention(
    "forward -> (y, backprop), backprop(dy)",
    1,
    y_and_backprop,
    lambda f, backprop, p, dy: backprop(*dy) if takes_each(backprop, dy) else backprop(dy),
    usual=True,
)
BACKPROP_ALONE = Convention("dy times backprop()", 0, y_and_backprop, lambda f, backprop, p, dy: backprop(), times=True)
E_AND_GRADIENT = Convention("(E, gradient)", 0, _e_and_gradient, lambda f, gradient, p, dy: gradient, times=True)


def _with_cache(name: str) -> list[Convention]:
    before = "forward -> (y, cache), "
    return [
        Convention(f"{before}{name}(dy, cache)", 2, y_and_cache, lambda f, cache, p, dy: f(dy, cache)),
        Convention(f"{before}{name}(cache, dy)", 2, y_and_cache, lambda f, cache, p, dy: f(cache, dy)),
    ]


def of_pair(arguments: Arguments) -> list[Convention]:
    """Return every convention of pairs of functions, the likeliest first.

    Arguments of the forward pass that hold no array ("relu") are constants, and backward may take them again.
    """
    constants = [value for value in arguments.positional if not any(True for _ in slots(value))]
    every = len(arguments.positional) + len(arguments.keywords)
    several = "forward -> (y1, y2, …, cache), backward(dy1, dy2, …, cache)"
    known = [
        Convention("backward(args, dy)", 2, whole, lambda f, _, p, dy: f(p, dy), usual=True),
        *_with_cache("backward"),
        Convention("backward(*args, dy)", every + 1, whole, lambda f, _, p, dy: f(*p, dy)),
        Convention("backward(dy, *args)", every + 1, whole, lambda f, _, p, dy: f(dy, *p)),
        Convention("backward(dy)", 1, whole, lambda f, _, p, dy: f(dy)),
        Convention(several, None, _outputs_and_cache, lambda f, cache, p, dy: f(*dy, cache)),
    ]
    if constants:
        text, arity = "forward -> (y, cache), backward(dy, cache, *constants)", 2 + len(constants)
        known.append(Convention(text, arity, y_and_cache, lambda f, cache, p, dy: f(dy, cache, *constants)))
    return known


def fitting(backward: Callable[..., Any], arguments: Arguments) -> list[Convention]:
    """Return the conventions of pairs of which backward takes as many arguments, the likeliest first."""
    found = [c for c in of_pair(arguments) if takes(backward, c.arity)]
    if COTANGENT.fullmatch(next((p.name for p in signature_of(backward)), "")):
        found.sort(key=lambda c: "(dy" not in c.text)
    return found


def takes(function: Callable[..., Any], n: int | None) -> bool:
    """Return whether a function takes n arguments, or more than 2 if n is None, as far as Python can tell."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
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


def of_methods(name: str, backward: Callable[..., Any], arguments: Arguments, outputs: int) -> list[Convention]:
    """Return how a backward method can be called, by the arguments that it must be given; the likeliest first.

    Args:
        name: of the method; outputs: how many arrays forward gives.

    Raises:
        TargetError: it takes others than in any convention.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [*arguments.names, *arguments.keywords]
    of_rate = [p.name for p in signature_of(backward)[1:] if LEARNING_RATE.fullmatch(p.name) and p.name not in names]
    rate = next(iter(of_rate), "")
    asked = [p for p in signature_of(backward) if p.default is p.empty and p.name != rate]
    needed = [p.name for p in asked if p.kind in kinds]
    required, given = len(needed), len(names)
    known = [
        Convention(f"{name}(dy)", min(required, 1), first, lambda f, _, p, dy: f(dy), usual=True),
        *_with_cache(name),
        Convention(f"{name}(dy, *args)", given + 1, first, lambda f, _, p, dy: f(dy, *p)),
        Convention(f"{name}(*args, dy)", given + 1, first, lambda f, _, p, dy: f(*p, dy)),
        Convention(f"dy times {name}()", 0, first, lambda f, _, p, dy: f(), times=True),
    ]
    if outputs > 1:
        place = 0 if all(map(COTANGENT.fullmatch, needed)) else len(known)
        known.insert(place, Convention(f"{name}(dy1, dy2, …)", outputs, first, lambda f, _, p, dy: f(*dy)))
    if given > 1 or "grad" in name:
        place = 0 if needed == names else len(known)
        known.insert(place, Convention(f"dy times {name}(*args)", given, first, lambda f, _, p, dy: f(*p), times=True))
    keywords = [p.name for p in asked if p.kind is p.KEYWORD_ONLY]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in asked)
    takes_dy = any(COTANGENT.fullmatch(p.name) for p in signature_of(backward))  # perhaps not needed: dout=1
    known = [c for c in known if not (c.times and takes_dy)]
    if not keywords and (fits := [c for c in known if takes_any or c.arity == required]):
        return [replace(c, text=_with_argument(c.text, rate), rate=rate, usual=False) for c in fits] if rate else fits
    texts = "; ".join(dict.fromkeys(c.text for c in known))
    raise TargetError(f"{short(backward)} takes {', '.join([*needed, *keywords])}; expected one of: {texts}")


def _with_argument(call: str, name: str) -> str:
    """Return the text of a call with one more argument."""
    return f"{call[:-1]}{'' if call.endswith('()') else ', '}{name})"

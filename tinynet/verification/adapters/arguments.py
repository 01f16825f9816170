"""The arguments of a forward pass: `inputs=` as people give it, and the arrays in it by name."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.verification.adapters.reachable import reachable
from tinynet.verification.adapters.subject import MISSING, Args, Array, Gradients, TargetError
from tinynet.verification.copies import attributes, is_users

COTANGENT = re.compile(r"d[a-zA-Z]?|d_?(out|y|h|c)\w*|g\w?|\w*grad\w*|delta\w*|upstream\w*")
"""What people call dy, of one output or of several."""

LEARNING_RATE = re.compile(r"lr|eta|learn(ing)?_?rate|l_?rate|step_?size", re.IGNORECASE)
"""What people call the learning rate."""

_FLAGS = frozenset("train training is_train is_training mode".split())


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call, with a `Slot` in place of each array.

    Attributes:
        positional, keywords: the arguments.
        names: what each positional argument is called.
    """

    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]
    names: tuple[str, ...]

    def filled(self, args: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with the arrays of `args` in their places."""
        positional = tuple(_as_given(_fill(p, args)) for p in self.positional)
        return positional, {k: _as_given(_fill(v, args)) for k, v in self.keywords.items()}

    def call(self, function: Callable[..., Any], args: Mapping[str, Any]) -> Any:
        """Return what a function gives for the arguments with these arrays."""
        positional, keywords = self.filled(args)
        return function(*positional, **keywords)

    def with_constants(self, values: Mapping[str, Any]) -> Arguments:
        """Return the arguments with these values in place of the arrays of these names."""
        kept = {n: Slot(n) for _, tree in self.parts() for n in slots(tree)} | dict(values)
        positional = tuple(_fill(p, kept) for p in self.positional)
        return Arguments(positional, {k: _fill(v, kept) for k, v in self.keywords.items()}, self.names)

    def parts(self) -> list[tuple[str, Any]]:
        """Return each argument that holds an array, with its name."""
        every = [*zip(self.names, self.positional, strict=True), *self.keywords.items()]
        return [(name, tree) for name, tree in every if any(True for _ in slots(tree))]


def turned(function: Callable[..., Any], arguments: Arguments) -> Iterator[tuple[str, Arguments]]:
    """Yield the arguments of a call with each flag of them turned, be it given or a default; and which one it is."""
    for i, (name, value) in enumerate(zip(arguments.names, arguments.positional, strict=True)):
        if (other := other_side(value)) is not None:
            changed = (*arguments.positional[:i], other, *arguments.positional[i + 1 :])
            yield f"{name}={other}", replace(arguments, positional=changed)
    given = (*arguments.names, *arguments.keywords)
    defaults = {p.name: p.default for p in signature_of(function) if p.name not in given}
    for name, value in {**defaults, **arguments.keywords}.items():
        if (other := other_side(value)) is not None:
            yield f"{name}={other}", replace(arguments, keywords={**arguments.keywords, name: other})


def other_side(flag: Any) -> Any:
    """Return the other value of a flag, which may be the word for evaluating; None of anything else."""
    if isinstance(flag, (bool, np.bool_)):
        return not flag
    return "train" if isinstance(flag, str) and flag in ("test", "eval", "valid", "predict", "inference") else None


@dataclass(frozen=True)
class Slot:
    """Where an array goes, by its name."""

    name: str


class Record(dict[str, Any]):
    """What an object among the arguments keeps, by attribute: of a dataclass, a namespace or a class of the user's."""

    def __init__(self, like: Any, parts: Mapping[str, Any]) -> None:
        super().__init__(parts)
        self.like = like


def with_mappings(result: Any) -> Any:
    """Return gradients with a tuple in place of an iterator, and a dict in place of an object that keeps arrays."""
    if isinstance(result, Iterator):
        return with_mappings(tuple(result))
    return of_parts(with_mappings, _kept(result) if _is_record(result) else result)


def _is_record(value: Any) -> bool:
    if isinstance(value, (type, Mapping, tuple, list)) or callable(value) or _is_array_like(value):
        return False
    return bool(reachable(value)) and (isinstance(value, types.SimpleNamespace) or is_users(type(value).__module__))


def _kept(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in attributes(value)}


def of_parts(f: Callable[[Any], Any], tree: Any) -> Any:
    """Return a structure with f of each of its parts; what has none as it is."""
    if isinstance(tree, Mapping):
        parts = {key: f(part) for key, part in tree.items()}
        return Record(tree.like, parts) if isinstance(tree, Record) else parts
    if type(tree) in (tuple, list):
        return type(tree)(map(f, tree))
    return type(tree)(*map(f, tree)) if hasattr(tree, "_fields") else tree


def mapped(f: Callable[[Any], Any], tree: Any) -> Any:
    """Return a structure with f of each of its leaves."""
    if isinstance(tree, (Mapping, tuple, list)):
        return of_parts(functools.partial(mapped, f), tree)
    return f(tree)


def slots(tree: Any) -> Iterator[str]:
    """Yield the names of the slots in a structure."""
    if isinstance(tree, Slot):
        yield tree.name
    elif isinstance(tree, Mapping):
        for part in tree.values():
            yield from slots(part)
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from slots(part)


def read_arguments(
    forward: Callable[..., Any],
    inputs: Any,
    rng: np.random.Generator,
    *,
    name: str,
    numbers: set[str] | None = None,
    integers: bool = False,
) -> tuple[Arguments, dict[str, Array]]:
    """Return the arguments of `forward` and the arrays in them by name.

    Args:
        integers: whether no array need be of floating-point numbers, as where an object has parameters.
        numbers: where to put the names of what were single numbers and are arrays then; None keeps them as they are.

    Raises:
        TargetError: `inputs` does not fit, or is None where it cannot be guessed.
    """
    parameters = signature_of(forward)
    if inputs is None:
        inputs = _guess(parameters, rng, name)
    given = ", ".join(map(str, inputs)) if isinstance(inputs, Mapping) else ""
    if isinstance(inputs, Mapping):
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        single = not (set(inputs) <= {p.name for p in parameters} or takes_any)
    else:
        single = not isinstance(inputs, (tuple, list)) or is_shape(inputs) or is_numbers(inputs)
    inputs = (inputs,) if single else inputs
    _check_number(forward, inputs, given, name)
    arrays: dict[str, Array] = {}
    if isinstance(inputs, Mapping):
        order = [p.name for p in parameters if p.name in inputs]  # gradients come in the forward's order
        ordered = dict.fromkeys(order) | dict(inputs)
        keywords = {key: _slotted(value, key, arrays, rng, numbers) for key, value in ordered.items()}
        arguments = Arguments((), keywords, ())
    else:
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        names = [*names, *(f"arg{i}" for i in range(len(names), len(inputs)))][: len(inputs)]
        positional = tuple(_slotted(v, n, arrays, rng, numbers) for n, v in zip(names, inputs, strict=True))
        arguments = Arguments(positional, {}, tuple(names))
    floating = {n: a for n, a in arrays.items() if a.dtype.kind == "f"}
    if not (floating.keys() - (numbers or ()) or (integers and arrays)):
        seen = ", ".join(f"{n} {a.dtype}" for n, a in arrays.items()) or "no array"
        raise TargetError(
            f"{name}: inputs= has {seen}; expected at least one array of floating-point numbers, or a shape, as (5, 3)"
        )
    for n, a in floating.items():
        if a.size == 0:
            raise TargetError(f"{name}: {n} has shape {a.shape}, which holds no number; give a sample")
    return arguments, arrays


def _check_number(forward: Callable[..., Any], inputs: Any, given: str, name: str) -> None:
    """Refuse inputs that are too few, too many or of other names than the arguments of the forward pass."""
    try:
        signature = inspect.signature(forward, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**inputs) if isinstance(inputs, Mapping) else signature.bind(*inputs)
    except TypeError as error:
        given = given or f"{len(inputs)} {'entry' if len(inputs) == 1 else 'entries'}"
        raise TargetError(
            f"{name}: inputs= has {given}, and the forward pass takes {signature} ({error}); give one entry per "
            "argument, in order or by name"
        ) from None


def signature_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function; none where Python cannot tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        count = getattr(function, "nin", 0)  # of a ufunc, which has had a signature since NumPy 2.4
        names = ["x"] if count == 1 else [f"x{i + 1}" for i in range(count)]
        return [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in names]


def as_array(value: Any, name: str) -> Array:
    """Return an array of real numbers, in float64 where it is floating.

    Raises:
        TargetError: it holds complex numbers, objects, masked values, NaN, or infinities that are no mask.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TargetError(f"{name} is a masked array, and its mask would be lost; give plain arrays")
    array = np.array(value)
    if array.dtype.kind == "c":
        raise TargetError(
            f"{name} is complex, where conventions differ (JAX's gradient is the conjugate of PyTorch's); write the "
            "forward pass with the real and the imaginary part as two real arrays"
        )
    if array.dtype.kind not in "fiubV":
        raise TargetError(f"{name} holds {array.dtype}; expected an array of real numbers")
    if array.dtype.kind in "fV":
        array = array.astype(np.float64)
        if not np.isfinite(array).all() and not is_mask(array):
            raise TargetError(f"{name} holds a value that is NaN or infinite; expected finite numbers")
    return array


def is_mask(a: Array) -> bool:
    """Return whether an array holds zeros and infinities, as one does that is added to scores."""
    return bool(np.isinf(a).any() and np.all(np.isinf(a) | (a == 0)) and not np.isinf(a).all())


def is_shape(value: Any) -> bool:
    """Return whether `value` is a tuple of ints, which stands for an array of that shape."""
    return isinstance(value, tuple) and bool(value) and all(type(n) is int for n in value)


def dotted(path: str) -> str:
    """Return `[0]["W"]` as `.0.W`."""
    return re.sub(r'\["?([^"\]]*)"?\]', r".\1", path)


def match(tree: Any, grad: Any) -> Gradients:
    """Name the parts of a gradient as the slots of the argument are named, which it is the gradient of."""
    if isinstance(tree, Slot):
        return {tree.name: grad}
    found: dict[str, Any] = {}
    if isinstance(tree, Mapping):
        given = grad if isinstance(grad, Mapping) else {}
        if not isinstance(grad, Mapping) and isinstance(grad, (tuple, list)):
            given = dict(zip([k for k, v in tree.items() if any(slots(v))], grad, strict=False))
        for key, part in tree.items():
            found |= match(part, named_entry(given, str(key), key))
    elif isinstance(tree, (tuple, list)):
        entries = list(grad) if isinstance(grad, (tuple, list)) else [grad] * (len(tree) == 1)
        for i, part in enumerate(tree):
            found |= match(part, entries[i] if i < len(entries) else MISSING)
    if grad is None:
        found = dict.fromkeys(found, None)
    return found


def has_structure(tree: Any, grad: Any) -> bool:
    """Return whether a gradient has the structure of the argument that it is the gradient of."""
    if isinstance(tree, Slot):
        return not isinstance(grad, (Mapping, tuple, list)) and grad is not MISSING
    if isinstance(tree, Mapping) and isinstance(grad, Mapping):
        parts = [(part, named_entry(grad, str(key), key)) for key, part in tree.items() if any(slots(part))]
        return len(parts) >= len(grad) and all(has_structure(part, g) for part, g in parts)
    if isinstance(tree, (tuple, list)) and isinstance(grad, (tuple, list)):
        return len(tree) == len(grad) and all(map(has_structure, tree, grad))
    return not any(slots(tree))


def named_entry(grads: Mapping[Any, Any], name: str, key: Any = None) -> Any:
    """Return the entry of a dict that is the gradient of `name`: under that name, or as dW, grad_W, W_grad, …"""
    spelt = (name if key is None else key, *spellings(name))
    return next((grads[k] for k in spelt if k in grads), MISSING)


def spellings(name: str) -> tuple[str, ...]:
    """Return the names that people give to the gradient of `name`."""
    bare = name.lstrip("_")
    forms = (
        f"d{bare}",
        f"d_{bare}",
        f"grad_{bare}",
        f"{bare}_grad",
        f"g{bare}",
        f"g_{bare}",
        f"grad{bare}",
        f"D{bare}",
    )
    return (
        *forms,
        *(f"_{form}" for form in forms),
        f"{bare}_gradient",
        f"delta_{bare}",
        f"nabla_{bare}",
        f"d{bare.upper()}",
    )


def _slotted(
    value: Any, path: str, arrays: dict[str, Array], rng: np.random.Generator, numbers: set[str] | None
) -> Any:
    if is_shape(value):
        value = rng.standard_normal(value)
    if isinstance(value, Mapping):
        return {key: _slotted(part, f"{path}.{key}", arrays, rng, numbers) for key, part in value.items()}
    if isinstance(value, (tuple, list)) and not is_numbers(value):
        parts = [_slotted(part, f"{path}.{i}", arrays, rng, numbers) for i, part in enumerate(value)]
        return type(value)(parts) if type(value) in (tuple, list) else type(value)(*parts)
    if _is_record(value):
        kept = _kept(value)  # what holds no float is of its own making: a stride, a name
        held = [key for key, part in kept.items() if reachable(part) or reachable(part, numbers=True)]
        return Record(value, kept | {k: _slotted(kept[k], f"{path}.{k}", arrays, rng, numbers) for k in held})
    if numbers is not None and isinstance(value, float) and math.isfinite(value):
        numbers.add(path)
    elif value is None or isinstance(value, (bool, str, int, float, type)) or not _is_array_like(value):
        return value
    arrays[path] = as_array(value, path)
    return Slot(path)


def _is_array_like(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, list)) or hasattr(value, "__array__")


def is_numbers(value: Any) -> bool:
    """Return whether `value` is a list of numbers, or of lists of them, which stands for an array."""
    if not isinstance(value, list) or not value:
        return False
    return all((isinstance(v, (int, float)) and not isinstance(v, bool)) or is_numbers(v) for v in value)


def _fill(tree: Any, args: Mapping[str, Any]) -> Any:
    return mapped(lambda leaf: args[leaf.name] if isinstance(leaf, Slot) else leaf, tree)


def _as_given(tree: Any) -> Any:
    """Return a structure with the objects that stood where its records are."""
    made = of_parts(_as_given, tree)
    if not isinstance(made, Record):
        return made
    copied = copy.copy(made.like)
    for name, part in made.items():
        object.__setattr__(copied, name, part)
    return copied


def _guess(parameters: list[inspect.Parameter], rng: np.random.Generator, name: str) -> tuple[Any, ...]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind in positional]
    flags = [p for p in required if p.name in _FLAGS]
    if len(required) - len(flags) != 1:
        given = ", ".join(p.name for p in required) or "none that Python can see"
        raise TargetError(f"{name}: takes {len(required)} arguments ({given}); give inputs=, one entry per argument")
    return tuple(True if p in flags else rng.standard_normal((5, 3)) for p in required)


def floats(args: Args) -> tuple[str, ...]:
    """Return the names of the floating-point arrays that can be moved: not of a mask of zeros and infinities."""
    return tuple(name for name, a in args.items() if a.dtype.kind == "f" and not is_mask(a))

"""Values as JSON and arrays apart: what a file of tinynet holds.

A value is a tree of dicts, lists, tuples, None, booleans, numbers, strings, arrays, and dataclasses such as layers.
JSON says what it can by itself; the rest is an object with one key, its kind:

    {"dict": {…}}   {"tuple": […]}   {"float": "nan"}   {"array": "params.0.W"}
    {"object": ["Linear", {"n_in": 64, "n_out": 10}]}   {"enum": ["Mode", "SAME"]}   {"function": "glorot_uniform"}

An array stands in the document by its name, which is its path in the tree.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

# `from tinynet import layers` would search the lazy names of tinynet first, and import JAX for that.
import tinynet.initializers as initializers
import tinynet.layers as layers
import tinynet.losses as losses
import tinynet.optimizers as optimizers
from tinynet.arrays import is_array

MAX_DEPTH = 64
"""How deep values may nest."""

DTYPES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bfloat16": "BF16",
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
}
"""What an array may hold, by NumPy's name and by safetensors'."""

Arrays = dict[str, npt.NDArray[Any]]
Known = Mapping[str, Any]
"""Name -> the class, enumeration or function that a document may mean by it."""


def known_names(own: Iterable[Any] = ()) -> Known:
    """Return the layers, losses, optimizers, schedules and initializers, and the caller's `own`, by their names."""
    known = {
        name: thing
        for module in (layers, losses, optimizers, initializers)
        for name, thing in vars(module).items()
        if _is_nameable(thing) and thing.__module__.startswith(module.__name__) and not name.startswith("_")
    }
    for thing in own:
        if not _is_nameable(thing):
            raise TypeError(f"classes: {thing!r:.80} is not a dataclass, an enumeration or a function")
        if known.setdefault(thing.__name__, thing) is not thing:
            raise ValueError(f'classes: two are named "{thing.__name__}"; rename yours')
    return known


def encode(value: Any) -> tuple[Any, Arrays]:
    """Return (document, arrays by name); the arrays are C-contiguous and in the byte order of the machine.

    A named tuple is written as a tuple. What `decode` could not rebuild is refused here.
    """
    document, arrays, known = _encode(value)
    try:
        again = _encode(decode(document, arrays, known))[0]
    except ValueError as error:
        raise ValueError(f"cannot be rebuilt from its fields: {error}") from error
    if again != document:
        raise ValueError("cannot be rebuilt from its fields: a class changes what it is given")
    return document, arrays


def own_names(value: Any) -> list[Any]:
    """Return the classes, enumerations and functions in `value` that are not tinynet's, for `known_names`."""
    public = known_names()
    return [thing for name, thing in _encode(value)[2].items() if name not in public]


def without_draws(net: Any) -> Any:
    """Return a copy of a network whose weights take no memory: tinynet's initializers in it draw no numbers."""
    document, arrays, known = _encode(net)
    ours = initializers.__name__
    return decode(document, arrays, {n: _undrawn if thing.__module__ == ours else thing for n, thing in known.items()})


def _undrawn(_rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> npt.NDArray[Any]:
    return np.broadcast_to(np.zeros((), dtype), shape)


def _encode(value: Any) -> tuple[Any, Arrays, Known]:
    arrays: Arrays = {}
    known = dict(known_names())

    def walk(value: Any, path: tuple[str, ...]) -> Any:
        if len(path) > MAX_DEPTH:
            raise ValueError(f"{_shown(path)}: nested deeper than {MAX_DEPTH}")
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if is_array(value):
            return {"array": store(value, path)}
        if isinstance(value, list):
            return [walk(part, (*path, str(i))) for i, part in enumerate(value)]
        if isinstance(value, tuple):
            return {"tuple": [walk(part, (*path, str(i))) for i, part in enumerate(value)]}
        if isinstance(value, dict):
            if strange := [key for key in value if type(key) is not str]:
                raise TypeError(f"{_shown(path)}: a dict has the key {strange[0]!r:.60}; expected strings")
            return {"dict": {key: walk(part, (*path, key)) for key, part in value.items()}}
        if isinstance(value, Enum):
            return {"enum": [name(type(value), path), value.name]}
        if isinstance(value, FunctionType):
            return {"function": name(value, path)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {key: walk(part, (*path, key)) for key, part in _fields(value).items()}
            return {"object": [name(type(value), path), fields]}
        raise TypeError(
            f"{_shown(path)}: {value!r:.60} is a {type(value).__name__}; expected arrays, numbers, strings, None, "
            "dicts, lists, tuples or dataclasses of them"
        )

    def store(array: Any, path: tuple[str, ...]) -> str:
        array = np.asarray(array)
        if array.dtype.name not in DTYPES:
            raise TypeError(f"{_shown(path)}: an array has dtype {array.dtype}; expected one of {', '.join(DTYPES)}")
        name = ".".join(path).encode(errors="replace").decode()
        while name in arrays or name == "__metadata__":
            name += f"'{len(arrays)}"  # short, however many paths have one text
        # A 0-d array stays one; any other layout becomes C-contiguous, as the file format needs it.
        arrays[name] = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        return name

    def name(thing: Any, path: tuple[str, ...]) -> str:
        short: str = thing.__name__
        if not short.isidentifier() or not _is_nameable(thing):
            raise TypeError(f"{_shown(path)}: {thing!r:.80} has no name by which it could be found again")
        if known.setdefault(short, thing) is not thing:
            raise ValueError(f'{_shown(path)}: {thing!r:.80} shares its name "{short}" with another class; rename it')
        return short

    return walk(value, ()), arrays, known


def decode(document: Any, arrays: Arrays, known: Known) -> Any:
    """Return the value of a document, which may be hostile: only what `known` names is called."""
    unused = dict(arrays)

    def walk(document: Any, path: tuple[str, ...]) -> Any:
        if len(path) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(document, list):
            return [walk(part, (*path, str(i))) for i, part in enumerate(document)]
        if not isinstance(document, dict):
            if isinstance(document, float) and not math.isfinite(document):
                raise ValueError(f"{_shown(path)}: a number is out of range")
            return document
        if len(document) != 1:
            raise ValueError(f"{_shown(path)}: {document!a:.80} is not a value")
        [(kind, content)] = document.items()
        match kind, content:
            case "dict", dict():
                return {key: walk(part, (*path, key)) for key, part in content.items()}
            case "tuple", list():
                return tuple(walk(part, (*path, str(i))) for i, part in enumerate(content))
            case "float", "nan" | "inf" | "-inf":
                return float(content)
            case "array", str() if content in unused:
                return unused.pop(content)
            case "enum", [str(name), str(member)]:
                return look_up(name, path, _is_enum)[member]
            case "function", str(name):
                return look_up(name, path, lambda thing: isinstance(thing, FunctionType))
            case "object", [str(name), dict(fields)]:
                cls = look_up(name, path, dataclasses.is_dataclass)
                return construct(cls, {key: walk(part, (*path, key)) for key, part in fields.items()}, path)
        raise ValueError(f"{_shown(path)}: {document!a:.80} is not a value")

    def look_up(name: str, path: tuple[str, ...], fits: Callable[[Any], bool]) -> Any:
        if name not in known:
            raise ValueError(
                f"{_shown(path)}: {name!a:.60} is not one of tinynet's; if it is yours and you trust the file, hand it "
                "over: classes=[…]"
            )
        if not fits(known[name]):
            raise ValueError(f"{_shown(path)}: {name!a:.60} stands for another kind of thing")
        return known[name]

    def construct(cls: Any, fields: dict[str, Any], path: tuple[str, ...]) -> Any:
        parameters = _parameters(cls)
        if unknown := fields.keys() - parameters.keys():
            raise ValueError(f"{_shown(path)}: {cls.__name__} has no field {min(unknown)!a:.60}")
        args: list[Any] = []
        named: dict[str, Any] = {}
        try:
            for name in (name for name in parameters if name in fields):
                if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                    args, named = [*named.values(), *fields[name]], {}
                else:
                    named[name] = fields[name]
            return cls(*args, **named)
        except Exception as error:
            raise ValueError(f"{_shown(path)}: {error!s:.300}") from error

    try:
        value = walk(document, ())
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a document: {error!r:.200}") from error
    if unused:
        raise ValueError(f"the array {min(unused)!a:.60} belongs to nothing")
    return value


@functools.cache
def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _fields(value: Any) -> dict[str, Any]:
    """The fields that the constructor takes."""
    cls: Any = type(value)
    parameters = _parameters(cls)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.name in parameters}


def _is_nameable(thing: Any) -> bool:
    is_class = isinstance(thing, type) and dataclasses.is_dataclass(thing)
    return is_class or _is_enum(thing) or isinstance(thing, FunctionType)


def _is_enum(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Enum)


def _shown(path: tuple[str, ...]) -> str:
    return ascii(".".join(path))[1:-1][:120] or "the value"

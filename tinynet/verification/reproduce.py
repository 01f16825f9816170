"""The command that makes a verification again, where one can be written."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.verification.adapters.arguments import is_shape, signature_of
from tinynet.verification.adapters.objects import methods_of


def command(target: Any, inputs: Any, options: Mapping[str, Iterable[str]]) -> str:
    """Return `tinynet verify …` for a target that a module holds under a name, or whose repr makes it again.

    Args:
        target, inputs: as `verify` takes them.
        options: what follows each option of the command line, without its dashes.

    Returns:
        "" where none can be written: a lambda, a local class, an object of no name, inputs whose values matter.
    """
    named, given = _named(target), _given(target, inputs)
    if not named or given is None:
        return ""
    words = [*given, *(word for option, values in options.items() for v in values for word in (f"--{option}", v))]
    return shlex.join(["tinynet", "verify", named, *words])


def forward_of(target: Any) -> Callable[..., Any] | None:
    """Return what takes the inputs of a target, for the names of its arguments."""
    target = _function_of_apply(target)
    if isinstance(target, (tuple, list)):
        return target[0] if target and callable(target[0]) else None
    torch, forward = sys.modules.get("torch"), getattr(target, "forward", None)
    if torch is not None and isinstance(target, torch.nn.Module):
        return forward
    if torch is not None and isinstance(target, type) and issubclass(target, torch.autograd.Function):
        split = getattr(target, "setup_context", None) is not torch.autograd.Function.setup_context
        return forward if split or forward is None else functools.partial(forward, None)
    methods = methods_of(target)
    if isinstance(target, type) and methods is not None:
        return functools.partial(getattr(target, methods[0]), None)
    return target if methods is None and callable(target) else getattr(target, methods[0]) if methods else None


def _function_of_apply(target: Any) -> Any:
    bound = getattr(target, "__self__", None)
    return bound if isinstance(bound, type) and getattr(target, "__name__", "") == "apply" else target


def _named(target: Any) -> str:
    target = _function_of_apply(target)
    if isinstance(target, (tuple, list)):
        places = [_place(part) for part in target]
        if not all(name for _, name in places) or len({module for module, _ in places}) != 1:
            return ""
        return f"{places[0][0]}:{', '.join(name for _, name in places)}"
    module, name = _place(target)
    return f"{module}:{name}" if name else ""


def _place(target: Any) -> tuple[str, str]:
    """Return the module of a target and the expression that gives it there, "" if there is none."""
    home = getattr(target, "__module__", None) or type(target).__module__
    module: Any = sys.modules.get(home)
    if module is None or home in ("__main__", "builtins"):
        return home, ""
    name, held = getattr(target, "__qualname__", ""), module
    for part in name.split("."):
        held = getattr(held, part, None)
    if name and held is target:
        return home, name
    name = next((n for n, value in vars(module).items() if value is target), "")
    return home, name or _constructing(target, home)


def _constructing(target: Any, home: str) -> str:
    """Return the repr of a target if it makes an equal one."""
    from tinynet.verification.targets import load_target

    text = repr(target)
    try:
        again = load_target(f"{home}:{text}")
        plain = isinstance(target, (Layer, Loss)) and repr(again) == text
        return text if type(again) is type(target) and (plain or bool(again == target)) else ""
    except Exception:
        return ""


def _given(target: Any, inputs: Any) -> list[str] | None:
    """Return the options for `inputs`; None where they cannot be written."""
    if inputs is None:
        return []
    if isinstance(inputs, Mapping):
        entries = [(str(name), value) for name, value in inputs.items()]
    else:
        single = is_shape(inputs) or not isinstance(inputs, (tuple, list))
        entries = [("", value) for value in ((inputs,) if single else inputs)]
    shapes = [_shape(value) for _, value in entries]
    if not all(shape or _is_constant(value) for shape, (_, value) in zip(shapes, entries, strict=True)):
        return None
    if not all(shapes) and not isinstance(inputs, Mapping):
        forward = forward_of(target)
        names = [p.name for p in signature_of(forward)] if forward is not None else []
        if len(names) < len(entries):
            return None
        entries = [(name, value) for name, (_, value) in zip(names, entries, strict=False)]
    words: list[str] = []
    for shape, (name, value) in zip(shapes, entries, strict=True):
        label = f"{name}=" if name else ""
        words += ["--inputs", label + shape] if shape else ["--flag", f"{name}={_text(value)}"]
    return words


def _shape(value: Any) -> str:
    """Return the shape of numbers that others, drawn at random, can stand for; "" for anything else."""
    if is_shape(value):
        return ",".join(map(str, value))
    if not hasattr(value, "shape") or not len(value.shape):
        return ""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    random = array.dtype.kind == "f" and array.size and (array.size == 1 or array.min() < 0 < array.max())
    return ",".join(map(str, array.shape)) if random else ""


def _text(value: Any) -> str:
    plain = isinstance(value, str) and value.isidentifier() and value.lower() not in ("true", "false", "none")
    return value if plain else repr(value)


def _is_constant(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))

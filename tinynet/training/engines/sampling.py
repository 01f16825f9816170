"""Random layers inside a compiled epoch: what sampling a network changes in it, as numbers that can be traced."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeAlias

from tinynet.layers import Layer

__all__ = ["Path", "differences", "get", "replaced"]

Path: TypeAlias = tuple[str | int, ...]
"""Field names and tuple indices that lead from a layer to one of its numbers."""


def differences(layer: Any, sampled: Any, path: Path = ()) -> Iterator[Path]:
    """Yield where `sampled`, drawn from `layer`, has a number of its own.

    Raises:
        TypeError: sampling changed something that is not a number.
    """
    if sampled is layer:
        return
    if isinstance(sampled, Layer) and type(sampled) is type(layer):
        for field in dataclasses.fields(sampled):  # type: ignore[arg-type]
            yield from differences(getattr(layer, field.name), getattr(sampled, field.name), (*path, field.name))
    elif isinstance(sampled, tuple) and isinstance(layer, tuple) and len(sampled) == len(layer):
        for i, (old, new) in enumerate(zip(layer, sampled, strict=True)):
            yield from differences(old, new, (*path, i))
    elif isinstance(sampled, (int, float)):
        yield path
    else:
        raise TypeError(
            f'fit: sample() gave {sampled!r} for {layer!r}; engine="jax" expects the same layer with other numbers'
        )


def get(sampled: Any, path: Path) -> Any:
    """Return the number at `path`."""
    for key in path:
        sampled = sampled[key] if isinstance(key, int) else getattr(sampled, key)
    return sampled


def replaced(sampled: Any, path: Path, number: Any) -> Any:
    """Return `sampled` with `number` at `path`, which may be a tracer: no check of the layers runs."""
    if not path:
        return number
    key, rest = path[0], path[1:]
    if isinstance(key, int):
        return (*sampled[:key], replaced(sampled[key], rest, number), *sampled[key + 1 :])
    copy = object.__new__(type(sampled))
    for field in dataclasses.fields(sampled):
        object.__setattr__(copy, field.name, getattr(sampled, field.name))
    object.__setattr__(copy, key, replaced(getattr(sampled, key), rest, number))
    return copy

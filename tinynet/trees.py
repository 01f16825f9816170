"""Pytrees of arrays: dicts, tuples and lists with arrays at the leaves; and configurations, which hold no arrays.

The part of `jax.tree` that tinynet needs, without importing JAX. Dicts are walked in sorted key order, as JAX does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from tinynet.arrays import describe, is_array

Tree = Any

Path: TypeAlias = tuple[str | int, ...]
"""Names of fields, keys and indices that lead from a configuration to a part of it."""


def map_leaves(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `f` to each leaf of `tree` and to its counterparts in `rest`; the result has the structure of `tree`.

    Raises:
        ValueError: a tree of `rest` has another structure.
    """
    if isinstance(tree, dict):
        for t in rest:
            if not isinstance(t, dict) or t.keys() != tree.keys():
                raise ValueError(f"trees differ in structure: {_outline(tree)} against {_outline(t)}")
        return {key: map_leaves(f, part, *[t[key] for t in rest]) for key, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        for t in rest:
            if not isinstance(t, (tuple, list)) or len(t) != len(tree):
                raise ValueError(f"trees differ in structure: {_outline(tree)} against {_outline(t)}")
        return type(tree)(map(partial(map_leaves, f), tree, *rest))
    return f(tree, *rest)


def leaves_with_paths(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf with the expression that reaches it: `[0]["W"]`."""
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from leaves_with_paths(tree[key], f'{path}["{key}"]')
    elif isinstance(tree, (tuple, list)):
        for i, part in enumerate(tree):
            yield from leaves_with_paths(part, f"{path}[{i}]")
    else:
        yield path, tree


def leaves(tree: Tree) -> list[Any]:
    """Return the leaves in order."""
    return [leaf for _, leaf in leaves_with_paths(tree)]


def filled(tree: Tree, values: Iterator[Any]) -> Tree:
    """Return a tree of the structure of `tree` with `values` for its leaves, in the order of `leaves`."""
    if isinstance(tree, dict):
        parts = {key: filled(tree[key], values) for key in sorted(tree)}
        return {key: parts[key] for key in tree}
    if isinstance(tree, (tuple, list)):
        return type(tree)([filled(part, values) for part in tree])
    return next(values)


def check_like(owner: str, name: str, tree: Tree, expected: Tree, of: str) -> None:
    """Raise ValueError or TypeError unless `tree` has the structure and shapes of `expected`, which is that `of`."""
    if isinstance(expected, dict):
        if not isinstance(tree, dict):
            raise TypeError(f"{owner}: {name} is {_outline(tree)}; expected {_outline(expected)}, as {of} has")
        if tree.keys() != expected.keys():
            raise ValueError(f"{owner}: {name} is {_outline(tree)}; expected {_outline(expected)}, as {of} has")
        for key, part in expected.items():
            check_like(owner, f'{name}["{key}"]', tree[key], part, of)
    elif isinstance(expected, (tuple, list)):
        if not isinstance(tree, (tuple, list)):
            raise TypeError(f"{owner}: {name} is {_outline(tree)}; expected {_outline(expected)}, as {of} has")
        if len(tree) != len(expected):
            raise ValueError(f"{owner}: {name} has {len(tree)} entries; expected {len(expected)}, as {of} has")
        for i, (part, like) in enumerate(zip(tree, expected, strict=True)):
            check_like(owner, f"{name}[{i}]", part, like, of)
    elif not is_array(tree):
        raise TypeError(f"{owner}: {name} is {_outline(tree)}; expected {describe(expected)}, as {of} has")
    elif tree.shape != expected.shape:
        raise ValueError(
            f"{owner}: {name} has shape {tuple(tree.shape)}; expected {tuple(expected.shape)}, as {of} has"
        )


def parts(config: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield (path, part, holder) of what stands in a configuration: in dataclasses, dicts, tuples and lists."""
    if is_dataclass(config) and not isinstance(config, type):
        held: Any = [(field.name, getattr(config, field.name)) for field in fields(config)]
    elif isinstance(config, dict):
        held = config.items()
    else:
        held = enumerate(config) if isinstance(config, (tuple, list)) else ()
    for key, part in held:
        yield (*path, key), part, config
        yield from parts(part, (*path, key))


def with_part(config: Any, path: Path, part: Any, change: Callable[..., Any] = replace) -> Any:
    """Return a configuration with `part` at a path of fields and indices; `change` replaces fields of a dataclass."""
    if not path:
        return part
    key, rest = path[0], path[1:]
    if isinstance(config, tuple):
        held = [with_part(old, rest, part, change) if i == key else old for i, old in enumerate(config)]
        return type(config)(*held) if hasattr(config, "_fields") else tuple(held)
    name = str(key)
    return change(config, **{name: with_part(getattr(config, name), rest, part, change)})


def _outline(tree: Tree) -> str:
    if isinstance(tree, dict):
        return f"a dict with keys {sorted(tree)}"
    if isinstance(tree, (tuple, list)):
        return f"a {type(tree).__name__} of {len(tree)}"
    return describe(tree)

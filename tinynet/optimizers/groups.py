"""Optimizers by parameter: settings for each group, and parameters that stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tinynet.arrays import Params, describe
from tinynet.checks import check_instance
from tinynet.optimizers.optimizer import Optimizer
from tinynet.trees import filled, leaves_with_paths, map_leaves


@dataclass(frozen=True)
class Groups(Optimizer):
    """Follow another optimizer for each group of parameters, told by their paths; with None they are frozen.

    A path joins the keys that lead to a parameter: "0.W" is params[0]["W"]. A parameter belongs to the first group
    whose pattern it matches, `*` standing for any text: Groups({"0.*": None, "*.b": SGD(0.1), "*": AdamW(1e-3)}) keeps
    the first layer as it is and has no weight decay on biases.

    Args:
        groups: pattern -> optimizer or None.

    The state is a tuple of those of the groups, each on a dict path -> parameter; () for a frozen one.

    Raises:
        TypeError: `groups` is no dict, or an entry is neither an Optimizer nor None.
        ValueError: when training starts, a parameter matches no pattern, or a pattern no parameter.
    """

    groups: Any

    def __post_init__(self) -> None:
        pairs = self.groups.items() if isinstance(self.groups, Mapping) else self.groups
        try:
            object.__setattr__(self, "groups", tuple((pattern, optimizer) for pattern, optimizer in pairs))
        except (TypeError, ValueError):
            given = describe(self.groups)
            raise TypeError(f"Groups: groups is {given}; expected a dict from patterns to optimizers") from None
        for pattern, optimizer in self.groups:
            if optimizer is not None:
                check_instance("Groups", f"groups[{pattern!r}]", optimizer, Optimizer)

    def init(self, params: Params) -> Any:
        parts = self._split(params)
        for (pattern, _), part in zip(self.groups, parts, strict=True):
            if not part:
                raise ValueError(
                    f"Groups: no parameter matches {pattern!r}; expected one of {sorted(_by_path(params))}"
                )
        return tuple(() if o is None else o.init(part) for (_, o), part in zip(self.groups, parts, strict=True))

    def observe(self, state: Any, row: Mapping[str, float]) -> Any:
        return tuple(() if o is None else o.observe(s, row) for (_, o), s in zip(self.groups, state, strict=True))

    def step(self, params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        map_leaves(lambda p, g: None, params, grads)  # the same structure
        stepped: dict[str, Any] = {}
        states = []
        for (_, optimizer), p, g, s in zip(self.groups, self._split(params), self._split(grads), state, strict=True):
            new, s = (p, s) if optimizer is None else optimizer.step(p, g, s)
            stepped |= new
            states.append(s)
        return filled(params, iter([stepped[path] for path in _by_path(params)])), tuple(states)

    def _split(self, tree: Params) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{} for _ in self.groups]
        for path, leaf in _by_path(tree).items():
            for part, (pattern, _) in zip(parts, self.groups, strict=True):
                if fnmatchcase(path, pattern):
                    part[path] = leaf
                    break
            else:
                patterns = [pattern for pattern, _ in self.groups]
                raise ValueError(f"Groups: the parameter {path!r} matches none of {patterns}; add a pattern '*'")
        return parts


def _by_path(tree: Params) -> dict[str, Any]:
    return {".".join(re.findall(r'[^\[\]"]+', path)): leaf for path, leaf in leaves_with_paths(tree)}

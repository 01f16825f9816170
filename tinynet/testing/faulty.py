"""A layer or loss whose forward pass is right and whose backward pass is wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar

from tinynet.arrays import Array, Cache, Params, is_floating, owned_copy
from tinynet.layers import Layer
from tinynet.losses import Loss

__all__ = [
    "Backward",
    "Call",
    "Grads",
    "Path",
    "Watch",
    "faulty",
    "gradient_name",
    "instance_of",
    "leaf_at",
    "leaf_paths",
    "put",
]

Grads: TypeAlias = dict[str, Any]
"""`{"x": dx, "params": dparams}` of a layer, `{"y_hat": dy_hat}` of a loss."""

Path: TypeAlias = tuple[str | int, ...]
"""The keys that lead to one gradient in `Grads`: `("params", 0, "W")`."""

T = TypeVar("T", bound=Layer | Loss)
Instance = TypeVar("Instance")


@dataclass(frozen=True)
class Call:
    """One call of a right backward pass, with all that a wrong one could confuse.

    For a loss `x` is ŷ, `y` is E, `dy` is dE, and `params` is the other argument of its forward pass, the target.
    """

    right: Layer | Loss
    params: Params
    cache: Cache
    x: Array
    y: Array
    dy: Any

    @property
    def m(self) -> int:
        """The number of samples; 1 where there are none, so that 1/m is a number."""
        return max(int(self.x.size) // max(int(self.x.shape[-1]), 1), 1)

    @property
    def n_out(self) -> int:
        return max(int((self.x if isinstance(self.right, Loss) else self.y).shape[-1]), 1)

    def grads(self) -> Grads:
        """The right gradients."""
        if isinstance(self.right, Loss):
            return {"y_hat": self.right.backward(self.cache, self.dy)}
        dx, dparams = self.right.backward(self.params, self.cache, self.dy)
        return {"x": dx, "params": dparams}

    def paths(self) -> list[Path]:
        """The way to each gradient that says something: integers do not vary, and nothing is asked of theirs."""
        return [path for path in leaf_paths(self.grads()) if path != ("x",) or is_floating(self.x)]

    def with_dy(self, dy: Any) -> Call:
        return replace(self, dy=dy)

    def with_params(self, params: Params) -> Call:
        """Other parameters beside the cache of the old ones."""
        return replace(self, params=params)

    def with_x(self, x: Array) -> Call:
        """The cache and the output of another input."""
        if isinstance(self.right, Loss):
            y, cache = self.right.forward(x, self.params)
        else:
            y, cache = self.right.forward(self.params, x)
        return replace(self, x=x, y=y, cache=cache)


Backward: TypeAlias = Callable[[Call], Grads]
"""A wrong backward pass."""

Watch: TypeAlias = Callable[[Call], None]
"""What a wrong class does besides in its forward pass, with what it was given and has computed; dy is None."""


def faulty(
    right: T, backward: Backward, *, watch: Watch | None = None, only: Literal["", "backward", "param_grads"] = ""
) -> T:
    """Return an instance of a subclass of `type(right)` that has the same configuration and the wrong `backward`.

    It is a Layer or Loss like any other: frozen, with the fields of `right`; `dataclasses.replace` works on it.

    Args:
        right: whose forward pass is kept.
        backward: the wrong backward pass.
        watch: called at the end of each forward pass, which then works on a copy of its input.
        only: the one method of a layer that is wrong.
    """
    base = type(right)

    def layer_forward(self: Any, params: Params, x: Array) -> tuple[Array, Cache]:
        call = Call(instance_of(base, self), params, None, x, None, None).with_x(owned_copy(x) if watch else x)
        if watch:
            watch(replace(call, x=x))
        return call.y, (call.cache, call.x, call.y)

    def called(self: Any, params: Params, cache: Cache, dy: Any) -> Call:
        inner, x, y = cache
        return Call(instance_of(base, self), params, inner, x, y, dy)

    def layer_backward(self: Any, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        call = called(self, params, cache, dy)
        grads = call.grads() if only == "param_grads" else backward(call)
        return grads["x"], grads["params"]

    def layer_param_grads(self: Any, params: Params, cache: Cache, dy: Array) -> Params:
        call = called(self, params, cache, dy)
        return (call.grads() if only == "backward" else backward(call))["params"]

    def loss_forward(self: Any, y_hat: Array, y: Array) -> tuple[Array, Cache]:
        E, cache = layer_forward(self, y, y_hat)
        return E, (y, cache)

    def loss_backward(self: Any, cache: Cache, dE: Array | float = 1.0) -> Array:
        y, inner = cache
        return backward(called(self, y, inner, dE))["y_hat"]

    methods: dict[str, Any]
    if isinstance(right, Loss):
        methods = {"forward": loss_forward, "backward": loss_backward}
    else:
        methods = {"forward": layer_forward, "backward": layer_backward, "param_grads": layer_param_grads}
    named = {
        "__module__": __name__,
        "__qualname__": f"Faulty{base.__name__}",
        "__doc__": f"A wrong {base.__name__}.",
        "_forward_of": getattr(base, "_forward_of", base),
    }
    return instance_of(type(f"Faulty{base.__name__}", (base,), named | methods), right)


def instance_of(cls: type[Instance], like: object) -> Instance:
    """Return an instance of `cls` with the fields of `like`: a class above or below its own."""
    new = object.__new__(cls)
    new.__dict__.update(vars(like))
    return new


def leaf_paths(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each array of a tree of dicts and tuples."""
    if isinstance(tree, dict):
        for key, part in tree.items():
            yield from leaf_paths(part, (*path, key))
    elif isinstance(tree, (tuple, list)):
        for i, part in enumerate(tree):
            yield from leaf_paths(part, (*path, i))
    else:
        yield path


def leaf_at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def put(tree: Any, path: Path, leaf: Any) -> Any:
    """Return `tree` with another `leaf` at `path`."""
    if not path:
        return leaf
    key, *rest = path
    part = put(tree[key], tuple(rest), leaf)
    if isinstance(tree, dict):
        return {**tree, key: part}
    i = int(key)
    return (*tree[:i], part, *tree[i + 1 :])


def gradient_name(path: Path) -> str:
    """Write a path as it is read: `x`, `params.W`, `params[0].W`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")

"""A layer or loss whose forward pass is right and whose backward pass is wrong on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar

from tinynet.arrays import Array, Cache, Params, is_floating, owned_copy
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.trees import filled, leaves, leaves_with_paths, map_leaves

Grads: TypeAlias = dict[str, Any]
"""The gradients by name: "x" and "params.W" of a layer, "y_hat" of a loss."""

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
    x: Any
    y: Array
    dy: Any

    @property
    def m(self) -> int:
        """The number of samples; 1 where there are none, so that 1/m is a number."""
        x = leaves(self.x)[0]
        return max(int(x.size) // max(int(x.shape[-1]), 1), 1) if x.ndim else 1

    @property
    def n_out(self) -> int:
        return max(int((self.x if isinstance(self.right, Loss) else self.y).shape[-1]), 1)

    def grads(self) -> Grads:
        """Return the right gradients; integers do not vary, and nothing is asked of theirs."""
        if isinstance(self.right, Loss):
            return {"y_hat": self.right.backward(self.cache, self.dy)}
        dx, dparams = self.right.backward(self.params, self.cache, self.dy)
        floating = {name for name, leaf in named(self.x, "x").items() if is_floating(leaf)}
        return {name: g for name, g in named(dx, "x").items() if name in floating} | named(dparams, "params")

    def nested(self, grads: Grads) -> tuple[Any, Params]:
        """Return (dx, dparams) with the arrays of `grads`, as a layer does."""
        assert isinstance(self.right, Layer)
        dx, dparams = self.right.backward(self.params, self.cache, self.dy)
        return (
            filled(dx, iter([grads.get(name, g) for name, g in named(dx, "x").items()])),
            filled(dparams, iter([grads[name] for name in named(dparams, "params")])),
        )

    def with_dy(self, dy: Any) -> Call:
        return replace(self, dy=dy)

    def with_params(self, params: Params) -> Call:
        """Return the call with other parameters beside the cache of the old ones."""
        return replace(self, params=params)

    def with_x(self, x: Any, **state: Any) -> Call:
        """Return the call with the cache and the output of another input; `state` as its forward takes it."""
        if isinstance(self.right, Loss):
            y, cache = self.right.forward(x, self.params)
        else:
            y, cache = self.right.forward(self.params, x, **state)
        return replace(self, x=x, y=y, cache=cache)


Backward: TypeAlias = Callable[[Call], Grads]
"""A wrong backward pass."""

Watch: TypeAlias = Callable[[Call], None]
"""What a wrong class does besides in its forward pass, with what it was given and has computed; dy is None."""


@dataclass(frozen=True)
class Wrong:
    """A wrong backward pass, what its forward pass does besides, and what is wrong, as in `tinynet.faults`."""

    fault: str
    description: str
    backward: Backward
    watch: Watch | None = None
    factor: str = ""


def faulty(right: T, backward: Backward, *, watch: Watch | None = None, only: Literal["", "param_grads"] = "") -> T:
    """Return an instance of a subclass of `type(right)` that has the same configuration and the wrong `backward`.

    It is a Layer or Loss like any other: frozen, with the fields of `right`; `dataclasses.replace` works on it.

    Args:
        right: whose forward pass is kept.
        backward: the wrong backward pass.
        watch: called at the end of each forward pass, which then works on a copy of its input.
        only: "param_grads" where `backward` of a layer is right.
    """
    base = type(right)

    def run(self: Any, params: Params, x: Any, **state: Any) -> Call:
        call = Call(instance_of(base, self), params, None, x, None, None)
        call = call.with_x(map_leaves(owned_copy, x) if watch else x, **state)
        if watch:
            watch(replace(call, x=x))
        return call

    def layer_forward(self: Any, params: Params, x: Any, **state: Any) -> tuple[Array, Cache]:
        call = run(self, params, x, **state)
        return call.y, (call.cache, call.x, call.y)

    def called(self: Any, params: Params, cache: Cache, dy: Any) -> Call:
        inner, x, y = cache
        return Call(instance_of(base, self), params, inner, x, y, dy)

    def layer_backward(self: Any, params: Params, cache: Cache, dy: Array) -> tuple[Any, Params]:
        call = called(self, params, cache, dy)
        return call.nested(call.grads() if only else backward(call))

    def layer_param_grads(self: Any, params: Params, cache: Cache, dy: Array) -> Params:
        call = called(self, params, cache, dy)
        return call.nested(backward(call))[1]

    def update_state(self: Any, state: Any, cache: Cache) -> Any:
        return super(cls, self).update_state(state, cache[0])

    def loss_forward(self: Any, y_hat: Array, y: Array) -> tuple[Array, Cache]:
        call = run(self, y, y_hat)
        return call.y, (y, (call.cache, call.x, call.y))

    def loss_backward(self: Any, cache: Cache, dE: Array | float = 1.0) -> Array:
        y, inner = cache
        return backward(called(self, y, inner, dE))["y_hat"]

    methods: dict[str, Any] = {"__module__": __name__, "__doc__": f"A wrong {base.__name__}."}
    methods["_forward_of"] = getattr(base, "_forward_of", base)  # one compilation for all faults of a forward
    if isinstance(right, Loss):
        methods |= {"forward": loss_forward, "backward": loss_backward}
    else:
        methods |= {"forward": layer_forward, "backward": layer_backward, "param_grads": layer_param_grads}
        methods |= {"update_state": update_state}
    cls: Any = type(f"Faulty{base.__name__}", (base,), methods)
    return instance_of(cls, right)  # type: ignore[no-any-return]


def instance_of(cls: type[Instance], like: object) -> Instance:
    """Return an instance of `cls` with the fields of `like`: a class above or below its own."""
    new = object.__new__(cls)
    new.__dict__.update(vars(like))
    return new


def named(tree: Any, name: str) -> dict[str, Any]:
    """Return the leaves of `tree` in order, by name as in a report: `params.0.W`."""
    return {name + re.sub(r'\["?(.*?)"?\]', r".\1", path): leaf for path, leaf in leaves_with_paths(tree)}

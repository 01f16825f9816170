"""The contract of a layer: a pure function with its derivative written beside it."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from tinynet.arrays import Array, Cache, Params, State
from tinynet.trees import leaves


class Layer(ABC):
    """A function y = f(params, x) and its vector-Jacobian product.

    Subclasses are frozen dataclasses: their fields are the configuration, and no arrays but those that `sample` draws.
    Parameters go in as a dict of arrays and gradients come out as one; what `backward` needs of the forward pass
    travels in `cache`. So two forward passes cannot be confused, and the same text runs under NumPy, `jax.jit` and
    `jax.grad`.

    Randomness and mode. A network is a pure function, and `net` itself is the network that evaluates. `net.sample(rng)`
    is the network of one training step: the same layers, each with its random numbers and arrays drawn. So

        value_and_grads(net.sample(rng), loss, params, x, y)

    trains, `net.forward` evaluates, and a sampled layer can be verified like any other.

    State. What is neither learned nor forgotten, such as running statistics, is handed in and out as parameters are:
    `init_state` makes it, the layer that evaluates reads it, `forward(params, x, *, state=None)`, and after a training
    step `update_state` returns the next one. A layer without state takes no `state`.

    Composites. A layer that has layers among its fields, or in tuples and dicts among them, is a composite: `children`
    names them, and `with_children` returns it with others in their place. Its params and state have one entry per
    child; `split` says which. One that writes no `init` has the params of its children, each where the child stands.

    Threads. `class Mine(Layer, samplewise=True)` says that what it computes for a sample depends on that sample alone;
    then threads may share a batch. It holds of this class's computation, not of a subclass's that writes its own.

    A new layer is one file: the class, its derivation in the docstring, and one line in the verification cases.
    """

    _samplewise: ClassVar[bool] = False

    def __init_subclass__(cls, *, samplewise: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        computes = not own.keys().isdisjoint(("forward", "backward", "param_grads"))
        if (samplewise or computes) and "_samplewise" not in own:  # it is in a copy of a class, which has no keywords
            cls._samplewise = samplewise
            if "samplewise" not in own:
                cls.samplewise = Layer.samplewise  # type: ignore[method-assign]

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        """Draw the parameters; `{}` where there are none, and by default those of the children."""
        return {name: _params_of(value, rng, dtype) for name, value in _fields_with_layers(self)}

    def init_state(self, dtype: Any = np.float32) -> State:
        """Return the state to start from; `{}` where there is none."""
        return {}

    def update_state(self, state: State, cache: Cache) -> State:
        """Return the state after a training step whose forward pass left `cache`; the same where nothing changes."""
        return state

    def sample(self, rng: np.random.Generator) -> Layer:
        """Return the layer with its randomness drawn, for one training step; itself where it has none."""
        children = self.children()
        sampled = {name: child.sample(rng) for name, child in children.items()}
        same = all(sampled[name] is child for name, child in children.items())
        return self if same else self.with_children(sampled)

    @abstractmethod
    def forward(self, params: Params, x: Array) -> tuple[Array, Cache]:
        """Return (y, cache)."""

    @abstractmethod
    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        """Return (dx, dparams) = (∂E/∂x, ∂E/∂params), given dy = ∂E/∂y; `dparams` has the structure of `params`."""

    def param_grads(self, params: Params, cache: Cache, dy: Array) -> Params:
        """Return `dparams` alone: the first layer of a network needs no `dx`."""
        return self.backward(params, cache, dy)[1]

    def samplewise(self) -> bool:
        """Return whether each sample's output depends on that sample alone, here and in all children."""
        return self._samplewise and all(child.samplewise() for child in self.children().values())

    def children(self) -> dict[str, Layer]:
        """Return the layers among the fields, by name: `f`, or `branches.0` where a field holds several."""
        return {path: child for name, value in _fields_with_layers(self) for path, child in _layers_in(value, name)}

    def with_children(self, children: Mapping[str, Layer]) -> Layer:
        """Return the layer with `children`, which has the names that the method of that name gives."""
        changed = copy.copy(self)  # neither __init__ nor __post_init__ need take what stands in for a child
        for name, value in _fields_with_layers(self):
            object.__setattr__(changed, name, _swapped(value, name, children))
        return changed

    def split(self, tree: Any) -> dict[str, Any]:
        """Return by child's name its part of `tree`, which is the layer's params, gradients or state.

        A tuple has one entry per child, in their order; in a dict the name `branches.0` is tree["branches"][0].
        """
        names = self.children()
        if isinstance(tree, Mapping):
            return {name: _part(tree, name) for name in names}
        return dict(zip(names, tree, strict=True))


def forward_with_state(layer: Layer, params: Params, x: Array, state: State | None) -> tuple[Array, Cache]:
    """Return `layer.forward(params, x)`, with `state` where there is any."""
    if state is None or not leaves(state):
        return layer.forward(params, x)
    return layer.forward(params, x, state=state)  # type: ignore[call-arg]


def _part(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree[key] if isinstance(tree, Mapping) else tree[int(key)]
    return tree


def _fields_with_layers(layer: Layer) -> list[tuple[str, Any]]:
    """Return the fields in which there are layers, by name."""
    names = [f.name for f in dataclasses.fields(layer)] if dataclasses.is_dataclass(layer) else list(vars(layer))
    return [(name, value) for name in names if any(_layers_in(value := getattr(layer, name), name))]


def _layers_in(value: Any, path: str) -> Iterator[tuple[str, Layer]]:
    if isinstance(value, Layer):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _layers_in(part, f"{path}.{key}")
    elif isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            yield from _layers_in(part, f"{path}.{i}")


def _swapped(value: Any, path: str, children: Mapping[str, Layer]) -> Any:
    """Put `children` in the places of the layers in `value`, whose containers keep their types."""
    if isinstance(value, Layer):
        return children.get(path, value)
    if isinstance(value, Mapping):
        return type(value)({key: _swapped(part, f"{path}.{key}", children) for key, part in value.items()})  # type: ignore[call-arg]
    if isinstance(value, (tuple, list)):
        parts = [_swapped(part, f"{path}.{i}", children) for i, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _params_of(value: Any, rng: np.random.Generator, dtype: Any) -> Params:
    """Return the parameters of the layers in `value`, each where its layer stands."""
    if isinstance(value, Layer):
        return value.init(rng, dtype)
    if isinstance(value, Mapping):
        return {key: _params_of(part, rng, dtype) for key, part in value.items()}
    return tuple(_params_of(part, rng, dtype) for part in value) if isinstance(value, (tuple, list)) else {}

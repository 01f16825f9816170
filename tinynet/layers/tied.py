"""Parameters that several layers share."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params, State
from tinynet.checks import check_instance
from tinynet.layers.layer import Layer, forward_with_state
from tinynet.trees import map_leaves


@dataclass(frozen=True)
class Tied(Layer, samplewise=True):
    """A network that uses some parameters twice: with `Tied(net, {"3.W": "0.W"})` layer 3 has the W of layer 0.

    `params` and `dparams` are those of the network without the tied ones; `state` and `cache` are the network's.

    Args:
        net: the network.
        ties: where → whose. A path leads through the network's params: `3.W`, or `3` for all that layer 3 learns.

    Derivation. With W used in both places, E(W) = E_net(W, W), so
        ∂E/∂W = ∂E_net/∂W_0 + ∂E_net/∂W_3

    Source: O. Press, L. Wolf, Using the output embedding to improve language models, EACL 2017.

    Raises:
        TypeError: net is not a Layer.
        ValueError: a path leads nowhere; whatever the network raises, as for a shape that does not fit.
    """

    net: Layer
    ties: Any

    def __post_init__(self) -> None:
        check_instance("Tied", "net", self.net, Layer)
        pairs = self.ties.items() if isinstance(self.ties, Mapping) else self.ties
        object.__setattr__(self, "ties", tuple((str(where), str(whose)) for where, whose in pairs))

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        params = self._without(self.net.init(rng, dtype))
        self._with(params)  # raises where a path leads nowhere
        return params

    def init_state(self, dtype: Any = np.float32) -> State:
        return self.net.init_state(dtype)

    def update_state(self, state: State, cache: Cache) -> State:
        return self.net.update_state(state, cache)

    def split(self, tree: Any) -> dict[str, Any]:
        try:
            return {"net": self._with(tree)}
        except ValueError:
            return {"net": tree}  # the state, in which nothing is tied

    def forward(self, params: Params, x: Any, *, state: State | None = None) -> tuple[Any, Cache]:
        return forward_with_state(self.net, self._with(params), x, state)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Any, Params]:
        dx, dparams = self.net.backward(self._with(params), cache, dy)
        return dx, self._added(dparams)

    def param_grads(self, params: Params, cache: Cache, dy: Array) -> Params:
        return self._added(self.net.param_grads(self._with(params), cache, dy))

    def _with(self, params: Params) -> Params:
        for where, whose in self.ties:
            params = self._put(params, where, self._get(params, whose))
        return params

    def _added(self, dparams: Params) -> Params:
        for where, whose in reversed(self.ties):
            both = map_leaves(operator.add, self._get(dparams, whose), self._get(dparams, where))
            dparams = self._put(dparams, whose, both)
        return self._without(dparams)

    def _without(self, params: Params) -> Params:
        for where, _ in self.ties:
            self._get(params, where)
            params = self._put(params, where, None)
        return params

    def _get(self, params: Params, path: str) -> Any:
        part = params
        for key in path.split("."):
            try:
                part = part[key] if isinstance(part, Mapping) else tuple(part)[int(key)]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ValueError(f'{self}: "{path}" leads nowhere: there is no "{key}" in {part!r:.60}') from None
        return part

    def _put(self, params: Params, path: str, part: Any) -> Params:
        """Return `params` with `part` at the `path`; None takes away what is there."""
        key, _, rest = path.partition(".")
        if isinstance(params, Mapping):
            if part is None and not rest:
                return {name: value for name, value in params.items() if name != key}
            return {**params, key: self._put(params[key], rest, part) if rest else part}
        parts = list(params)
        parts[int(key)] = self._put(parts[int(key)], rest, part) if rest else {} if part is None else part
        return tuple(parts)

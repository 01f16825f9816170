"""A layer in a JAX program: `jax.custom_vjp` with the derivative written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tinynet.arrays import Array, Cache, Params, State, is_array, is_floating
from tinynet.checks import check_instance
from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.trees import leaves, map_leaves


def to_custom_vjp(layer: Layer) -> Callable[..., Any]:
    """Return f(params, x, state=None) -> y whose reverse-mode derivative is `layer.backward`.

    It works under `jax.jit`, `jax.vmap`, `jax.grad` and `jax.vjp`, wherever a function does: in an Equinox or Flax
    module, in a loss that Optax minimises. As for every `jax.custom_vjp`, forward mode of f itself (`jax.jvp`,
    `jax.jacfwd`) is refused by JAX. What differentiates a gradient, in either mode, differentiates the hand-written
    backward: `jax.grad` of `jax.grad`, and `jax.hessian`. So a loss may hold ∂y/∂x and ∂²y/∂x², as those that
    penalise the residual of a differential equation do: `scripts/oscillator.py` trains one.

    Shapes:
        params as `layer.init` gives them, or JAX arrays of these shapes; x and y as `layer.forward` has them, arrays or
        tuples and dicts of them; state that of a layer which reads one. Where x holds integers (as an embedding's), its
        derivative is of JAX's type float0.

    Raises:
        TypeError: `layer` is not a tinynet.Layer; and whatever the layer raises on input that does not fit.
    """
    check_instance("to_custom_vjp", "layer", layer, Layer)

    @jax.custom_vjp
    def f(params: Params, x: Any, state: State) -> Any:
        return forward_with_state(layer, params, x, state)[0]

    def forward(params: Params, x: Any, state: State) -> tuple[Any, tuple[Params, Any, _Cache]]:
        y, cache = forward_with_state(layer, params, x, state)
        return y, (params, x, _Cache(cache))

    def backward(residuals: tuple[Params, Any, _Cache], dy: Any) -> tuple[Params, Any, None]:
        params, x, cache = residuals
        if not any(map(is_floating, leaves(x))):
            return layer.param_grads(params, cache.value, dy), map_leaves(_no_derivative, x), None
        dx, dparams = layer.backward(params, cache.value, dy)
        return dparams, map_leaves(lambda a, da: da if is_floating(a) else _no_derivative(a), x, dx), None

    f.defvjp(forward, backward)
    return lambda params, x, state=None: f(*jax.tree.map(jax.numpy.asarray, (params, x, state)))


def _no_derivative(a: Any) -> Any:
    return None if a is None else np.zeros(a.shape, jax.dtypes.float0)


@jax.tree_util.register_pytree_node_class
class _Cache:
    """A cache on its way through JAX: its arrays are traced; what else it holds (shapes, axes) stays as it is."""

    def __init__(self, value: Cache) -> None:
        self.value = value

    def tree_flatten(self) -> tuple[list[Array], tuple[Any, tuple[Any, ...]]]:
        parts, structure = jax.tree.flatten(self.value)
        fixed = tuple(None if is_array(part) else part for part in parts)
        return [part for part in parts if is_array(part)], (structure, fixed)

    @classmethod
    def tree_unflatten(cls, aux: tuple[Any, tuple[Any, ...]], arrays: list[Array]) -> _Cache:
        structure, fixed = aux
        rest = iter(arrays)
        return cls(jax.tree.unflatten(structure, [next(rest) if part is None else part for part in fixed]))

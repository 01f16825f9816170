"""A layer in a JAX program: `jax.custom_vjp` with the derivative written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tinynet.arrays import Array, Cache, Params, is_array, is_floating
from tinynet.layers import Layer


def to_custom_vjp(layer: Layer) -> Callable[[Params, Array], Array]:
    """Return f(params, x) -> y whose reverse-mode derivative is `layer.backward`.

    It works under `jax.jit`, `jax.vmap`, `jax.grad` and `jax.vjp`, wherever a function does: in an Equinox or Flax
    module, in a loss that Optax minimises. As for every `jax.custom_vjp`, forward mode of f itself (`jax.jvp`,
    `jax.jacfwd`) is refused by JAX. What differentiates a gradient, in either mode, differentiates the hand-written
    backward: `jax.grad` of `jax.grad`, and `jax.hessian`. So a loss may hold ∂y/∂x and ∂²y/∂x², as those that
    penalise the residual of a differential equation do: `scripts/oscillator.py` trains one.

    Shapes:
        params as `layer.init` gives them, or JAX arrays of these shapes; x and y as `layer.forward` has them. Where x
        holds integers (as an embedding's), its derivative is of JAX's type float0.

    Raises:
        TypeError: `layer` is not a tinynet.Layer; and whatever the layer raises on input that does not fit.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"to_custom_vjp: layer is {layer!r:.60}; expected an instance of tinynet.Layer")

    @jax.custom_vjp
    def f(params: Params, x: Array) -> Array:
        return layer.forward(params, x)[0]

    def forward(params: Params, x: Array) -> tuple[Array, tuple[Params, Array, _Cache]]:
        y, cache = layer.forward(params, x)
        return y, (params, x, _Cache(cache))

    def backward(residuals: tuple[Params, Array, _Cache], dy: Array) -> tuple[Params, Any]:
        params, x, cache = residuals
        if is_floating(x):
            dx, dparams = layer.backward(params, cache.value, dy)
            return dparams, dx
        return layer.param_grads(params, cache.value, dy), np.zeros(x.shape, jax.dtypes.float0)

    f.defvjp(forward, backward)
    return lambda params, x: f(*jax.tree.map(jax.numpy.asarray, (params, x)))


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

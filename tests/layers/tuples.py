"""One check for layers whose input is a tuple: the backward pass compared with `jax.vjp` of the forward pass."""

import jax
import numpy as np

from tests.reference import assert_within, jit, random_params
from tinynet.trees import leaves, map_leaves


def assert_vjp(layer, x):
    """Check dx, dparams and param_grads at the tuple `x`: None where it holds integers or booleans, else the vjp."""
    rng = np.random.default_rng(0)
    params = random_params(layer, rng)
    y, cache = layer.forward(params, x)
    dy = map_leaves(lambda a: rng.normal(size=a.shape), y)
    before = map_leaves(np.copy, (params, x, dy))
    dx, dparams = layer.backward(params, cache, dy)
    assert_within(layer.param_grads(params, cache, dy), dparams, bound=0)
    for now, then in zip(leaves((params, x, dy)), leaves(before), strict=True):
        np.testing.assert_array_equal(now, then)
    floating = [a.dtype.kind == "f" for a in x]
    assert [d is not None for d in dx] == floating

    def forward(params, *varying):
        rest = iter(varying)
        return layer.forward(params, tuple(next(rest) if f else a for a, f in zip(x, floating, strict=True)))[0]

    @jit
    def vjp(params, varying, dy):
        y, back = jax.vjp(forward, params, *varying)
        return y, back(dy)

    with jax.enable_x64(True):
        varying = [a for a, f in zip(x, floating, strict=True) if f]
        y_jax, (dparams_jax, *dx_jax) = map_leaves(np.asarray, vjp(params, varying, dy))
    assert_within(y, y_jax)
    assert_within([d for d in dx if d is not None], dx_jax)
    assert_within(dparams, dparams_jax)

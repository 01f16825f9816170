"""What the tests hold hand-derived gradients against: `jax.grad`, in float64, and the bound they must keep."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import tinynet as tn
from tinynet.trees import leaves, leaves_with_paths, map_leaves

# Each set of shapes is compiled once and called a few times: the compiler need not optimise.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

BOUND = 32
"""Units of max|g| that a gradient may be off, tensor by tensor."""

UNIT = {np.dtype(np.float64): 2.0**-52, np.dtype(np.float32): 2.0**-23}


def sigmoid_network(*widths):
    """Linear and Sigmoid in turn: the document's network, for any number of layers."""
    pairs = [(tn.Linear(n_in, n_out), tn.Sigmoid()) for n_in, n_out in itertools.pairwise(widths)]
    return tn.Sequential(*itertools.chain.from_iterable(pairs))


def random_params(net, rng, dtype=np.float64):
    """Draw every parameter, the biases too, from N(0, 1)."""
    return map_leaves(lambda p: rng.normal(size=p.shape).astype(dtype), net.init(rng, dtype))


def grads_by_jax(net, loss, params, x, y):
    """(E, dparams, dx) of E = loss(net(params, x), y), by `jax.grad` of the forward passes in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, x, y))
        E, (dparams, dx) = _value_and_grad(net, loss, *wide)
        return float(E), map_leaves(np.asarray, dparams), np.asarray(dx)


@partial(jit, static_argnums=(0, 1))
def _value_and_grad(net, loss, params, x, y):
    def E(params, x):
        return loss.forward(net.forward(params, x)[0], y)[0]

    return jax.value_and_grad(E, argnums=(0, 1))(params, x)


def spread(net, loss, params, x, y, draws=4):
    """How far the exact (dparams, dx) move, at most, when every number that goes in moves by ±1 unit of its dtype."""
    rng = np.random.default_rng(0)
    exact = grads_by_jax(net, loss, params, x, y)[1:]

    def moved(_):
        def nudge(a):
            return a * (1 + UNIT[a.dtype] * rng.choice([-1.0, 1.0], a.shape))

        nudged = grads_by_jax(net, loss, *map_leaves(nudge, (params, x, y)))[1:]
        return map_leaves(lambda a, b: np.max(np.abs(a - b), initial=0), nudged, exact)

    return map_leaves(lambda *moves: max(moves), *map(moved, range(draws)))


def vjp_by_jax(layer, params, x, dy):
    """(y, dx, dparams) with ∂E/∂y = dy, by `jax.vjp` of the layer's forward pass in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, x, dy))
        return map_leaves(np.asarray, _vjp(layer, *wide))


@partial(jit, static_argnums=0)
def _vjp(layer, params, x, dy):
    y, pull_back = jax.vjp(lambda params, x: layer.forward(params, x)[0], params, x)
    dparams, dx = pull_back(dy)
    return y, dx, dparams


def units(got, exact):
    """max|got − exact| in units of max|exact|, a unit being that of the dtype of `got`; 0 if equal."""
    got, exact = np.asarray(got), np.asarray(exact)
    assert got.shape == exact.shape, f"shape {got.shape}, expected {exact.shape}"
    if got.size == 0:
        return 0.0
    worst = np.max(np.abs(got.astype(np.float64) - exact))
    return float(worst / (np.max(np.abs(exact)) * UNIT[got.dtype])) if worst else 0.0


def assert_within(got, exact, bound=BOUND):
    """Assert that each tensor of the tree `got` is within `bound` units of its counterpart in `exact`."""
    for path, mine, g in _pairs(got, exact):
        off = units(mine, g)
        assert off <= bound, f"{path or 'the array'} is {off:.1f} units off, the bound is {bound}"


def assert_within_spread(got, exact, spread, bound=BOUND):
    """Assert the same, where inputs off by a rounding move the exact gradient further: within `bound` such moves."""
    for (path, mine, g), move in zip(_pairs(got, exact), leaves(spread), strict=True):
        off = units(mine, g)
        moves = np.max(np.abs(mine - g), initial=0) / move if move else np.inf
        assert off <= bound or moves <= bound, f"{path} is {off:.1f} units off, and {moves:.1f} times its spread"


def _pairs(got, exact):
    for (path, mine), (path_exact, g) in zip(leaves_with_paths(got), leaves_with_paths(exact), strict=True):
        assert path == path_exact
        yield path, mine, g


def assert_identical(got, expected):
    """Assert that two trees are equal bit for bit, dtypes and structure included."""
    for (path, a), (path_b, b) in zip(leaves_with_paths(got), leaves_with_paths(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (path, a.dtype, a.shape) == (path_b, b.dtype, b.shape)
        np.testing.assert_array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8), err_msg=path)

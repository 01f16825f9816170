"""One check for every layer and loss: the backward pass against `jax.vjp` of the forward pass that ships."""

from functools import partial
from typing import Any

import jax
import numpy as np

from tinynet.arrays import is_array
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.trees import leaves, leaves_with_paths, map_leaves
from tinynet.verification.tolerance import UNIT, K, distance

UNIT_32 = 2.0**-23


def check_layer(layer: Layer, x: np.ndarray, *, params: Any = None, seed: int = 0, bound: float = K) -> None:
    """Check `layer` at `x` in float64 and in float32, and that it leaves its arguments alone."""
    rng = np.random.default_rng(seed)
    if params is None:
        params = map_leaves(lambda p: rng.normal(size=p.shape), layer.init(rng, np.float64))
    y_shape = layer.forward(params, x)[0].shape
    dy = rng.normal(size=y_shape)
    for dtype, unit in ((np.float64, UNIT), (np.float32, UNIT_32)):
        rounded = map_leaves(lambda a, dtype=dtype: _as(a, dtype), (params, x, dy))
        y, dx, dparams = _by_hand(layer, *rounded)
        y_jax, dx_jax, dparams_jax = _by_jax(layer, *rounded)
        assert_close(y, y_jax, unit, bound, "y under JAX")
        assert_close(dx, dx_jax, unit, bound, "dx")
        for (path, got), (_, exact) in zip(leaves_with_paths(dparams), leaves_with_paths(dparams_jax), strict=True):
            assert_close(got, exact, unit, bound, f"dparams{path}")
        assert all(a.dtype == dtype for a in leaves((y, dx, dparams)))


def check_loss(loss: Loss, y_hat: np.ndarray, y: np.ndarray, bound: float = K) -> None:
    """Check `loss` at (ŷ, y) in float64 and in float32, and that it leaves its arguments alone."""
    for dtype, unit in ((np.float64, UNIT), (np.float32, UNIT_32)):
        rounded = y_hat.astype(dtype), y.astype(dtype)
        before = tuple(map(np.copy, rounded))
        E, cache = loss.forward(*rounded)
        d, d3 = loss.backward(cache), loss.backward(cache, 3.0)
        with jax.enable_x64(True):
            E_jax, d_jax = _loss_by_jax(loss, *(jax.numpy.asarray(v, "float64") for v in rounded))
        assert_close(E, E_jax, unit, bound, "E under JAX")
        assert_close(d, d_jax, unit, bound, "dy_hat")
        assert_close(d3, 3 * np.asarray(d_jax), unit, bound, "dy_hat for dE = 3")
        assert E.shape == ()
        assert E.dtype == d.dtype == dtype
        assert not any(np.shares_memory(d, v) for v in (*rounded, d3))
        assert all(np.array_equal(now, then) for now, then in zip(rounded, before, strict=True))


def assert_close(got: Any, exact: Any, unit: float, bound: float, name: str) -> None:
    """Assert |got − exact| ≤ bound · unit · max|exact|, shape for shape; below the normal numbers nothing is asked."""
    assert got.shape == exact.shape, f"{name}: shape {got.shape}, expected {exact.shape}"
    assert np.isfinite(np.asarray(exact)).all(), f"{name}: the exact value is not finite"
    tiny = bound * np.finfo(np.float32 if unit == UNIT_32 else np.float64).tiny
    off = ulps(got, exact) * UNIT / unit if np.max(np.abs(exact), initial=0) > tiny else 0.0
    assert off <= bound, f"{name}: off by {off:.1f} units of {unit:.1e} · max|exact|; allowed {bound}"


def _by_hand(layer: Layer, params: Any, x: np.ndarray, dy: np.ndarray) -> tuple[Any, Any, Any]:
    before = map_leaves(np.copy, (params, x, dy))
    y, cache = layer.forward(params, x)
    kept = y.copy()
    y_handed_out = y
    y = y.copy()
    if not np.shares_memory(y_handed_out, x):
        y_handed_out[...] = -7  # whoever receives the output may do with it what he likes
    dx, dparams = layer.backward(params, cache, dy)
    again = layer.backward(params, cache, dy)
    alone = layer.param_grads(params, cache, dy)
    for path, got in leaves_with_paths((dx, dparams)):
        for given in leaves((params, x, dy, again, alone)):
            assert not np.shares_memory(got, given), f"a result shares memory with an argument: (dx, dparams){path}"
    for tree, like in (((params, x, dy), before), (again, (dx, dparams)), (alone, dparams), (y, kept)):
        for got, expected in zip(leaves(tree), leaves(like), strict=True):
            np.testing.assert_array_equal(got, expected)
    return y, dx, dparams


def _by_jax(layer: Layer, params: Any, x: np.ndarray, dy: np.ndarray) -> tuple[Any, Any, Any]:
    """(y, dx, dparams) by `jax.vjp` in float64; the hand-written backward pass under `jax.jit` must equal it too."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jax.numpy.asarray(_as(a, np.float64)), (params, x, dy))
        (y, dx, dparams), compiled = _both(layer, *wide)
        for got, exact in zip(jax.tree.leaves(compiled), jax.tree.leaves((dx, dparams)), strict=True):
            assert_close(got, exact, UNIT, K, "the backward pass under jax.jit")
        return map_leaves(np.asarray, (y, dx, dparams))


@partial(jax.jit, static_argnums=0)
def _both(layer: Layer, params: Any, x: Any, dy: Any) -> Any:
    by_hand = layer.backward(params, layer.forward(params, x)[1], dy)
    if x.dtype.kind != "f":  # nothing can be differentiated by an index
        y, back = jax.vjp(lambda params: layer.forward(params, x)[0], params)
        return (y, jax.numpy.zeros(x.shape), *back(dy)), by_hand
    y, back = jax.vjp(lambda params, x: layer.forward(params, x)[0], params, x)
    dparams, dx = back(dy)
    return (y, dx, dparams), by_hand


@partial(jax.jit, static_argnums=0)
def _loss_by_jax(loss: Loss, y_hat: Any, y: Any) -> Any:
    return jax.value_and_grad(lambda y_hat: loss.forward(y_hat, y)[0])(y_hat)


def _as(a: Any, dtype: Any) -> Any:
    return a.astype(dtype) if is_array(a) and a.dtype.kind == "f" else a


def ulps(got: Any, exact: Any) -> float:
    """Return max|got − exact| in units of 2⁻⁵² · max|exact|."""
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    worst = distance(got, exact)
    return worst / (UNIT * float(np.max(np.abs(exact)))) if worst else 0.0

"""Every layer and loss in half precision: what float64 gives at the same numbers, rounded, or a refusal by name."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import tinynet as tn
from tinynet.arrays import is_floating
from tinynet.layers.layer import forward_with_state
from tinynet.trees import leaves, map_leaves
from tinynet.verification.cases import CASES, Case

HALF, BRAIN = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
HALVES = [(np, HALF, 1e-3), (np, HALF, 1.0), (np, HALF, 20.0), (jnp, BRAIN, 1.0)]
BOUND = 64
"""Roundings of the largest entry; of a Softmax, where terms cancel, one of dy."""


def example(case: Case, scale: float) -> Any:
    """What the layer or the loss is handed, floating-point numbers in float64."""
    rng, inputs = np.random.default_rng(0), case.inputs
    if isinstance(case.target, tn.Embedding):
        return rng.integers(case.target.n_in, size=(5, 4))
    if inputs is None or all(isinstance(n, int) for n in inputs):
        shape = inputs or (5, 4)
        x = scale * rng.normal(size=shape)
        return (x, rng.random(shape)) if isinstance(case.target, tn.Loss) else x
    scaled = map_leaves(lambda a: scale * a if a is not None and is_floating(a) else a, inputs[0])
    return (scaled, *inputs[1:]) if isinstance(case.target, tn.Loss) else scaled


def rounded(tree: Any, dtype: Any, xp: Any = np) -> Any:
    return map_leaves(
        lambda a: a if a is None else xp.asarray(np.asarray(a).astype(dtype) if is_floating(a) else a), tree
    )


def passes(target: Any, given: Any, params: Any, dtype: Any, xp: Any) -> Any:
    """y, dx and dparams of a layer, or E and ∂E/∂ŷ of a loss, of `given` rounded to `dtype`."""
    if isinstance(target, tn.Loss):
        E, cache = target.forward(*rounded(given, dtype, xp))
        return E, target.backward(cache)
    state = rounded(target.init_state(np.float64), dtype, xp)
    params, x = rounded(params, dtype, xp), rounded(given, dtype, xp)
    y, cache = forward_with_state(target, params, x, state)
    dy = map_leaves(lambda a: np.random.default_rng(1).normal(size=a.shape), y)
    return y, *target.backward(params, cache, rounded(rounded(dy, HALF), dtype, xp))


@pytest.mark.parametrize(
    ("xp", "dtype", "scale"), HALVES, ids=["float16 small", "float16", "float16 large", "bfloat16"]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_is_float64_rounded(case: Case, xp: Any, dtype: Any, scale: float) -> None:
    target = case.target
    params = target.init(np.random.default_rng(0), np.float64) if isinstance(target, tn.Layer) else None
    given, params = rounded((example(case, scale), params), dtype)
    exact = passes(target, given, params, np.float64, np)
    for mine, right in zip(leaves(passes(target, given, params, dtype, xp)), leaves(exact), strict=True):
        if mine is not None:
            assert mine.dtype == dtype
            least = 1 / BOUND if isinstance(target, tn.Softmax) else 1e-6
            bound = BOUND * float(ml_dtypes.finfo(dtype).eps) * max(np.abs(right).max(initial=0), least)
            assert np.abs(np.asarray(mine).astype(np.float64) - right).max(initial=0) <= bound


@pytest.mark.parametrize("case", [c for c in CASES if c.inputs is None], ids=str)
def test_bfloat16_in_numpy_is_refused_by_name(case: Case) -> None:
    target = case.target
    params = target.init(np.random.default_rng(0), np.float64) if isinstance(target, tn.Layer) else None
    with pytest.raises(TypeError, match=r"(y_hat|x|dy) has dtype bfloat16, of which NumPy has no arithmetic; use "):
        passes(target, example(case, 1.0), params, BRAIN, np)

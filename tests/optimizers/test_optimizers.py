"""Each optimizer equals Optax step for step, on NumPy and under jax.jit, and changes nothing that it is handed."""

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tinynet.trees import leaves, map_leaves

COSINE = tn.CosineDecay(0.1, steps=7, final=0.01)
OPTAX_COSINE = optax.cosine_decay_schedule(0.1, 7, alpha=0.1)
PAIRS = {
    "sgd": (tn.SGD(0.1), optax.sgd(0.1)),
    "sgd, schedule": (tn.SGD(COSINE), optax.sgd(OPTAX_COSINE)),
    "momentum": (tn.SGD(0.1, 0.9), optax.sgd(0.1, 0.9)),
    "momentum, schedule": (tn.SGD(COSINE, 0.9), optax.sgd(OPTAX_COSINE, 0.9)),
    "nesterov": (tn.Nesterov(0.1, 0.8), optax.sgd(0.1, 0.8, nesterov=True)),
    "nesterov, schedule": (tn.Nesterov(COSINE, 0.8), optax.sgd(OPTAX_COSINE, 0.8, nesterov=True)),
    "adam": (tn.Adam(), optax.adam(1e-3)),
    "adam, settings": (tn.Adam(0.05, beta1=0.7, beta2=0.9, eps=1e-3), optax.adam(0.05, b1=0.7, b2=0.9, eps=1e-3)),
    "adam, no mean": (tn.Adam(0.05, beta1=0.0), optax.adam(0.05, b1=0.0)),
    "adam, schedule": (tn.Adam(COSINE), optax.adam(OPTAX_COSINE)),
    "adamw": (tn.AdamW(0.01, weight_decay=0.2), optax.adamw(0.01, weight_decay=0.2)),
    "adamw, schedule": (tn.AdamW(COSINE, weight_decay=0.2), optax.adamw(OPTAX_COSINE, weight_decay=0.2)),
    "clipped": (tn.ClipByGlobalNorm(tn.SGD(0.1), 2.0), optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(0.1))),
    "weight decay": (
        tn.WeightDecay(tn.SGD(0.1, 0.9), 0.3),
        optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1, 0.9)),
    ),
    "clipped adam": (
        tn.ClipByGlobalNorm(tn.WeightDecay(tn.Adam(0.05), 0.1), 1.0),
        optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(0.1), optax.adam(0.05)),
    ),
}


def start(dtype: type = np.float64):
    rng = np.random.default_rng(0)
    params = ({"W": rng.normal(size=(3, 4)), "b": rng.normal(size=3)}, {}, {"W": rng.normal(size=(1, 3))})
    return map_leaves(lambda p: p.astype(dtype), params)


def gradient(params, step):
    """Of a bowl that moves: small and large gradients, so that clipping both acts and does not."""
    return map_leaves(lambda p: (np.cos(step) * p + 0.1 * np.sin(p + step)).astype(p.dtype), params)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS.keys())
def test_equals_optax_step_for_step(ours, theirs):
    with jax.enable_x64(True):
        params, expected = start(), start()
        state, expected_state = ours.init(params), theirs.init(expected)
        for step in range(12):
            params, state = ours.update(params, gradient(params, step), state)
            updates, expected_state = theirs.update(gradient(expected, step), expected_state, expected)
            expected = map_leaves(np.asarray, optax.apply_updates(expected, updates))
            for got, want in zip(leaves(params), leaves(expected), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("optimizer", [ours for ours, _ in PAIRS.values()], ids=PAIRS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_jit_equals_numpy_and_every_dtype_is_kept(optimizer, dtype):
    with jax.enable_x64(dtype is np.float64):
        params = start(dtype)
        compiled = jax.tree.map(jax.numpy.asarray, params)
        state, compiled_state = optimizer.init(params), optimizer.init(compiled)
        update = jax.jit(optimizer.update)
        for step in range(4):
            grads = gradient(params, step)
            params, state = optimizer.update(params, grads, state)
            compiled, compiled_state = update(compiled, grads, compiled_state)
        tolerance = 1e-5 if dtype is np.float32 else 1e-13
        for got, want in zip(leaves(compiled), leaves(params), strict=True):
            assert got.dtype == want.dtype == dtype
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
        assert [a.dtype for a in leaves(state)] == [a.dtype for a in leaves(compiled_state)]


@pytest.mark.parametrize("optimizer", [ours for ours, _ in PAIRS.values()], ids=PAIRS.keys())
def test_update_changes_nothing_that_was_handed_in(optimizer):
    params = start()
    given = (params, gradient(params, 0), optimizer.init(params))
    before = map_leaves(np.copy, given)
    result = optimizer.update(*given)
    for now, then in zip(leaves(given), leaves(before), strict=True):
        np.testing.assert_array_equal(now, then)
    assert not any(np.shares_memory(a, b) for a in leaves(result) for b in leaves(given))


def test_a_gradient_whose_squares_overflow_is_clipped_all_the_same():
    params, grads = {"w": np.zeros(2, np.float32)}, {"w": np.array([3e30, 4e30], np.float32)}
    moved, _ = tn.ClipByGlobalNorm(tn.SGD(1.0), 1.0).update(params, grads, ())
    np.testing.assert_allclose(moved["w"], [-0.6, -0.8], rtol=1e-6)


def test_a_zero_gradient_is_not_clipped_to_nan():
    params = {"w": np.ones(2)}
    moved, _ = tn.ClipByGlobalNorm(tn.SGD(1.0), 1.0).update(params, {"w": np.zeros(2)}, ())
    np.testing.assert_array_equal(moved["w"], 1)


def test_a_plain_function_is_a_schedule():
    params = {"w": np.zeros(1)}
    optimizer = tn.SGD(lambda step: 1.0 / (1 + step))
    state = optimizer.init(params)
    for expected in (-1.0, -1.5, -1.5 - 1 / 3):
        params, state = optimizer.update(params, {"w": np.ones(1)}, state)
        np.testing.assert_allclose(params["w"], expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (COSINE, OPTAX_COSINE),
        (tn.ExponentialDecay(0.3, rate=0.5, steps=4), optax.exponential_decay(0.3, 4, 0.5)),
        (tn.Warmup(5, then=0.2), optax.join_schedules([optax.linear_schedule(0, 0.2, 5), lambda _: 0.2], [5])),
        (tn.Warmup(5, then=COSINE), optax.join_schedules([optax.linear_schedule(0, 0.1, 5), OPTAX_COSINE], [5])),
    ],
)
def test_schedules_equal_optax_at_every_step(ours, theirs):
    with jax.enable_x64(True):
        for step in range(15):
            np.testing.assert_allclose(ours(step), theirs(step), rtol=1e-12, atol=1e-15)
        steps = jax.numpy.arange(15)
        np.testing.assert_allclose(jax.jit(jax.vmap(ours))(steps), [ours(t) for t in range(15)], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tn.SGD(-1), r"SGD: lr is -1; expected 0 <= lr < inf"),
        (lambda: tn.SGD("fast"), r"SGD: lr is 'fast'; expected a number"),
        (lambda: tn.Nesterov(0.1, 1.0), r"Nesterov: momentum is 1.0; expected 0 <= momentum < 1"),
        (lambda: tn.Adam(beta2=1), r"Adam: beta2 is 1; expected 0 <= beta2 < 1"),
        (lambda: tn.AdamW(weight_decay=-1), r"AdamW: weight_decay is -1; expected 0 <= weight_decay"),
        (lambda: tn.ClipByGlobalNorm(tn.SGD(1), 0), r"ClipByGlobalNorm: max_norm is 0; expected 0 < max_norm"),
        (lambda: tn.ClipByGlobalNorm(tn.SGD, 1), r"optimizer is the class SGD; expected an instance of"),
        (lambda: tn.WeightDecay(0.1, tn.SGD(1)), r"WeightDecay: optimizer is float; expected an instance"),
        (lambda: tn.CosineDecay(0.1, 0), r"CosineDecay: steps is 0; expected at least 1"),
        (lambda: tn.ExponentialDecay(0.1, 0, 5), r"ExponentialDecay: rate is 0; expected 0 < rate"),
        (lambda: tn.Warmup(5, "x"), r"Warmup: lr is 'x'; expected a number"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_adam_refuses_a_dtype_in_which_epsilon_is_zero():
    with pytest.raises(ValueError, match=r'AdamW: eps=1e-08 is 0 in float16, the dtype of params\["w"\].*float32'):
        tn.AdamW().init({"w": np.ones(3, np.float16)})
    params = {"w": np.ones(3, np.float16)}
    state = tn.Adam(eps=1e-3).init(params)
    assert tn.Adam(eps=1e-3).update(params, {"w": np.zeros(3, np.float16)}, state)[0]["w"].tolist() == [1, 1, 1]

"""Dropout: a fair, reproducible mask that is the same everywhere, and the contract of sampling."""

import jax
import numpy as np
import pytest
import scipy.stats

import tinynet as tn
from tests.gradient_check import check_layer

X = np.random.default_rng(0).normal(size=(6, 5))


def mask(rate: float, seed: int, shape: tuple[int, ...] = (400, 500)) -> np.ndarray:
    return tn.Dropout(rate, seed).forward({}, np.ones(shape))[0] > 0


@pytest.mark.parametrize("layer", [tn.Dropout(0.5), tn.Dropout(0.3, 7), tn.Dropout(0.0, 7)], ids=repr)
@pytest.mark.parametrize("x", [X, X[:1], X[:0], X.reshape(2, 3, 5), X[:1, :1]])
def test_backward_is_the_vjp_of_forward(layer, x):
    check_layer(layer, x)


def test_evaluation_is_the_identity_and_hands_out_a_copy():
    y, cache = tn.Dropout(0.9).forward({}, X)
    np.testing.assert_array_equal(y, X)
    assert not np.shares_memory(y, X)
    dy = X[::-1]
    dx, _ = tn.Dropout(0.9).backward({}, cache, dy)
    np.testing.assert_array_equal(dx, dy)
    assert not np.shares_memory(dx, dy)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_the_mask_leaves_out_the_stated_part_and_keeps_the_mean(rate, seed):
    kept = mask(rate, seed)
    error = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < 4 * error
    np.testing.assert_allclose(tn.Dropout(rate, seed).forward({}, np.ones(kept.shape))[0].max(), 1 / (1 - rate))
    runs = np.diff(np.flatnonzero(np.diff(kept.ravel()))).mean()  # mean run of a fair sequence: 1 / (2 p (1 − p))
    np.testing.assert_allclose(runs, 1 / (2 * rate * (1 - rate)), rtol=0.02)


def test_masks_of_different_seeds_and_neighbouring_entries_are_independent():
    masks = [mask(0.5, seed).ravel() for seed in (*range(12), 2**16, 2**31)]
    bound = 4.5 / np.sqrt(masks[0].size)
    for i, a in enumerate(masks):
        for lag in (1, 2, 500):
            assert abs(np.corrcoef(a[:-lag], a[lag:])[0, 1]) < bound
        for b in masks[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < bound


def test_the_mean_over_many_seeds_is_the_input():
    total = sum(tn.Dropout(0.4, seed).forward({}, X)[0] for seed in range(4000)) / 4000
    z = (total - X) / (np.abs(X) * np.sqrt(0.4 / 0.6 / 4000))
    assert scipy.stats.kstest(z.ravel(), "norm").pvalue > 0.01


def test_the_bits_are_the_same_under_jax_and_for_a_traced_seed():
    expected = tn.Dropout(0.4, 123).forward({}, X.astype(np.float32))[0]
    traced = jax.jit(lambda seed, x: tn.Dropout(0.4, seed).forward({}, x)[0])(np.uint32(123), X.astype(np.float32))
    np.testing.assert_array_equal(traced > 0, expected > 0)
    np.testing.assert_allclose(traced, expected, rtol=1e-6)
    np.testing.assert_array_equal(tn.Dropout(0.4, np.uint32(123)).forward({}, X)[0] > 0, expected > 0)


def test_sampling_draws_a_seed_and_leaves_the_rest_alone():
    net = tn.Sequential(tn.Linear(5, 4), tn.Dropout(0.5), tn.Sequential(tn.Dropout(0.5), tn.Tanh()))
    one, same, other = (net.sample(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert one.layers[0] is net.layers[0]
    assert one.layers[1].seed != one.layers[2].layers[0].seed
    assert net.layers[1].seed is None
    plain = tn.Sequential(tn.Linear(5, 4), tn.Sequential(tn.Tanh()))
    assert plain.sample(np.random.default_rng(0)) is plain


def test_a_sampled_network_trains():
    rng = np.random.default_rng(0)
    net, loss = tn.Sequential(tn.Linear(5, 8), tn.Tanh(), tn.Dropout(0.2), tn.Linear(8, 1)), tn.SquaredError("mean")
    x = rng.normal(size=(200, 5))
    y = x[:, :1] - x[:, 1:2]
    params, optimizer = net.init(rng, np.float64), tn.SGD(0.1)
    before = loss.forward(net.forward(params, x)[0], y)[0]
    for _ in range(200):
        _, grads = tn.value_and_grads(net.sample(rng), loss, params, x, y)
        params, _ = optimizer.update(params, grads, ())
    assert loss.forward(net.forward(params, x)[0], y)[0] < before / 20


@pytest.mark.parametrize(
    ("rate", "seed"), [(1.0, None), (-0.1, None), (0.5, -1), (0.5, 2**32), (0.5, 1.5), (0.5, True)]
)
def test_bad_settings_are_named(rate, seed):
    with pytest.raises(ValueError, match=r"Dropout: (rate|seed) is .*; expected"):
        tn.Dropout(rate, seed)

"""Each initialiser has the variance it states, and no other trait."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

import tinynet as tn
from tinynet import initializers

SHAPES = [(300, 200), (40, 20, 5, 7)]
VARIANCES = {
    "glorot_uniform": "2 / (fan_in + fan_out)",
    "glorot_normal": "2 / (fan_in + fan_out)",
    "he_uniform": "2 / fan_in",
    "he_normal": "2 / fan_in",
    "lecun_uniform": "1 / fan_in",
    "lecun_normal": "1 / fan_in",
    "standard_normal": "1",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VARIANCES)
def test_the_sample_comes_from_the_stated_distribution(name, shape):
    n_out, n_in, *kernel = shape
    size = int(np.prod(kernel))
    variance = eval(VARIANCES[name], {"fan_in": n_in * size, "fan_out": n_out * size})
    W = getattr(initializers, name)(np.random.default_rng(0), shape, np.float64)
    r = np.sqrt(3 * variance)
    law = scipy.stats.uniform(-r, 2 * r) if name.endswith("uniform") else scipy.stats.norm(0, np.sqrt(variance))
    assert W.shape == shape
    assert abs(W.var() / variance - 1) < 5 * np.sqrt(2 / W.size)  # five standard errors
    assert scipy.stats.kstest(W.ravel(), law.cdf).pvalue > 0.01


@pytest.mark.parametrize("name", [*VARIANCES, "zeros"])
def test_dtypes_start_from_the_same_point_and_seeds_repeat(name):
    draw = getattr(initializers, name)
    W = draw(np.random.default_rng(3), (4, 5), np.float64)
    np.testing.assert_array_equal(draw(np.random.default_rng(3), (4, 5)), W.astype(np.float32))
    assert draw(np.random.default_rng(3), (4, 5)).dtype == np.float32


def test_linear_takes_an_initializer_and_stays_hashable():
    layer = tn.Linear(3, 2, initializer=initializers.zeros)
    assert not layer.init(np.random.default_rng(0))["W"].any()
    assert hash(layer) != hash(tn.Linear(3, 2))
    assert dataclasses.replace(layer, n_in=4).initializer is initializers.zeros
    assert repr(layer) == "Linear(n_in=3, n_out=2)"

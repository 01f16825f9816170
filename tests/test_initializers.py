"""glorot_uniform has the range and the variance it states, whatever the dtype."""

import numpy as np
import pytest

from tinynet.initializers import glorot_uniform


@pytest.mark.parametrize("shape", [(300, 200), (10, 4000)])
def test_the_sample_comes_from_the_stated_distribution(shape):
    W = glorot_uniform(np.random.default_rng(0), shape, np.float64)
    r = np.sqrt(6 / sum(shape))
    assert W.shape == shape
    assert 0.999 * r < W.max() < r
    assert -r < W.min() < -0.999 * r
    assert abs(W.mean()) < 5 * r / np.sqrt(3 * W.size)
    assert W.var() == pytest.approx(2 / sum(shape), rel=0.03)


def test_dtypes_start_from_the_same_point_and_seeds_repeat():
    W = glorot_uniform(np.random.default_rng(3), (4, 5), np.float64)
    assert W.dtype == np.float64
    assert glorot_uniform(np.random.default_rng(3), (4, 5)).dtype == np.float32
    np.testing.assert_array_equal(glorot_uniform(np.random.default_rng(3), (4, 5)), W.astype(np.float32))
    assert (glorot_uniform(np.random.default_rng(4), (4, 5)) != W).any()

"""One rule: it forgives rounding, whatever the scale, and nothing else."""

import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import ulps
from tinynet.verification.tolerance import UNIT, K, bound, distance

RNG = np.random.default_rng(6)


def test_the_bound_grows_with_the_tensor_and_has_no_absolute_part():
    g = RNG.standard_normal(100)
    assert bound(g) == K * UNIT * np.abs(g).max()
    assert bound(1e-200 * g) == pytest.approx(1e-200 * bound(g))
    assert bound(0 * g) == 0
    assert bound(g, spread=1.0) == K
    assert bound(g, depth=3) == 3 * bound(g)


def test_the_distance_to_what_is_not_finite_is_infinite():
    assert distance(np.array([np.nan]), np.array([1.0])) == np.inf
    assert distance(np.array([np.inf]), np.array([1.0])) == np.inf
    assert distance(np.array([np.inf]), np.array([np.inf])) == 0
    assert distance(np.zeros((0, 3)), np.zeros((0, 3))) == 0


def test_a_correct_product_is_within_a_few_ulps_of_longdouble_though_single_entries_cancel():
    a, b = RNG.standard_normal((200, 50)), RNG.standard_normal((50, 200))
    exact = (a.astype(np.longdouble) @ b.astype(np.longdouble)).astype(float)
    assert ulps(a @ b, exact) < K / 2
    entries = np.abs(a @ b - exact) / np.abs(exact) / UNIT
    assert entries.max() > K


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1.0, 1e20, 1e150])
def test_gradients_of_any_size_are_judged_alike(scale):
    def backward(factor):
        return lambda args, dy: factor * dy * scale * np.cos(args[0])

    def forward(x):
        return scale * np.sin(x)

    x = RNG.standard_normal((4, 3))
    assert tn.verify((forward, backward(1.0)), inputs=x, dtype="float64").verdict == "PASS"
    assert tn.verify((forward, backward(1 + 1e-12)), inputs=x, dtype="float64").verdict == "FAIL"

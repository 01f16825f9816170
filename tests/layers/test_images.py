"""Convolution, pooling and flattening: values against JAX's own, derivatives against jax.vjp, shapes, ties, errors."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import lax

import tinynet as tn
from tests.gradient_check import assert_close, check_layer
from tinynet.trees import map_leaves
from tinynet.verification.tolerance import UNIT, K


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


CONVOLUTIONS = [
    (tn.Conv2d(2, 3, kernel=3), (2, 2, 7, 5)),
    (tn.Conv2d(2, 3, kernel=3, stride=2, padding=1), (2, 2, 7, 5)),
    (tn.Conv2d(2, 3, kernel=3, stride=2), (2, 2, 6, 8)),
    (tn.Conv2d(1, 2, kernel=2, stride=3, padding=2), (1, 1, 5, 6)),
    (tn.Conv2d(3, 3, kernel=1), (2, 3, 4, 4)),
    (tn.Conv2d(1, 1, kernel=4), (3, 1, 4, 4)),
    (tn.Conv2d(2, 1, kernel=3, padding=1), (2, 2, 1, 1)),
    (tn.Conv2d(2, 3, kernel=2), (2, 4, 4)),
    (tn.Conv2d(2, 3, kernel=2), (2, 3, 2, 4, 4)),
    (tn.Conv2d(2, 3, kernel=2), (0, 2, 4, 4)),
]
POOLS = [
    (tn.MaxPool2d(2), (2, 3, 4, 6)),
    (tn.MaxPool2d(2), (2, 3, 5, 7)),
    (tn.MaxPool2d(3, stride=1), (1, 2, 5, 4)),
    (tn.MaxPool2d(2, stride=3), (2, 3, 8, 6)),
    (tn.MaxPool2d(1), (2, 3, 2, 2)),
    (tn.MaxPool2d(2), (0, 3, 4, 4)),
    (tn.MaxPool2d(2), (3, 4, 4)),
]
POOLS += [(tn.AvgPool2d(pool.kernel, pool.stride), shape) for pool, shape in POOLS]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS + POOLS)
def test_backward_is_the_vjp_of_forward(layer, shape):
    check_layer(layer, images(*shape))


@pytest.mark.parametrize("shape", [(3, 2, 4), (3, 7), (3,), (1, 5), (0, 2, 3)])
def test_flatten_backward_is_the_vjp_of_forward(shape):
    check_layer(tn.Flatten(), images(*shape))


@pytest.mark.parametrize(("layer", "shape"), [case for case in CONVOLUTIONS if len(case[1]) == 4])
def test_conv2d_equals_jax(layer, shape):
    x = images(*shape)
    params = map_leaves(lambda p: images(*p.shape, seed=1), layer.init(np.random.default_rng(0)))
    with jax.enable_x64(True):
        expected = lax.conv_general_dilated(x, params["W"], (layer.stride,) * 2, [(layer.padding,) * 2] * 2)
        expected = np.asarray(expected) + params["b"][:, None, None]
    assert_close(layer.forward(params, x)[0], expected, UNIT, K, repr(layer))


@pytest.mark.parametrize(("layer", "shape"), [case for case in POOLS if len(case[1]) == 4])
def test_pooling_equals_jax(layer, shape):
    x = images(*shape)
    window = (1, 1, layer.kernel, layer.kernel), (1, 1, *(layer.stride or layer.kernel,) * 2), "VALID"
    with jax.enable_x64(True):
        if isinstance(layer, tn.MaxPool2d):
            expected = lax.reduce_window(x, -np.inf, lax.max, *window)
        else:
            expected = lax.reduce_window(x, 0.0, lax.add, *window) / layer.kernel**2
    assert_close(layer.forward({}, x)[0], np.asarray(expected), UNIT, K, repr(layer))


def test_a_tie_is_won_by_the_first_entry_in_forward_and_backward():
    layer, x = tn.MaxPool2d(2), np.array([[[1.0, 5.0], [5.0, 5.0]]])
    check_layer(layer, np.zeros((1, 2, 4, 4)))
    y, cache = layer.forward({}, x)
    np.testing.assert_array_equal(y, [[[5]]])
    np.testing.assert_array_equal(layer.backward({}, cache, np.ones((1, 1, 1)))[0], [[[0, 1], [0, 0]]])


def test_nan_is_not_pooled_away():
    x = np.array([[[np.nan, 5.0], [1.0, 2.0]]])
    assert np.isnan(tn.MaxPool2d(2).forward({}, x)[0]).all()
    assert np.isnan(tn.AvgPool2d(2).forward({}, x)[0]).all()


def test_flatten_hands_out_copies():
    x = images(2, 3, 4)
    y, cache = tn.Flatten().forward({}, x)
    np.testing.assert_array_equal(y, x.reshape(2, 12))
    assert not np.shares_memory(y, x)
    dy = images(2, 12)
    assert not np.shares_memory(tn.Flatten().backward({}, cache, dy)[0], dy)


def test_conv2d_is_initialised_by_its_fans_and_its_initializer():
    W = tn.Conv2d(30, 20, 5).init(np.random.default_rng(0), np.float64)["W"]
    np.testing.assert_allclose(W.var(), 2 / (25 * 50), rtol=0.05)
    layer = dataclasses.replace(tn.Conv2d(1, 2, 3), initializer=tn.initializers.zeros)
    assert not layer.init(np.random.default_rng(0))["W"].any()
    hash(layer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tn.Conv2d(0, 2, 3), r"Conv2d: n_in is 0; expected at least 1"),
        (lambda: tn.Conv2d(1, 2, (3, 3)), r"Conv2d: kernel is \(3, 3\); expected an int"),
        (lambda: tn.Conv2d(1, 2, 3, padding=-1), r"Conv2d: padding is -1; expected at least 0"),
        (lambda: tn.MaxPool2d(2, 0), r"MaxPool2d: stride is 0; expected at least 1"),
        (lambda: tn.AvgPool2d(2.0), r"AvgPool2d: kernel is 2.0; expected an int"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("layer", [tn.Conv2d(2, 3, 3), tn.MaxPool2d(3), tn.AvgPool2d(3)], ids=repr)
def test_bad_input_is_named(layer):
    params = layer.init(np.random.default_rng(0), np.float64)
    with pytest.raises(TypeError, match=r"x has dtype int64; expected floating point"):
        layer.forward(params, np.ones((1, 2, 4, 4), np.int64))
    with pytest.raises(ValueError, match=r"x has shape \(4, 4\); expected \(..., (2|channels), height, width\)"):
        layer.forward(params, np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"x has shape \(1, 2, 2, 4\); expected height and width of at least 3"):
        layer.forward(params, np.ones((1, 2, 2, 4)))
    y, cache = layer.forward(params, np.ones((1, 2, 4, 4)))
    with pytest.raises(ValueError, match=r"dz has shape .* that of the output"):
        layer.backward(params, cache, np.ones((1, *y.shape)))


def test_conv2d_names_bad_channels_and_params():
    layer = tn.Conv2d(2, 3, 3)
    params = layer.init(np.random.default_rng(0), np.float64)
    with pytest.raises(ValueError, match=r"x has shape \(1, 3, 4, 4\); expected \(..., 2, height, width\)"):
        layer.forward(params, np.ones((1, 3, 4, 4)))
    with pytest.raises(
        ValueError, match=r"params have W float64 array of shape \(2, 3, 3, 3\); expected shape \(3, 2, 3, 3\)"
    ):
        layer.forward({**params, "W": np.ones((2, 3, 3, 3))}, np.ones((1, 2, 4, 4)))
    with pytest.raises(ValueError, match=r'expected a dict with "b"'):
        layer.forward({"W": params["W"]}, np.ones((1, 2, 4, 4)))

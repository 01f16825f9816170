"""RNN, GRU and LSTM: derivatives compared with jax.vjp, lengths, long and short walks, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer
from tests.layers.tuples import assert_vjp
from tests.reference import assert_within, random_params

X = np.random.default_rng(0).normal(size=(3, 5, 2))
LAYERS = [tn.RNN(2, 4), tn.GRU(2, 4), tn.LSTM(2, 4)]
recurrent = pytest.mark.parametrize("layer", LAYERS, ids=repr)


@recurrent
@pytest.mark.parametrize("x", [X, X[:0], X[:, :1]], ids=["normal", "no sample", "one step"])
def test_backward_is_the_vjp_of_forward(layer, x):
    check_layer(layer, x)


@recurrent
def test_saturated_gates_keep_their_digits(layer):
    params = random_params(layer, np.random.default_rng(1))
    check_layer(layer, X, params={**params, "b_ih": np.full_like(params["b_ih"], 30.0)})


@recurrent
@pytest.mark.parametrize("lengths", [[5, 2, 3], [0, 0, 0]])
def test_backward_is_the_vjp_of_forward_up_to_each_length(layer, lengths):
    assert_vjp(layer, (X, np.array(lengths)))


@recurrent
def test_a_shorter_sample_is_as_if_alone_and_its_padding_may_hold_anything(layer):
    params, lengths = random_params(layer, np.random.default_rng(1)), np.array([5, 2, 0], np.uint8)
    padded = X.copy()
    padded[1, 2:], padded[2] = np.nan, np.inf
    y, cache = layer.forward(params, (padded, lengths))
    alone, alone_cache = layer.forward(params, X[1:2, :2])
    np.testing.assert_allclose(y[1:2, :2], alone, rtol=1e-13)
    np.testing.assert_array_equal(y[1, 2:], 0)
    np.testing.assert_array_equal(y[2], 0)
    dy = np.random.default_rng(2).normal(size=y.shape)
    (dx, nothing), dparams = layer.backward(params, cache, dy)
    assert nothing is None
    np.testing.assert_allclose(dx[1:2, :2], layer.backward(params, alone_cache, dy[1:2, :2])[0], rtol=1e-13)
    np.testing.assert_array_equal(dx[1, 2:], 0)
    np.testing.assert_array_equal(dx[2], 0)
    dy[1, 2:], dy[2] = 1e6, 1e6
    assert_within(layer.backward(params, cache, dy)[1], dparams, bound=0)


@recurrent
def test_the_layer_compiles_to_one_loop_each_way_however_long_the_sequence(layer):
    params = layer.init(np.random.default_rng(0))

    def gradient(x):
        y, cache = layer.forward(params, x)
        return layer.backward(params, cache, y)

    sizes = [len(str(jax.make_jaxpr(gradient)(jnp.zeros((1, t, 2))))) for t in (10, 90)]
    assert str(jax.make_jaxpr(gradient)(jnp.zeros((1, 10, 2)))).count("scan[") == 2
    assert sizes[1] < 1.2 * sizes[0]


@recurrent
def test_both_kinds_of_array_give_the_same_numbers(layer):
    params = random_params(layer, np.random.default_rng(1))
    by_numpy = layer.backward(params, layer.forward(params, X)[1], X[..., :1] * np.ones(4))
    with jax.enable_x64(True):
        traced = jax.jit(lambda p, x: layer.backward(p, layer.forward(p, x)[1], x[..., :1] * jnp.ones(4)))(params, X)
    assert_within(by_numpy, jax.tree.map(np.asarray, traced))


@recurrent
def test_bad_input_is_named(layer):
    params, name = layer.init(np.random.default_rng(0), np.float64), type(layer).__name__
    with pytest.raises(ValueError, match=rf"{name}\(n_in=2, n_out=4\): x has shape \(3, 2\); expected \(m, t, 2\)"):
        layer.forward(params, X[:, 0])
    with pytest.raises(TypeError, match=r"lengths is float64 array of shape \(3,\); expected integers of shape \(3,\)"):
        layer.forward(params, (X, np.ones(3)))
    with pytest.raises(TypeError, match=r"lengths is int64 array of shape \(2,\); expected integers of shape \(3,\)"):
        layer.forward(params, (X, np.ones(2, int)))
    with pytest.raises(ValueError, match=r"lengths has values from 1 to 6; expected 0 to 5"):
        layer.forward(params, (X, np.array([1, 6, 2])))
    with pytest.raises(ValueError, match=r"params have W_hh float64 array of shape \(4, 3\); expected shape"):
        layer.forward({**params, "W_hh": np.zeros((4, 3))}, X)
    with pytest.raises(ValueError, match=r"dy has shape \(3, 5, 2\); expected \(3, 5, 4\), that of the output"):
        layer.backward(params, layer.forward(params, X)[1], X)
    with pytest.raises(ValueError, match=f"{name}: n_out is 0; expected at least 1"):
        type(layer)(2, 0)

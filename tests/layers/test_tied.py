"""Tied and Shared: parameters that are used more than once."""

import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer
from tests.layers.tuples import assert_vjp
from tests.reference import assert_within, random_params

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3))
CHAIN = tn.Sequential(tn.Linear(3, 3), tn.Tanh(), tn.Residual(tn.Linear(3, 3)), tn.Linear(3, 3))


@pytest.mark.parametrize(
    "ties",
    [{"3.W": "0.W"}, {"3": "0"}, {"2.W": "0.W", "3.b": "2.b"}, {"2": "0", "3": "0"}, {"-1.W": "0.W"}, {}],
    ids=str,
)
def test_backward_is_the_vjp_of_forward(ties):
    layer = tn.Tied(CHAIN, ties)
    check_layer(layer, X, params=random_params(layer, RNG))


def test_a_tied_parameter_is_held_once():
    params = tn.Tied(CHAIN, {"3.W": "0.W", "2": "0"}).init(RNG)
    assert [sorted(part) for part in params] == [["W", "b"], [], [], ["b"]]
    nested = tn.Tied(tn.Sequential(CHAIN, tn.Linear(3, 3)), {"1.W": "0.3.W"})
    assert [sorted(part) for part in nested.init(RNG)[0]] == [["W", "b"], [], ["W", "b"], ["W", "b"]]
    check_layer(nested, X, params=random_params(nested, RNG))


def test_the_gradient_is_the_sum_over_both_places():
    layer = tn.Tied(CHAIN, {"3.W": "0.W"})
    params = random_params(layer, RNG)
    full = (*params[:3], {"W": params[0]["W"], **params[3]})
    y, cache = layer.forward(params, X)
    expected, full_cache = CHAIN.forward(full, X)
    np.testing.assert_array_equal(y, expected)
    _, grads = CHAIN.backward(full, full_cache, X)
    _, dparams = layer.backward(params, cache, X)
    assert_within(dparams[0]["W"], grads[0]["W"] + grads[3]["W"])
    assert_within(dparams[2], grads[2])
    assert layer.split(params)["net"] == full
    assert layer.split(layer.init_state()) == {"net": CHAIN.init_state()}


def test_an_embedding_can_be_the_output_layer_too():
    """The weight tying of a language model in one line."""
    ids = RNG.integers(7, size=(2, 5))
    layer = tn.Tied(tn.Sequential(tn.Embedding(7, 4), tn.Tanh(), tn.Linear(4, 7)), {"2.W": "0.W"})
    check_layer(layer, ids, params=random_params(layer, RNG))


def test_state_and_randomness_reach_the_network():
    layer = tn.Tied(tn.Sequential(tn.Linear(3, 3), tn.BatchNorm(3), tn.Linear(3, 3)), {"2.W": "0.W"})
    params, state, training = layer.init(RNG, np.float64), layer.init_state(np.float64), layer.sample(RNG)
    assert training.ties == layer.ties
    _, cache = training.forward(params, X)
    state = training.update_state(state, cache)
    assert state[1]["mean"].any()
    assert layer.forward(params, X, state=state)[0].shape == (4, 3)


@pytest.mark.parametrize("path", ["5.W", "0.V", "1.W", "x"])
def test_a_path_that_leads_nowhere_is_named(path):
    for ties in ({path: "0.W"}, {"3.W": path}):
        with pytest.raises(ValueError, match=rf'"{path}" leads nowhere: there is no'):
            tn.Tied(CHAIN, ties).init(RNG)


def test_shapes_that_do_not_fit_are_named():
    layer = tn.Tied(tn.Sequential(tn.Linear(3, 2), tn.Linear(2, 2)), {"1.W": "0.W"})
    with pytest.raises(ValueError, match=r"Linear\(n_in=2, n_out=2\): params have W \(2, 3\)"):
        layer.forward(layer.init(RNG, np.float64), X)


@pytest.mark.parametrize("f", [tn.Linear(3, 2), CHAIN, tn.Tanh()], ids=["layer", "chain", "no parameters"])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_a_shared_layer_is_one_for_all_inputs(f, inputs):
    layer = tn.Shared(f)
    x = tuple(RNG.normal(size=(m + 2, 3)) for m in range(inputs))
    assert_vjp(layer, x)
    params = random_params(layer, RNG)
    for part, y in zip(x, layer.forward(params, x)[0], strict=True):
        np.testing.assert_array_equal(y, f.forward(params, part)[0])
    assert layer.split(params) == {"f": params}
    assert layer.children() == {"f": f}
    assert layer.samplewise()


def test_a_shared_layer_names_what_is_no_tuple():
    with pytest.raises(TypeError, match=r"(?s)Shared.*x is array.*; expected a tuple of inputs"):
        tn.Shared(tn.Tanh()).forward({}, X)
    with pytest.raises(TypeError, match=r"Shared: f is the class Tanh"):
        tn.Shared(tn.Tanh)

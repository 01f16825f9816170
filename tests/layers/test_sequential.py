"""Sequential: the chain rule over any nesting of layers, and errors that say which layer."""

import pickle

import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_identical, assert_within, random_params, sigmoid_network, vjp_by_jax

NETWORKS = {
    "empty": tn.Sequential(),
    "one layer": tn.Sequential(tn.Linear(4, 3)),
    "no parameters": tn.Sequential(tn.Sigmoid(), tn.Sigmoid()),
    "parameters last": tn.Sequential(tn.Sigmoid(), tn.Sigmoid(), tn.Linear(4, 3)),
    "no activation": tn.Sequential(tn.Linear(4, 2), tn.Linear(2, 3)),
    "the document's": sigmoid_network(4, 3, 2),
    "nested": tn.Sequential(tn.Sequential(tn.Linear(4, 3), tn.Sigmoid()), tn.Sequential(tn.Linear(3, 2)), tn.Sigmoid()),
    "nested, parameters last": tn.Sequential(
        tn.Sequential(tn.Sigmoid()), tn.Sequential(tn.Sequential(), tn.Sequential(tn.Sigmoid(), tn.Linear(4, 3)))
    ),
    "empty inside": tn.Sequential(tn.Sequential(), tn.Linear(4, 3), tn.Sequential(), tn.Sigmoid()),
    "the same layer twice": tn.Sequential(*[tn.Linear(4, 4), tn.Sigmoid()] * 2),
}


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("leading", [(5,), (1,), (), (2, 3), (0,)], ids=str)
def test_gradients_are_those_of_jax(net, leading):
    rng = np.random.default_rng(0)
    params, x = random_params(net, rng), rng.normal(size=(*leading, 4))
    y, caches = net.forward(params, x)
    dy = rng.normal(size=y.shape)
    dx, dparams = net.backward(params, caches, dy)
    y_jax, dx_jax, dparams_jax = vjp_by_jax(net, params, x, dy)
    assert_within((y, dx, dparams), (y_jax, dx_jax, dparams_jax))
    assert_identical(net.param_grads(params, caches, dy), dparams)
    assert type(dparams) is tuple
    assert len(dparams) == len(net.layers)


def test_the_empty_network_changes_nothing():
    x = np.arange(6.0).reshape(2, 3)
    y, caches = tn.Sequential().forward((), x)
    assert_identical(y, x)
    assert_identical(tn.Sequential().backward((), caches, x), (x, ()))
    assert tn.Sequential().param_grads((), caches, x) == ()


def test_a_nested_network_is_the_flat_one():
    rng = np.random.default_rng(0)
    flat, nested = sigmoid_network(4, 3, 2), tn.Sequential(sigmoid_network(4, 3), sigmoid_network(3, 2))
    params, x, dy = random_params(flat, rng), rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
    _, caches = flat.forward(params, x)
    dx, dparams = flat.backward(params, caches, dy)
    _, nested_caches = nested.forward((params[:2], params[2:]), x)
    nested_dx, nested_dparams = nested.backward((params[:2], params[2:]), nested_caches, dy)
    assert_identical(nested_dx, dx)
    assert_identical((*nested_dparams[0], *nested_dparams[1]), dparams)


def test_parameters_may_come_as_a_list():
    net, rng = sigmoid_network(4, 3), np.random.default_rng(0)
    params, x = random_params(net, rng), rng.normal(size=(5, 4))
    assert_identical(net.forward(list(params), x)[0], net.forward(params, x)[0])


def test_each_layer_draws_its_own_parameters():
    first, _, second, _ = sigmoid_network(3, 3, 3).init(np.random.default_rng(0))
    assert (first["W"] != second["W"]).all()


def test_a_network_is_its_configuration():
    net = sigmoid_network(4, 3)
    assert net == sigmoid_network(4, 3)
    assert hash(net) == hash(sigmoid_network(4, 3))
    assert net != sigmoid_network(3, 4)
    assert repr(net) == "Sequential(Linear(n_in=4, n_out=3), Sigmoid())"
    assert pickle.loads(pickle.dumps(net)) == net
    with pytest.raises(AttributeError):
        net.layers = ()


def test_an_error_says_which_layer():
    net = tn.Sequential(tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"Linear\(n_in=5, n_out=2\): x has shape \(1, 3\); expected") as caught:
        net.forward(net.init(np.random.default_rng(0)), np.zeros((1, 4)))
    assert caught.value.__notes__ == ["in layer 2 of Sequential, Linear(n_in=5, n_out=2)"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([tn.Linear(2, 2), tn.Sigmoid], r"argument 1 is the class Sigmoid; expected an instance of tinynet.Layer"),
        ([[tn.Sigmoid()]], r"argument 0 is list; expected an instance"),
        ([None], r"argument 0 is None; expected an instance"),
        ([np.tanh], r"argument 0 is ufunc; expected an instance"),
    ],
)
def test_what_is_no_layer_is_refused(layers, message):
    with pytest.raises(TypeError, match=f"Sequential: {message}"):
        tn.Sequential(*layers)


@pytest.mark.parametrize(
    ("params", "given"), [(({},), "1 entries"), (({}, {}, {}), "3 entries"), ({}, "dict"), (None, "NoneType")]
)
def test_parameters_that_do_not_fit_are_refused(params, given):
    net, x = sigmoid_network(4, 3), np.zeros((2, 4))
    with pytest.raises(ValueError, match=f"params is {given}; expected a tuple of 2, one per layer"):
        net.forward(params, x)
    for method in (net.backward, net.param_grads):
        with pytest.raises(ValueError, match=f"params is {given}; expected a tuple of 2, one per layer"):
            method(params, (), x)

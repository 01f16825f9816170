"""The contract: what a new layer gets for free, and what it must write."""

from dataclasses import dataclass

import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_within, vjp_by_jax


@dataclass(frozen=True)
class Square(tn.Layer):
    """y = x²: the least that a layer can be."""

    def forward(self, params, x):
        return x * x, x

    def backward(self, params, x, dy):
        return 2 * x * dy, {}


def test_forward_and_backward_are_all_a_layer_needs():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 4, 3))
    assert Square().init(rng) == {}
    y, cache = Square().forward({}, x)
    dx, dparams = Square().backward({}, cache, dy)
    assert_within((y, dx, dparams), vjp_by_jax(Square(), {}, x, dy))
    assert Square().param_grads({}, cache, dy) == {}


def test_it_joins_a_network_with_the_others():
    net = tn.Sequential(tn.Linear(3, 2), Square(), tn.Linear(2, 1), Square())
    params = net.init(np.random.default_rng(0), np.float64)
    x, dy = np.random.default_rng(1).normal(size=(5, 3)), np.random.default_rng(2).normal(size=(5, 1))
    y, cache = net.forward(params, x)
    assert_within((y, *net.backward(params, cache, dy)), vjp_by_jax(net, params, x, dy))


@pytest.mark.parametrize("contract", [tn.Layer, tn.Loss, tn.Optimizer])
def test_a_contract_alone_is_nothing_to_call(contract):
    with pytest.raises(TypeError, match="abstract"):
        contract()


def test_param_grads_is_what_backward_gives():
    layer, rng = tn.Linear(3, 2), np.random.default_rng(0)
    params = layer.init(rng, np.float64)
    _, cache = layer.forward(params, rng.normal(size=(4, 3)))
    dy = rng.normal(size=(4, 2))
    assert_within(tn.Layer.param_grads(layer, params, cache, dy), layer.param_grads(params, cache, dy), bound=0)

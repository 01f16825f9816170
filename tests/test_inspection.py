"""A trace holds the document's quantities, each equal to what jax.grad or the layer itself gives."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.trees import leaves
from tinynet.verification.tolerance import K, ulps

# M. Mazur, A step by step backpropagation example, 2015: 2-2-2 sigmoid, one sample, E = ½ Σ (ŷ − y)².
NET = tn.Sequential(tn.Linear(2, 2), tn.Sigmoid(), tn.Linear(2, 2), tn.Sigmoid())
PARAMS = (
    {"W": np.array([[0.15, 0.20], [0.25, 0.30]]), "b": np.full(2, 0.35)},
    {},
    {"W": np.array([[0.40, 0.45], [0.50, 0.55]]), "b": np.full(2, 0.60)},
    {},
)
X, Y = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])


def test_equals_a_published_worked_example():
    trace = tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)
    published = {
        "z1": [[0.3775, 0.3925]],
        "a1": [[0.593269992, 0.596884378]],
        "z2": [[1.105905967, 1.224921404]],
        "a2": [[0.75136507, 0.772928465]],
        "E": 0.298371109,
        "∂E/∂a2": [[0.74136507, -0.217071535]],
        "δ2": [[0.138498562, -0.038098236]],
        "dW2": [[0.082167041, 0.08266763], [-0.02260254, -0.022740242]],
        "∂E/∂a1": [[0.036350306, 0.041370323]],
        "δ1": [[0.008771354, 0.009954255]],
        "dW1": [[0.000438568, 0.000877135], [0.000497713, 0.000995425]],
    }
    for name, value in published.items():
        np.testing.assert_allclose(trace[name], value, atol=6e-9)
    assert trace.names == ("a0", *list(published)[:8], "db2", "∂E/∂a1", "δ1", "dW1", "db1")


def test_the_equations_are_the_documents():
    text = str(tn.trace(NET, tn.SquaredError(), PARAMS, X, Y))
    for line in (
        "z² = W² a¹ + b²  (18)       [[1.10591 1.22492]]",
        "a² = f(z²)  (19)            [[0.75137 0.77293]]",
        "E = ½ Σ (ŷ − y)²  (4)       0.29837",
        "δ² = ∂E/∂a² ⊗ f′(z²)  (20)  [[ 0.1385 -0.0381]]",
        "dW² = δ² (a¹)ᵀ  (24)        [[ 0.08217  0.08267]\n                             [-0.0226  -0.02274]]",
        "∂E/∂a¹ = W²ᵀ δ²  in (22)    [[0.03635 0.04137]]",
    ):
        assert line in text
    assert str(next(iter(tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)))) == "a⁰ = x  [[0.05 0.1 ]]"


def test_ascii_names_and_wrong_names():
    trace = tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)
    assert trace["delta2"] is trace["δ2"]
    assert trace["dE/da1"] is trace["∂E/∂a1"]
    with pytest.raises(KeyError, match=r"'z9' is not a quantity; expected one of a0, z1"):
        trace["z9"]


def test_any_network_is_traced_and_its_gradients_are_those_of_value_and_grads():
    net = tn.Sequential(
        tn.Conv2d(1, 3, 3, padding=1),
        tn.ReLU(),
        tn.MaxPool2d(2),
        tn.Residual(tn.Sequential(tn.Conv2d(3, 3, 1), tn.Tanh())),
        tn.Sequential(tn.Flatten(), tn.Linear(12, 4)),
    )
    rng = np.random.default_rng(0)
    params, x, y = net.init(rng, np.float64), rng.normal(size=(5, 1, 4, 4)), np.eye(4)[[0, 1, 2, 3, 0]]
    loss = tn.SoftmaxCrossEntropy("mean")
    trace = tn.trace(net, loss, params, x, y)
    E, grads = tn.value_and_grads(net, loss, params, x, y)
    assert trace["E"] == E
    named = ["dW1", "db1", "d0.W2", "d0.b2", "dW3", "db3"]
    for name, grad in zip(named, leaves(grads), strict=True):
        assert ulps(trace[name], grad) <= K
    assert {"z1", "a1", "a1′", "z2", "a2", "z3", "δ1", "∂E/∂a1", "∂E/∂a1′", "δ2", "δ3"} < set(trace.names)
    assert trace["δ1"].shape == trace["z1"].shape
    assert "z¹ = Conv2d(a⁰)" in str(trace)
    assert "5 × 3 × 4 × 4, from" in str(trace)


def test_a_single_layer_is_a_network():
    trace = tn.trace(tn.Linear(2, 2), tn.SquaredError("mean"), PARAMS[0], X, Y)
    assert trace.names == ("a0", "z1", "E", "δ1", "dW1", "db1")

"""Published worked examples of back-propagation, digit for digit."""

import numpy as np
import pytest

import tinynet as tn
from tests.reference import sigmoid_network

# Matt Mazur, A Step by Step Backpropagation Example, 2015: a 2-2-2 sigmoid network, E = ½ Σ (ŷ − y)², η = 0.5. Each
# layer's units share a bias, which he does not update.
NET = sigmoid_network(2, 2, 2)
X, Y = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
START = (
    {"W": np.array([[0.15, 0.20], [0.25, 0.30]]), "b": np.array([0.35, 0.35])},
    {},
    {"W": np.array([[0.40, 0.45], [0.50, 0.55]]), "b": np.array([0.60, 0.60])},
    {},
)


def error(params):
    return float(tn.SquaredError().forward(NET.forward(params, X)[0], Y)[0])


def mazur(steps):
    optimizer, params = tn.SGD(lr=0.5), START
    for _ in range(steps):
        _, grads = tn.value_and_grads(NET, tn.SquaredError(), params, X, Y)
        grads = tuple({**g, "b": np.zeros(2)} if g else {} for g in grads)
        params, _ = optimizer.update(params, grads, ())
    return params


def agrees(got, printed):
    """Whether `got`, rounded to the digits of `printed`, is `printed`."""
    decimals = len(printed.split(".")[1])
    return f"{got:.{decimals}f}" == printed


def test_mazur_forward_pass():
    z1, _ = NET.layers[0].forward(START[0], X)
    h, _ = NET.layers[1].forward({}, z1)
    z2, _ = NET.layers[2].forward(START[2], h)
    y_hat, _ = NET.forward(START, X)
    assert agrees(z1[0, 0], "0.3775")
    assert agrees(h[0, 0], "0.593269992")
    assert agrees(h[0, 1], "0.596884378")
    assert agrees(z2[0, 0], "1.105905967")
    assert agrees(y_hat[0, 0], "0.75136507")
    assert agrees(y_hat[0, 1], "0.772928465")
    assert agrees(error(START), "0.298371109")


def test_mazur_gradients():
    _, grads = tn.value_and_grads(NET, tn.SquaredError(), START, X, Y)
    assert agrees(grads[2]["W"][0, 0], "0.082167041")
    assert agrees(grads[2]["b"][0], "0.138498562")
    assert agrees(grads[0]["W"][0, 0], "0.000438568")


@pytest.mark.parametrize(
    ("layer", "i", "j", "printed"),
    [
        (2, 0, 0, "0.35891648"),
        (2, 0, 1, "0.408666186"),
        (2, 1, 0, "0.511301270"),
        (2, 1, 1, "0.561370121"),
        (0, 0, 0, "0.149780716"),
        (0, 0, 1, "0.19956143"),
        (0, 1, 0, "0.24975114"),
        (0, 1, 1, "0.29950229"),
    ],
)
def test_mazur_weights_after_one_update(layer, i, j, printed):
    assert agrees(mazur(1)[layer]["W"][i, j], printed)


def test_mazur_after_ten_thousand_updates():
    """He prints the error before the last of them, and outputs that come of the mistake below."""
    assert agrees(error(mazur(9_999)), "0.0000351085")
    params = mazur(10_000)
    assert agrees(error(params), "0.00003510")
    np.testing.assert_allclose(NET.forward(params, X)[0], [[0.015912196, 0.984065734]], rtol=0, atol=2e-6)


def test_mazur_error_after_one_update_takes_the_hidden_error_from_weights_already_updated():
    """(22) needs the W that ŷ was computed with. He prints 0.291027924, against his own weights printed above."""
    updated = mazur(1)
    assert agrees(error(updated), "0.291027774")
    y_hat, caches = NET.forward(START, X)
    δ, _ = tn.Sigmoid().backward({}, caches[3], y_hat - Y)
    dh, _ = NET.layers[2].backward(updated[2], caches[2], δ)
    δ, _ = tn.Sigmoid().backward({}, caches[1], dh)
    mistaken = {"W": START[0]["W"] - 0.5 * δ.T @ X, "b": START[0]["b"]}
    assert agrees(error((mistaken, *updated[1:])), "0.291027924")

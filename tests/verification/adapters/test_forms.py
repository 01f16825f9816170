"""Forms of losses and objects that people publish."""

import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(8)
X, W, T = rng.standard_normal((5, 3)), rng.standard_normal((3, 2)), rng.standard_normal((5, 2))


def value(w, x, t):
    return ((x @ w - t) ** 2).sum() / 2


def gradient(w, x, t):
    return x.T @ (x @ w - t)


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize(
    "returned",
    [
        lambda E, dw, dx: (E, {"dw": dw, "dx": dx}),
        lambda E, dw, dx: ({"dw": dw, "dx": dx}, E),
        lambda E, dw, dx: ((dw, dx), E),
        lambda E, dw, dx: (E, dw, dx),
        lambda E, dw, dx: [E, dw, dx],
    ],
    ids=["(E, dict)", "(dict, E)", "(tuple, E)", "(E, dw, dx)", "[E, dw, dx]"],
)
def test_a_value_comes_before_or_after_its_gradients_or_before_each_of_them(returned, factor):
    def loss(w, x, t):
        return returned(value(w, x, t), factor * gradient(w, x, t), (x @ w - t) @ w.T)

    report = tn.verify(loss, inputs=(W, X, T))
    assert report.compared == ("w", "x")
    assert [(f.gradient, f.name) for f in report.findings] == [("w", "scaled by 3")][: factor - 1]


class Rows:
    """Rows of W by their numbers, each times a factor."""

    def __init__(self, repeated):
        self.W, self.dW, self.repeated = W.copy(), np.zeros_like(W), repeated

    def forward(self, rows, factor):
        self.rows, self.factor = rows, factor
        return self.W[rows] * factor

    def backward(self, dy):
        self.dW[...] = 0
        if self.repeated:
            np.add.at(self.dW, self.rows, dy * self.factor)
        else:
            self.dW[self.rows] += dy * self.factor
        return (dy * self.W[self.rows]).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("repeated", [True, False])
def test_an_object_returns_nothing_for_its_integers(repeated):
    report = tn.verify(Rows(repeated), inputs=(np.array([0, 2, 2, 1, 0]), X[:, :1]))
    assert report.verdict == ("PASS" if repeated else "FAIL")
    assert [f.gradient for f in report.findings] == ["W"][repeated:]


@pytest.mark.parametrize("factor", [1, 7])
def test_backward_is_given_the_constants_of_the_forward_pass(factor):
    def forward(x, w, activation):
        z = x @ w
        return np.tanh(z) if activation == "tanh" else z, (x, w, z)

    def backward(dy, cache, activation):
        x, w, z = cache
        dz = dy * (1 - np.tanh(z) ** 2) if activation == "tanh" else dy
        return dz @ w.T, factor * (x.T @ dz)

    report = tn.verify((forward, backward), inputs=(X, W, "tanh"))
    assert report.compared == ("x", "w")
    assert [(f.gradient, f.name) for f in report.findings] == [("w", "scaled by 7")][: factor // 7]


class Embedding:
    """Rows of W by their numbers, and nothing else."""

    def __init__(self, repeated):
        self.W, self.repeated = W.copy(), repeated

    def forward(self, rows):
        self.rows = rows
        return np.tanh(self.W[rows])

    def backward(self, dy):
        self.dW, dz = np.zeros_like(self.W), dy * (1 - np.tanh(self.W[self.rows]) ** 2)
        if self.repeated:
            np.add.at(self.dW, self.rows, dz)
        else:
            self.dW[self.rows] = dz


class Cached(Embedding):
    def forward(self, rows):
        return super().forward(rows), rows

    def backward(self, dy, rows):
        super().backward(dy)
        return None, {"W": self.dW}


@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("cls", [Embedding, Cached])
def test_an_object_of_integers_alone_is_judged_by_its_parameters(cls, repeated):
    for inputs in (np.array([[0, 2], [2, 1]]), None):
        report = tn.verify(cls(repeated), inputs=inputs)
        assert (report.verdict, report.compared) == ("PASS" if repeated else "FAIL", ("W",)), report


def test_an_object_of_integers_without_parameters_is_refused():
    class Doubles:
        def forward(self, rows):
            return rows * 2.0

        def backward(self, dy):
            return None

    with pytest.raises(tn.TargetError, match="expected at least one array of floating-point numbers"):
        tn.verify(Doubles(), inputs=np.array([0, 1]))

"""Each kind of thing that people bring: a right one passes, and the same one with one mistake does not."""

from dataclasses import dataclass

import numpy as np
import pytest

import tinynet as tn

RNG = np.random.default_rng(1)
x, W, b = RNG.standard_normal((5, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)


def σ(z):
    return 1 / (1 + np.exp(-z))


class Course:
    """forward(x) and backward(dy), everything on self."""

    factor = 1.0

    def __init__(self):
        self.W, self.b = W.copy(), b.copy()

    def forward(self, x):
        self.cache = x, σ(x @ self.W + self.b)
        return self.cache[1]

    def backward(self, dy):
        x, a = self.cache
        dz = dy * a * (1 - a)
        self.keep(self.factor * x.T @ dz, dz.sum(axis=0))
        return dz @ self.W.T

    def keep(self, dW, db):
        self.dW, self.db = dW, db


class GradsInADict(Course):
    def keep(self, dW, db):
        self.grads = {"W": dW, "b": db}


class GradsByTheirOwnNames(Course):
    def keep(self, dW, db):
        self.grads = {"dW": dW, "db": db}


class Underscored(Course):
    def keep(self, dW, db):
        self.grad_W, self.b_grad = dW, db


class Accumulating(Course):
    """+= by design, and a zero_grad that says so."""

    def __init__(self):
        super().__init__()
        self.zero_grad()

    def zero_grad(self):
        self.dW, self.db = np.zeros_like(self.W), np.zeros_like(self.b)

    def keep(self, dW, db):
        self.dW += dW
        self.db += db


class ParamsInADict:
    factor = 1.0

    def __init__(self):
        self.params = {"W": W.copy(), "b": b.copy()}

    def forward(self, x):
        self.x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, dy):
        self.grads = {"W": self.factor * self.x.T @ dy, "b": dy.sum(axis=0)}
        return dy @ self.params["W"].T


class ReturnsAll(Course):
    def backward(self, dy):
        dx = super().backward(dy)
        return dx, self.dW, self.db


OBJECTS = [
    Course, GradsInADict, GradsByTheirOwnNames, Underscored, Accumulating, ParamsInADict, ReturnsAll,
]  # fmt: skip


@pytest.mark.parametrize("cls", OBJECTS)
def test_an_object_that_keeps_its_state_on_itself(cls):
    target = cls()
    tn.check(target)
    target.factor = 0.5
    (finding,) = tn.verify(target).findings
    assert finding.name == "scaled by 1/2"
    assert finding.gradient.endswith("W")


def closure(factor):
    def dense(x, W, b):
        a = σ(x @ W + b)

        def backprop(dy):
            dz = factor * dy * a * (1 - a)
            return dz @ W.T, x.T @ dz, dz.sum(axis=0)

        return a, backprop

    return dense


def test_a_closure_that_returns_y_and_backprop():
    tn.check(closure(1.0), inputs=(x, W, b))
    report = tn.verify(closure(-1.0), inputs={"x": x, "W": W, "b": b})
    assert [f.fault for f in report.findings] == ["sign"]


class Lists:
    """A list of weights and one of biases, each beside a list of its gradients."""

    def __init__(self, names, factor=1.0):
        self.names, self.factor = names, factor
        self.weights, self.biases = [W.copy(), RNG.standard_normal((3, 2))], [b.copy(), np.zeros(2)]

    def forward(self, x):
        self.inputs = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            self.inputs.append(x)
            x = np.tanh(x @ weight + bias)
        self.out = x
        return x

    def backward(self, dy):
        dW, db = [None, None], [None, None]
        for i, a in ((1, self.out), (0, self.inputs[1])):
            dz = dy * (1 - a * a)
            dW[i], db[i] = self.inputs[i].T @ dz, dz.sum(axis=0) * self.factor
            dy = dz @ self.weights[i].T
        for name, grads in zip(self.names, (dW, db), strict=True):
            setattr(self, name, grads)
        return dy


@pytest.mark.parametrize("names", [("grad_weights", "grad_biases"), ("weight_grads", "bias_grads"), ("dW", "db")])
def test_lists_of_parameters_beside_lists_of_gradients(names):
    assert tn.verify(Lists(names), inputs=x).ok
    assert {f.name for f in tn.verify(Lists(names, 2.0), inputs=x).findings} == {"scaled by 2"}


class ReturnsBackprop:
    """Keeps its parameters on itself, and the gradients in what it returns."""

    def __init__(self, factor=1.0):
        self.W, self.b, self.factor = W.copy(), b.copy(), factor

    def forward(self, x):
        def backprop(dy):
            return dy @ self.W.T, self.factor * x.T @ dy, dy.sum(axis=0)

        return x @ self.W + self.b, backprop


class CalledWithTwoOutputs(ReturnsBackprop):
    forward = None

    def __call__(self, x):
        z = x @ self.W + self.b

        def backprop(d):
            dz = d[0] * np.cos(z) - d[1] * np.sin(z)
            self.dW, self.db = self.factor * x.T @ dz, dz.sum(axis=0)
            return dz @ self.W.T

        return np.sin(z), np.cos(z), backprop


@pytest.mark.parametrize("cls", [ReturnsBackprop, CalledWithTwoOutputs])
def test_an_object_with_parameters_that_returns_y_and_backprop(cls):
    report = tn.verify(cls(), inputs=x)
    assert report.ok, report
    assert report.compared == ("x", "W", "b")
    (finding,) = tn.verify(cls(2.0), inputs=x).findings
    assert (finding.gradient, finding.name) == ("W", "scaled by 2")


def test_a_method_that_returns_y_and_backprop():
    assert tn.verify(ReturnsBackprop().forward, inputs=x).ok
    assert tn.verify(ReturnsBackprop(3.0).forward, inputs=x).verdict == "FAIL"


def dense(x, W, b):
    return σ(x @ W + b)


def dense_backward(args, dy):
    return closure(1.0)(*args)[1](dy)


def test_a_pair_of_functions():
    tn.check((dense, dense_backward), inputs=(x, W, b))
    tn.check_vjp(dense, dense_backward, x, W, b)
    with pytest.raises(tn.GradientError, match="sign"):
        tn.check_vjp(dense, lambda args, dy: tuple(-g for g in dense_backward(args, dy)), x, W, b)


def test_a_function_of_one_argument_needs_no_inputs():
    tn.check_vjp(np.tanh, lambda args, dy: dy / np.cosh(args[0]) ** 2)


def test_integer_arguments_get_no_gradient():
    labels = np.array([0, 2, 1, 1, 2])

    def loss(x, y):
        return -np.log(np.exp(x)[np.arange(len(y)), y] / np.exp(x).sum(axis=1)).sum()

    def backward(args, dE):
        p = np.exp(args[0]) / np.exp(args[0]).sum(axis=1, keepdims=True)
        return dE * (p - np.eye(4, dtype=p.dtype)[args[1]]), None

    tn.check((loss, backward), inputs=(x, labels))


class Lookup(tn.Embedding):
    """What it returns by its integers is `by_x`."""

    def backward(self, params, x, dy):
        return self.by_x(x), self.param_grads(params, x, dy)


@pytest.mark.parametrize(
    "nothing", [lambda x: None, lambda x: np.zeros(x.shape), lambda x: np.zeros_like(x), lambda x: 0]
)
def test_by_integers_nothing_and_zeros_are_right(nothing):
    tn.check(type("Lookup", (Lookup,), {"by_x": staticmethod(nothing)})(5, 3))


@pytest.mark.parametrize(
    "something", [lambda x: np.ones(x.shape), lambda x: x.shape, lambda x: np.full(x.shape, np.nan)]
)
def test_by_integers_anything_else_is_a_finding(something):
    report = tn.verify(type("Lookup", (Lookup,), {"by_x": staticmethod(something)})(5, 3))
    assert {(f.fault, f.gradient) for f in report.findings} == {("malformed", "x")}, report
    assert "expected zeros, or None" in report.findings[0].explanation


LAYERS = [tn.Linear(4, 3), tn.Sigmoid(), tn.Sequential(tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(3, 2))]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_a_layer_and_a_network_with_its_loss(layer):
    tn.check(layer)
    tn.check(layer, loss=tn.SquaredError(), dtype="float64")
    tn.check(layer, loss=tn.SquaredError("mean"))


@pytest.mark.parametrize("loss", [tn.SquaredError(), tn.SquaredError("mean")], ids=repr)
def test_a_loss(loss):
    tn.check(loss)
    tn.check(loss, inputs=(x, x[::-1].copy()))


@pytest.mark.parametrize("cls", [tn.Sigmoid, tn.Linear, tn.SquaredError, Course])
def test_a_class_stands_for_an_instance(cls):
    tn.check(cls)


class Halved(tn.Linear):
    def backward(self, params, a, dz):
        dx, dparams = super().backward(params, a, dz)
        return dx / 2, dparams


def test_in_a_chain_the_guilty_layer_is_named():
    report = tn.verify(tn.Sequential(tn.Linear(4, 3), Halved(3, 3), tn.Sigmoid()))
    (finding,) = report.findings
    assert "layer 1: Halved(n_in=3, n_out=3)" in finding.target
    assert (finding.gradient, finding.name) == ("x", "scaled by 1/2")


def test_of_a_network_with_its_loss_a_wrong_loss_is_found():
    class Unscaled(tn.SquaredError):
        def backward(self, r, dE=1.0):
            return dE * r

    report = tn.verify(tn.Sequential(tn.Linear(4, 3), tn.Sigmoid()), loss=Unscaled("mean"))
    assert report.verdict == "FAIL"
    assert report.findings[0].name == "scaled by m"


def test_params_and_inputs_of_the_caller_are_used():
    params = {"W": np.eye(3), "b": np.ones(3)}
    tn.check(tn.Linear(3, 3), params=params, inputs=(7, 3))
    tn.check(tn.Linear(3, 3), inputs=np.ones((2, 6, 3)))
    assert np.array_equal(params["W"], np.eye(3))


def test_targets_that_sum_to_1_go_on_doing_so():
    class CrossEntropy(tn.Loss):
        def forward(self, y_hat, y):
            e = np.exp(y_hat - y_hat.max(axis=-1, keepdims=True))
            p = e / e.sum(axis=-1, keepdims=True)
            return -(y * np.log(p)).sum(), p - y

        def backward(self, r, dE=1.0):
            return dE * r

    for inputs in (None, (x, np.eye(4)[[0, 1, 2, 1, 3]]), (x, np.full((5, 4), 0.25))):
        report = tn.verify(CrossEntropy(), inputs=inputs)
        assert report.verdict == "PASS", report
    net = tn.Sequential(tn.Linear(4, 3))
    tn.check(net, loss=CrossEntropy(), inputs=(x, np.eye(3)[[0, 1, 2, 1, 0]]))


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (3, {}, "target is int; expected a tinynet Layer or Loss"),
        (None, {}, "target is NoneType"),
        ((dense, 3), {}, "target is tuple"),
        (dense, {}, "takes 3 arguments .*; give inputs="),
        (tn.Linear(4, 3), {"inputs": (5, 3)}, "forward does not accept inputs="),
        (tn.Linear(4, 3), {"inputs": np.full((5, 4), np.nan)}, "NaN or infinite"),
        (tn.Linear(4, 3), {"inputs": np.array([["a"]])}, "expected an array of real numbers"),
        (tn.Linear(4, 3), {"dtype": "float16"}, 'expected "float64", "float32" or both'),
        (tn.Linear(4, 3), {"probes": ["values"]}, "no probe"),
        (Course(), {"loss": tn.SquaredError()}, "loss= goes with a tinynet Layer"),
        (tn.Layer, {}, "could not be constructed|cannot be guessed|cannot be called"),
    ],
)
def test_what_cannot_be_verified_is_refused_with_a_reason(target, options, message):
    with pytest.raises(tn.TargetError, match=message):
        tn.verify(target, **options)


@dataclass(frozen=True)
class Conv1d(tn.Layer):
    """y_o(t) = Σ_c Σ_j W_ocj x_c(t + j): n_in counts channels, and the last axis is time."""

    n_in: int = 2
    n_out: int = 3
    k: int = 3

    def init(self, rng, dtype=np.float32):
        return {"W": rng.normal(size=(self.n_out, self.n_in, self.k)).astype(dtype)}

    def forward(self, params, x):
        t = x.shape[-1] - self.k + 1
        return sum(np.einsum("oc,mct->mot", params["W"][:, :, j], x[:, :, j : j + t]) for j in range(self.k)), x

    def backward(self, params, x, dy):
        t, W = dy.shape[-1], params["W"]
        dW = np.stack([np.einsum("mot,mct->oc", dy, x[:, :, j : j + t]) for j in range(self.k)], axis=-1)
        dx = np.zeros_like(x)
        for j in range(self.k):
            dx[:, :, j : j + t] += np.einsum("oc,mot->mct", W[:, :, j], dy)
        return dx, {"W": dW}


def test_a_width_is_changed_only_where_it_is_the_last_axis():
    tn.verify(Conv1d(), inputs=(3, 2, 8)).raise_if_failed()
    assert tn.verify(Conv1d()).ok  # its input is found: (m, channels, time)

"""Arrays that the forward pass writes: running statistics of any name, on an object or handed in."""

import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(14)
X = rng.standard_normal((5, 3))
G, B = rng.standard_normal(3), rng.standard_normal(3)
QUICK = {"probes": ["rectangular", "batch 1", "batch 2", "state", "layout"]}


class Norm:
    """Batch normalization, whose statistics have names of their own."""

    def __init__(self, right=True, training=True):
        self.g, self.b, self.right, self.training = G.copy(), B.copy(), right, training
        self.m, self.v = np.full(3, 0.2), np.full(3, 1.5)

    def normalized(self, x, train):
        if train:
            mean, var = x.mean(0), x.var(0)
            self.update(mean, var)
        else:
            mean, var = self.m, self.v
        self.i, self.train = 1 / np.sqrt(var + 1e-3), train
        self.n = (x - mean) * self.i
        return self.g * self.n + self.b

    def update(self, mean, var):
        self.m, self.v = 0.9 * self.m + 0.1 * mean, 0.9 * self.v + 0.1 * var

    def backward(self, dy):
        self.dg, self.db = (dy * self.n).sum(0), dy.sum(0)
        d = dy * self.g
        return self.i * (d - d.mean(0) - self.n * (d * self.n).mean(0) if self.train or not self.right else d)


class ByArgument(Norm):
    def forward(self, x, train=True):
        return self.normalized(x, train)


class ByAttribute(Norm):
    def forward(self, x):
        return self.normalized(x, self.training)


class InPlace(ByAttribute):
    def update(self, mean, var):
        self.m *= 0.9
        self.m += 0.1 * mean
        self.v[:] = 0.9 * self.v + 0.1 * var


FORMS = {
    "an argument": lambda right: (ByArgument(right), (X, False)),
    "an argument by name": lambda right: (ByArgument(right), {"x": X, "train": False}),
    "an attribute": lambda right: (ByAttribute(right, training=False), X),
    "in place": lambda right: (InPlace(right, training=False), X),
    "training": lambda right: (InPlace(right), X),
}


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_what_the_forward_pass_writes_in_training_is_state(form, right):
    target, inputs = FORMS[form](right)
    report = tn.verify(target, inputs=inputs, **QUICK)
    assert report.compared == ("x", "g", "b"), report
    assert report.verdict == ("PASS" if right or form == "training" else "FAIL"), report


class Constrained:
    """A layer that writes its weights in its forward pass, and has a gradient of them."""

    def __init__(self, factor=1):
        self.W, self.factor = rng.standard_normal((3, 2)), factor

    def forward(self, x):
        self.W = np.clip(self.W, -5, 5)
        self.x = x
        return x @ self.W

    def backward(self, dy):
        self.dW = self.factor * self.x.T @ dy
        return dy @ self.W.T


@pytest.mark.parametrize("factor", [1, 2])
def test_what_the_forward_pass_writes_is_a_parameter_where_it_has_a_gradient(factor):
    report = tn.verify(Constrained(factor), inputs=X, **QUICK)
    assert report.compared == ("x", "W")
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


def test_what_is_never_written_is_not_taken_for_state():
    class Fixed(ByAttribute):
        def update(self, mean, var):
            pass

    report = tn.verify(Fixed(training=False), inputs=X, **QUICK)
    assert report.verdict == "INCONCLUSIVE"
    assert "the parameter m moves y and no gradient of it was found" in report.reason


def normalized(x, g, b, m, v):
    mean, var = x.mean(0), x.var(0)
    m[:] = 0.9 * m + 0.1 * mean
    v *= 0.9
    v += 0.1 * var
    i = 1 / np.sqrt(var + 1e-3)
    n = (x - mean) * i
    return g * n + b, (n, i, g)


def gradients(dy, cache):
    n, i, g = cache
    d = dy * g
    return i * (d - d.mean(0) - n * (d * n).mean(0)), (dy * n).sum(0), dy.sum(0)


STATISTICS = (X, G, B, np.zeros(3), np.ones(3))


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        ((normalized, gradients), "PASS"),
        ((normalized, lambda dy, cache: (*gradients(dy, cache), None, None)), "PASS"),
        ((normalized, lambda dy, cache: tuple(2 * g for g in gradients(dy, cache))), "FAIL"),
    ],
)
def test_running_statistics_that_are_handed_in_may_be_updated(target, verdict):
    report = tn.verify(target, inputs=STATISTICS, **QUICK)
    assert (report.verdict, report.compared) == (verdict, ("x", "g", "b")), report
    assert "m, v: written into and without a gradient, as running statistics are" in report.notes


def test_an_argument_that_is_written_into_and_moves_y_is_still_a_fault():
    def forward(x, m):
        m += x.mean(0)
        return x * m, m

    report = tn.verify((forward, lambda dy, m: (dy * m, None)), inputs=(X, np.ones(3)), **QUICK)
    assert "mutates x" in [f.fault for f in report.findings]


class KeepsInputs:
    """numpy-ml's manner: what forward is given is kept in a list until the gradients are flushed."""

    def __init__(self, factor):
        self.X, self.factor = [], factor
        self.parameters, self.gradients = {"W": G[:, None] * np.ones(2)}, {"W": np.zeros((3, 2))}

    def forward(self, x):
        self.X.append(x)
        return x @ self.parameters["W"]

    def backward(self, dy):
        for x, each in zip(self.X, [dy], strict=False):
            self.gradients["W"] += self.factor * x.T @ each
        return dy @ self.parameters["W"].T

    def flush_gradients(self):
        self.X, self.gradients = [], {"W": np.zeros((3, 2))}


@pytest.mark.parametrize("factor", [1, 2])
def test_what_is_kept_until_the_gradients_are_flushed_is_flushed_before_each_forward_pass(factor):
    report = tn.verify(KeepsInputs(factor), inputs=X, **QUICK)
    assert [f.name for f in report.findings] == ["scaled by 2"][: factor - 1], report

"""Gradients that deviate on purpose, and rules in forward mode."""

import numpy as np
import pytest

import tinynet as tn

X = np.random.default_rng(0).standard_normal((4, 3))
QUICK = {"probes": ["rectangular", "batch 1"]}


@pytest.mark.parametrize(
    ("forward", "backward", "intended"),
    [
        (np.round, lambda a, dy: (dy * 1.0,), lambda x: x * 1.0),
        (lambda x: x * 1.0, lambda a, dy: (-dy,), lambda x: -x),
        (
            lambda x: np.where(x > 0, 1.0, 0.0),
            lambda a, dy: (dy * (1 - np.tanh(a[0]) ** 2).astype(dy.dtype),),
            lambda x: np.tanh(x),
        ),
    ],
    ids=["straight-through", "reversed", "surrogate spike"],
)
def test_a_gradient_may_be_that_of_another_function(forward, backward, intended):
    report = tn.verify((forward, backward), inputs=X, intended=intended, **QUICK)
    assert report.verdict == "PASS", str(report)
    assert "of intended=" in report.oracle
    for factor in (2, -1, 0):
        wrong = (forward, lambda a, dy, factor=factor: (factor * backward(a, dy)[0],))
        assert tn.verify(wrong, inputs=X, intended=intended, **QUICK).verdict == "FAIL"
    assert tn.verify((forward, backward), inputs=X, **QUICK).verdict != "PASS"


def straight(factor):
    torch = pytest.importorskip("torch")

    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return torch.round(x)

        @staticmethod
        def backward(_, dy):
            return factor * dy

    return Straight


def test_a_function_of_pytorch_may_mean_another():
    assert tn.verify(straight(1), inputs=X, intended=lambda x: x * 1, **QUICK).verdict == "PASS"
    assert tn.verify(straight(2), inputs=X, intended=lambda x: x * 1, **QUICK).verdict == "FAIL"


def test_a_function_of_pytorch_of_two_arguments_may_mean_another():
    torch = pytest.importorskip("torch")

    class Quantized(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale):
            ctx.save_for_backward(x, scale)
            return torch.round(x) * scale

        @staticmethod
        def backward(ctx, dy):
            x, scale = ctx.saved_tensors
            return dy * scale, (dy * x).sum_to_size(scale.shape)

    report = tn.verify(Quantized, inputs=(X, X[0]), intended=lambda x, scale: x * scale, **QUICK)
    assert report.verdict == "PASS", str(report)


def test_a_layer_may_mean_another_in_every_width():
    def meant(params, x):
        return x @ params["W"].T + params["b"]

    class Rounded(tn.Linear):
        def forward(self, params, x):
            return meant(params, np.round(x)), x

        def backward(self, params, x, dy):
            return dy @ params["W"], {"W": dy.T @ x, "b": dy.sum(axis=0)}

    assert tn.verify(Rounded(3, 2), intended=meant).verdict == "PASS"
    assert tn.verify(Rounded(3, 2), **QUICK).verdict == "FAIL"


def test_a_function_that_does_not_fit_is_refused():
    def refused(intended):
        with pytest.raises(tn.TargetError) as caught:
            tn.verify((np.round, lambda args, dy: (dy,)), inputs=X, intended=intended, **QUICK)
        return str(caught.value)

    assert "intended= returns (4,); expected (4, 3), as the forward pass does" in refused(lambda x: x.sum(axis=1))
    assert "intended= raises TypeError" in refused(lambda x, w: x)


def product(a, b):
    return np.sin(a) * b


def push(args, tangents):
    (a, b), (s, t) = args, tangents
    return np.cos(a) * b * s + np.sin(a) * t


def test_a_rule_in_forward_mode_that_is_right_passes():
    tn.check_jvp(product, push, X, X + 1, **QUICK)
    tn.check_jvp(product, lambda args, t: (product(*args), push(args, t)), X, X + 1, **QUICK)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda args, t: np.cos(args[0]) * args[1] * t[0], "b"),
        (lambda args, t: 2 * push(args, t), "scaled by 2"),
        (lambda args, t: push(args, (-t[0], t[1])), "sign"),
        (lambda args, t: push(args, t) + t[0] * t[1], "not linear"),
        (lambda args, t: push(args, t).sum(axis=0), r"jvp returns arrays of shape \(3,\); expected \(4, 3\)"),
    ],
)
def test_a_wrong_one_does_not(wrong, told):
    with pytest.raises(tn.GradientError, match=told):
        tn.check_jvp(product, wrong, X, X + 1, **QUICK)


def test_a_rule_takes_structures_and_integers():
    def forward(p, rows):
        return p["W"][rows] * p["b"]

    def jvp(args, tangents):
        (p, rows), (t, none) = args, tangents
        assert not np.any(none)
        return t["W"][rows] * p["b"] + p["W"][rows] * t["b"]

    tn.check_jvp(forward, jvp, {"W": X, "b": X[0]}, np.array([0, 2, 2]), **QUICK)


class Spike:
    """A spiking unit with a surrogate gradient, and perhaps a threshold that is a parameter."""

    def __init__(self, threshold=None):
        if threshold is not None:
            self.threshold = threshold

    def forward(self, v):
        self.v = v
        return (v > getattr(self, "threshold", 0)).astype(v.dtype)

    def backward(self, dy):
        return dy / (1 + self.v**2)


def test_an_object_may_mean_another_function():
    assert tn.verify(Spike(), inputs=X, intended=lambda v: np.arctan(v), **QUICK).verdict == "PASS"
    assert tn.verify(Spike(), inputs=X, intended=lambda v: np.tanh(v), **QUICK).verdict == "FAIL"


def test_a_function_of_the_arguments_cannot_mean_the_gradient_of_a_parameter():
    spike = Spike(X[0])
    with pytest.raises(tn.TargetError, match=r"say which it means: wrt=\['v'\]"):
        tn.verify(spike, inputs=X, intended=lambda v: np.arctan(v), **QUICK)
    assert tn.verify(spike, inputs=X, intended=lambda v: np.arctan(v), wrt="v", **QUICK).verdict == "PASS"

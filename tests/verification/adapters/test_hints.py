"""What is said of a call that cannot be right: what was given, what was expected, and what to do."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.cli import main

X, W, B = np.ones((5, 4)), np.ones((4, 3)), np.ones(3)


def forward(x, w, b):
    return np.tanh(x @ w + b)


def backward(args, dy):
    return dy, dy, dy


class OfNames:
    def __init__(self, n_in, act):
        pass

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


class ForwardAlone:
    def forward(self, x):
        return x


class Unloaded(ForwardAlone):
    def forward(self, x):
        raise ValueError("no weights were loaded")

    def backward(self, dy):
        return dy


class OfThree(ForwardAlone):
    def backward(self, dy, first, second):
        return dy


PAIR = (forward, backward)
CALLS = {
    "no inputs": (PAIR, {}, r"takes 3 arguments \(x, w, b\); give inputs="),
    "too few inputs": (PAIR, {"inputs": (X, W)}, r"inputs= has 2 entries, and the forward pass takes \(x, w, b\)"),
    "too many inputs": (PAIR, {"inputs": (X, W, B, B)}, r"inputs= has 4 entries, and .* one entry per argument"),
    "another name": (PAIR, {"inputs": {"x": X, "weight": W, "b": B}}, r"has x, weight, b, and .* takes \(x, w, b\)"),
    "a backward pass without arguments": (
        (np.tanh, lambda: 1),
        {"inputs": X},
        r"takes \(\); expected one of: backward",
    ),
    "a backward method of three": (
        OfThree(),
        {"inputs": X},
        r"takes dy, first, second; expected one of: backward\(dy\)",
    ),
    "a class that needs arguments": (OfNames, {}, r"takes n_in, act, .* give an instance, OfNames\(n_in, act\)"),
    "no backward method": (
        ForwardAlone(),
        {},
        r"ForwardAlone with forward, and no backward that goes with it; expected",
    ),
    "a forward pass that never runs": (Unloaded(), {}, r"no input shape .* no weights were loaded.*; give inputs="),
    "a list as a shape": (
        (np.tanh, backward),
        {"inputs": [5, 4]},
        r"inputs= has x int64; expected .* a shape, as \(5, 3\)",
    ),
    "two inputs of a layer": (
        tn.Linear(4, 3),
        {"inputs": (X, X)},
        r"has 2 entries; expected \(x,\); .*inputs=\(\(a, b\),\)",
    ),
    "parameters of another shape": (
        tn.Linear(4, 3),
        {"params": {"W": W, "b": B}},
        r"params= has params.W \(4, 3\), params.b \(3,\), where init makes params.W \(3, 4\), params.b \(3,\)",
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_cannot_be_taken_is_refused_with_what_to_do(call):
    target, options, message = CALLS[call]
    with pytest.raises(tn.TargetError, match=message):
        tn.verify(target, **options)


def test_a_forward_pass_that_raises_is_inconclusive_with_the_shapes():
    report = tn.verify(PAIR, inputs=(X, B, W))
    assert report.verdict == "INCONCLUSIVE"
    assert report.reason.endswith("at x (5, 4), w (3,), b (4, 3); give others as inputs=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forward, backward"], "takes 3 arguments (x, w, b); give inputs="),
        (["forward, backward", "--inputs", "5,4"], "inputs= has 1 entry, and the forward pass takes (x, w, b)"),
        (["forward, backward", "--inputs", "weight=5,4"], "inputs= has weight, and the forward pass takes (x, w, b)"),
        (["OfNames"], "give an instance, OfNames(n_in, act)"),
    ],
)
def test_the_command_line_says_it_in_one_line(arguments, message, capsys):
    assert main(["verify", f"{__name__}:{arguments[0]}", *arguments[1:]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


class OfFlax:
    """As a module of Flax's or Haiku's: its parameters are no part of it."""

    def init(self, key, x):
        return {"W": np.ones((x.shape[-1], 2))}

    def apply(self, params, x):
        return x @ params["W"]

    def __call__(self, x):
        raise RuntimeError("call this through apply")


def test_a_module_whose_parameters_stand_apart_is_told_to_be_given_as_a_function_of_both():
    with pytest.raises(tn.TargetError, match=r"lambda params, x: module\.apply\(params, x\)"):
        tn.verify(OfFlax(), inputs=(5, 3))

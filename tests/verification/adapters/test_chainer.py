"""Objects in the manner of Chainer's FunctionNode."""

import numpy as np
import pytest

import tinynet as tn
from tests.verification.adapters.judge import errors
from tinynet.verification.adapters.chainer import adapt_function_node

rng = np.random.default_rng(4)
x, w = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))


class Node:
    """A product of two matrices, and its sine."""

    def __init__(self, gradient):
        self.gradient = gradient

    def forward(self, inputs):
        self.inputs = inputs
        z = inputs[0] @ inputs[1].T
        return z, np.sin(z)

    def backward(self, indexes, gys):
        x, w = self.inputs
        both = self.gradient(gys[0] + gys[1] * np.cos(x @ w.T), x, w)
        return tuple(both[i] for i in indexes)


def adapt(gradient):
    return adapt_function_node(Node(gradient), (x, w), rng)


def test_a_right_node_agrees_with_the_oracle_and_is_left_as_it_was():
    node = Node(lambda g, x, w: (g @ w, g.T @ x))
    assert max(errors(adapt_function_node(node, (x, w), rng)).values()) < 1e-14
    assert not hasattr(node, "inputs")


@pytest.mark.parametrize(
    "gradient",
    [lambda g, x, w: (g @ w, g.T @ x / 5), lambda g, x, w: (-(g @ w), g.T @ x), lambda g, x, w: (g @ w, None)],
)
def test_a_wrong_node_does_not(gradient):
    assert max(errors(adapt(gradient)).values()) > 0.1


def test_other_objects_are_no_nodes():
    assert adapt_function_node(object(), x, rng) is None
    assert adapt_function_node(Node, x, rng) is None


def test_verify_takes_a_node_as_it_is():
    options = {"inputs": (x, w), "probes": ["rectangular", "batch 1"]}
    assert tn.verify(Node(lambda g, x, w: (g @ w, g.T @ x)), **options).verdict == "PASS"
    for gradient in (lambda g, x, w: (g @ w, g.T @ x / 5), lambda g, x, w: (g @ w, -g.T @ x)):
        (finding,) = tn.verify(Node(gradient), **options).findings
        assert finding.gradient == "arg1"
    one_is_none = tn.verify(Node(lambda g, x, w: (g @ w, None)), **options)
    assert (one_is_none.verdict, one_is_none.compared) == ("INCONCLUSIVE", ("arg0",))
    assert "arg1" in one_is_none.reason

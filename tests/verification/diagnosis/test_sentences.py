"""What is said of a mistake: what is missing, doubled or confused, by the names and the text of the forward."""

import importlib.util

import numpy as np
import pytest

import tinynet as tn

SOURCE = """
import numpy as np

def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

def attention(x, Wq, Wk, Wv):
    q = x @ Wq
    k = x @ Wk
    v = x @ Wv
    s = q @ k.T
    a = softmax(s / 2.0)
    return a @ v

def attention_back(args, dy):
    x, Wq, Wk, Wv = args
    q, k, v = x @ Wq, x @ Wk, x @ Wv
    a = softmax(q @ k.T / 2.0)
    dv = a.T @ dy
    da = dy @ v.T
    ds = a * (da - (a * da).sum(-1, keepdims=True)) / 2.0
    dq = ds @ k
    dk = ds.T @ q
    return dq @ Wq.T + dk @ Wk.T + dv @ Wv.T, x.T @ dq, x.T @ dk, x.T @ dv

def gated(x, W, b):
    z = x @ W + b
    h = np.tanh(z)
    return h * x

def gated_back(args, dy):
    x, W, b = args
    h = np.tanh(x @ W + b)
    dh = dy * x
    dz = dh * (1 - h * h)
    return dz @ W.T + dy * h, x.T @ dz, dz.sum(0)
"""
RNG = np.random.default_rng(3)
INPUTS = {
    "attention": tuple(RNG.standard_normal(shape) for shape in ((5, 4), (4, 4), (4, 4), (4, 4))),
    "gated": tuple(RNG.standard_normal(shape) for shape in ((5, 3), (3, 3), (3,))),
}


@pytest.mark.parametrize(
    ("target", "right", "wrong", "fault", "sentence", "where"),
    [
        ("attention", "dk = ds.T @ q", "dk = ds.T @ k", "another value",
         "k stands where q, the other factor of `s = q @ k.T`, belongs", "dk = "),
        ("attention", "dq = ds @ k", "dq = ds @ q", "another value",
         "q.T stands where k.T, the other factor of `s = q @ k.T`, belongs", "dq = "),
        ("attention", " + dk @ Wk.T", "", "missing path", "the path through `k = x @ Wk` is missing", "return dq"),
        ("attention", "keepdims=True)) / 2.0", "keepdims=True))", "scaled",
         "the factor that `a = softmax(s / 2.0)` multiplies by is left out: what passes back there is multiplied by 2",
         "ds = "),
        ("gated", "dh = dy * x", "dh = dy * h", "another value",
         "h stands where x, the other factor of `return h * x`, belongs", "dh = "),
        ("gated", " + dy * h", " + dy", "factor left out", "the factor h of `return h * x` is left out", "return dz"),
        ("gated", "dz.sum(0)", "dz.mean(0)", "scaled",
         "b is the exact array times 1/m, as if there were a mean over the samples where their sum belongs",
         "return dz"),
        ("gated", "dz.sum(0)", "dz", "not summed over the batch",
         "b has shape (5, 3), expected (3,): not summed over axis 0", "return dz"),
    ],
)  # fmt: skip
def test_the_sentence_names_what_stands_in_the_forward(target, right, wrong, fault, sentence, where, tmp_path):
    assert SOURCE.count(right) == 1
    path = tmp_path / f"{target}_spoilt.py"
    path.write_text(SOURCE.replace(right, wrong), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pair = getattr(module, target), getattr(module, f"{target}_back")
    (finding,) = tn.verify(pair, inputs=INPUTS[target], dtype="float64").findings
    assert (finding.fault, finding.explanation) == (fault, sentence)
    assert finding.where_text.startswith(where), finding


class Doubled(tn.Layer):
    def forward(self, params, x):
        return x * params["g"], x

    def init(self, rng, dtype=np.float32):
        return {"g": np.ones(4, dtype)}

    def backward(self, params, x, dy):
        return 2 * dy * params["g"], {"g": (dy * x).sum(0)}


def test_a_layer_deep_inside_a_composite_is_named_by_its_path():
    net = tn.Sequential(tn.Linear(3, 4), tn.Sigmoid(), tn.Residual(tn.Sequential(tn.Linear(4, 4), Doubled())))
    (finding,) = tn.verify(net, inputs=(5, 3)).findings
    assert finding.target.endswith(", layer 2.f.1: Doubled")


class Forgetful(tn.Layer):
    """x · Linear(x), whose product rule lacks a factor."""

    def __init__(self):
        self.f = tn.Linear(4, 4)

    def init(self, rng, dtype=np.float32):
        return {"f": self.f.init(rng, dtype)}

    def forward(self, params, x):
        y, cache = self.f.forward(params["f"], x)
        return y * x, (cache, x, y)

    def backward(self, params, cache, dy):
        cache, _, y = cache
        dx, grads = self.f.backward(params["f"], cache, dy)
        return dx + dy * y, {"f": grads}


def test_no_line_of_tinynet_is_blamed_for_a_composite_of_the_users():
    (finding,) = tn.verify(Forgetful(), inputs=(5, 4)).findings
    assert finding.where.startswith("test_sentences.py")

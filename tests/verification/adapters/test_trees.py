"""Gradients of arguments that are dicts or objects: by their structure, or by the names of the arguments."""

import dataclasses
import types

import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(13)
X, W, T = rng.standard_normal((5, 3)), rng.standard_normal(3), rng.standard_normal(5)
QUICK = {"probes": ["rectangular", "batch 1"]}


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("b", [np.array(0.3), 0.3], ids=["an array", "a number"])
def test_a_dict_whose_key_is_also_the_arguments_name_is_read_by_its_structure(b, factor):
    def loss(w, X, t):
        r = X @ w["w"] + w["b"] - t
        return 0.5 * r @ r, {"w": X.T @ r, "b": factor * r.sum()}

    report = tn.verify(loss, inputs=({"w": W, "b": b}, X, T), **QUICK)
    assert report.compared == ("w.w", "w.b")
    assert [(f.gradient, f.name) for f in report.findings] == [("w.b", "scaled by 2")][: factor - 1]


@pytest.mark.parametrize("factor", [1, 2])
def test_a_dict_belongs_to_the_argument_that_has_its_keys(factor):
    def loss(X, t, p):
        r = X @ p["W"] + p["b"] - t
        return 0.5 * r @ r, {"dW": factor * X.T @ r, "db": r.sum()}

    report = tn.verify(loss, inputs=(X, T, {"W": W, "b": 0.3}), **QUICK)
    assert report.compared == ("p.W", "p.b")
    assert [(f.gradient, f.name) for f in report.findings] == [("p.W", "scaled by 2")][: factor - 1]


def times(w):
    return np.tanh(w["w"]) * w["b"]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("b", [rng.standard_normal(3), 0.3], ids=["an array", "a number"])
@pytest.mark.parametrize("form", ["pair", "closure", "cache"])
def test_pairs_and_closures_of_one_dict_return_one_of_the_same_keys(form, b, factor):
    def gradients(w, dy):
        t = np.tanh(w["w"])
        db = dy * t
        return {"w": factor * dy * (1 - t**2) * w["b"], "b": db if np.ndim(w["b"]) else db.sum()}

    target = {
        "pair": (times, lambda args, dy: gradients(args[0], dy)),
        "closure": lambda w: (times(w), lambda dy: gradients(w, dy)),
        "cache": (lambda w: (times(w), w), lambda dy, cache: gradients(cache, dy)),
    }[form]
    report = tn.verify(target, inputs=({"w": W, "b": b},), **QUICK)
    assert report.compared == ("w.w", "w.b"), report
    assert [(f.gradient, f.name) for f in report.findings] == [("w.w", "scaled by 2")][: factor - 1]


def test_a_dict_by_the_names_of_the_arguments_stays_one():
    def f(w, b):
        return (w["w"] * b["b"]).sum(), {"w": {"w": b["b"]}, "b": {"b": w["w"]}}

    assert tn.verify(f, inputs=({"w": W}, {"b": 2 * W}), **QUICK).compared == ("w.w", "b.b")


@pytest.mark.parametrize("factor", [1, 2])
def test_an_intercept_that_starts_as_a_number_is_judged_by_its_gradient(factor):
    def propagate(w, b, X, Y):
        A = 1 / (1 + np.exp(-(X @ w + b)))
        cost = -np.mean(Y * np.log(A) + (1 - Y) * np.log(1 - A))
        return {"dw": X.T @ (A - Y) / len(Y), "db": factor * (A - Y).mean()}, cost

    report = tn.verify(propagate, inputs=(W, 0.0, X, (T > 0) * 1.0), **QUICK)
    assert report.compared == ("w", "b"), report
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


def test_a_number_without_a_gradient_stays_a_constant():
    def forward(x, p):
        return p["g"] * x / np.sqrt(x.var() + p["eps"]) * p["scale"], (x, p)

    def backward(dy, cache):
        x, p = cache
        s = np.sqrt(x.var() + p["eps"])
        g, c = dy * p["g"] * p["scale"], x - x.mean()
        return g / s - c * (g * x).sum() / x.size / s**3, {
            "g": (dy * x).sum(0) / s * p["scale"],
            "scale": 0.0,
            "eps": None,
        }

    report = tn.verify((forward, backward), inputs=(X, {"g": W, "scale": 2.0, "eps": 1e-5}), **QUICK)
    assert (report.verdict, report.compared) == ("PASS", ("x", "p.g")), report


@dataclasses.dataclass(frozen=True)
class Parameters:
    w: np.ndarray
    b: np.ndarray


class Kept:
    __slots__ = ("b", "w")

    def __init__(self, w, b):
        self.w, self.b = w, b


RECORDS = {"dataclass": Parameters, "namespace": lambda w, b: types.SimpleNamespace(w=w, b=b), "slots": Kept}


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("returned", ["itself", "dict"])
@pytest.mark.parametrize("record", RECORDS)
def test_what_an_argument_keeps_is_judged_like_a_dict(record, returned, factor):
    make = RECORDS[record] if returned == "itself" else dict

    def forward(p, x):
        return np.tanh(x @ p.w + p.b)

    def backward(args, dy):
        p, x = args
        dz = dy * (1 - forward(p, x) ** 2)
        return make(w=x.T @ dz, b=factor * dz.sum()), np.outer(dz, p.w)

    report = tn.verify((forward, backward), inputs=(RECORDS[record](w=W, b=np.array(0.3)), X), **QUICK)
    assert set(report.compared) == {"p.w", "p.b", "x"}, report
    assert [(f.gradient, f.name) for f in report.findings] == [("p.b", "scaled by 2")][: factor - 1]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("many", [iter, lambda grads: (g for g in grads), lambda grads: map(np.asarray, grads)])
def test_gradients_may_come_one_by_one(many, factor):
    def backward(args, dy):
        x, w = args
        return many([np.outer(dy, w), factor * x.T @ dy])

    class Product:
        def forward(self, x, w):
            self.args = x, w
            return x @ w

        def backward(self, dy):
            return backward(self.args, dy)

    for target in ((lambda x, w: x @ w, backward), Product()):
        report = tn.verify(target, inputs=(X, W), **QUICK)
        assert [(f.gradient, f.name) for f in report.findings] == [("w", "scaled by 2")][: factor - 1], report


def test_a_module_with_the_two_passes_is_a_pair():
    module = types.ModuleType("layer")
    module.forward, module.backward = lambda x: x * x, lambda args, dy: (dy * args[0],)
    (finding,) = tn.verify(module, inputs=X, **QUICK).findings
    assert finding.name == "scaled by 1/2"


@dataclasses.dataclass
class Configured:
    w: np.ndarray
    stride: tuple[int, ...] = (2, 2)
    sizes: list[int] = dataclasses.field(default_factory=lambda: [3, 4])
    eps: float = 0.5
    inner: types.SimpleNamespace | None = None


@pytest.mark.parametrize("factor", [1, 2])
def test_what_an_argument_keeps_beside_its_arrays_stays_as_it_is(factor):
    def forward(x, c):
        assert (c.stride, c.sizes) == ((2, 2), [3, 4])
        return (x @ c.w) * c.eps + c.inner.b

    def backward(args, dy):
        x, c = args
        return c.eps * np.outer(dy, c.w), {"w": factor * c.eps * x.T @ dy, "inner": {"b": dy.sum()}}

    made = Configured(W, inner=types.SimpleNamespace(b=np.array(0.3)))
    report = tn.verify((forward, backward), inputs=(X, made), **QUICK)
    assert report.compared == ("x", "c.w", "c.inner.b"), report
    assert [(f.gradient, f.name) for f in report.findings] == [("c.w", "scaled by 2")][: factor - 1]

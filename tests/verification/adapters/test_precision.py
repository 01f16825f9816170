"""Code that computes in float32 whatever it is given."""

import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(15)
X, W = rng.standard_normal((5, 3)), rng.standard_normal((3, 2))
QUICK = {"probes": ["rectangular", "batch 1", "saturated", "state", "float32"]}
NOTE = "judged in float32"


class Casts:
    """A layer that casts what it is given, and what it returns, to float32."""

    def __init__(self, factor=1.0):
        self.W, self.factor = W.astype(np.float32), factor

    def forward(self, x):
        self.x = x.astype(np.float32)
        return np.tanh(self.x @ self.W)

    def backward(self, dy):
        dz = dy * (1 - np.tanh(self.x @ self.W) ** 2)
        self.dW = (self.factor * self.x.T @ dz).astype(np.float32)
        return (dz @ self.W.T).astype(np.float32)


class OnlyBackward(Casts):
    def forward(self, x):
        self.x = x
        return np.tanh(x @ self.W)


def casts(x):
    return np.sin(x.astype(np.float32))


@pytest.mark.parametrize("factor", [1.0, 1.001])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("cls", [Casts, OnlyBackward])
def test_what_cannot_compute_in_float64_or_is_given_float32_is_judged_in_float32(cls, dtype, factor):
    report = tn.verify(cls(factor), inputs=X.astype(dtype), **QUICK)
    if cls is OnlyBackward and dtype is np.float64:
        assert report.verdict == "FAIL"  # it is given float64, and loses its digits
        return
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report
    assert any(NOTE in note for note in report.notes)
    assert report.compared == ("x", "W")


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_function_that_casts_is_judged_in_float32(factor):
    def backward(args, dy):
        return ((factor * dy * np.cos(args[0].astype(np.float32))).astype(np.float32),)

    report = tn.verify((casts, backward), inputs=X, **QUICK)
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


def test_float32_inputs_of_code_that_follows_them_are_judged_in_both():
    report = tn.verify((np.sin, lambda args, dy: (dy * np.cos(args[0]),)), inputs=X.astype(np.float32), **QUICK)
    assert report.verdict == "PASS"
    assert not any(NOTE in note for note in report.notes)
    assert {p.dtype for p in report.coverage if not p.skipped} >= {"float64", "float32"}


def test_rounding_to_a_grid_is_not_float32():
    def forward(x):
        return np.round(x * 8) / 8

    report = tn.verify((forward, lambda args, dy: (dy,)), inputs=X, intended=lambda x: x, **QUICK)
    assert report.verdict == "PASS", report
    assert not any(NOTE in note for note in report.notes)


def test_float64_alone_is_what_it_says():
    report = tn.verify(OnlyBackward(), inputs=X.astype(np.float32), dtype="float64", **QUICK)
    assert [f.fault for f in report.findings] == ["float32 inside"]

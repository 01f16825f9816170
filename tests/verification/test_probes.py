"""Each probe finds what only it can see, and forgives what is right."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.verification.adapters.subject import Subject
from tinynet.verification.examples import tied

RNG = np.random.default_rng(9)
x = RNG.standard_normal((5, 4))


def relu(x):
    return np.maximum(x, 0)


def notes(report):
    return " ".join(report.notes)


@pytest.mark.parametrize("at_0", [0.0, 0.5, 1.0])
def test_a_relu_is_right_whatever_its_slope_at_0(at_0):
    def backward(args, dy):
        return dy * np.where(args[0] == 0, at_0, args[0] > 0).astype(dy.dtype)

    zeros = x.copy()
    zeros[::2, ::2] = 0.0
    for inputs in (RNG.standard_normal((200, 50)), np.round(x)):
        report = tn.verify((relu, backward), inputs=inputs, probes=["rectangular", "zeros and ties", "float32"])
        if inputs.size > 100 or at_0 == 0.5:
            assert report.verdict == "PASS", report
    report = tn.verify((relu, backward), inputs=x, probes=["rectangular", "zeros and ties"])
    assert report.verdict == "PASS"
    if at_0 != 0.5:
        assert "at a kink, x takes another of the right slopes than JAX" in notes(report)


def test_a_slope_at_0_that_is_not_between_the_one_sided_ones_is_wrong():
    report = tn.verify((relu, lambda args, dy: dy * np.where(args[0] == 0, 2, args[0] > 0).astype(dy.dtype)), inputs=x)
    assert {f.fault for f in report.findings} == {"wrong only at kinks"}


@pytest.mark.parametrize("at_0", [0.0, 0.5, 1.0])
def test_exact_zeros_in_the_very_inputs_are_no_alarm(at_0):
    def backward(args, dy):
        return dy * np.where(args[0] == 0, at_0, args[0] > 0).astype(dy.dtype)

    inputs = x.copy()
    inputs[::2, ::2] = 0.0
    assert tn.verify((relu, backward), inputs=inputs).verdict == "PASS"


def test_a_saturated_sigmoid_by_a_times_1_minus_a_is_accepted_and_noted():
    class BySlope(tn.Sigmoid):
        def forward(self, params, z):
            a, _ = super().forward(params, z)
            return a, a

        def backward(self, params, a, da):
            return da * a * (1 - a), {}

    for low, high in ((2, 6), (5, 7)):
        report = tn.verify(BySlope(), inputs=np.linspace(low, high, 20).reshape(5, 4))
        assert report.verdict == "PASS", report
        assert "digits" in notes(report)


class Overflowing(tn.Sigmoid):
    """f′ = e^|z| / (1 + e^|z|)²: right, until the exponential overflows."""

    def forward(self, params, z):
        e = np.exp(abs(z)) if isinstance(z, np.ndarray) else 1.0
        return super().forward(params, z)[0], e / (1 + e) ** 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_overflow_far_out_is_found_and_digits_are_not_asked_for_there():
    report = tn.verify(Overflowing(), probes=["rectangular", "saturated", "huge"], dtype="float64")
    assert [f.fault for f in report.findings] == ["non-finite"], report
    assert report.findings[0].probe == "huge (1000 ×)"
    assert tn.verify(tn.Sigmoid()).ok


class Spoilt(tn.Linear):
    """Right but where `when` says; `spoil` what it does there."""

    def backward(self, params, a, dz):
        dx, dparams = super().backward(params, a, dz)
        return (self.spoil(dx) if self.when(a, dz) else dx), dparams


def spoilt(when, spoil=lambda g: 2 * g):
    return type("Spoilt", (Spoilt,), {"when": staticmethod(when), "spoil": staticmethod(spoil)})(4, 3)


ONLY = {
    "wrong only at some batch sizes": lambda a, dz: len(a) == 1,
    "kept a dimension": lambda a, dz: len(a) == 0,
    "wrong only when saturated": lambda a, dz: len(a) > 0 and bool(abs(a).max() > 5),
    "wrong only for small inputs": lambda a, dz: len(a) > 0 and bool(abs(a).max() < 0.02),
    "compiled differs": lambda a, dz: not isinstance(a, np.ndarray),
}


@pytest.mark.parametrize("fault", ONLY)
def test_what_is_wrong_only_somewhere_is_found_there(fault):
    when = (
        ONLY[fault] if fault == "compiled differs" else lambda a, dz: isinstance(a, np.ndarray) and ONLY[fault](a, dz)
    )
    spoil = (lambda g: g[None]) if fault == "kept a dimension" else (lambda g: 2 * g)
    report = tn.verify(spoilt(when, spoil))
    assert {f.fault for f in report.findings} == {fault}, report


LAYOUTS = {
    "Fortran order": lambda a: a.flags.f_contiguous and not a.flags.c_contiguous,
    "strided": lambda a: abs(a.strides[-1]) > a.itemsize and a.shape[-1] > 1 and not a.flags.f_contiguous,
    "reversed": lambda a: min(a.strides) < 0,
    "broadcast": lambda a: 0 in a.strides and a.size > 1,
    "read-only": lambda a: not a.flags.writeable,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["x", "dy"])
def test_each_layout_is_tried_for_x_and_for_dy(layout, which):
    def when(a, dz):
        array = a if which == "x" else dz
        return isinstance(array, np.ndarray) and array.ndim == 2 and len(array) > 2 and LAYOUTS[layout](array)

    report = tn.verify(spoilt(when))
    assert {f.fault for f in report.findings} == {"wrong only for a layout"}, report
    assert layout in report.findings[0].explanation or layout in ("reversed", "strided")


def test_float32_is_tried_and_a_wrong_dtype_there_is_found():
    class Widens(tn.Sigmoid):
        def backward(self, params, df, da):
            return np.asarray(da * df, np.float64) if isinstance(da, np.ndarray) else da * df, {}

    (finding,) = tn.verify(Widens()).findings
    assert (finding.fault, finding.probe) == ("wrong dtype", "float32")


def test_a_layer_that_refuses_an_empty_batch_or_one_sample_is_not_wrong():
    class AtLeast2(tn.Linear):
        def forward(self, params, a):
            if len(a) < 2:
                raise ValueError("at least 2 samples")
            return super().forward(params, a)

    report = tn.verify(AtLeast2(4, 3))
    assert report.verdict == "PASS"
    assert any(p.name == "batch 1" and "at least 2 samples" in p.skipped for p in report.coverage)


def test_param_grads_are_held_against_the_same_oracle():
    class Hurried(tn.Linear):
        def backward(self, params, a, dz):
            return dz @ params["W"], tn.Linear.param_grads(self, params, a, dz)

        def param_grads(self, params, a, dz):
            return {"W": dz.T @ a, "b": dz.mean(axis=0)}

    (finding,) = tn.verify(Hurried(4, 3)).findings
    assert (finding.gradient, finding.name) == ("params.b", "scaled by 1/m")
    assert "in param_grads" in finding.explanation


class Keeps:
    """An object that keeps its state on itself; the variants below remember what they should not."""

    def __init__(self):
        self.W = np.random.default_rng(0).standard_normal((4, 3))

    def forward(self, x):
        self.x = x
        return np.tanh(x @ self.W)

    def backward(self, dy):
        dz = dy * (1 - np.tanh(self.x @ self.W) ** 2)
        self.dW = self.x.T @ dz
        return dz @ self.W.T


class Momentum(Keeps):
    last = 0.0

    def backward(self, dy):
        dx = super().backward(dy)
        self.dW = self.last = self.dW + 0.9 * self.last
        return dx


class FirstInput(Keeps):
    first = None

    def backward(self, dy):
        if self.first is None or self.first.shape != self.x.shape:
            self.first = self.x
        now, self.x = self.x, self.first
        dx = super().backward(dy)
        self.x = now
        return dx


class EmptiesItsCache(Keeps):
    def backward(self, dy):
        dx = super().backward(dy)
        self.x *= 0
        return dx


@pytest.mark.parametrize(
    ("cls", "faults"),
    [(Momentum, {"accumulates"}), (FirstInput, {"stale cache"}), (EmptiesItsCache, {"mutates x"})],
)
def test_state_that_leaks_is_found(cls, faults):
    report = tn.verify(cls(), inputs=x)
    assert report.verdict == "FAIL"
    assert {f.fault for f in report.findings} <= faults, report


def test_a_right_object_that_keeps_its_state_is_right():
    assert tn.verify(Keeps(), inputs=x).verdict == "PASS"


def test_sums_of_products_of_tied_values_are_exact_so_that_every_order_of_them_ties():
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((6, 40)), "w": 0.3 * rng.standard_normal((40, 5))}
    x, w = tied(Subject("a product", arrays, ("x", "w"), ("x", "w"), object), ("x", "w")).values()
    order = rng.permutation(40)
    assert np.array_equal(x @ w, x[:, order] @ w[order])
    assert np.array_equal(x @ w, (x[:, :, None] * w).sum(axis=1))


@pytest.mark.parametrize("floor", [0, 0.05])
def test_shares_of_1_are_tried_more_and_less_even(floor):
    shares = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])

    def entropy(p):
        return -(p * np.log(p)).sum()

    def backward(args, dE):
        (p,) = args
        return (-dE * np.where(p > floor, np.log(p) + 1, 0),)

    report = tn.verify((entropy, backward), inputs=shares)
    assert report.verdict == ("FAIL" if floor else "PASS"), report


def test_rows_that_the_forward_pass_does_not_look_at_are_no_samples():
    def forward(x, ends=((0, 2), (2, 5))):
        return np.stack([x[a:b].mean(0) for a, b in ends])

    def backward(args, dy):
        return (np.concatenate([np.repeat(dy[:1] / 2, 2, 0), np.repeat(dy[1:] / 3, 3, 0)]),)

    report = tn.verify((forward, backward), inputs=np.random.default_rng(0).standard_normal((5, 3)))
    assert report.verdict == "PASS", report

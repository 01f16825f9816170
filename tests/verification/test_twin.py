"""Where each run of a target takes long, most examples are tried on the same target with shorter axes."""

import numpy as np
import pytest

import tinynet as tn
from tests.reference import sigmoid_network
from tinynet.verification.adapters import adapt
from tinynet.verification.examples import Shapes, value_examples
from tinynet.verification.execution import Watch
from tinynet.verification.judgement import FEW
from tinynet.verification.twin import find_twin

RNG = np.random.default_rng(0)
INPUTS = (RNG.standard_normal((6, 1024)), RNG.standard_normal((1024, 640)) / 32)


def twin_of(target, inputs):
    subject, *_ = adapt(target, inputs=inputs, params=None, loss=None, rng=np.random.default_rng(0))
    assert subject.is_large
    return find_twin(subject, Shapes(Watch(60)))


def test_a_network_has_a_twin_whose_widths_are_divided():
    twin = twin_of(sigmoid_network(784, 128, 10), (4, 784))
    assert {n: a.shape for n, a in twin.args.items()} == {
        "x": (4, 49), "params.0.W": (8, 49), "params.0.b": (8,), "params.2.W": (10, 8), "params.2.b": (10,)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (tn.MultiHeadAttention(384, 4), RNG.standard_normal((2, 16, 384))),
        (tn.Sequential(tn.Embedding(8192, 96), tn.GRU(96, 96)), RNG.integers(0, 8192, (3, 5))),
        (tn.Residual(tn.Sequential(tn.LayerNorm(768), tn.Linear(768, 768))), RNG.standard_normal((3, 768))),
        (tn.Conv2d(256, 256, 3, padding=1), RNG.standard_normal((2, 256, 8, 8))),
    ],
    ids=lambda a: type(a).__name__,
)
def test_layers_of_the_box_that_are_large_have_a_twin_and_pass(net, x):
    assert not twin_of(net, x).is_large
    report = tn.verify(net, inputs=x)
    assert report.ok
    assert any(note.startswith("each run takes long") for note in report.notes)


def test_where_no_length_divides_there_is_none():
    assert twin_of((lambda x: np.tanh(x), lambda a, dy: (dy * (1 - np.tanh(a[0]) ** 2),)), (251, 269)) is None


def test_the_few_values_that_are_tried_at_the_size_that_is_given_are_among_all():
    subject, *_ = adapt(tn.Linear(4, 3), inputs=None, params=None, loss=None, rng=RNG)
    assert {e.label for e in value_examples(subject, Shapes(Watch(60)), RNG) if hasattr(e, "label")} >= set(FEW)


def counted(backward):
    calls = []

    def forward(x, w):
        calls.append(np.shape(x))
        return np.tanh(x @ w)

    return (forward, backward), calls


def tanh_back(args, dy):
    x, w = args
    dz = dy * (1 - np.tanh(x @ w) ** 2)
    return dz @ w.T, x.T @ dz


def test_a_large_target_that_is_right_is_run_few_times_at_the_size_that_is_given():
    target, calls = counted(tanh_back)
    assert tn.verify(target, inputs=INPUTS).ok
    given = [shape for shape in calls if shape[-1:] == (1024,)]
    assert len(given) <= 60 < len(calls) - len(given)


def test_what_is_wrong_far_out_alone_is_found_on_the_twin_and_shown_at_the_size_that_is_given():
    def backward(args, dy):
        x = args[0]
        dx, dw = tanh_back(args, dy)
        return np.where(np.abs(x) > 50, 1.0, dx), dw

    report = tn.verify(counted(backward)[0], inputs=INPUTS)
    assert report.verdict == "FAIL"
    assert {f.gradient for f in report.findings} == {"x"}
    assert {f.shapes for f in report.findings} == {("x (6, 1024), w (1024, 640)",)}


def test_what_is_wrong_at_the_size_that_is_given_hides_nothing_that_is_wrong_far_out():
    def backward(args, dy):
        x = args[0]
        dx, dw = tanh_back(args, dy)
        return np.where(np.abs(x) > 50, 1.0, dx), 2 * dw

    report = tn.verify(counted(backward)[0], inputs=INPUTS, named=False)
    assert {f.gradient for f in report.findings} == {"x", "w"}


def test_what_is_right_at_the_size_that_is_given_alone_is_not_accused():
    report = tn.verify((lambda x: x.mean(axis=1), lambda a, dy: (np.repeat(dy[:, None], 1024, axis=1) / 1024,)),
                       inputs=RNG.standard_normal((640, 1024)))  # fmt: skip
    assert report.ok
    assert report.notes == ()


def test_a_network_of_two_layers_of_which_the_second_is_wrong_blames_it():
    class Off(tn.Linear):
        def param_grads(self, params, x, dz):
            return {"W": -(dz.T @ x), "b": dz.sum(axis=0)}

        def backward(self, params, x, dz):
            return dz @ params["W"], self.param_grads(params, x, dz)

    net = tn.Sequential(tn.Linear(1024, 512), tn.Tanh(), Off(512, 64))
    report = tn.verify(net, inputs=(6, 1024))
    assert report.verdict == "FAIL"
    assert {f.fault for f in report.findings} == {"sign"}
    assert "layer 2" in str(report)


def log_sum_exp(z):
    m = z.max(axis=1, keepdims=True)
    return (m + np.log(np.exp(z - m).sum(axis=1, keepdims=True)))[:, 0]


def by_blocks(args, dy):
    (z,) = args
    m = z[:, :128].max(axis=1, keepdims=True)  # of the first block alone
    return (dy[:, None] * np.exp(z - m) / np.exp(z - m).sum(axis=1, keepdims=True),)


def cut_off(args, dy):
    (z,) = args
    return (dy * z / np.sqrt(min((z * z).sum(), 1e9)),)


@pytest.mark.parametrize(
    ("forward", "backward"),
    [(log_sum_exp, by_blocks), (lambda z: np.sqrt((z * z).sum()), cut_off)],
    ids=["blocks of 128", "a bound on a sum"],
)
def test_what_is_wrong_far_out_at_the_size_that_is_given_alone_is_found(forward, backward):
    assert tn.verify((forward, backward), inputs=RNG.standard_normal((640, 1024)), named=False).verdict == "FAIL"


def test_units_that_are_dead_where_axes_are_cut_are_tried():
    c = np.zeros(640)
    c[320:] = -100.0

    def backward(args, dy):
        x, w, c = args
        dz = dy * (x @ w + c > 0)
        dw = x.T @ dz
        dw[:, 320:] *= 2
        return dz @ w.T, dw, dz.sum(axis=0)

    target = (lambda x, w, c: np.maximum(x @ w + c, 0), backward)
    assert tn.verify(target, inputs=(*INPUTS, c), named=False).verdict == "FAIL"


def test_a_reference_is_compared_far_out_too():
    def reference(x, w):
        z = x @ w
        return np.where(np.abs(z) > 30, 0.5, 1.0) * np.tanh(z)

    report = tn.verify(counted(tanh_back)[0], inputs=INPUTS, reference=reference, named=False)
    assert [f.fault for f in report.findings] == ["forward differs from the reference"]


def test_where_a_gradient_is_zero_at_the_values_that_are_given_all_are_tried_there():
    def hinge(x, w):
        return np.maximum(1 - 50 * (x * w).sum(axis=1), 0).sum()

    def backward(args, dy):
        x, w = args
        on = 1 - 50 * (x * w).sum(axis=1) > 0
        return -50 * dy * on[:, None] * w, -50 * dy * (on[:, None] * x).sum(axis=0)

    inputs = (np.abs(RNG.standard_normal((640, 1024))), np.abs(RNG.standard_normal(1024)))
    assert tn.verify((hinge, backward), inputs=inputs).ok


def test_a_branch_that_the_values_that_are_given_take_is_reached():
    t = RNG.integers(0, 1024, 640)
    t[635:] = -1

    def log_likelihood(z, t):
        z = z - z.max(axis=1, keepdims=True)
        keep = np.arange(len(t))
        if (t < 0).any():
            keep = np.flatnonzero(t >= 0)
        return (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(t)), t])[keep].sum()

    def backward(args, dy):
        z, t = args
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(t)), t] -= 1
        return (dy * p * (t >= 0)[:, None], None)

    report = tn.verify((log_likelihood, backward), inputs=(RNG.standard_normal((640, 1024)), t), named=False)
    assert (report.verdict, report.unreached) == ("PASS", ())


def test_a_function_of_torch_has_a_twin():
    torch = pytest.importorskip("torch")

    class Tanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return torch.tanh(x @ w)

        @staticmethod
        def backward(ctx, dy):
            x, w = ctx.saved_tensors
            dz = dy * (1 - torch.tanh(x @ w) ** 2)
            return dz @ w.T, x.T @ dz

    report = tn.verify(Tanh, inputs=INPUTS)
    assert report.ok
    assert any(note.startswith("each run takes long") for note in report.notes)


def test_what_is_wrong_in_a_batch_of_33_alone_is_found_where_more_samples_are_given():
    def backward(args, dy):
        (x,) = args
        return ((3 if len(x) == 33 else 2) * x * dy,)

    report = tn.verify((lambda x: x * x, backward), inputs=RNG.standard_normal((1024, 520)), named=False)
    assert {f.probe for f in report.findings} == {"batch 33"}


def test_a_target_with_labels_has_a_twin():
    def backward(args, dy):
        x, _ = args
        return 2 * x * dy, None

    inputs = (RNG.standard_normal((640, 1024)), RNG.standard_normal((640, 1024)))
    report = tn.verify((lambda x, y: x * x + y, backward), inputs=inputs)
    assert report.ok
    assert any(note.startswith("each run takes long") for note in report.notes)

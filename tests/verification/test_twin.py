"""Where each run of a target takes long, most examples are tried on the same target with shorter axes."""

import numpy as np
import pytest

import tinynet as tn
from tests.reference import sigmoid_network
from tinynet.verification.adapters import adapt
from tinynet.verification.examples import Shapes
from tinynet.verification.execution import Watch
from tinynet.verification.twin import find_twin

RNG = np.random.default_rng(0)
INPUTS = (RNG.standard_normal((6, 512)), RNG.standard_normal((512, 256)) / 16)


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
        (tn.MultiHeadAttention(192, 4), RNG.standard_normal((2, 16, 192))),
        (tn.Sequential(tn.Embedding(1024, 96), tn.GRU(96, 96)), RNG.integers(0, 1024, (3, 5))),
        (tn.Residual(tn.Sequential(tn.LayerNorm(256), tn.Linear(256, 256))), RNG.standard_normal((3, 256))),
        (tn.Conv2d(64, 128, 3, padding=1), RNG.standard_normal((2, 64, 8, 8))),
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
    given = [shape for shape in calls if shape[-1:] == (512,)]
    assert len(given) <= 30 < len(calls) - len(given)


def test_what_is_wrong_far_out_alone_is_found_on_the_twin_and_shown_at_the_size_that_is_given():
    def backward(args, dy):
        x = args[0]
        dx, dw = tanh_back(args, dy)
        return np.where(np.abs(x) > 50, 1.0, dx), dw

    report = tn.verify(counted(backward)[0], inputs=INPUTS)
    assert report.verdict == "FAIL"
    assert {f.gradient for f in report.findings} == {"x"}
    assert {f.shapes for f in report.findings} == {("x (6, 512), w (512, 256)",)}


def test_what_is_wrong_at_the_size_that_is_given_hides_nothing_that_is_wrong_far_out():
    def backward(args, dy):
        x = args[0]
        dx, dw = tanh_back(args, dy)
        return np.where(np.abs(x) > 50, 1.0, dx), 2 * dw

    report = tn.verify(counted(backward)[0], inputs=INPUTS, named=False)
    assert {f.gradient for f in report.findings} == {"x", "w"}


def test_what_is_right_at_the_size_that_is_given_alone_is_not_accused():
    report = tn.verify((lambda x: x.mean(axis=1), lambda a, dy: (np.repeat(dy[:, None], 1024, axis=1) / 1024,)),
                       inputs=RNG.standard_normal((128, 1024)))  # fmt: skip
    assert report.ok
    assert report.notes == ()


def test_a_network_of_two_layers_of_which_the_second_is_wrong_blames_it():
    class Off(tn.Linear):
        def param_grads(self, params, x, dz):
            return {"W": -(dz.T @ x), "b": dz.sum(axis=0)}

        def backward(self, params, x, dz):
            return dz @ params["W"], self.param_grads(params, x, dz)

    net = tn.Sequential(tn.Linear(512, 256), tn.Tanh(), Off(256, 64))
    report = tn.verify(net, inputs=(6, 512))
    assert report.verdict == "FAIL"
    assert {f.fault for f in report.findings} == {"sign"}
    assert "layer 2" in str(report)

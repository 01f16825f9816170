"""Losses and layers of several arrays: a right one passes, one with a mistake does not."""

from dataclasses import dataclass

import numpy as np
import pytest

import tinynet as tn
from tinynet.verification.cases import CASES

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.normal(size=shape)


@dataclass(frozen=True)
class Triplet(tn.Loss):
    """E = Σ max(0, |a − p|² − |a − n|² + 1) of ŷ = (a, p, n), without a target."""

    factor: float = 1.0

    def forward(self, y_hat, y):
        a, p, n = y_hat
        z = ((a - p) ** 2).sum(axis=1) - ((a - n) ** 2).sum(axis=1) + 1
        return tn.namespace(a).maximum(z, 0).sum(), (a, p, n, z > 0)

    def backward(self, cache, dE=1.0):
        a, p, n, active = cache
        δ = (2 * dE * active)[:, None]
        return δ * (n - p), δ * (p - a), self.factor * δ * (a - n)


@dataclass(frozen=True)
class ELBO(tn.Loss):
    """E = ½ |x̂ − x|² + ½ Σ (μ² + σ² − 1 − log σ²) of ŷ = (x̂, μ, log σ²) and y = x."""

    factor: float = 1.0

    def forward(self, y_hat, x):
        x_hat, mean, log_variance = y_hat
        variance = tn.namespace(x).exp(log_variance)
        r = x_hat - x
        E = ((r * r).sum() + (mean * mean + variance - 1 - log_variance).sum()) / 2
        return E, (r, mean, variance)

    def backward(self, cache, dE=1.0):
        r, mean, variance = cache
        return dE * r, dE * mean, self.factor * dE * (variance - 1) / 2


@dataclass(frozen=True)
class Weighted(tn.Loss):
    """E = ½ Σ w (ŷ − t)² of y = (t, w)."""

    factor: float = 1.0

    def forward(self, y_hat, y):
        t, w = y
        r = y_hat - t
        return (w * r * r).sum() / 2, w * r

    def backward(self, wr, dE=1.0):
        return self.factor * dE * wr


@dataclass(frozen=True)
class Heads(tn.Loss):
    """E = ½ |ŷ_a − y_a|² + ½ |ŷ_b − y_b|² of two dicts."""

    factor: float = 1.0

    def forward(self, y_hat, y):
        r = {name: y_hat[name] - y[name] for name in ("a", "b")}
        return ((r["a"] ** 2).sum() + (r["b"] ** 2).sum()) / 2, r

    def backward(self, r, dE=1.0):
        return {"a": dE * r["a"], "b": self.factor * dE * r["b"]}


@dataclass(frozen=True)
class Contrast(tn.InfoNCE):
    """InfoNCE with a factor in the gradient by b."""

    factor: float = 1.0

    def backward(self, cache, dE=1.0):
        da, db = super().backward(cache, dE)
        return da, self.factor * db


TRIPLE = normal(5, 3), normal(5, 3), normal(5, 3)
OF_SEVERAL_ARRAYS = [
    (Triplet, (TRIPLE, None), "y_hat.2"),
    (Triplet, (((5, 3), (5, 3), (5, 3)), None), "y_hat.2"),
    (ELBO, ((normal(5, 3), normal(5, 2), normal(5, 2)), normal(5, 3)), "y_hat.2"),
    (Weighted, (normal(5, 3), (normal(5, 3), normal(5, 3) ** 2)), "y_hat"),
    (Heads, ({"a": normal(5, 3), "b": normal(5, 2)}, {"a": normal(5, 3), "b": normal(5, 2)}), "y_hat.b"),
    (Contrast, (TRIPLE[:2], None), "y_hat.1"),
]


@pytest.mark.parametrize(("loss", "inputs", "name"), OF_SEVERAL_ARRAYS)
def test_a_loss_of_several_arrays_passes_and_with_a_factor_fails(loss, inputs, name):
    report = tn.verify(loss(), inputs=inputs)
    assert report.verdict == "PASS", report
    assert {n.partition(".")[0] for n in report.compared} == {"y_hat"}
    (finding,) = tn.verify(loss(factor=0.5), inputs=inputs, dtype="float64").findings
    assert (finding.gradient, finding.fault, finding.factor) == (name, "scaled", "1/2")


def test_the_losses_of_the_samples_are_compared_also_where_they_are_of_several_arrays():
    class Doubled(Weighted):
        def each(self, y_hat, y):
            return 2 * super().each(y_hat, y)

    inputs = normal(5, 3), (normal(5, 3), normal(5, 3) ** 2)
    (finding,) = tn.verify(Doubled(), inputs=inputs, probes=["rectangular"]).findings
    assert "each() gives losses of the samples" in finding.explanation


@dataclass(frozen=True)
class Encoder(tn.Layer):
    """ŷ = (x̂, μ, log σ²) by three affine layers: a variational autoencoder without its noise."""

    parts: tuple = (tn.Linear(3, 3), tn.Linear(3, 2), tn.Linear(3, 2))

    def init(self, rng, dtype=np.float32):
        return {"parts": tuple(part.init(rng, dtype) for part in self.parts)}

    def forward(self, params, x):
        pairs = [part.forward(p, x) for part, p in zip(self.parts, params["parts"], strict=True)]
        y, caches = zip(*pairs, strict=True)
        return y, caches

    def backward(self, params, caches, dy):
        back = [f.backward(*args) for f, *args in zip(self.parts, params["parts"], caches, dy, strict=True)]
        return sum(dx for dx, _ in back), {"parts": tuple(dp for _, dp in back)}


def test_a_network_and_its_loss_of_several_arrays():
    x = normal(5, 3)
    assert tn.verify(Encoder(), loss=ELBO(), inputs=(x, x)).verdict == "PASS"
    wrong = {"dtype": "float64", "named": False}
    assert tn.verify(Encoder(), loss=ELBO(factor=0.5), inputs=(x, x), **wrong).verdict == "FAIL"
    both = tn.Shared(tn.Linear(3, 2))
    assert tn.verify(both, loss=tn.InfoNCE(), inputs=(TRIPLE[:2], None)).verdict == "PASS"
    assert tn.verify(both, loss=Contrast(factor=0.5), inputs=(TRIPLE[:2], None), **wrong).verdict == "FAIL"
    inputs = (x, (normal(5, 2), normal(5, 2) ** 2))
    assert tn.verify(tn.Linear(3, 2), loss=Weighted(factor=0.5), inputs=inputs, **wrong).verdict == "FAIL"


def test_the_layer_that_trains_is_judged_where_x_is_a_tuple_too():
    class Halved(tn.Shared):
        def backward(self, params, cache, dy):
            dx, dparams = super().backward(params, cache, dy)
            return tuple(d / 2 for d in dx), dparams

    @dataclass(frozen=True)
    class WrongInTraining(tn.Shared):
        def sample(self, rng):
            return Halved(self.f)

    report = tn.verify(WrongInTraining(tn.Linear(3, 2)), inputs=(TRIPLE[:2],), dtype="float64")
    assert report.verdict == "FAIL"


def test_the_masked_attention_equals_its_reference_at_every_example():
    (case,) = (case for case in CASES if str(case) == "MultiHeadAttention, mask")
    report = tn.verify(case.target, inputs=case.inputs, reference=case.reference, dtype="float64")
    report.raise_if_failed()
    assert "forward equals the reference" in report.oracle
    assert not [note for note in report.notes if note.startswith("reference=")]


@pytest.mark.parametrize(
    ("target", "inputs", "message"),
    [
        (tn.InfoNCE(), (TRIPLE[:2],), r"inputs= has one entry, a tuple; .*\(y_hat, y\), with None for y"),
        (tn.InfoNCE(), None, r"forward does not accept y_hat of shape \(5, 3\).*give inputs=\(y_hat, y\)"),
        (Triplet(), (*TRIPLE, None), r"inputs= has 4 entries; expected \(y_hat, y\)"),
        (tn.GRU(3, 4), (normal(2, 5, 3), np.array([5, 2])), r"inputs= has 2 entries; .*\(x,\).*inputs=\(\(a, b\),\)"),
        (Encoder(), None, r"y_hat is a tuple, so that y cannot be guessed; give inputs=\(x, y\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_the_form_that_does_is_said(target, inputs, message):
    options = {"loss": ELBO()} if isinstance(target, Encoder) else {}
    with pytest.raises(tn.TargetError, match=message):
        tn.verify(target, inputs=inputs, **options)


def confident(scale):
    """Logits and vectors of which a softmax is nearly sure, so that p − y has few digits."""
    a = scale * np.random.default_rng(1).normal(size=(3, 4))
    return [
        (tn.SoftmaxCrossEntropy, (3 * scale * np.eye(3) + 0.1 * a[:, :3], np.arange(3))),
        (tn.SoftmaxCrossEntropy, (3 * scale * np.eye(3) + 0.1 * a[:, :3], np.eye(3))),
        (tn.InfoNCE, ((a, a + 0.1), None)),
    ]


@pytest.mark.parametrize("scale", [3, 6, 10])
def test_digits_that_a_confident_softmax_loses_are_no_fault_and_a_factor_is(scale):
    for loss, inputs in confident(scale):
        tn.verify(loss(), inputs=inputs).raise_if_failed()

        class Scaled(loss):
            def backward(self, cache, dE=1.0):
                grads = super().backward(cache, dE)
                return (grads[0], 1.01 * grads[1]) if isinstance(grads, tuple) else 1.01 * grads

        assert tn.verify(Scaled(), inputs=inputs, dtype="float64", named=False).verdict == "FAIL"


def test_a_layer_of_two_inputs_that_says_samplewise_and_is_not_is_found():
    class Centred(tn.Shared):
        def samplewise(self):
            return True

        def forward(self, params, x):
            return super().forward(params, tuple(part - part.mean(axis=0) for part in x))

        def backward(self, params, cache, dy):
            dx, dparams = super().backward(params, cache, dy)
            return tuple(d - d.mean(axis=0) for d in dx), dparams

    (finding,) = tn.verify(Centred(tn.Linear(3, 2)), inputs=(TRIPLE[:2],), dtype="float64").findings
    assert "samplewise() is True" in finding.explanation


class WithOneMore(tn.Linear):
    """Returns a gradient by a parameter that it does not have."""

    def param_grads(self, params, a, dz):
        return {**super().param_grads(params, a, dz), "c": np.zeros(3, dz.dtype)}

    def backward(self, params, a, dz):
        return super().backward(params, a, dz)[0], self.param_grads(params, a, dz)


def test_a_gradient_by_no_parameter_is_malformed_as_fit_says_too():
    (finding,) = tn.verify(WithOneMore(4, 3)).findings
    assert (finding.fault, finding.gradient) == ("malformed", "params.c")

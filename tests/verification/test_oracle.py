"""The oracle itself under test: forwards that are not what they seem, references, oracles that are broken."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tinynet.verification.adapters import adapt
from tinynet.verification.adapters.subject import Exact
from tinynet.verification.execution import Watch
from tinynet.verification.jaxpr import quickly
from tinynet.verification.oracle import JaxOracle

rng = np.random.default_rng(8)
x = rng.standard_normal((5, 4))


def test_a_right_reference_is_confirmed_and_a_wrong_one_is_a_finding_about_the_forward():
    layer = tn.Linear(4, 3)
    tn.check(layer, reference=lambda p, x: (x[:, None, :] * p["W"]).sum(axis=-1) + p["b"])
    report = tn.verify(layer, reference=lambda p, x: x @ p["W"].T, probes=["rectangular"])
    assert [(f.gradient, f.fault) for f in report.findings] == [("y", "forward differs from the reference")]
    loss = tn.verify(tn.SquaredError(), reference=lambda y_hat, y: ((y_hat - y) ** 2).sum(), probes=["rectangular"])
    assert loss.findings[0].fault == "forward differs from the reference"
    tn.check((np.sin, lambda args, dy: dy * np.cos(args[0])), inputs=x, reference=lambda x: np.cos(x - np.pi / 2))


@pytest.mark.parametrize("reference", [lambda p, x: None, lambda p, x: 1 / 0, lambda p: p, lambda p, x: "y"])
def test_a_reference_that_does_not_work_proves_nothing(reference):
    report = tn.verify(tn.Linear(4, 3), reference=reference)
    assert report.verdict == "INCONCLUSIVE"
    assert "reference= " in report.reason


def test_a_reference_of_another_shape_is_a_finding():
    report = tn.verify(tn.Sigmoid(), reference=lambda p, x: x[0])
    assert report.findings[0].fault == "forward differs from the reference"


def test_a_forward_that_is_another_function_under_jax_is_a_finding():
    class TwoFaced(tn.Sigmoid):
        def forward(self, params, z):
            y, cache = super().forward(params, z)
            return (2 * y if isinstance(z, jax.Array) else y), cache

    report = tn.verify(TwoFaced(), probes=["forward", "rectangular"])
    assert (report.findings[0].gradient, report.findings[0].fault) == ("y", "forward differs")


@pytest.mark.parametrize("break_it", [lambda g: 1.001 * g, lambda g: -g, lambda g: g + 1e-9, lambda g: 0 * g])
def test_a_broken_oracle_never_gives_a_pass(monkeypatch, break_it):
    right = JaxOracle.__call__

    def evaluate(self, args, dy):
        exact = right(self, args, dy)
        return Exact(exact.y, {name: break_it(g) for name, g in exact.grads.items()})

    monkeypatch.setattr(JaxOracle, "__call__", evaluate)
    assert tn.verify(tn.Linear(4, 3), named=False).verdict != "PASS"


def test_differences_take_the_place_of_an_oracle_that_raises_and_one_that_is_not_finite_verifies_nothing(monkeypatch):
    def evaluate(*_):
        raise FloatingPointError("broken")

    monkeypatch.setattr(JaxOracle, "__call__", evaluate)
    assert "differences" in tn.verify(tn.Sigmoid()).oracle
    monkeypatch.setattr(
        JaxOracle, "__call__", lambda self, args, dy: Exact((1 / (1 + np.exp(-args["x"])),), {"x": dy[0] * np.nan})
    )
    assert tn.verify(tn.Sigmoid()).verdict == "INCONCLUSIVE"


def test_a_forward_that_was_compared_proves_no_gradient():
    report = tn.verify(tn.Sigmoid(), probes=["forward"])
    assert report.verdict == "INCONCLUSIVE"
    assert report.reason == "no gradient was compared"


def test_a_loop_that_was_written_out_is_compiled_without_the_emitters_of_fused_loops():
    options = quickly()
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2
    assert options.get("xla_cpu_use_fusion_emitters", False) is False
    assert options["xla_backend_optimization_level"] == 0


def leaky_by_entry(x, w):
    z = x @ w
    a = np.zeros_like(z)
    for i, j in np.ndindex(z.shape):
        if z[i, j] > 0:
            a[i, j] = z[i, j]
        else:
            a[i, j] = 0.1 * z[i, j]
    return a


def leaky_back(args, dy):
    x, w = args
    dz = dy * np.where(x @ w > 0, 1.0, 0.1)
    return dz @ w.T, x.T @ dz


def oracle_of(forward, *inputs):
    subject, *_ = adapt((forward, lambda a, dy: a), inputs=inputs, params=None, loss=None, rng=rng)
    return JaxOracle(subject, Watch(60), manners=True, eager=True), subject.args


@pytest.mark.parametrize("seed", range(3))
def test_a_forward_that_branches_on_values_is_differentiated_along_the_branches_that_it_takes(seed):
    rng = np.random.default_rng(seed)
    oracle, args = oracle_of(leaky_by_entry, rng.standard_normal((4, 3)), rng.standard_normal((3, 2)))
    for _ in range(3):  # as it runs, then traced, each at two places
        for sign in (1.0, -1.0):
            moved, dy = args | {"x": sign * args["x"]}, rng.standard_normal((4, 2))
            exact = oracle(moved, (dy,)).grads
            for name, grad in zip(("x", "w"), leaky_back((moved["x"], moved["w"]), dy), strict=True):
                np.testing.assert_allclose(exact[name], grad, rtol=1e-12, atol=1e-14)
    assert len(oracle._compiled) == 2


def test_whole_numbers_that_a_forward_asks_for_are_part_of_the_branch():
    def forward(x):
        return x * x[int(np.argmax(x))]

    def at(values):
        oracle, args = oracle_of(forward, np.array(values))
        return [oracle(args, (np.ones(3),)).grads["x"] for _ in range(2)]

    for values in ([1.0, 3.0, 2.0], [5.0, 3.0, 2.0]):
        k, total = np.argmax(values), sum(values)
        expected = np.full(3, values[k]) + np.where(np.arange(3) == k, total, 0)
        for grad in at(values):
            np.testing.assert_allclose(grad, expected)


def test_a_mistake_in_a_loop_that_branches_on_values_is_named_and_placed():
    target = (leaky_by_entry, lambda a, dy: (dy @ a[1].T, a[0].T @ dy))
    report = tn.verify(target, inputs=((3, 3), (3, 2)), dtype="float64", probes=["rectangular", "batch 1"])
    finding = report.findings[0]
    assert (finding.fault, finding.factor) == ("scaled", "10")
    line = leaky_by_entry.__code__.co_firstlineno + 7
    assert finding.at == f"test_oracle.py:{line}"


def test_a_mask_that_selects_stays_a_mask_where_the_forward_branches():
    def forward(x, mask):
        mean = np.log1p(np.exp(x[mask])).mean()
        return mean if mean < 0.7 else 2 * mean - 0.7

    oracle, args = oracle_of(forward, x[0], np.array([True, False, True, True]))
    for _ in range(2):
        grad = oracle(args, (np.ones(()),)).grads["x"]
        slope = 2 if np.log1p(np.exp(x[0][args["mask"]])).mean() >= 0.7 else 1
        np.testing.assert_allclose(grad, slope * args["mask"] / 3 / (1 + np.exp(-x[0])))
    assert len(oracle._compiled) == 1

"""The oracle itself under test: forwards that are not what they seem, references, oracles that are broken."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tinynet.verification.adapters.subject import Exact
from tinynet.verification.jaxpr import quickly
from tinynet.verification.oracle import JaxOracle

x = np.random.default_rng(8).standard_normal((5, 4))


def test_a_right_reference_is_confirmed_and_a_wrong_one_is_a_finding_about_the_forward():
    layer = tn.Linear(4, 3)
    tn.check(layer, reference=lambda p, x: (x[:, None, :] * p["W"]).sum(axis=-1) + p["b"])
    report = tn.verify(layer, reference=lambda p, x: x @ p["W"].T)
    assert [(f.gradient, f.fault) for f in report.findings] == [("y", "forward differs from the reference")]
    loss = tn.verify(tn.SquaredError(), reference=lambda y_hat, y: ((y_hat - y) ** 2).sum())
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

    report = tn.verify(TwoFaced())
    assert (report.findings[0].gradient, report.findings[0].fault) == ("y", "forward differs")


@pytest.mark.parametrize("break_it", [lambda g: 1.001 * g, lambda g: -g, lambda g: g + 1e-9, lambda g: 0 * g])
def test_a_broken_oracle_never_gives_a_pass(monkeypatch, break_it):
    right = JaxOracle.__call__

    def evaluate(self, args, dy):
        exact = right(self, args, dy)
        return Exact(exact.y, {name: break_it(g) for name, g in exact.grads.items()})

    monkeypatch.setattr(JaxOracle, "__call__", evaluate)
    assert tn.verify(tn.Linear(4, 3)).verdict != "PASS"


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

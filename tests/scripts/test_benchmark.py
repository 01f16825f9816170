"""The benchmark compares like with like; its figures are nobody's test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinynet.trees import leaves

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)


def test_a_peer_that_does_other_arithmetic_is_found_out() -> None:
    from benchmarks import steps

    problem = steps.QUICK_ROWS[0]
    off = steps.Contestant(lambda: None, lambda: [p + np.float32(0.01) for p in problem.params()])
    with pytest.raises(RuntimeError, match="off arrives elsewhere"):
        steps.check_same_params(problem, {"off": off})


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import steps

    monkeypatch.setitem(sys.modules, "thinc.api", None)
    contestants, _ = steps.field(steps.QUICK_ROWS[0], ["tinynet", "thinc"])
    assert list(contestants) == ["tinynet"]
    assert "left out: thinc" in capsys.readouterr().err


def test_a_twin_of_another_network_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import models

    def without_bias(params: Any) -> Any:
        return [{name: p * (name != "b") for name, p in layer.items()} for layer in params]

    model = models.mlp()
    rng = np.random.default_rng(0)
    biased = [{name: p + (name == "b") * rng.random(p.shape) for name, p in layer.items()} for layer in model.params()]

    class Biased(models.Model):
        def params(self) -> Any:
            return biased

    fields = {name: getattr(model, name) for name in model.__dataclass_fields__}
    twin = Biased(**fields | {"jax": lambda params, x: model.jax(without_bias(params), x)})
    names = ("tinynet", "JAX and Optax by hand, same scan")
    monkeypatch.setattr(models, "CONTESTANTS", {name: models.CONTESTANTS[name] for name in names})
    with pytest.raises(RuntimeError, match="by hand, same scan arrives elsewhere"):
        models.measure_one(twin, 1, None)


@pytest.mark.parametrize("target", ["Linear + Sigmoid", "GRU, t = 5"])
def test_one_entry_of_the_largest_gradient_is_off_by_the_share(target: str) -> None:
    from benchmarks import verify

    right, wrong = (verify.pose(target, share) for share in (0.0, 1e-4))
    dy = np.ones_like(right.layer.forward(right.params, right.x)[0])

    def gradients(question: Any) -> list[Any]:
        cache = question.layer.forward(question.params, question.x)[1]
        return leaves(question.layer.backward(question.params, cache, dy))

    off = [
        (a.size, (b[a != b] / a[a != b] - 1).item())
        for a, b in zip(gradients(right), gradients(wrong), strict=True)
        if (a != b).any()
    ]
    largest = max(a.size for a in leaves(right.params))
    assert off == [(largest, pytest.approx(1e-4))]


def test_every_checker_says_right_of_what_is_right_and_wrong_of_what_is_off_by_a_tenth() -> None:
    from benchmarks import verify

    for checker, (package, says_right) in verify.CHECKERS.items():
        if importlib.util.find_spec(package):
            assert says_right(verify.pose("Linear + Sigmoid")), checker
            assert not says_right(verify.pose("Linear + Sigmoid", 0.1)), checker

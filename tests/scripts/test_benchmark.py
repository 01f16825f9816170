"""The benchmark compares like with like; its figures are nobody's test."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "benchmark.py"


def test_a_peer_that_does_other_arithmetic_is_found_out() -> None:
    benchmark = runpy.run_path(str(SCRIPT))
    problem = benchmark["QUICK_ROWS"][0]
    off = benchmark["Contestant"](lambda: None, lambda: [p + np.float32(0.01) for p in problem.params()])
    with pytest.raises(RuntimeError, match="off arrives elsewhere"):
        benchmark["check_same_params"](problem, {"off": off})


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = runpy.run_path(str(SCRIPT))
    monkeypatch.setitem(sys.modules, "thinc.api", None)
    contestants, _ = benchmark["field"](benchmark["QUICK_ROWS"][0], ["tinynet", "thinc"])
    assert list(contestants) == ["tinynet"]
    assert "left out: thinc" in capsys.readouterr().err

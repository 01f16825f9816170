"""The benchmark runs, draws and writes; its figures are nobody's test."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "benchmark.py"


def test_quick_writes_every_figure(tmp_path: Path) -> None:
    figures_path, picture = tmp_path / "figures.json", tmp_path / "sweeps.png"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(figures_path), "--png", str(picture)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(figures_path.read_text())
    assert figures.keys() == {"machine", "rows", "import_ms", "peak_memory_mib", "sweeps_ns_per_kflop"}
    for row in figures["rows"]:
        assert all(us > 0 for us in row["idle_us"].values())
        assert {"floor, 1 thread", "tinynet", "tinynet, engine=jax", "jax.grad, same scan"} <= row["idle_us"].keys()
        assert "tinynet" in row["busy_us"]
        assert row["worst_difference_of_params"] < 1e-5
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [figures_path, picture]


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

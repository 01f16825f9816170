"""Each script that measures runs to its end, with little to measure; its figures are nobody's test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(name, *arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_benchmark_writes_every_figure(tmp_path):
    run("benchmark.py", "--quick", "--json", "figures.json", "--png", "sweeps.png", cwd=tmp_path)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures.keys() == {
        "machine",
        "rows",
        "import_ms",
        "peak_memory_mib",
        "sweeps_ns_per_kflop",
        "models",
        "verify",
        "job",
    }
    for row in figures["rows"]:
        assert all(us > 0 for us in row["idle_us"].values())
        assert {"floor, 1 thread", "tinynet", "tinynet, engine=jax", "jax.grad, same scan"} <= row["idle_us"].keys()
        assert "tinynet" in row["busy_us"]
        assert row["worst_difference_of_params"] < 1e-5
    assert (tmp_path / "sweeps.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "sweeps.png"]


def test_the_comparison_of_descents_prints_all_four_statements_and_draws_the_curves(tmp_path):
    out = run("compare_descent.py", "--quick", "--output", "curves.png", cwd=tmp_path)
    assert "4,311 gradient evaluations each" in out  # 3 epochs of 1,437 digits
    for start in ("gradient descent     all", "mini-batch SGD        10", "single-sample SGD      1"):
        assert start in out
    for statement in ("(i)", "(ii)", "(iii)", "(iv)"):
        assert f"\n{statement} " in out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_the_story_of_a_layer_ends_well(tmp_path):
    assert "scaled by 1/m" in run("derive_a_layer.py", "--epochs", "5", cwd=tmp_path)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_runs_killed_at_random_moments_end_with_the_same_bits(tmp_path, engine):
    run("kill_test.py", "--kills", "10", "--engine", engine, cwd=tmp_path)


def test_altered_files_do_no_harm(tmp_path):
    run("fuzz_files.py", "--count", "3000", cwd=tmp_path)

"""The script that measures the verifier."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "verification_report.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_it_measures_a_little_of_everything_and_writes_what_it_prints(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    assert script["main"](["--quick", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]
    measured = json.loads(path.read_text(encoding="utf-8"))
    total = measured["seeded faults"]["total"]
    assert total["found"] == total["seeded"] > 30
    assert total["misnamed"] == 0
    assert max(measured["smallest errors"]["float64, whole tensor"].values()) <= 1e-13
    assert measured["zeroed entry"]["found"] == measured["zeroed entry"]["tried"] == 1
    assert all(entry["alarms"] == [] for entry in measured["false alarms"].values())
    assert measured["mutants"]["Sigmoid"]["survivors"] == []
    assert f"{total['found']} of {total['seeded']} found" in out
    assert "check_grads" in out


def test_bad_arguments_are_refused(script):
    with pytest.raises(SystemExit):
        script["main"](["--seed", "x"])

"""`scripts/compare_descent.py`, run as a user does."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*args, cwd):
    command = [sys.executable, str(ROOT / "scripts" / "compare_descent.py"), *args]
    # The script finds the package as an installed one; here the root stands in for that.
    env = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1", "HOME": str(cwd)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, encoding="utf-8", timeout=120)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--output", "curves.jpg"], "'curves.jpg' does not end in .png"),
        (["--output", "nowhere/curves.png"], "there is no folder 'nowhere'"),
        (["--seed", "-1"], "--seed: '-1' is not an integer of at least 0"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_computed(tmp_path, args, message):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []

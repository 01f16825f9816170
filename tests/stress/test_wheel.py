"""A wheel, installed in an environment with nothing else, runs the README."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return a folder, and the Python of a new environment that has the wheel with its extra `sklearn`."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[sklearn]", cwd=folder)
    return folder, python


def test_the_readme_runs(bare):
    folder, python = bare
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    (folder / "readme.py").write_text("\n".join(b for b in blocks if "import torch" not in b), encoding="utf-8")
    assert "[[0.]" in run(python, "readme.py", cwd=folder)


def test_the_command_and_every_public_name_are_there(bare):
    folder, python = bare
    assert "∂J/∂b^l" in run(python, "-X", "utf8", "-m", "tinynet", "equations", cwd=folder)
    listed = run(python, "-c", "from tinynet import *; import tinynet; print(len(tinynet.__all__))", cwd=folder)
    assert int(listed) > 50

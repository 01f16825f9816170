"""The recipes of CONTRIBUTING.md are followed to the letter in a copy of the repository, and work."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## ")
STEP = re.compile(r"\n\n((?:[^\n]+\n)+)\n```python\n(.*?)```", flags=re.DOTALL)


@pytest.fixture
def copy(tmp_path):
    for name in ("tinynet", "tests", "scripts", ".github"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def follow(recipe, copy):
    """Write each block of code into the file that the text before it names, above the line that it names."""
    file = None
    for text, code in STEP.findall(recipe):
        file = copy / named[0] if (named := re.findall(r"`([^`]+\.py)`", text)) else file
        if above := re.search(r"above `([^`]+)`", text):
            lines = file.read_text(encoding="utf-8").splitlines()
            (at,) = [i for i, line in enumerate(lines) if line.strip().startswith(above[1])]
            indent = " " * (len(lines[at]) - len(lines[at].lstrip()))
            lines[at:at] = [indent + line for line in code.splitlines()]
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            assert not file.exists(), f"{file} is there already"
            file.write_text(code, encoding="utf-8")


def run(copy, *command):
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "-m", *command], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("title", ["Add a layer", "Add an optimizer", "Add a fault"])
def test_the_recipe_works(title, copy):
    (recipe,) = [recipe for recipe in RECIPES if recipe.startswith(title)]
    follow(recipe, copy)
    run(copy, "ruff", "check")
    run(copy, "mypy")
    for command in re.findall(r"^scripts/test (.*)$", recipe, flags=re.MULTILINE):
        run(copy, "pytest", "-p", "no:cacheprovider", *shlex.split(command))

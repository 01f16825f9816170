"""README.md: its code runs, its table is the package's, its links and commands lead somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np

from tinynet.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_the_python_blocks_run_one_after_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
        if "report.verdict" in block:
            shown = re.search(r"print\(report.*# (.*)", block)[1]
            assert capsys.readouterr().out.strip() == shown
        if "y_hat.round()" in block:
            shown = re.search(r"# (\[\[.*\]\])", block)[1]
            assert " ".join(capsys.readouterr().out.split()) == shown
    layer, x, dy = names["Square"](), names["x"], np.ones((4, 2))
    np.testing.assert_array_equal(layer.backward({}, x, dy)[0], 2 * x)
    assert [path.name for path in tmp_path.iterdir()] == ["xor.safetensors"]


def test_the_table_of_equations_is_what_the_command_prints(capsys):
    assert main(["equations", "--markdown"]) == 0
    assert capsys.readouterr().out in README, "paste the output of `tinynet equations --markdown` into README.md"


def test_every_relative_link_leads_to_a_file():
    links = set(re.findall(r"\]\(([^)#:]+)\)", README))
    assert len(links) > 5
    assert {link for link in links if not (ROOT / link).is_file()} == set()


def test_every_command_shown_is_there():
    commands = [shlex.split(line, comments=True)[0] for block in blocks("sh") for line in block.splitlines() if line]
    assert commands
    assert [c for c in commands if not (ROOT / c).is_file()] == []


def test_the_map_of_the_folders_names_what_is_there():
    (tree,) = blocks("text")
    for line in tree.splitlines():
        for name in re.split(r"\s{3,}", line.strip())[0].split():
            folder = ROOT / "tinynet" if line.startswith("  ") else ROOT
            assert (folder / name).exists(), name

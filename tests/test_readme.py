"""The README of each folder: its code runs and prints what is said, its links and commands lead somewhere."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tinynet.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted((ROOT / "scripts").glob("*.md")),
    *sorted((ROOT / "tinynet").rglob("*.md")),
]


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(page):
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def is_missing(block):
    imported = re.findall(r"^(?:import|from) (\w+)", block, flags=re.MULTILINE)
    return any(importlib.util.find_spec(module) is None for module in imported)


# CONTRIBUTING's are parts of files; tests/stress/test_contributing.py puts them together. tests/test_readme_zh.py runs
# those of the Chinese page.
ELSEWHERE = {"CONTRIBUTING.md", "README.zh.md"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE], ids=name
)
def test_the_python_blocks_run_one_after_another_and_print_what_is_said(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, left_out = {"__name__": "__main__"}, []
    for block in blocks(page, "python"):
        if is_missing(block):
            left_out.append(block.splitlines()[0])
            continue
        exec(compile(block, page.name, "exec"), names)
        shown = " ".join(capsys.readouterr().out.split())
        for expected in re.findall(r"^print\(.*\)  # (.*)$", block, flags=re.MULTILINE):
            assert " ".join(expected.split()) in shown
    if left_out:
        pytest.skip(f"the blocks that begin with {left_out} need what is not installed; the others ran")


def test_readme_takes_five_minutes_to_read():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_table_of_equations_is_what_the_command_prints(capsys):
    assert main(["equations", "--markdown"]) == 0
    page = ROOT / "tinynet" / "README.md"
    assert capsys.readouterr().out in page.read_text(encoding="utf-8"), "paste `tinynet equations --markdown` into it"


def test_the_picture_is_what_the_script_draws():
    drawn = subprocess.run([sys.executable, str(ROOT / "scripts" / "picture.py")], capture_output=True, check=True)
    assert drawn.stdout == (ROOT / ".github" / "picture.svg").read_bytes(), "see scripts/picture.py"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file(page):
    links = set(re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")))
    assert {link for link in links if not (page.parent / link).is_file()} == set()


def test_every_page_is_found_from_the_readme():
    found = {ROOT / "README.md"}
    for _ in PAGES:
        links = {
            page.parent / link for page in found for link in re.findall(r"\]\(([^)#:]+\.md)\)", page.read_text("utf-8"))
        }
        found |= {link.resolve() for link in links}
    assert set(PAGES) - found == set()


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_every_command_shown_is_there_with_its_options(page, capsys):
    for first, *rest in commands(page):
        if first == "tinynet":
            with pytest.raises(SystemExit):
                main([rest[0], "--help"])
            knows = capsys.readouterr().out
        elif first == "python" and not rest[0].startswith("-"):
            knows = (ROOT / rest[0]).read_text(encoding="utf-8")
        elif first in {"cp", "git", "pip", "python"}:
            continue
        else:
            knows = (ROOT / first).read_text(encoding="utf-8") + (ROOT / "tinynet" / "cli" / "train.py").read_text(
                "utf-8"
            )
        assert [word for word in rest if word.startswith("--") and word not in knows] == [], first


def test_the_table_of_folders_names_all_that_is_there():
    (table,) = blocks(ROOT / "tinynet" / "README.md", "text")
    named = [line.split()[0].rstrip("/") for line in table.splitlines()]
    here = {
        path.name for path in (ROOT / "tinynet").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(named) == sorted(here - {"__init__.py", "__main__.py"})

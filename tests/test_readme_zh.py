"""The Chinese README: its program runs and its commands are there."""

import re
import shlex
from pathlib import Path

import pytest

from tinynet.cli import main

README = (Path(__file__).parents[1] / ".github" / "README.zh.md").read_text(encoding="utf-8")


def test_the_ten_lines_run_and_print_what_they_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    for block in blocks:
        exec(compile(block, "README.zh.md", "exec"), names)
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"# (\[\[.*\]\])", blocks[0])[1] in printed
    assert "dW² = δ² (a¹)ᵀ (24)" in printed
    assert "scaled by 1/m" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["trace.html"]


COMMANDS = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^tinynet .*", README, flags=re.MULTILINE)]


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--open" in command], ids=" ".join)
def test_the_commands_open_a_page(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (tmp_path / "数据.csv").write_text("a,b\n1,x\n2,y\n3,x\n4,y\n5,x\n6,y\n", encoding="utf-8")
    assert main(command) == 0
    (uri,) = opened
    assert Path(tmp_path / uri.rpartition("/")[2]).stat().st_size > 10_000


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_the_other_commands_follow_each_other(encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("数据.csv", "新数据.csv"):
        rows = [f"{k},{k * k},{'甲乙'[k > 20]}" for k in range(40)]
        (tmp_path / name).write_text("\n".join(["长,宽,类", *rows]), encoding=encoding)
    for command in COMMANDS:
        if "--open" not in command:
            assert main([*command, "--encoding", encoding]) == 0
    assert "predicted 类" in (tmp_path / "结果.csv").read_text(encoding=encoding)
    assert (tmp_path / "训练.html").stat().st_size > 10_000

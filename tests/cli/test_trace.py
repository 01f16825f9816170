"""`tinynet trace`: of the example, of a table, of a saved network."""

import json
import re

import numpy as np
import pytest

import tinynet as tn
from tinynet.cli import main
from tinynet.pages import examples


def record(path):
    page = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture
def table(tmp_path):
    rows = [f"{a},{b},{'yes' if a > b else 'no'}" for a, b in np.random.default_rng(0).normal(size=(20, 2))]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,class", *rows]))
    return path


def test_prints_the_published_example(capsys):
    assert main(["trace"]) == 0
    assert capsys.readouterr().out == f"{tn.trace(*examples.mazur())}\n"


def test_writes_a_page_of_several_steps(tmp_path, capsys, monkeypatch):
    path, opened = tmp_path / "page.html", []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["trace", "--example", "xor", "--html", str(path), "--steps", "5", "--lr", "2", "--open"]) == 0
    assert (len(record(path)["frames"]), record(path)["lr"]) == (5, 2)
    assert capsys.readouterr().out.startswith(f"{path}: ")
    assert opened == [path.as_uri()]


def test_traces_a_new_network_on_rows_of_a_table(table, tmp_path):
    path = tmp_path / "page.html"
    assert main(["trace", str(table), "--rows", "3", "--hidden", "4,2", "--html", str(path)]) == 0
    data = record(path)
    assert data["samples"] == 3
    assert [len(data["tensors"][f"a{level}"]["rows"]) for level in range(4)] == [2, 4, 2, 2]


def test_traces_a_saved_network_on_a_sample_of_ones_own(tmp_path, capsys):
    net, _, params, x, y = examples.mazur()
    tn.save(tmp_path / "net.safetensors", net, params)
    sample = ["--x", "0.05,0.1", "--y", "0.01,0.99"]
    assert main(["trace", "--checkpoint", str(tmp_path / "net.safetensors"), *sample]) == 0
    assert capsys.readouterr().out == f"{tn.trace(net, tn.SquaredError('mean'), params, x, y)}\n"


def test_traces_a_saved_network_with_state(tmp_path, capsys):
    net, path = tn.Sequential(tn.Linear(2, 3), tn.BatchNorm(3), tn.Linear(3, 1)), tmp_path / "net.safetensors"
    params = net.init(np.random.default_rng(0), np.float64)
    layers = ({}, {"mean": np.full(3, 0.5), "var": np.full(3, 2.0)}, {})
    tn.save(path, net, params, state=tn.TrainingState(None, layers))
    arguments = ["trace", "--checkpoint", str(path), "--x", "1,2", "--y", "3"]
    assert main(arguments) == 0
    expected = tn.trace(net, tn.SquaredError("mean"), params, np.array([[1.0, 2.0]]), np.array([[3.0]]), state=layers)
    assert capsys.readouterr().out == f"{expected}\n"
    tn.save(path, net, params)
    assert main(arguments) == 2
    assert "holds no state; it was saved without state=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "net.safetensors"], "--checkpoint needs a sample: a table DATA, or --x and --y"),
        (["--example", "xor", "table.csv"], "--example has its own network and samples"),
        (["missing.csv"], "missing.csv"),
    ],
)
def test_what_does_not_go_together_is_named(arguments, message, capsys):
    assert main(["trace", *arguments]) == 2
    assert message in capsys.readouterr().err

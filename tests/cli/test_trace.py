"""`tinynet trace`: of the example, of a table, of a saved network."""

import json
import re

import numpy as np
import pytest

import tinynet as tn
from tinynet.cli import main
from tinynet.cli.model import load_model
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


def test_traces_what_train_saved_in_the_units_of_its_own_table(tmp_path, capsys):
    """The one row of another table, whose columns stand in another order, and the same sample by hand."""
    rng = np.random.default_rng(0)
    rows = [f"{a:.2f},{b:.2f},{3000 * a - 900 * b:.0f}" for a, b in rng.uniform(10, 200, (60, 2))]
    (tmp_path / "old.csv").write_text("\n".join(["area,age,price", *rows]))
    (tmp_path / "new.csv").write_text("age,price,area\n20,270000,100\n")
    path = tmp_path / "model.safetensors"
    assert main(["train", str(tmp_path / "old.csv"), "--epochs", "3", "--hidden", "4", "--save", str(path)]) == 0
    model = load_model(path)
    x = ((np.array([[100.0, 20.0]]) - model.x_mean) / model.x_scale).astype(np.float32).astype(float)
    y = (np.array([[270_000.0]]) - model.y_mean) / model.y_scale
    params = tn.map_leaves(lambda p: p.astype(float), model.params)
    expected = f"{tn.trace(model.net, tn.SquaredError('mean'), params, x, y)}\n"
    for sample in ([str(tmp_path / "new.csv")], ["--x", "100,20", "--y", "270000"]):
        capsys.readouterr()
        assert main(["trace", "--checkpoint", str(path), *sample]) == 0
        assert capsys.readouterr().out == expected


def test_traces_a_classifier_though_a_table_lacks_one_of_its_classes(table, tmp_path, capsys):
    path = str(tmp_path / "model.safetensors")
    assert main(["train", str(table), "--epochs", "2", "--hidden", "3", "--save", path]) == 0
    (tmp_path / "one.csv").write_text("a,b,class\n1,0,yes\n")
    capsys.readouterr()
    assert main(["trace", str(tmp_path / "one.csv"), "--checkpoint", path, "--html", str(tmp_path / "page.html")]) == 0
    data = record(tmp_path / "page.html")
    assert data["frames"][0]["values"]["y"] == [[0.0, 1.0]]
    (tmp_path / "one.csv").write_text("a,b,class\n1,0,maybe\n")
    assert main(["trace", str(tmp_path / "one.csv"), "--checkpoint", path]) == 2
    assert "the model knows no class 'maybe'; expected one of no, yes" in capsys.readouterr().err


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

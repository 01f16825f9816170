"""`tinynet train --html`: one page of what a run did."""

import importlib.util
import re

import numpy as np

import tinynet as tn
from tinynet.cli import main


def write_table(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    kinds = np.array(["low & slow", "mid", "high"])[np.digitize(x[:, 0], [-0.5, 0.5])]
    rows = [f"{a:.4f},{b:.4f},{c:.4f},{kind}" for (a, b, c), kind in zip(x, kinds, strict=True)]
    (folder / "table.csv").write_text("\n".join(["a,<b>,c,kind", *rows]))
    return folder / "table.csv"


def test_the_page_needs_nothing_else_and_holds_what_the_run_printed(tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["train", str(write_table(tmp_path)), "--epochs", "20", "--html", str(path)]) == 0
    page, printed = path.read_text(encoding="utf-8"), capsys.readouterr().out
    assert f"page      {path}" in printed
    result = next(line.removeprefix("result    ") for line in printed.splitlines() if line.startswith("result"))
    assert f"<dd>{result}</dd>" in page
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert [re.sub("<.*?>", "", h) for h in re.findall("<h2>.*?</h2>", page)] == [
        "Learning curves", "Held-out rows by class", "Layers", "Weights of the first layer",
    ]  # fmt: skip


def test_the_numbers_of_the_page_are_those_of_the_model(tmp_path, capsys):
    table, path, model = write_table(tmp_path), tmp_path / "page.html", tmp_path / "model.safetensors"
    main(["train", str(table), "--epochs", "20", "--html", str(path), "--save", str(model)])
    page = path.read_text(encoding="utf-8")
    _, params = tn.load(model)
    shown = [float(w) for w in re.findall(r"transparent\)\">(-?[\d.]+)</td>", page)]
    np.testing.assert_allclose(shown, params[0]["W"].ravel(), atol=5.1e-4)
    right, rows = map(int, re.search(r"(\d+) of (\d+) right", page).groups())
    assert rows == 24
    assert f"{right / rows:.2%} accuracy on 24 held-out rows" in capsys.readouterr().out


def test_a_quantity_has_no_classes_and_an_image_has_its_weights_as_images(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((60, 16))
    np.savez(tmp_path / "images.npz", x=x, y=x.sum(axis=1))
    path = tmp_path / "page.html"
    assert main(["train", str(tmp_path / "images.npz"), "--epochs", "2", "--html", str(path)]) == 0
    page = path.read_text(encoding="utf-8")
    assert "Held-out rows by class" not in page
    assert page.count("data:image/png;base64") >= 30


def test_what_stands_in_the_way_is_said_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    assert main(["train", "--html", str(tmp_path / "none" / "page.html")]) == 2
    assert "--html" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["train", "--html", str(tmp_path / "page.html")]) == 2
    assert 'pip install "tinynet-grad[plot]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

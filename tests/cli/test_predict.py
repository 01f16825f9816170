"""From a CSV file to a model to predictions of new rows, and what is refused on the way."""

import csv
import re

import numpy as np
import pytest
import sklearn.datasets

import tinynet as tn
from tinynet.cli import main
from tinynet.files.container import read, write


def run(capsys, *args):
    code = main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def rows_of(text):
    return list(csv.reader(text.splitlines()))


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def prices(tmp_path):
    """Prices in the hundred thousands, whole numbers, with holes, and as many again to predict."""
    rng = np.random.default_rng(0)
    area, age = rng.uniform(30, 200, 500), rng.uniform(0, 90, 500)
    price = np.round(3000 * area - 1500 * age + 40_000).astype(int)
    rows = [[f"{a:.2f}", int(p), f"{b:.1f}"] for a, b, p in zip(area, age, price, strict=True)]
    for i in range(0, 400, 40):
        rows[i][2] = ("", "NA")[i % 80 // 40]
    rows[7][1] = ""
    write_csv(tmp_path / "old.csv", ["area", "price", "age"], rows[:400])
    write_csv(tmp_path / "new.csv", ["id", "age", "area"], [[f"h{i}", r[2], r[0]] for i, r in enumerate(rows[400:])])
    write_csv(tmp_path / "test.csv", ["area", "price", "age"], rows[400:])
    return tmp_path, price[400:]


def test_numbers_come_back_in_their_own_units(capsys, prices):
    folder, price = prices
    model = folder / "model.safetensors"
    options = ["--target", "price", "--hidden", "8", "--epochs", "150", "--save", model]
    code, out, err = run(capsys, "train", folder / "old.csv", *options)
    assert (code, err) == (0, "")
    assert "1 row without price left out; 10 missing cells taken as the mean of the column" in out
    assert re.search(r"target +price has \d+ distinct whole numbers: taken as a quantity; --task classify", out)
    code, out, _ = run(capsys, "predict", model, folder / "new.csv")
    header, *rows = rows_of(out)
    assert header == ["id", "age", "area", "predicted price"]
    assert [row[0] for row in rows] == [f"h{i}" for i in range(100)]
    predicted = np.array([float(row[3]) for row in rows])
    assert np.sqrt(np.mean((predicted - price) ** 2)) < 0.1 * price.std()
    code, out, _ = run(capsys, "evaluate", model, folder / "test.csv")
    assert code == 0
    rmse = float(re.search(r"RMSE ([\d.e+]+) \(R² 0\.99\d\) on 100 rows of test\.csv", out)[1])
    assert rmse == pytest.approx(np.sqrt(np.mean((predicted - price) ** 2)), rel=1e-3)


def test_predictions_are_what_the_network_gives_for_the_scaled_rows(capsys, prices):
    """By hand from the file: the network of tn.load, the scales beside it, and nothing of the command line."""
    folder, _ = prices
    path = folder / "model.safetensors"
    run(capsys, "train", folder / "old.csv", "--target", "price", "--epochs", "3", "--save", path)
    net, params = tn.load(path)
    kept = read(path)["extra"]["model"]
    assert (kept["columns"], kept["target"], kept["task"], kept["classes"]) == (("area", "age"), "price", "regress", ())
    with (folder / "old.csv").open() as file:
        area = np.array([float(row["area"]) for row in csv.DictReader(file)])
    assert kept["x_mean"][0] == pytest.approx(area.mean(), rel=0.05)  # of the training rows
    with (folder / "new.csv").open() as file:
        x = np.array([[float(row["area"]), float(row["age"])] for row in csv.DictReader(file)])
    y_hat, _ = net.forward(params, ((x - kept["x_mean"]) / kept["x_scale"]).astype(np.float32))
    expected = y_hat[:, 0].astype(float) * kept["y_scale"] + kept["y_mean"]
    out = run(capsys, "predict", path, folder / "new.csv")[1]
    np.testing.assert_allclose([float(row[-1]) for row in rows_of(out)[1:]], expected, rtol=1e-6)


def test_classes_come_back_by_their_names(capsys, tmp_path):
    bunch = sklearn.datasets.load_iris()
    names = bunch.target_names[bunch.target]
    columns = ["sepal length", "sepal width", "petal length", "petal width"]
    table = [[*map(str, x), name] for x, name in zip(bunch.data, names, strict=True)]
    write_csv(tmp_path / "iris.csv", [*columns, "species"], table)
    model, out_file = tmp_path / "model.safetensors", tmp_path / "out.csv"
    options = ["--hidden", "8", "--lr", "1", "--epochs", "100", "--save", model]
    assert run(capsys, "train", tmp_path / "iris.csv", *options)[0] == 0
    assert run(capsys, "predict", model, tmp_path / "iris.csv", "-o", out_file) == (0, "", "")
    header, *rows = rows_of(out_file.read_text())
    assert header == [*columns, "species", "predicted species"]
    assert {row[-1] for row in rows} == {"setosa", "versicolor", "virginica"}
    accuracy = np.mean([row[-1] == row[-2] for row in rows])
    assert accuracy > 0.9
    out = run(capsys, "evaluate", model, tmp_path / "iris.csv")[1]
    assert out == f"{accuracy:.2%} accuracy on 150 rows of iris.csv\n"


def test_whole_numbers_that_are_classes_and_a_table_without_a_header(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2))
    rows = [f"{a},{7 if a > b else 3},{b}" for a, b in x]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    (tmp_path / "new.csv").write_text("\n".join(f"{a},{b}" for a, b in x))
    model = tmp_path / "m.safetensors"
    assert run(capsys, "train", tmp_path / "t.csv", "--target", "1", "--save", model)[0] == 0
    with_target = run(capsys, "predict", model, tmp_path / "t.csv")[1]
    without = run(capsys, "predict", model, tmp_path / "new.csv")[1]
    assert [row[-1] for row in rows_of(with_target)] == [row[-1] for row in rows_of(without)]
    assert {row[-1] for row in rows_of(without)} == {"3", "7"}
    assert "% accuracy on 90 rows" in run(capsys, "evaluate", model, tmp_path / "t.csv")[1]


@pytest.fixture
def model(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{i},{-i},{i / 3}\n" for i in range(30)))
    path = tmp_path / "m.safetensors"
    assert run(capsys, "train", tmp_path / "t.csv", "--epochs", "2", "--save", path)[0] == 0
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", "no column 'b'; the model was trained on: a, b"),
        ("a,b,b\n1,2,3\n", "two columns have the name 'b'; rename one"),
        ("a,b\n1,x\n", "row 2, b: 'x' is not a finite number"),
        ("1\n2\n", "1 columns; expected 2, or 3 with the target among them"),
        ("a;b\n1;2\n", "fields are separated by semicolons; expected commas"),
    ],
)
def test_a_table_that_the_model_cannot_take_is_refused(capsys, model, text, message):
    path = model.with_name("new.csv")
    path.write_text(text)
    for command in ("predict", "evaluate"):
        code, out, err = run(capsys, command, model, path)
        assert (code, out) == (2, "")
        assert re.fullmatch(rf"tinynet: .*new\.csv: .*{re.escape(message)}.*\n", err)


@pytest.mark.parametrize("cell", ["1e300", "-1e308"])
def test_a_number_that_float32_cannot_hold_is_one_line(capsys, model, cell):
    """Its logits would be infinite, their differences NaN, and a class would be named all the same."""
    path = model.with_name("new.csv")
    path.write_text(f"a,b,y\n1,2,3\n{cell},1,5\n3,4,9\n2,2,2\n")
    for command in (
        ("predict", model, path),
        ("evaluate", model, path),
        ("train", path),
        ("train", path, "--target", "a", "--task", "regress"),
    ):
        code, out, err = run(capsys, *command)
        assert (code, out) == (2, "")
        assert re.fullmatch(rf"tinynet: .*{re.escape(f'{float(cell):.4g}')} is too large .*\n", err)


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_table_in_another_encoding_comes_back_in_it(encoding, capsys, tmp_path):
    rows = [f"{k},{k % 5},{'甲乙'[k > 20]}" for k in range(40)]
    (tmp_path / "old.csv").write_text("\n".join(["面积,房间,类别", *rows]), encoding=encoding)
    for command in (
        ["train", "old.csv", "--save", "m"],
        ["evaluate", "m", "old.csv"],
        ["predict", "m", "old.csv", "-o", "new.csv"],
    ):
        given = [str(tmp_path / arg) if "." in arg or arg == "m" else arg for arg in command]
        code, _, err = run(capsys, *given, "--encoding", encoding)
        assert code == 0, err
    header, *predicted = rows_of((tmp_path / "new.csv").read_text(encoding=encoding))
    assert header == ["面积", "房间", "类别", "predicted 类别"]
    assert np.mean([row[2] == row[3] for row in predicted]) > 0.8


def test_a_table_without_targets_cannot_be_evaluated(capsys, model):
    path = model.with_name("new.csv")
    for text in ("a,b\n1,2\n", "1,2\n3,4\n"):
        path.write_text(text)
        code, _, err = run(capsys, "evaluate", model, path)
        assert code == 2
        assert "no column 'y' to compare predictions with" in err


def test_what_is_no_model_is_refused(capsys, model, tmp_path):
    net = tn.Linear(2, 1)
    tn.save(tmp_path / "net.safetensors", net, net.init(np.random.default_rng(0)))
    code, _, err = run(capsys, "predict", tmp_path / "net.safetensors", tmp_path / "t.csv")
    assert code == 2
    assert "net.safetensors: holds no model; write one with tinynet train --save FILE" in err
    value = read(model)
    numbers = [True, -1, 10**400, 1.5, float("nan"), np.zeros(3), np.zeros(())]
    hostile = [None, *numbers, "\x1b[2J", [], {}, (), ("a", "b"), (None,), tn.Sigmoid()]
    for name in value["extra"]["model"]:
        for thing in hostile:
            kept = value["extra"]["model"] | {name: thing}
            write(model, value | {"extra": {"model": kept}})
            code, _, err = run(capsys, "predict", model, tmp_path / "t.csv")
            assert code in (0, 2)
            assert re.fullmatch(r"tinynet: .*\n|", err)


@pytest.mark.parametrize("path", ["nowhere/m.safetensors", "."])
def test_a_model_that_could_not_be_written_is_refused_before_the_training(capsys, tmp_path, path):
    code, out, err = run(capsys, "train", "--save", tmp_path / path)
    assert (code, out) == (2, "")
    assert re.search(r"--save .* (there is no folder .*; make it first|is a folder; expected a file)", err)


def test_a_checkpoint_with_more_epochs_than_asked_for_says_what_was_done(capsys, tmp_path):
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(40, 2)), y=np.arange(40) % 2)
    options = ["train", tmp_path / "t.npz", "--checkpoint", tmp_path / "c.safetensors"]
    run(capsys, *options, "--epochs", "5")
    code, out, _ = run(capsys, *options, "--epochs", "2")
    assert code == 0
    done = re.search(r"c\.safetensors has (\d) epochs; --epochs 2 asks for no more: none trained", out)[1]
    assert f"after {done} epochs" in out


def test_a_missing_extra_is_named_with_the_command_that_installs_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    code, _, err = run(capsys, "train")
    assert code == 2
    assert 'tinynet train needs scikit-learn; use pip install "tinynet-grad[train]"' in err

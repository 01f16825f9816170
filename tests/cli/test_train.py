"""The commands: what they print, what they return, and how they say no."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets

import tinynet as tn
from tinynet.cli import main
from tinynet.equations import EQUATIONS


def run(capsys, *args):
    """(exit code, stdout, stderr) of `tinynet args…`."""
    try:
        code = main([str(arg) for arg in args])
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


def number(pattern, text):
    return float(re.search(pattern, text)[1])


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """The iris table, as a CSV with a header and names for classes and as an NPZ."""
    folder, bunch = tmp_path_factory.mktemp("iris"), sklearn.datasets.load_iris()
    names = bunch.target_names[bunch.target]
    rows = [",".join([*map(str, x), name]) for x, name in zip(bunch.data, names, strict=True)]
    (folder / "iris.csv").write_text("\n".join(["a,b,length,d,species", *rows]))
    np.savez(folder / "iris.npz", x=bunch.data, y=bunch.target)
    return folder


# train


def test_train_learns_the_digits_and_verifies_its_gradients(capsys):
    code, out, err = run(capsys, "train")
    assert code == 0
    data, network, gradients, result = out.splitlines()
    assert "1437 rows to train on, 360 held out" in data
    assert "64-30-10 sigmoid" in network
    assert number(r"float64, 1437 rows: ([\d.]+) of the tolerance at params.*[Wb]", gradients) <= 1
    assert number(r"([\d.]+)% accuracy on 360 held-out rows after 60 epochs, [\d.]+ s", result) >= 95
    assert "100%" in err
    assert "loss=" in err
    assert "accuracy=" in err


@pytest.mark.parametrize("file", ["iris.csv", "iris.npz"])
def test_train_learns_a_table_of_yours(capsys, iris, file):
    code, out, _ = run(capsys, "train", iris / file, "--hidden", "8", "--lr", "1", "--epochs", "100")
    assert code == 0
    assert f"{file}: 120 rows to train on, 30 held out" in out
    assert "4-8-3 sigmoid" in out
    assert "jax.grad" in out
    assert number(r"([\d.]+)% accuracy on 30 held-out rows", out) >= 90


def test_train_regresses_on_a_column_with_fractions(capsys, tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, size=(200, 2))
    rows = [f"{a},{0.5 + 3 * a - 2 * b},{b}" for a, b in x]
    (tmp_path / "plane.csv").write_text("\n".join(["a,target,b", *rows]))
    code, out, _ = run(capsys, "train", tmp_path / "plane.csv", "--target", "target", "--hidden", "8")
    assert code == 0
    assert "2-8-1 sigmoid" in out
    assert number(r"\(R² (-?[\d.]+)\)", out) > 0.98


def test_options_reach_the_training(capsys, iris):
    options = ["--hidden", "7,5", "--epochs", "2", "--lr", "0.25", "--batch-size", "16", "--test-fraction", "0.4"]
    code, out, _ = run(capsys, "train", iris / "iris.csv", *options)
    assert code == 0
    assert "90 rows to train on, 60 held out" in out
    assert re.search(r"4-7-5-3 sigmoid, .*SGD\(lr=0.25, .*batches of 16", out)
    assert "after 2 epochs" in out


def test_no_hidden_layer_is_a_choice(capsys, iris):
    code, out, _ = run(capsys, "train", iris / "iris.npz", "--hidden", "", "--epochs", "2")
    assert code == 0
    assert "4-3 sigmoid" in out


def test_the_seed_decides_the_result(capsys, iris):
    def result(seed):
        out = run(capsys, "train", iris / "iris.npz", "--epochs", "3", "--seed", seed)[1]
        return re.search(r"[\d.]+ of the tolerance", out)[0], re.search(r"[\d.]+% accuracy", out)[0]

    assert result(1) == result(1)
    assert result(1) != result(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], r"nowhere\.csv: no "),
        ([".", "--epochs", "1"], "no (such file|file of that name)"),
        (
            ["{iris}/iris.csv", "--target", "colour"],
            "no column 'colour' for --target; the columns are: a, b, length, d, sp",
        ),
        (["{iris}/iris.csv", "--target", "a"], r"row 2, species: 'setosa' is not a finite number"),
        (["{iris}/iris.npz", "--target", "a"], "--target is for CSV files"),
        (["--target", "a"], "--target names a column of a CSV file; give the file too"),
        (["{iris}/iris.csv", "--lr", "-1"], "SGD: lr is -1.0; expected 0 <= lr < inf"),
        (["{iris}/iris.csv", "--lr", "nan"], "SGD: lr is nan; expected 0 <= lr < inf"),
        (["{iris}/iris.csv", "--task", "regress"], "the target is text"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(capsys, iris, arguments, message):
    code, _, err = run(capsys, "train", *(a.format(iris=iris) for a in arguments))
    assert code == 2
    assert re.search(message, err)
    assert err.startswith("tinynet: ")
    assert len(err.splitlines()) == 1


def test_a_file_of_another_kind_is_refused(capsys, tmp_path):
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    code, _, err = run(capsys, "train", tmp_path / "table.xlsx")
    assert code == 2
    assert "table.xlsx: expected a .csv or .npz file" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["learn"],
        ["train", "--epochs", "0"],
        ["train", "--epochs", "1.5"],
        ["train", "--batch-size", "-1"],
        ["train", "--hidden", "3,,4"],
        ["train", "--hidden", "0"],
        ["train", "--test-fraction", "1"],
        ["train", "--lr", "fast"],
        ["train", "--seed", "x"],
        ["train", "--task", "cluster"],
    ],
    ids=" ".join,
)
def test_options_that_are_no_options_show_the_usage(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: tinynet")


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_training_that_diverges_is_exit_code_1(capsys, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(tmp_path / "plane.npz", x=x, y=x @ [1.0, 2.0])
    code, out, err = run(capsys, "train", tmp_path / "plane.npz", "--lr", "1e6", "--hidden", "")
    assert code == 1
    assert re.search(r"tinynet: fit: .* at epoch \d+, batch \d+", err)
    assert "result" not in out


# equations


def test_equations_prints_every_number_with_all_that_the_table_has(capsys):
    code, out, _ = run(capsys, "equations")
    assert code == 0
    entries = re.split(r"^ ?(?=\(\d+\)  )", out, flags=re.MULTILINE)[1:]
    for printed, e in zip(entries, EQUATIONS, strict=True):
        assert printed.startswith(f"({e.number})  {e.formula}\n")
        for part in (e.erratum, *e.code, *e.checks):
            assert part in printed
        assert ("erratum" in printed) == bool(e.erratum)


def test_equations_as_json_is_the_table(capsys):
    code, out, _ = run(capsys, "equations", "--json")
    assert code == 0
    table = json.loads(out)
    assert [e["number"] for e in table] == list(range(1, 27))
    assert set(table[0]) >= {"number", "formula", "code", "checks", "erratum"}
    for printed, e in zip(table, EQUATIONS, strict=True):
        assert (printed["formula"], printed["erratum"]) == (e.formula, e.erratum)
        assert (tuple(printed["code"]), tuple(printed["checks"])) == (e.code, e.checks)


# the command itself


def test_version_and_help(capsys):
    assert run(capsys, "--version")[:2] == (0, f"tinynet {tn.__version__}\n")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "train" in out
    assert "equations" in out


def test_an_interrupt_is_exit_code_130(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinynet.cli.train.load_digits", interrupted)
    monkeypatch.setattr("tinynet.cli._end_though_busy", lambda code: None)  # for what another test left waiting
    assert run(capsys, "train") == (130, "", "tinynet: interrupted\n")


def test_importing_tinynet_and_printing_the_equations_need_no_jax():
    program = """
import sys, tinynet, tinynet.cli
tinynet.cli.main(["equations"])
slow = {"jax", "scipy", "sklearn", "tqdm", "matplotlib"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_training_on_numpy_needs_no_jax():
    program = """
import sys, numpy as np, tinynet as tn
x = np.zeros((4, 2))
tn.fit(tn.Sequential(tn.Linear(2, 2), tn.Sigmoid()), tn.SquaredError(), x, x, optimizer=tn.SGD(1), epochs=2)
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)

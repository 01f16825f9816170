"""What `tinynet` writes, and where: run as a user does, with streams that a test's capture does not replace."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinynet.cli import main
from tinynet.training.callbacks import shown

ROOT = Path(__file__).parents[2]


def python(*args, cwd, stdout=subprocess.PIPE, **env):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **env}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, stdout=stdout, stderr=subprocess.PIPE, timeout=120)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = python("-m", "tinynet", "equations", cwd=tmp_path, stdout=closed)
    assert (done.returncode, done.stderr) == (0, b"")


def shell(command, cwd):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    env.pop("PYTHONUNBUFFERED", None)  # what is held back until the exit must not fail there
    command = command.replace("tinynet", f"{sys.executable} -m tinynet")
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


WRONG = """
import numpy as np
def forward(x):
    return x * x
def backward(args, dy):
    return (dy * args[0],)
"""


# Runs one command after another in one process, with the exit code of each, as the shell would.
COMMANDS = """
import runpy, sys
codes = []
for command in sys.argv[1:]:
    sys.argv = ["tinynet", *command.split()]
    try:
        runpy.run_module("tinynet", run_name="__main__")
    except SystemExit as done:
        codes.append(done.code)
print(codes)
"""


@pytest.mark.parametrize(("encoding", "all_of_them"), [("ascii", True), ("gbk", False)])
def test_an_encoding_without_the_signs_of_the_mathematics_spells_them_out(encoding, all_of_them, tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "table.csv").write_text("a,b\n" + "".join(f"{k},{k / 8}\n" for k in range(16)))
    commands = ["equations", "trace", "train table.csv --epochs 2", "--help"]
    commands += [f"{name} --help" for name in ("train", "predict", "evaluate", "verify", "trace", "equations")]
    commands = [*commands[: None if all_of_them else 2], "verify wrong:forward,backward --inputs 2,3"]
    done = python("-c", COMMANDS, *commands, cwd=tmp_path, PYTHONIOENCODING=encoding)
    written = done.stdout.decode(encoding)
    assert written.splitlines()[-1] == str([0] * (len(commands) - 1) + [1]), done.stderr
    assert "?" not in written
    assert "|mine - exact|" in written


def test_a_reader_that_leaves_does_not_change_the_exit_code(tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    quick = "--inputs 2,3 --probe rectangular --dtype float64"
    for pipe in ("| head -c 1", "| true"):
        done = shell(f"set -o pipefail; tinynet verify 'wrong:forward, backward' {quick} {pipe}", tmp_path)
        assert (done.returncode, done.stderr) == (1, ""), pipe
    for pipe in ("", "| head -1", "| head -c 1", "| true"):
        done = shell(f"set -o pipefail; tinynet equations {pipe}", tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), pipe
    assert shell("set -o pipefail; tinynet --help | true", tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("streams", "code", "message"),
    [
        (">&-", 2, "tinynet: standard output is closed; send it to a file, or to /dev/null\n"),
        (">/dev/full", 2, "tinynet: standard output cannot be written: No space left on device\n"),
        ("2>&-", 0, ""),
        (">&- 2>&-", 2, ""),
        (">/dev/full 2>/dev/full", 2, ""),
    ],
)
def test_closed_and_full_streams_are_one_line_and_an_exit_code(tmp_path, streams, code, message):
    done = shell(f"tinynet equations {streams}", tmp_path)
    assert (done.returncode, done.stderr) == (code, message)
    assert bool(done.stdout) == (streams == "2>&-")


def test_an_absurd_network_is_one_line_and_exit_code_2(tmp_path):
    np.savez(tmp_path / "t.npz", x=np.zeros((9, 2)), y=np.arange(9) % 2)
    done = python("-c", COMMANDS, *(f"train t.npz --hidden {n}" for n in ("999999999999", "9" * 18)), cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == b"[2, 2]"
    assert re.fullmatch(r"(tinynet: .*\n){2}", done.stderr.decode())


def test_a_table_cannot_write_to_the_terminal(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("\x1b[2Ja,b\nx,1\ny,2\n")
    assert main(["train", str(tmp_path / "t.csv")]) == 2
    assert capsys.readouterr().err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "-1", "'-1' is not an integer from 0"),
        ("--seed", "4294967296", "'4294967296' is not an integer from 0"),
        ("--test-fraction", "half", "'half' is not a number between 0 and 1"),
        ("--test-fraction", "nan", "'nan' is not a number between 0 and 1"),
        ("--hidden", "²", "'²' is not a positive integer"),
    ],
)
def test_train_names_the_option_that_does_not_fit(capsys, option, value, message):
    with pytest.raises(SystemExit) as stopped:
        main(["train", option, value])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_training_at_rest_is_not_reported_as_wrong(tmp_path, capsys):
    """Its gradients cancel over the rows: 32 ulp of their sum cannot be had, by hand or by JAX."""
    path = tmp_path / "at_rest.npz"
    np.savez(path, x=[[1, 2], [2, 3], [3, 4], [4, 1], [5, 2], [6, 9]], y=[0, 1, 0, 1, 0, 1])
    assert main(["train", str(path), "--epochs", "1000"]) == 0
    gradients = capsys.readouterr().out.splitlines()[-2]
    assert "of the tolerance" in gradients


def test_the_progress_bar_shows_what_fits_80_columns():
    row = {"loss": 0.0123456, "validation_loss": 1.23456e-5, "accuracy": 0.5, "validation_accuracy": 0.98765}
    assert shown(row | {"seconds": 1.0}) == {"loss": "0.0123", "val_loss": "1.23e-05", "val_accuracy": "0.988"}
    assert shown({"loss": 2.0, "accuracy": 0.25, "seconds": 1.0}) == {"loss": "2", "accuracy": "0.25"}

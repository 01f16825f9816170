"""`tinynet verify`, as somebody who has a module of layers runs it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tinynet.cli import main
from tinynet.layers import Layer, Linear, Sigmoid
from tinynet.verification import random_networks

ROOT = Path(__file__).parents[2]

MODULE = """
    import tinynet as tn
    from tinynet import Linear

    print("noise on import")

    class Right(tn.Linear): ...

    class Mean(tn.Linear):
        def param_grads(self, params, a, dz):
            grads = super().param_grads(params, a, dz)
            return {"W": grads["W"] / len(a), "b": grads["b"]}

    class Half(tn.Sigmoid):
        def backward(self, params, df, da):
            return da * df / 2, {}

    class Needy(tn.Sigmoid):
        def __init__(self, *, name: str): ...

    class Raising(tn.Sigmoid):
        def __init__(self):
            raise RuntimeError("two\\nlines")

    class _Private(tn.Sigmoid): ...

    class box:
        inner = Right(2, 3)

    def forward(x):
        return x * x

    def backward(args, dy):
        return (2 * args[0] * dy,)

    pair = (forward, backward)
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A folder with the user's modules, as the current one; their names are forgotten afterwards."""
    known, path = set(sys.modules), list(sys.path)
    (tmp_path / "mylayers.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "raising.py").write_text("raise RuntimeError('two\\nlines')")
    (tmp_path / "leaving.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "exits.py").write_text("import sys\nclass Layer:\n    def __init__(self): sys.exit(3)\n")
    (tmp_path / "hollow" / "verification").mkdir(parents=True)
    (tmp_path / "hollow" / "verification" / "cases.py").write_text("CASES = ()")
    (tmp_path / "broken.py").write_text("def f(:")
    (tmp_path / "lacking.py").write_text("import no_such_dependency")
    (tmp_path / "empty.py").write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if not name.startswith(("jax", "tinynet", "numpy")):
            del sys.modules[name]


def run(capsys, *args):
    code = main(["verify", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_self_test_of_a_package_seeds_faults_into_its_own_layers(user_module, capsys):
    (user_module / "mine.py").write_text(
        "from dataclasses import dataclass\n\nimport tinynet as tn\n\n\n"
        "@dataclass(frozen=True)\nclass Square(tn.Layer):\n"
        "    def forward(self, params, z):\n        return z * z, z\n\n"
        "    def backward(self, params, z, da):\n        return da * 2 * z, {}\n"
    )
    code, out, err = run(capsys, "--self-test", "--all", "mine", "--json")
    scores = json.loads(out)
    assert code == 0, (out, err)
    assert scores[-1]["name"] == "all"
    assert 20 < scores[-1]["seeded"] == scores[-1]["found"] < 60
    code, _, err = run(capsys, "mylayers:Right", "--self-test")
    assert code == 2
    assert "--self-test" in err


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    "target",
    [
        "mylayers:Right",
        "mylayers:Right(2, n_out=3)",
        "mylayers:Sequential(Linear(4, 3), Sigmoid())",
        "mylayers:tn.Linear(2, 2)",
        "mylayers:box.inner",
        "mylayers:pair",
        "mylayers:forward, backward",
        "mylayers:SquaredError('mean')",
    ],
)
def test_a_right_target_passes_however_it_is_named(capsys, target):
    code, out, _ = run(capsys, target, "--probe", "rectangular")
    assert code == 0
    assert out.startswith("PASS")


@pytest.mark.usefixtures("user_module")
def test_a_wrong_layer_is_named_and_its_reproduce_line_reproduces_it(capsys):
    code, out, _ = run(capsys, "mylayers:Mean(4, 3)", "--seed", "3")
    assert code == 1
    assert "scaled by 1/m" in out
    command = next(line for line in out.splitlines() if line.strip().startswith("reproduce"))
    code, again, _ = run(capsys, *shlex.split(command.split("tinynet verify ")[1]))
    assert code == 1
    fault, worst = (next(line for line in out.splitlines() if line.strip().startswith(w)) for w in ("fault", "worst"))
    assert fault in again
    assert worst.split("got")[0] in again


@pytest.mark.usefixtures("user_module")
def test_json_is_all_that_is_printed_with_json_even_if_the_module_prints(capsys):
    code, out, err = run(capsys, "mylayers:Mean", "--json", "--dtype", "float64")
    report = json.loads(out)
    assert (code, report["verdict"], report["findings"][0]["gradient"]) == (1, "FAIL", "params.W")
    assert "noise on import" in err


def test_inputs_gives_one_array_for_each_shape(capsys, user_module):
    (user_module / "two.py").write_text(
        "def f(a, b): return a @ b\ndef g(args, dy): return dy @ args[1].T, args[0].T @ dy\n"
    )
    probe = ("--probe", "rectangular")
    assert run(capsys, "two:f, g", "--inputs", "5,4", "--inputs", "4,2", *probe)[0] == 0
    assert run(capsys, "two:f, g", "--inputs", "5,4", "--inputs", "5,4", *probe)[0] == 2


def test_inputs_go_by_name_and_flags_are_constants(capsys, user_module):
    (user_module / "flagged.py").write_text(
        "def f(x, w, train, kind='a'): return x @ w * (2 if train is True else 1) * (3 if kind == 'b' else 1), (x, w)\n"
        "def g(dy, cache): return 6 * dy @ cache[1].T, 6 * cache[0].T @ dy\n"
    )
    probe = ("--probe", "rectangular")
    flags = ("--flag", "train=true", "--flag", "kind=b")
    assert run(capsys, "flagged:f, g", "--inputs", "5,4", "--inputs", "4,2", *flags, *probe)[0] == 0
    assert run(capsys, "flagged:f, g", "--inputs", "w=4,2", "--inputs", "x=5,4", *flags, *probe)[0] == 0
    assert run(capsys, "flagged:f, g", "--inputs", "w=4,2", "--inputs", "5,4", *flags[:2], *probe)[0] == 1


@pytest.mark.usefixtures("user_module")
def test_the_verdict_is_printed_before_names_are_looked_for(capsys):
    code, out, _ = run(capsys, "mylayers:Mean(4, 3)", "--wrt", "params.W", "--name-seconds", "0")
    lines = out.splitlines()
    assert (code, lines[0].split()[0]) == (1, "FAIL")
    assert [line.split()[1] for line in lines if line.startswith("  compared")] == ["params.W"]
    assert sum(line.startswith("FAIL") for line in lines) == 2
    assert "fault      unknown" in out
    seen = []
    report = tn.verify(_HalfSigmoid(), probes=["rectangular"], on_verdict=seen.append)
    assert [(r.verdict, r.findings) for r in seen] == [("FAIL", ())]
    assert report.findings


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nowhere:Layer"], "nowhere: no such module"),
        (["mylayers:Rihgt"], "did you mean Right?"),
        (["mylayers:box.iner"], "did you mean inner?"),
        (["mylayers"], "expected MODULE:NAME"),
        (["mylayers.py:Right"], "expected the name of its module: mylayers"),
        (["mylayers:Needy"], "give an instance"),
        (["mylayers:Raising()"], "raises RuntimeError: two"),
        (["mylayers:Right(0, 3)"], "expected at least 1"),
        (["mylayers:tn.fit"], "give inputs="),
        (["mylayers:[x for x in pair]"], "names, calls and literals only"),
        (["mylayers:1 +"], "is not an expression"),
        (["raising:Layer"], "importing raising raises RuntimeError: two"),
        (["leaving:Layer"], "importing leaving raises SystemExit"),
        (["exits:Layer()"], "Layer() raises SystemExit: 3"),
        (["exits:Layer"], "Layer() raises SystemExit: 3"),
        (["--all", "hollow"], "CASES is empty"),
        (["mylayers:Right", "--flag", "a=1", "--all", "empty"], "expected one of"),
        (["--all", "empty", "--wrt", "x"], "--wrt goes with one target"),
        (["mylayers:forward, backward", "--inputs", "2", "--inputs", "2", "--flag", "x=1"], "2 shapes without a name"),
        (["broken:Layer"], "importing broken raises SyntaxError"),
        (["lacking:Layer"], "importing lacking raises ModuleNotFoundError"),
        (["mylayers:Right(4, 3)", "--inputs", "5,3"], "expected (..., 4)"),
        (["mylayers:Right", "--probe", "nope"], "no probe ['nope']"),
        (["mylayers:Right", "--html", "no/such/folder/page.html"], "no folder"),
        (["mylayers:Right", "--html", "."], "is a folder"),
        (["mylayers:Right", "--all", "mylayers"], "expected one of"),
        ([], "expected one of"),
        (["--all", "empty"], "no public Layer or Loss"),
        (["--all", "nowhere"], "nowhere: no such module"),
        (["--all", "mylayers", "--inputs", "2,2"], "--inputs goes with one target"),
        (["--self-test", "--probe", "state"], "--probe does not go with --self-test"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(capsys, args, told):
    code, out, err = run(capsys, *args)
    lines = [line for line in err.splitlines() if line != "noise on import"]
    assert (code, out, len(lines)) == (2, "", 1)
    assert told in lines[0]
    assert "Traceback" not in err


def test_all_verifies_each_class_of_a_module_and_leaves_none_out_silently(capsys, user_module, monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    code, out, _ = run(capsys, "--all", "mylayers", "--dtype", "float64", "--html", "page.html")
    lines = {line.split()[1].partition("(")[0]: line for line in out.split("\n\n")[0].splitlines()}
    assert code == 1
    assert lines["Right"].startswith("PASS")
    assert lines["Mean"].startswith("FAIL")
    assert "params.W: scaled by 1/m" in lines["Mean"]
    assert "x: scaled by 1/2" in lines["Half"]
    assert lines["Needy"].startswith("INCONCLUSIVE")
    assert "give an instance" in lines["Needy"]
    assert lines["Raising"].startswith("INCONCLUSIVE")
    assert "random" in lines
    assert "hypothesis is not installed" in lines["random"]
    assert set(lines) == {"Right", "Mean", "Half", "Needy", "Raising", "random"}
    assert "1 of 5 pass, 2 fail, 2 inconclusive" in out
    assert "scaled by 1/m" in (user_module / "page.html").read_text()


class _HalfSigmoid(Sigmoid):
    def backward(self, params, df, da):
        return da * df / 2, {}


def test_random_networks_shrink_to_the_smallest_and_name_the_guilty_layer():
    before = set(os.listdir())
    report = random_networks.verify_networks([_HalfSigmoid(), Sigmoid()], count=5)
    assert report.verdict == "FAIL"
    assert "Sequential(Linear(n_in=1, n_out=1), _HalfSigmoid())" in report.findings[0].target
    assert "layer 1: _HalfSigmoid()" in report.findings[0].target
    assert set(os.listdir()) == before


def test_the_activations_of_a_package_are_its_layers_without_parameters_that_keep_the_shape():
    assert random_networks.activations_among([Linear(4, 3), Sigmoid, Sigmoid(), 3]) == [Sigmoid(), Sigmoid()]


def test_ctrl_c_ends_it_with_one_line():
    process = subprocess.Popen(
        [sys.executable, "-m", "tinynet", "verify", "--all", "tinynet"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "tinynet: interrupted")


class _Leaky(Layer):
    """Written with NumPy's own names, as users write it."""

    def init(self, rng, dtype=np.float32):
        return {}

    def forward(self, params, x):
        return np.where(x > 0, x, 0.1 * x), x

    def backward(self, params, x, dy):
        return np.where(x > 0, dy, 0.1 * dy), {}


class _Opaque(_Leaky):
    def forward(self, params, x):
        return np.array([[abs(float(v)) for v in row] for row in x]).reshape(x.shape), x


def test_layers_in_numpy_s_names_join_random_networks_and_those_that_jax_cannot_trace_do_not():
    activations = random_networks.activations_among([_Leaky(), _Opaque()])
    assert [type(layer) for layer in activations] == [_Leaky]
    assert random_networks.verify_networks(activations, count=3).ok

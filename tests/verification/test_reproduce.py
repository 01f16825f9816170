"""The command that a finding gives makes the same finding again."""

import importlib
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tinynet.cli import main
from tinynet.verification.reproduce import command

MODULE = """
    from dataclasses import dataclass

    import jax
    import numpy as np

    import tinynet as tn

    @dataclass(frozen=True)
    class Layer(tn.Layer):
        width: int = 3

        def init(self, rng, dtype=np.float32):
            return {"b": np.zeros(self.width, dtype)}

        def forward(self, params, x):
            return x + params["b"], ()

        def backward(self, params, cache, dy):
            return dy, {"b": dy.mean(axis=0)}

    @dataclass
    class Scale:
        by: float = 2.0

        def forward(self, x):
            return self.by * x * x

        def backward(self, dy):
            return self.by * dy

    class Held:
        def __init__(self):
            self.W = np.linspace(-1, 1, 12).reshape(4, 3)

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dy):
            self.dW = self.x.T @ dy / len(dy)
            return dy @ self.W.T

    held = Held()

    def forward(x, w, kind="tanh"):
        z = x @ w
        return (np.tanh(z) if kind == "tanh" else z), (x, w, z)

    def backward(dy, cache):
        x, w, z = cache
        return 3 * dy @ w.T, 3 * x.T @ dy

    square = lambda x: x * x
    half = lambda args, dy: (args[0] * dy,)

    def closure(x, scale):
        return scale * x * x, lambda dy: scale * x * dy

    def valued(w, x):
        return (w * x).sum(), 2 * x

    @jax.custom_vjp
    def rule(x):
        return x * x

    rule.defvjp(lambda x: (rule(x), x), lambda x, dy: (dy * x,))

    def local():
        return lambda args, dy: (args[0] * dy,)
"""

MODULE_WITH_TORCH = """
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx, dy):
            a, b = ctx.saved_tensors
            return dy * b, -dy * a
"""


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    (folder / "forms_of_others.py").write_text(textwrap.dedent(MODULE))
    (folder / "forms_with_torch.py").write_text(textwrap.dedent(MODULE_WITH_TORCH))
    sys.path.insert(0, str(folder))
    yield importlib.import_module("forms_of_others")
    sys.path.remove(str(folder))
    del sys.modules["forms_of_others"]


X = np.random.default_rng(0).standard_normal((5, 3))
TARGETS = {
    "a layer": (lambda m: m.Layer(4), None, "forms_of_others:Layer(width=4)"),
    "a layer's class": (lambda m: m.Layer, X, "forms_of_others:Layer --inputs 5,3"),
    "a dataclass": (lambda m: m.Scale(3.0), X, "'forms_of_others:Scale(by=3.0)' --inputs 5,3"),
    "an object of a module's": (lambda m: m.held, (5, 4), "forms_of_others:held --inputs 5,4"),
    "a class": (lambda m: m.Held, None, "forms_of_others:Held"),
    "a pair": (
        lambda m: (m.forward, m.backward),
        ((5, 3), (3, 2), "linear"),
        "'forms_of_others:forward, backward' --inputs x=5,3 --inputs w=3,2 --flag kind=linear",
    ),
    "a pair of named lambdas": (lambda m: (m.square, m.half), X, "'forms_of_others:square, half' --inputs 5,3"),
    "a closure": (lambda m: m.closure, {"x": (5, 3), "scale": 2.0}, "--inputs x=5,3 --flag scale=2.0"),
    "(E, gradient)": (lambda m: m.valued, (X, X), "forms_of_others:valued --inputs 5,3 --inputs 5,3"),
    "a custom_vjp": (lambda m: m.rule, X, "forms_of_others:rule --inputs 5,3"),
}


@pytest.mark.parametrize("form", TARGETS)
def test_the_command_makes_the_finding_again(forms, form, capsys):
    make, inputs, expected = TARGETS[form]
    assert_the_command_finds_it_again(make(forms), inputs, expected, capsys)


def test_the_command_makes_the_finding_in_a_function_of_torch_again(forms, capsys):
    pytest.importorskip("torch")
    target = importlib.import_module("forms_with_torch").Function.apply
    assert_the_command_finds_it_again(target, ((4, 3), (4, 3)), "forms_with_torch:Function --inputs", capsys)


def assert_the_command_finds_it_again(target, inputs, expected, capsys):
    report = tn.verify(target, inputs=inputs, seed=3, probes=["rectangular"])
    (finding,) = report.findings
    assert expected in finding.reproduce
    assert finding.reproduce.endswith("--seed 3 --probe rectangular")
    assert main(shlex.split(finding.reproduce)[1:]) == 1
    out = capsys.readouterr().out
    assert finding.explanation in out
    assert finding.reproduce in out


def test_the_command_runs_in_a_shell(forms):
    options = {"wrt": "w", "dtype": "float64", "probes": ["rectangular"]}
    (finding,) = tn.verify((forms.forward, forms.backward), inputs=((5, 3), (3, 2)), **options).findings
    assert finding.reproduce.endswith("--seed 0 --wrt w --probe rectangular --dtype float64")
    shell = subprocess.run(
        f"{shlex.quote(sys.executable)} -m {finding.reproduce}",
        shell=True,
        capture_output=True,
        text=True,
        cwd=Path(forms.__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(tn.__file__).parents[1])},
        check=False,
    )
    assert (shell.returncode, shell.stderr) == (1, "")
    assert finding.explanation in shell.stdout


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda m: (m.square, m.local()), X),
        (lambda m: m.Held(), X),
        (lambda m: (m.square, m.half), abs(X)),
        (lambda m: (m.square, m.half), np.arange(6)),
        (lambda m: (m.square, m.half), ({"a": X},)),
        (lambda m: (m.square, np.square), X),
    ],
    ids=["a local function", "an object of no name", "one sign", "integers", "a dict of arrays", "two modules"],
)
def test_no_command_is_given_where_it_would_not_show_the_same(forms, make, inputs):
    assert command(make(forms), inputs, {}) == ""

"""The faults that the diagnosis is measured with, made from the text of backward passes: a minute."""

import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "calibrate_diagnosis.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def made(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    modules = [module for half in script["HALVES"].values() for module in half]
    return [change for module in modules for change in script["changes"](module, folder, 18)]


def test_there_are_300_faults_in_12_layers_of_every_kind_and_half_of_them_is_kept_apart(script, made):
    assert len(made) >= 300
    assert len({c.layer for c in made}) >= 12
    assert {c.kind for c in made} == set(script["TRUTHFUL"])
    modules = [module for half in script["HALVES"].values() for module in half]
    assert sorted(modules) == sorted({p.stem for p in script["FOLDER"].glob("*.py")} - {"functions"})
    assert len(set(modules)) == len(modules)


def test_each_fault_is_wrong_by_jax_vjp_and_its_forward_is_not(made):
    for change in made[::25]:
        rng = np.random.default_rng(0)
        layer, params, x = change.target, change.target.init(rng, np.float64), rng.standard_normal(change.inputs)
        y, cache = layer.forward(params, x)
        dy = rng.standard_normal(y.shape)
        dx, dparams = layer.backward(params, cache, dy)
        with jax.enable_x64(True):
            exact, exact_x = jax.vjp(lambda p, x, layer=layer: layer.forward(p, x)[0], params, x)[1](dy)
        pairs = [(dx, exact_x), *((dparams[k], exact[k]) for k in exact)]
        assert not all(np.allclose(g, h, rtol=1e-7, atol=1e-10) for g, h in pairs), change


def test_a_fault_is_one_line_of_backward_and_its_edge_lies_in_forward(script, made):
    for change in made[::10]:
        path = Path(type(change.target).backward.__code__.co_filename)
        right = next(
            p for p in script["FOLDER"].glob("*.py") if f"class {type(change.target).__name__}(" in p.read_text("utf-8")
        )
        lines = zip(path.read_text("utf-8").splitlines(), right.read_text("utf-8").splitlines(), strict=True)
        (line,) = [i for i, (a, b) in enumerate(lines, 1) if a != b]
        code = [type(change.target).forward.__code__, type(change.target).backward.__code__]
        assert code[1].co_firstlineno < change.line <= line
        assert all(edge < code[1].co_firstlineno for edge in change.edges)  # a helper may stand above the class
        assert any(code[0].co_firstlineno < edge for edge in change.edges)


def test_it_measures_and_writes_what_it_prints(script, tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert script["main"](["--half", "build", "--only", "GLU", "--most", "1", "--json", str(path)]) == 0
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["GLU"] == figures["all of build"]
    assert figures["GLU"]["found"] == figures["GLU"]["faults"] == 1
    assert "found 1" in capsys.readouterr().out

"""The pytest plugin, loaded as the wheel installs it: as the module `pytest_tinynet`."""

import os
import shutil
import tomllib
from pathlib import Path

import pytest

from tinynet.verification import PROBES

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]

LAYERS = """
import pytest
import tinynet as tn

class Mean(tn.Linear):
    def param_grads(self, params, a, dz):
        grads = super().param_grads(params, a, dz)
        return {"W": grads["W"] / len(a), "b": grads["b"]}
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a test module in a pytest of its own that has the plugin."""
    shutil.copy(ROOT / "tinynet/verification/pytest_plugin.py", pytester.path / "pytest_tinynet.py")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(pytester.path)]))
    # An installed tinynet would register the same plugin a second time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text, *args):
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-p", "xdist", "-p", "pytest_tinynet", "--strict-markers", *args)

    return run


def test_the_wheel_installs_this_file_under_the_name_of_the_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"tinynet": "pytest_tinynet"}
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["tinynet/verification/pytest_plugin.py"] == "pytest_tinynet.py"


def test_each_probe_is_a_test_and_a_failing_one_shows_the_finding_and_no_internals(run):
    result = run(
        LAYERS
        + """
@pytest.mark.gradients(Mean(4, 3), dtype="float64")
def test_mean(): raise RuntimeError("the body runs only after its probe has passed")

@pytest.mark.gradients(tn.Linear(4, 3), inputs=(5, 4), probes=["forward", "batch 1"])
def test_linear(gradients, tmp_path): assert gradients.ok

@pytest.mark.gradients(target=tn.Sigmoid, probes=["forward", "rectangular"])
def test_body(gradients): assert not gradients.ok, "the body ran"
""",
        "-v",
        "-rs",
    )
    result.stdout.fnmatch_lines_random(
        [
            "*::test_mean?rectangular? FAILED*",
            "*::test_mean?batch-2? FAILED*",
            "*::test_mean?branches? SKIPPED*",
            "*::test_linear?forward? PASSED*",
            "*::test_linear?batch-1? PASSED*",
            "*::test_body?forward? FAILED*",
            "*scaled by 1/m*",
            "*where      *.py:*",
            "SKIPPED*a fault was found before it*",
            "*the body ran*",
        ]
    )
    # Of the shapes, only a batch of one hides the missing factor; then the body runs, and raises.
    result.stdout.fnmatch_lines(["*RuntimeError: the body runs only after its probe has passed"])
    assert "def _judge" not in result.stdout.str()
    assert "verification/" not in result.stdout.str()


def test_a_target_that_cannot_be_verified_fails_once_in_one_line(run):
    result = run(
        "import pytest\n@pytest.mark.gradients(3, seed=0)\ndef test_it(): ...\n"
        "@pytest.mark.gradients((lambda x: x, lambda args, dy: dy), probes=['forward'])\ndef test_inconclusive(): ..."
    )
    result.assert_outcomes(failed=2, skipped=len(PROBES) - 1)
    result.stdout.fnmatch_lines(["pytest.mark.gradients: target is int; expected*"])
    result.stdout.fnmatch_lines(["INCONCLUSIVE*"])
    assert "Error" not in result.stdout.str()


def test_it_works_under_xdist(run):
    result = run(
        LAYERS + "@pytest.mark.gradients(Mean(4, 3), probes=['forward', 'rectangular'])\ndef test_it(): ...", "-n", "2"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*scaled by*"])


def test_unused_it_imports_nothing_of_ours_and_nothing_heavy(run):
    result = run(
        """
import sys

def test_it():
    heavy = {"jax", "numpy", "tinynet"} & set(sys.modules)
    assert not heavy
    assert "pytest_tinynet" in sys.modules
"""
    )
    result.assert_outcomes(passed=1)
    markers = run("", "--markers")
    markers.stdout.fnmatch_lines(["@pytest.mark.gradients(target, [*][*]options): verify*"])

"""`tinynet` as a namespace: every name is there whichever extras are missing, and a type checker knows no other."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tinynet

EXTRAS = ("hypothesis", "matplotlib", "sklearn", "torch", "tqdm")
FIT = "tinynet.fit(tinynet.Linear(1, 1), tinynet.Huber(), [[1.0]], [[1.0]], optimizer=tinynet.SGD(1.0), epochs=1"


def run(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_tinynet_imports_neither_numpy_nor_jax():
    shown = run("import sys, tinynet; print({'numpy', 'jax'} & set(sys.modules), tinynet.__version__)")
    assert shown == f"set() {tinynet.__version__}\n"


def test_what_needs_no_jax_is_imported_without_it():
    use = "from tinynet import Linear, fit, layers, load, scalar, trees"
    assert run(f"import sys, tinynet; {use}; print('jax' in sys.modules)") == "False\n"


def test_every_name_is_there_whichever_extras_are_missing():
    """What walks through a module: dir, help, a star import, inspect, a mock with its specification."""
    run(
        """
        import importlib, inspect, pydoc, sys
        from unittest import mock

        def walk_without(*missing):
            for name in [name for name in sys.modules if name.split(".")[0] == "tinynet"]:
                del sys.modules[name]
            kept = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] in missing}
            sys.modules.update(dict.fromkeys(missing))  # importing one of these raises ImportError
            tinynet = importlib.import_module("tinynet")
            names = set(tinynet.__all__)
            assert {"Linear", "fit", "plot", "to_torch"} <= names
            assert {name for name in names if not hasattr(tinynet, name)} == set()
            assert hasattr(tinynet, "sklearn") == ("sklearn" not in missing)
            assert names <= set(dir(tinynet))
            assert names <= dict(inspect.getmembers(tinynet)).keys()
            assert names <= set(dir(mock.create_autospec(tinynet)))
            assert "to_torch" in pydoc.render_doc(tinynet, renderer=pydoc.plaintext)
            imported = {}
            exec("from tinynet import *", imported)
            assert names <= imported.keys()
            assert "sklearn" not in imported, "a star import of tinynet must not hide scikit-learn"
            for name in missing:
                del sys.modules[name]
            sys.modules.update(kept)

        for extra in sys.argv[1:]:
            walk_without(extra)
        walk_without(*sys.argv[1:])
        """,
        *EXTRAS,
    )


def test_a_missing_extra_is_a_message_with_the_command_that_installs_it():
    uses = [
        ("torch", "tinynet.to_torch(tinynet.Sigmoid())", "torch"),
        ("matplotlib", "tinynet.plot.learning_curves({'loss': [1.0]})", "plot"),
        ("sklearn", "import tinynet.sklearn", "sklearn"),
        ("sklearn", "tinynet.sklearn", "sklearn"),
        ("tqdm", f"{FIT}, progress=True)", "train"),
        ("hypothesis", "from tinynet.testing import strategies; strategies.networks()", "verify"),
    ]
    code = f"""
    import importlib, sys
    sys.modules.update(dict.fromkeys({EXTRAS!r}))
    for use in {[use for _, use, _ in uses]!r}:
        for name in [name for name in sys.modules if name.split(".")[0] == "tinynet"]:
            del sys.modules[name]
        tinynet = importlib.import_module("tinynet")
        try:
            exec(use)
        except (ImportError, AttributeError) as error:
            print(*str(error).splitlines())
    """
    said = run(code).splitlines()
    for line, (_, use, extra) in zip(said, uses, strict=True):
        assert f'use pip install "tinynet-grad[{extra}]"' in line, use


def test_a_type_checker_knows_every_name_and_no_other(tmp_path):
    names = sorted({*tinynet.__all__, "sklearn", "__version__"})
    (tmp_path / "uses.py").write_text("import tinynet\n" + "\n".join(f"tinynet.{name}" for name in [*names, "Linaer"]))
    command = [sys.executable, "-m", "mypy", str(tmp_path / "uses.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    errors = [line for line in done.stdout.splitlines() if "uses.py" in line and ": error:" in line]
    assert ["Linaer" in error for error in errors] == [True], done.stdout + done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error_that_knows_the_nearest():
    with pytest.raises(AttributeError, match="Linaer") as caught:
        tinynet.Linaer  # noqa: B018
    assert caught.value.obj is tinynet
    assert caught.value.name == "Linaer"

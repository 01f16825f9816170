"""The folders of the package: what may import what, and names that cannot be mistaken for each other."""

import ast
import itertools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tinynet"
MODULES = sorted(PACKAGE.rglob("*.py"))

ORDER = """
    faults
    arrays trees
    checks
    special initializers
    layers
    losses optimizers
    gradients
    scalar equations
    files
    inspection pages
    plot
    bridges
    testing
    verification
    training
    sklearn
    cli
"""
LINES = [line.split() for line in ORDER.split("\n") if line]
PARTS = list(itertools.chain(*LINES))
"""A module imports from the parts of the package on its own line and on the lines above it."""

PUBLIC_OF_VERIFICATION = {"verify", "check", "GradientError"}


def part(path):
    """Return the top-level module or folder that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Yield (module, name) of each import from tinynet in a file, wherever in it; the name is "" for a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "tinynet")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinynet":
            for alias in node.names:
                is_part = node.module == "tinynet" and (PACKAGE / alias.name).with_suffix(".py").exists()
                is_part |= node.module == "tinynet" and (PACKAGE / alias.name).is_dir()
                yield (f"tinynet.{alias.name}", "") if is_part else (node.module, alias.name)


def up_to(name):
    """Return the parts on the line of `name` and on those above."""
    last = next(i for i, line in enumerate(LINES) if name in line)
    return {*itertools.chain(*LINES[: last + 1])}


def test_every_part_of_the_package_has_its_place_in_the_order():
    assert {part(path) for path in MODULES} - {"__init__", "__main__"} == set(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_imports_run_one_way(name):
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in MODULES
        if part(path) == name
        for module, _ in imports(path)
        if module != "tinynet" and module.split(".")[1] not in up_to(name)
    ]
    assert wrong == []


def test_nothing_that_all_else_is_built_on_imports_the_whole_package():
    below = up_to("files")
    users = [str(path) for path in MODULES if part(path) in below for module, _ in imports(path) if module == "tinynet"]
    assert users == []


def test_the_package_uses_three_names_of_verification_and_the_command_line_its_reports():
    used = {
        (part(path), module, name)
        for path in MODULES
        if part(path) not in {"verification", "__init__", "cli"}
        for module, name in imports(path)
        if module.startswith("tinynet.verification")
    }
    assert {module for _, module, _ in used} <= {"tinynet.verification"}
    assert {name for _, _, name in used} <= PUBLIC_OF_VERIFICATION


def test_no_two_modules_are_named_alike():
    """`layers/layer.py` is the base class of what `layers/` holds; conv1d and conv2d, GELU and ReLU are known names."""
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    names -= {"conv1d", "gelu"} | {path.stem for path in MODULES if path.parent.name == f"{path.stem}s"}
    alike = [f"{a} {b}" for a, b in itertools.combinations(sorted(names), 2) if one_letter_apart(a, b)]
    assert alike == []


def one_letter_apart(a, b):
    short, long = sorted((a, b), key=len)
    if len(short) == len(long):
        return sum(x != y for x, y in zip(a, b, strict=True)) == 1
    return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def test_there_are_at_most_twelve_modules_beside_the_folders():
    assert len([path for path in MODULES if path.parent == PACKAGE and not path.stem.startswith("__")]) <= 12

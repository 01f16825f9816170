"""Where in the user's source a gradient is computed: from the return statement back to the assignment."""

from __future__ import annotations

import ast
import inspect
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["line_of_error", "line_of_gradient"]


def line_of_gradient(functions: Sequence[Callable[..., Any]], gradient: str, position: int) -> str:
    """Return `file:line   text` of the expression that gives a gradient; "" where it cannot be found.

    Args:
        functions: the code that computes gradients.
        gradient: "x", "params.W", …: the last part is looked for as a key, or as d<name>.
        position: its place among several values that are returned.
    """
    key = gradient.rpartition(".")[2].rpartition("[")[0] or gradient.rpartition(".")[2]
    for function in functions:
        try:
            lines, first = inspect.getsourcelines(function)
            file = inspect.getsourcefile(function) or ""
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):
            continue
        node = _expression(tree, key, position)
        if node is not None:
            line = first + node.lineno - 1
            return f"{Path(file).name}:{line}   {lines[node.lineno - 1].strip()}"
    return ""


def line_of_error(error: BaseException, files: Sequence[str]) -> str:
    """Return `file:line   text` of the innermost frame of an error outside the verifier itself."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tinynet/verification/" not in f.filename]
    own = [f for f in frames if f.filename in files] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}   {own[-1].line}" if own else ""


def _expression(tree: ast.AST, key: str, position: int) -> ast.expr | ast.stmt | None:
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Dict):
            for k, value in zip(node.keys, node.values, strict=True):
                if isinstance(k, ast.Constant) and k.value == key:
                    return _resolve(nodes, value)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Attribute) and target.attr in (f"d{key}", f"grad_{key}", f"{key}_grad"):
                return node
            if (
                isinstance(target, ast.Subscript)
                and isinstance(target.slice, ast.Constant)
                and target.slice.value == key
            ):
                return node
    returned = [n.value for n in nodes if isinstance(n, ast.Return) and n.value is not None]
    if not returned:
        return None
    value = returned[-1]
    if isinstance(value, ast.Tuple) and position < len(value.elts):
        value = value.elts[position]
    return _resolve(nodes, value)


def _resolve(nodes: list[ast.AST], value: ast.expr) -> ast.expr | ast.stmt:
    """Follow a name to the last statement that assigns it."""
    if not isinstance(value, ast.Name):
        return value
    assigned = [
        n
        for n in nodes
        if isinstance(n, (ast.Assign, ast.AugAssign, ast.AnnAssign))
        and any(
            isinstance(t, ast.Name) and t.id == value.id
            for t in (n.targets if isinstance(n, ast.Assign) else [n.target])
        )
    ]
    return max(assigned, key=lambda n: n.lineno) if assigned else value

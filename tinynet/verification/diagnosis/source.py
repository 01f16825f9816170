"""The user's source text: the statement to which a line belongs."""

from __future__ import annotations

import ast
import functools
import itertools
import linecache
import os
import types
from pathlib import Path
from typing import NamedTuple

HERE = str(Path(__file__).parents[1])
"""The folder of the verifier, whose lines are not the user's."""
TINYNET = str(Path(__file__).parents[2]) + os.sep
"""That of tinynet, whose lines are the target's where it is a layer of tinynet's own."""


class Line(NamedTuple):
    """A line of a file; empty where it is not known."""

    file: str = ""
    number: int = 0

    def __bool__(self) -> bool:
        return bool(self.file)

    @staticmethod
    def of(code: types.CodeType, offset: int) -> Line:
        """Return the line of one instruction of a code object."""
        position = next(itertools.islice(code.co_positions(), offset // 2, None), None)
        return Line(code.co_filename, (position and position[0]) or code.co_firstlineno)

    def statement(self) -> Line:
        """Return the first line of the statement that this line belongs to."""
        found = statement_at(self.file, self.number)
        return found[0] if found else self

    def end(self) -> Line:
        """Return the `return` at the end of the function that this line is in; the line itself if there is none."""
        outer = _function_around(self.file, self.number) if self else None
        last = outer.body[-1] if outer else None
        return Line(self.file, last.lineno) if isinstance(last, ast.Return) else self

    def text(self) -> str:
        """Return the source of the statement, on one line; "" where there is no source."""
        found = statement_at(self.file, self.number)
        if not found:
            return linecache.getline(self.file, self.number).strip()
        first, last = found[1].lineno, _last_line(found[1])
        return " ".join(" ".join(linecache.getline(self.file, n) for n in range(first, last + 1)).split())

    def target(self) -> str:
        """Return what the statement assigns to, "q" for `q = x @ W`; "" where it is no assignment."""
        name, equals, rest = self.text().partition(" = ")
        return name if equals and rest and name.replace(".", "").isidentifier() else ""

    def excerpt(self, around: int | None = None) -> tuple[tuple[int, str, bool], ...]:
        """Return the lines around, of the whole function if it is short: number, text, whether of the statement."""
        found = statement_at(self.file, self.number)
        if found is None:
            return ()
        first, last = found[1].lineno, _last_line(found[1])
        margin = 8 if around is None else around
        start, end = first - margin, last + margin
        if (outer := _function_around(self.file, first)) and outer.end_lineno:
            whole = around is None and outer.end_lineno - outer.lineno < 40
            start, end = (outer.lineno, outer.end_lineno) if whole else (start, min(end, outer.end_lineno))
        lines = linecache.getlines(self.file)
        shown = range(max(start, 1), min(end, len(lines)) + 1)
        return tuple((n, lines[n - 1].rstrip(), first <= n <= last) for n in shown)

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.statement().number}" if self else ""


def statement_at(file: str, number: int) -> tuple[Line, ast.stmt] | None:
    """Return the smallest statement that a line belongs to, and its first line; None where there is no source."""
    return _statements(file).get(number) if file else None


def statements_on(line: Line) -> list[tuple[ast.stmt, bool]]:
    """Return the simple statements on a line, and whether each may not have run: the body of an `if` on that line."""
    return _simple(line.file).get(line.number, [])


def _last_line(node: ast.stmt) -> int:
    """Return the last line of a statement; of one that holds others, that of its head."""
    body = getattr(node, "body", None)
    return max(body[0].lineno - 1, node.lineno) if body else node.end_lineno or node.lineno


def _function_around(file: str, number: int) -> ast.FunctionDef | None:
    around = [f for f in _functions(file) if f.lineno <= number <= (f.end_lineno or f.lineno)]
    return max(around, key=lambda f: f.lineno, default=None)


@functools.lru_cache(maxsize=64)
def _parsed(file: str) -> ast.Module:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ast.Module([], [])


@functools.lru_cache(maxsize=64)
def _functions(file: str) -> tuple[ast.FunctionDef, ...]:
    return tuple(f for f in ast.walk(_parsed(file)) if isinstance(f, ast.FunctionDef))


@functools.lru_cache(maxsize=64)
def _statements(file: str) -> dict[int, tuple[Line, ast.stmt]]:
    found: dict[int, tuple[Line, ast.stmt]] = {}
    for node in ast.walk(_parsed(file)):  # from the outside in: what is inner overwrites
        if isinstance(node, ast.stmt):
            for number in range(node.lineno, _last_line(node) + 1):
                found[number] = (Line(file, node.lineno), node)
    return found


@functools.lru_cache(maxsize=64)
def _simple(file: str) -> dict[int, list[tuple[ast.stmt, bool]]]:
    found: dict[int, list[tuple[ast.stmt, bool]]] = {}
    every = list(ast.walk(_parsed(file)))
    held = {id(inner) for node in every if isinstance(node, ast.If) for inner in ast.iter_child_nodes(node)}
    heads = {node.lineno for node in every if isinstance(node, ast.If)}
    for node in every:
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            found.setdefault(node.lineno, []).append((node, id(node) in held and node.lineno in heads))
    return found

"""The user's source text: the statement to which a line belongs."""

from __future__ import annotations

import ast
import functools
import itertools
import linecache
import textwrap
import types
from pathlib import Path
from typing import NamedTuple


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
        return Line(self.file, _statements(self.file).get(self.number, (self.number, ""))[0]) if self else self

    def text(self) -> str:
        """Return the source of the statement, on one line; "" where there is no source."""
        if not self:
            return ""
        found = _statements(self.file).get(self.number)
        return found[1] if found else linecache.getline(self.file, self.number).strip()

    def target(self) -> str:
        """Return what the statement assigns to, "q" for `q = x @ W`; "" where it is no assignment."""
        name, equals, rest = self.text().partition(" = ")
        return name if equals and rest and name.replace(".", "").isidentifier() else ""

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.statement().number}" if self else ""


@functools.lru_cache(maxsize=64)
def _statements(file: str) -> dict[int, tuple[int, str]]:
    """Return for each line of a file the first line and the text of the smallest statement that it belongs to."""
    source = "".join(linecache.getlines(file))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    found: dict[int, tuple[int, str]] = {}
    for node in ast.walk(tree):  # from the outside in: what is inner overwrites
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            lines = source.splitlines()[node.lineno - 1 : max(last, node.lineno)]
            text = " ".join(textwrap.dedent("\n".join(lines)).split())
            for number in range(node.lineno, max(last, node.lineno) + 1):
                found[number] = (node.lineno, text)
    return found

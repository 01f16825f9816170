"""Branches of Python: which sides of each condition in the target's own functions ran, while it is traced."""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

from tinynet.verification.adapters.subject import Subject

Point: TypeAlias = tuple[float, float]
"""A line and a column; a line alone has the column -1."""

_END: Point = (math.inf, 0.0)


@dataclass(frozen=True)
class _Stretch:
    """A part of the source, from one point to another."""

    start: Point
    end: Point

    def __contains__(self, point: Point) -> bool:
        line, column = point
        return self.start[0] <= line <= self.end[0] if column < 0 else self.start <= point < self.end


@dataclass(frozen=True)
class _Branch:
    """A condition, and what runs on its two sides; None where it is whatever follows.

    A side that only raises is none, nor what a loop does when it ends. `asks` has the attributes of `self` where the
    condition depends on nothing else.
    """

    test: _Stretch
    body: _Stretch
    other: _Stretch | None
    counts: tuple[bool, bool]
    on_one_line: bool
    asks: frozenset[str]

    @property
    def line(self) -> int:
        return int(self.test.start[0])

    @property
    def whole(self) -> _Stretch:
        parts = [part for part in (self.test, self.body, self.other) if part is not None]
        return _Stretch(min(part.start for part in parts), max(part.end for part in parts))

    def missed(self, arcs: set[tuple[Point, Point]]) -> bool:
        """Return whether a side never ran, given every step from one point to the next."""
        if not any(p in self.test or q in self.test for p, q in arcs):
            return False
        true = any(q in self.body for _, q in arcs)
        if self.other is not None:
            false = any(q in self.other for _, q in arcs)
        else:
            false = any(p in self.test and q not in self.test and q not in self.body for p, q in arcs)
        return any(counts and not ran for counts, ran in zip(self.counts, (true, false), strict=True))


class Lines:
    """The steps that the target's own functions took, while it is traced."""

    def __init__(self, subject: Subject) -> None:
        self._configuration = subject.configuration
        self._files = {code.co_filename for code in _codes_of(subject)}
        self._branches: dict[CodeType, list[_Branch]] = {}
        self._arcs: dict[CodeType, set[tuple[Point, Point]]] = {}

    def __enter__(self) -> Lines:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in self._files:
            return None
        if code not in self._branches:
            self._branches[code] = _branches_of(code)
            self._arcs[code] = set()
        if not self._branches[code]:
            return None
        arcs, columns = self._arcs[code], any(branch.on_one_line for branch in self._branches[code])
        points = _points_of(code, self._branches[code]) if columns else []
        frame.f_trace_opcodes, frame.f_trace_lines = columns, not columns
        before: Point = (code.co_firstlineno, -1.0)

        def step(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal before
            if event == "opcode":
                here = points[frame.f_lasti // 2] or before
            elif event == "exception":
                return step
            else:
                here = _END if event == "return" else (float(frame.f_lineno), -1.0)
            arcs.add((before, here))
            before = here
            return step

        return step

    def missed(self, functions: Sequence[Callable[..., Any]] = ()) -> list[tuple[str, str]]:
        """Return the line and the text of each condition of which a side never ran, in all functions or in these.

        None that asks for the configuration of a layer alone: its other side is another layer's.
        """
        found: list[tuple[str, str]] = []
        only = {getattr(inspect.unwrap(f), "__code__", None) for f in functions}
        for code, branches in self._branches.items():
            for branch in branches if code in only or not only else ():
                fixed = branch.asks and branch.asks <= self._configuration
                if not fixed and branch.missed(self._arcs[code]):
                    text = linecache.getline(code.co_filename, branch.line).strip()
                    found.append((f"{Path(code.co_filename).name}:{branch.line}", text))
        return list(dict.fromkeys(found))


def _points_of(code: CodeType, branches: list[_Branch]) -> list[Point | None]:
    """Return where each operation begins; None for one around a whole condition, which is on neither side of it."""
    points: list[Point | None] = []
    for line, last, column, end in code.co_positions():
        start, stop = (line or 0, column or 0), (last or 0, end or 0)
        around = any(start <= b.whole.start and b.whole.end <= stop for b in branches)
        points.append(None if line is None or around else (float(line), float(column or 0)))
    return points


def _branches_of(code: CodeType) -> list[_Branch]:
    """Return the conditions in a function; none without its source."""
    points = [(line, column) for line, _, column, _ in code.co_positions() if line is not None and column is not None]
    return [branch for branch in _branches_in(_source_of(code)) if any(point in branch.test for point in points)]


def _source_of(code: CodeType) -> str:
    return "".join(linecache.getlines(code.co_filename))


@lru_cache(maxsize=16)
def _parsed(source: str) -> ast.Module:
    """Return what a file holds; nothing where that is not Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


@lru_cache(maxsize=16)
def _branches_in(source: str) -> tuple[_Branch, ...]:
    kinds = (ast.If, ast.While, ast.For, ast.IfExp)
    return tuple(_branch(node) for node in ast.walk(_parsed(source)) if isinstance(node, kinds))


def _branch(node: ast.If | ast.While | ast.For | ast.IfExp) -> _Branch:
    condition = node.iter if isinstance(node, ast.For) else node.test
    body = [node.body] if isinstance(node, ast.IfExp) else node.body
    orelse = [node.orelse] if isinstance(node, ast.IfExp) else node.orelse
    test, last = _stretch(condition), body[-1]
    if orelse:
        follows = not isinstance(orelse[-1], ast.Raise)
    else:
        follows = isinstance(node, ast.If) and (
            isinstance(last, (ast.Return, ast.Continue, ast.Break)) or _compares_with_a_number(node.test)
        )
    counts = not isinstance(last, ast.Raise), follows and not isinstance(last, ast.Raise)
    other = _stretch(orelse[0], orelse[-1]) if orelse else None
    on_one_line = body[0].lineno <= test.end[0]
    return _Branch(test, _stretch(body[0], last), other, counts, on_one_line, _asked_of_self(condition))


def _asked_of_self(test: ast.expr) -> frozenset[str]:
    if {node.id for node in ast.walk(test) if isinstance(node, ast.Name)} != {"self"}:
        return frozenset()
    return frozenset(node.attr for node in ast.walk(test) if isinstance(node, ast.Attribute))


def _stretch(first: ast.stmt | ast.expr, last: ast.stmt | ast.expr | None = None) -> _Stretch:
    last = first if last is None else last
    return _Stretch((first.lineno, first.col_offset), (last.end_lineno or last.lineno, last.end_col_offset or math.inf))


def _compares_with_a_number(test: ast.expr) -> bool:
    return any(
        isinstance(side, ast.Constant) and isinstance(side.value, (int, float)) and not isinstance(side.value, bool)
        for node in ast.walk(test)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
    )


def numbers_in(subject: Subject) -> set[float]:
    """Return the numbers in functions of the target's that compare: a branch may begin at one of them."""
    found: set[float] = set()

    def visit(code: CodeType) -> None:
        compares = any(i.opname == "COMPARE_OP" for i in dis.get_instructions(code))
        for const in code.co_consts:
            if isinstance(const, CodeType):
                visit(const)
            elif compares and isinstance(const, (int, float)) and not isinstance(const, bool):
                found.add(float(abs(const)))

    for code in _codes_of(subject):
        visit(code)
    return found


def _codes_of(subject: Subject) -> list[CodeType]:
    return [f.__code__ for f in map(inspect.unwrap, subject.code) if hasattr(f, "__code__")]


def closeness(subject: Subject) -> float:
    """Return how close to its limit a loop of the target's comes before it stops; 0 if there is no such loop.

    It is the number that the condition of the loop holds, in the code itself or in a function of its file that it
    names. What is known as well as that has a derivative that is known hardly better.
    """
    return max((_closeness(code, _source_of(code)) for code in _codes_of(subject)), default=0.0)


@lru_cache(maxsize=64)
def _closeness(code: CodeType, source: str) -> float:
    tree = _parsed(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    named: dict[str | None, list[ast.FunctionDef | ast.Lambda]] = {}
    for f in functions:
        named.setdefault(getattr(f, "name", None), []).append(f)
    starts = {id(f): {f.lineno, *(d.lineno for d in getattr(f, "decorator_list", ()))} for f in functions}
    reached = [f for f in functions if code.co_firstlineno in starts[id(f)]]
    ends: list[ast.AST] = []
    numbers = _constants([n for n in tree.body if isinstance(n, ast.Assign)])
    for function in reached:  # and the functions that they name, in their turn
        nodes = list(ast.walk(function))
        numbers |= _constants(nodes)
        ends += [end for node in nodes for end in _ends(node)]
        reached += dict.fromkeys(f for node in nodes for f in named.get(_name(node), ()) if f not in reached)
    for end in ends:  # and the functions that a condition names, which are looked at in their turn
        ends += [f for n in ast.walk(end) for f in named.get(_name(n), ()) if f not in ends]
    compared = [n for end in ends for n in (ast.walk(end) if isinstance(end, ast.expr) else _compared(end))]
    close = [c for node in compared for c in (_number(node), numbers.get(_name(node), 0.0))]
    return max((c for c in close if 0 < c <= 1e-5), default=0.0)


def _compared(function: ast.AST) -> list[ast.AST]:
    """Return what stands in the comparisons of a function."""
    return [n for c in ast.walk(function) if isinstance(c, ast.Compare) for n in ast.walk(c)]


def _ends(node: ast.AST) -> list[ast.expr]:
    """Return the conditions by which a loop ends, of Python's or of JAX's, that hold what the loop changes."""
    if isinstance(node, (ast.While, ast.For)):
        changed = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inside = [n for n in ast.walk(node) if isinstance(n, ast.If)]
        exits = [n.test for n in inside if any(isinstance(m, (ast.Break, ast.Return)) for m in ast.walk(n))]
        tests = [node.test, *exits] if isinstance(node, ast.While) else exits
        return [t for t in tests if any(n.id in changed for n in ast.walk(t) if isinstance(n, ast.Name))]
    return node.args[:1] if isinstance(node, ast.Call) and _name(node.func) == "while_loop" else []


def _constants(nodes: Sequence[ast.AST]) -> dict[str, float]:
    """Return the numbers that have a name, as a default or by an assignment."""
    found: dict[str, float] = {}
    for node in nodes:
        if isinstance(node, ast.arguments):
            last = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
            pairs = [*zip(last, node.defaults, strict=True), *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            found |= {a.arg: _number(d) for a, d in pairs if d is not None}
        elif isinstance(node, ast.Assign):
            found |= {_name(t): _number(node.value) for t in node.targets if _number(node.value)}
    return found


def _number(node: ast.AST) -> float:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, float) else 0.0


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""

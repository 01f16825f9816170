"""Branches: which sides of every comparison, and which lines of the target's Python, the examples met.

Two analytic pieces that agree at random points agree everywhere; what can still hide is a branch. A side that no
example took is looked for: by scaling each array, by the numbers that stand in the code, by other batches. What stays
untaken is named.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from tinynet.verification.adapters.subject import Args, Array, Subject
from tinynet.verification.examples import is_special, keeps_its_sign
from tinynet.verification.jaxpr import bind, inner_jaxprs, line_of, user_frame

_SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e6, 0.1, 1e-2, 1e-4)


@dataclass(frozen=True)
class Sides:
    """Where the comparisons of a program stand, and a function that tells which of their sides some arrays take.

    Attributes:
        places: for each comparison the line and its text.
        taken: (args, dy) -> (n, 2) of bool: whether any entry takes the one side, and the other.
    """

    places: tuple[tuple[str, str], ...]
    taken: Callable[[Args, tuple[Array, ...]], Array]


def sides_of(function: Callable[[Mapping[str, Any], tuple[Any, ...]], Any], args: Args, dy: tuple[Array, ...]) -> Sides:
    """Trace a function of (args, dy) and find the comparisons in it that depend on them.

    Raises:
        Exception: whatever JAX raises where it cannot be traced.
    """
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(dict(args), dy)
    places: list[tuple[str, str]] = []
    _collect(closed.jaxpr, set(closed.jaxpr.invars), places)

    @jax.jit
    def look(values: Sequence[Any]) -> Any:
        seen: list[Any] = []
        _evaluate(closed.jaxpr, closed.consts, values, set(closed.jaxpr.invars), seen)
        return jnp.array(seen).reshape(-1, 2)

    def taken(args: Args, dy: tuple[Array, ...]) -> Array:
        with jax.enable_x64(True):
            return np.asarray(look(jax.tree.leaves((dict(args), dy))))

    return Sides(tuple(places), taken)


_TWO_SIDED = ("gt", "ge", "lt", "le", "max", "min", "abs", "sign")


def _is_branch(eqn: Any) -> bool:
    if eqn.primitive.name not in (*_TWO_SIDED, "clamp") or eqn.invars[0].aval.dtype.kind != "f":
        return False
    literals = [np.asarray(v.val) for v in eqn.invars if isinstance(v, core.Literal)]
    return all(np.isfinite(v).all() for v in literals) and user_frame(eqn) is not None


def _collect(jaxpr: Any, moving: set[Any], places: list[tuple[str, str]]) -> None:
    for eqn, inner in _walk(jaxpr, moving):
        if inner is None and _is_branch(eqn):
            frame = user_frame(eqn)
            text = linecache.getline(frame.file_name, frame.line_num).strip()
            places.extend([(line_of(eqn), text)] * (2 if eqn.primitive.name == "clamp" else 1))


def _walk(jaxpr: Any, moving: set[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the equations whose operands depend on the arguments; calls are entered, loops are not."""
    for eqn in jaxpr.eqns:
        depends = any(not isinstance(v, core.Literal) and v in moving for v in eqn.invars)
        if depends:
            moving.update(eqn.outvars)
            inner = inner_jaxprs(eqn)
            if len(inner) == 1 and eqn.primitive.name not in ("scan", "while", "cond"):
                inside = {
                    i
                    for i, o in zip(inner[0].invars, eqn.invars, strict=False)
                    if not isinstance(o, core.Literal) and o in moving
                }
                yield from _walk(inner[0], inside)
            else:
                yield eqn, None


def _evaluate(jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], moving: set[Any], seen: list[Any]) -> list[Any]:
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, values, strict=True))
    for eqn in jaxpr.eqns:
        operands = [v.val if isinstance(v, core.Literal) else env[v] for v in eqn.invars]
        depends = any(not isinstance(v, core.Literal) and v in moving for v in eqn.invars)
        inner = inner_jaxprs(eqn)
        if depends:
            moving.update(eqn.outvars)
        if depends and len(inner) == 1 and eqn.primitive.name not in ("scan", "while", "cond"):
            body = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params)
            inside = {
                i
                for i, o in zip(inner[0].invars, eqn.invars, strict=False)
                if not isinstance(o, core.Literal) and o in moving
            }
            results = _evaluate(inner[0], getattr(body, "consts", ()), operands, inside, seen)
        else:
            if depends and _is_branch(eqn):
                if eqn.primitive.name == "clamp":
                    low, x, high = operands
                    seen += [jnp.any(x < low), jnp.any(x >= low), jnp.any(x > high), jnp.any(x <= high)]
                else:
                    a, b = operands if len(operands) == 2 else (*operands, 0.0)
                    seen += [jnp.any(a > b), jnp.any(a < b)]
            results = bind(eqn, operands)
        env.update(zip(eqn.outvars, results, strict=True))
    return [v.val if isinstance(v, core.Literal) else env[v] for v in jaxpr.outvars]


def look_for(
    sides: Sides, seen: Array, subject: Subject, dy: tuple[Array, ...]
) -> Iterator[tuple[dict[str, Array], tuple[Array, ...], str]]:
    """Yield arrays that take a side which no example took, found by scaling each array up and down.

    `seen` is (n, 2), the sides taken so far; it is updated.
    """
    names = [n for n in subject.wrt if not is_special(subject.args[n])]
    groups = [(n,) for n in names] + ([tuple(names)] if len(names) > 1 else [])
    if seen.all():
        return
    for group in groups:
        for scale in _SCALES:
            for sign in (1.0, -1.0):
                args = {**subject.args, **{n: sign * scale * subject.args[n] for n in group}}
                if sign < 0 and any(keeps_its_sign(subject, n) for n in group):
                    continue
                new = sides.taken(args, dy) & ~seen
                if new.any():
                    seen |= new
                    yield args, dy, f"{', '.join(group)} {sign * scale:g} ×"
    for scale in (1e3, 1e-3):
        larger = tuple(scale * d for d in dy)
        new = sides.taken(subject.args, larger) & ~seen
        if new.any():
            seen |= new
            yield dict(subject.args), larger, f"dy {scale:g} ×"


class Lines:
    """The lines of the target's own functions that ran, while it is traced."""

    def __init__(self, subject: Subject) -> None:
        self._files = {f.__code__.co_filename for f in map(inspect.unwrap, subject.code) if hasattr(f, "__code__")}
        self.ran: dict[CodeType, set[int]] = {}
        self._steps: dict[CodeType, set[int]] = {}
        self._on_one_line: dict[CodeType, bool] = {}

    def __enter__(self) -> Lines:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        code = frame.f_code
        ran, steps = self.ran.setdefault(code, set()), self._steps.setdefault(code, set())
        ran.add(frame.f_lineno)
        if code not in self._on_one_line:
            self._on_one_line[code] = any(n.body[0].lineno == n.lineno for n in _branches_of(code))
        frame.f_trace_opcodes = self._on_one_line[code]

        def line(frame: FrameType, event: str, _argument: Any) -> Any:
            ran.add(frame.f_lineno)
            if event == "opcode":
                steps.add(frame.f_lasti)
            return line

        return line

    def missed(self) -> list[tuple[str, str]]:
        """Return the line and the text of each condition of which a side never ran; those that raise do not count."""
        found: list[tuple[str, str]] = []
        for code, ran in self.ran.items():
            for line in _missed_branches(code, ran, self._steps[code]):
                found.append(
                    (f"{Path(code.co_filename).name}:{line}", linecache.getline(code.co_filename, line).strip())
                )
        return list(dict.fromkeys(found))


def _branches_of(code: CodeType) -> list[ast.If | ast.While | ast.For]:
    """Return the statements that branch in a function, at the lines and columns of its file; none without source."""
    try:
        source = "".join(inspect.getsourcelines(code)[0])
        indented = source[:1].isspace()
        tree = ast.parse(f"if True:\n{source}" if indented else source)
    except (OSError, TypeError, SyntaxError):
        return []
    ast.increment_lineno(tree, code.co_firstlineno - 1 - indented)
    return [
        n for n in ast.walk(tree) if isinstance(n, (ast.If, ast.While, ast.For)) and n.lineno >= code.co_firstlineno
    ]


def _missed_branches(code: CodeType, ran: set[int], steps: set[int]) -> list[int]:
    possible = {line for _, _, line in code.co_lines() if line is not None}
    positions = list(code.co_positions())
    stepped = [positions[i // 2] for i in steps]
    missed = []
    for node in _branches_of(code):
        for body in (node.body, node.orelse):
            if not body or isinstance(body[-1], ast.Raise):
                continue
            lines = {n.lineno for part in body for n in ast.walk(part) if isinstance(n, ast.stmt)}
            if lines == {node.lineno}:  # what stands behind the colon shares the condition's line, not its columns
                first = body[0].col_offset
                took = any(line == node.lineno and (column or 0) >= first for line, _, column, _ in stepped)
            else:
                took = not lines & possible or bool(lines & ran)
            if not took and (node.lineno in ran or node.lineno not in possible):
                missed.append(node.lineno)
    return missed


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

    for function in subject.code:
        function = inspect.unwrap(function)
        if hasattr(function, "__code__"):
            visit(function.__code__)
    return found

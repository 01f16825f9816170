"""Faults made from the text of a backward: each changes one place, as people do by mistake."""

import ast
import copy
import inspect
import textwrap
from dataclasses import dataclass

import jax
import numpy as np

from tinynet.verification.diagnosis import Wrong
from tinynet.verification.tolerance import bound


@dataclass(frozen=True)
class Spoilt:
    """A wrong backward, what was changed, and the line of that in the file of the right one."""

    layer: str
    kind: str
    change: str
    line: int
    backward: object

    def __str__(self):
        return f"{self.layer}:{self.line} {self.kind}: {self.change}"


def runs_of(forward, backward, shapes, ms=(3, 5, 4), seed=0):
    """Run a backward at several batch sizes beside `jax.vjp` of the forward."""
    runs = []
    for m in ms:
        rng = np.random.default_rng([seed, m])
        args = {name: rng.standard_normal(shape) for name, shape in shapes(m).items()}
        with jax.enable_x64(True):
            y, vjp = jax.vjp(forward, args)
            dy = tuple(np.asarray(rng.standard_normal(o.shape)) for o in y)
            exact = {name: np.asarray(g) for name, g in vjp(dy)[0].items()}
        with np.errstate(all="ignore"):
            got = backward({n: v.copy() for n, v in args.items()}, tuple(d.copy() for d in dy))
        exact = {n: exact[n] for n in got}
        tolerance = {n: bound(g, depth=8) for n, g in exact.items()}
        wrong = frozenset(
            n for n, g in exact.items() if np.shape(got[n]) != g.shape or not np.all(np.abs(got[n] - g) <= tolerance[n])
        )
        sizes = {"m": m}
        runs.append(Wrong(forward, args, tuple(exact), dy, got, exact, tolerance, wrong, sizes, {}))
    return runs


def spoilt(layer, backward):
    """Yield every fault of the kinds below in the statements of a backward that follow `(dy,) = dy` or the like."""
    lines, first = inspect.getsourcelines(backward)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    body = tree.body[0].body
    start = next((i + 1 for i, s in enumerate(body) if isinstance(s, ast.Assign) and ast.unparse(s.value) == "dy"), 0)
    seen = {ast.unparse(tree)}
    for statement in [s for top in body[start:-1] for s in ast.walk(top) if isinstance(s, (ast.Assign, ast.AugAssign))]:
        if isinstance(statement, ast.Assign) and not any(
            getattr(n, "id", "")[:1] in "dg" for t in statement.targets for n in ast.walk(t)
        ):
            continue
        for kind, change in changes(statement, body):
            place = index_of(tree, statement)
            other = copy.deepcopy(tree)
            target = list(ast.walk(other))[place]
            for field, value in ast.iter_fields(change):
                setattr(target, field, value)
            text = ast.unparse(ast.fix_missing_locations(other))
            if text in seen:
                continue
            seen.add(text)
            scope = dict(backward.__globals__)
            exec(compile(other, inspect.getsourcefile(backward), "exec"), scope)
            new = scope[backward.__name__]
            ast.increment_lineno(other, first - 1)
            exec(compile(other, inspect.getsourcefile(backward), "exec"), scope)
            new = scope[backward.__name__]
            yield Spoilt(layer, kind, ast.unparse(change), first - 1 + statement.lineno, new)


def index_of(tree, node):
    return next(i for i, n in enumerate(ast.walk(tree)) if n is node)


def changes(statement, body):
    """Yield (kind, the changed statement) for each node of its value that has a place to be spoilt."""
    names = sorted({n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)})
    nodes = list(ast.walk(statement))
    for i, node in enumerate(nodes):
        for kind, new in of_node(node, names, i):
            yield kind, replaced(statement, i, new)
    yield "sign", replaced(statement, nodes.index(statement.value), ast.UnaryOp(ast.USub(), statement.value))
    yield (
        "times 2",
        replaced(statement, nodes.index(statement.value), ast.BinOp(ast.Constant(2), ast.Mult(), statement.value)),
    )
    if isinstance(statement, ast.AugAssign):
        assign = ast.Assign([statement.target], copy.deepcopy(statement.value), lineno=statement.lineno)
        yield "= for +=", assign


def of_node(node, names, i):
    if isinstance(node, ast.BinOp):
        left, right = node.left, node.right
        if isinstance(node.op, (ast.Add, ast.Sub)):
            yield "drop a term", left
            yield "drop a term", right if isinstance(node.op, ast.Add) else ast.UnaryOp(ast.USub(), right)
            yield "sign of a term", ast.BinOp(left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), right)
        if isinstance(node.op, ast.Mult):
            yield "drop a factor", left
            yield "drop a factor", right
        if isinstance(node.op, ast.Div):
            yield "drop a factor", left
            yield "* for /", ast.BinOp(left, ast.Mult(), right)
        if isinstance(node.op, ast.MatMult):
            yield "transpose", ast.BinOp(left, ast.MatMult(), transposed(right))
        if isinstance(node.op, ast.Pow) and isinstance(right, ast.Constant):
            yield "power", ast.BinOp(left, ast.Pow(), ast.Constant(right.value - 1))
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names and len(node.id) < 4:
        at = names.index(node.id)
        for other in (names[(at + 1 + i) % len(names)], names[(at + 5 + 3 * i) % len(names)]):
            if other not in ("np", "a", node.id):
                yield "another name", ast.Name(other, ast.Load())
    if isinstance(node, ast.keyword) and node.arg == "axis":
        axis = ast.literal_eval(node.value)
        yield "wrong axis", ast.keyword("axis", ast.Constant(1 if axis == 0 else 0))
    if isinstance(node, ast.Attribute) and node.attr == "sum":
        yield "mean for sum", ast.Attribute(node.value, "mean", node.ctx)
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield "transpose", node.value


def transposed(node):
    if isinstance(node, ast.Attribute) and node.attr == "T":
        return node.value
    return ast.Attribute(node, "T", ast.Load())


def replaced(statement, i, new):
    other = copy.deepcopy(statement)
    old = list(ast.walk(other))[i]
    for parent in ast.walk(other):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list) and any(v is old for v in value):
                setattr(parent, field, [new if v is old else v for v in value])
    return other

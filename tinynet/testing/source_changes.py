"""Small changes to the source of a function, the way typing errors make them."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


def source_changes(tree: ast.FunctionDef, file: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Yield each changed tree and its description: `losses.py:70 r * s → r / s`.

    What only checks arguments is left as it is. Two changes may give one tree, or the tree that was given.
    """
    for place in _places(tree, tree, _local_names(tree)):
        node, statement = place.node, place.statement
        for new in _replacements(node, tree, place):
            copies: dict[int, Any] = {}
            changed = copy.deepcopy(tree, copies)
            parent = copies[id(place.parent)]
            if place.i is None:
                setattr(parent, place.field, new)
            else:
                getattr(parent, place.field)[place.i] = new or ast.Pass()
            after = copies[id(statement)] if statement is not node else new or ast.Pass()
            line = getattr(node, "lineno", statement.lineno)
            yield changed, f"{file}:{line} {_headline(statement)} → {_headline(after)}"


def checks_in(tree: ast.FunctionDef) -> set[int]:
    """Return the ids of the nodes that only check arguments: all they can do is raise."""
    local = _local_names(tree)
    return {id(n) for check in ast.walk(tree) if _only_checks(check, local) for n in ast.walk(check)}


# ---- where to change --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A node, where it hangs, and the innermost statement around it; `i` is its index where the field is a list."""

    node: ast.AST
    parent: ast.AST
    field: str
    i: int | None
    statement: ast.stmt


def _places(parent: ast.AST, statement: ast.stmt, local: set[str]) -> Iterator[_Place]:
    """Yield each node that a change may replace, outermost first."""
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "ctx", "op", "ops", "type_params"):
            continue
        for i, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(node, ast.AST) and not _only_checks(node, local) and not _is_text(node):
                inner = node if isinstance(node, ast.stmt) else statement
                yield _Place(node, parent, field, i, inner)
                yield from _places(node, inner, local)


def _headline(statement: ast.AST) -> str:
    return ast.unparse(statement).splitlines()[0] if not isinstance(statement, ast.Pass) else "(deleted)"


def _local_names(tree: ast.FunctionDef) -> set[str]:
    """Return the names that the function itself binds."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _only_checks(node: ast.AST, local: set[str]) -> bool:
    """Return whether a node can do no more than raise."""
    match node:
        case ast.Raise() | ast.Assert():
            return True
        case ast.If(body=[*_, ast.Raise()], orelse=[]) | ast.ExceptHandler(body=[*_, ast.Raise()]):
            return True
        case ast.Expr(value=ast.Call(func=func, args=args)):
            written = [func.value] if isinstance(func, ast.Attribute) else []
            return not any(_root(target) in local for target in written + args[:1])
    return False


def _root(node: ast.AST) -> str:
    """Return the name that an expression like `a.b[i].c` starts with."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


# ---- what to put there ------------------------------------------------------------------------------------------

_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.GtE, ast.LtE),
    ast.LtE: (ast.Gt, ast.Lt),
    ast.Gt: (ast.LtE, ast.GtE),
    ast.GtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_FUNCTIONS = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "argmin": "argmax", "argmax": "argmin",
    "sum": "mean", "mean": "sum", "exp": "expm1", "expm1": "exp", "log": "log1p", "log1p": "log", "sin": "cos",
    "cos": "sin", "sinh": "cosh", "cosh": "sinh", "tanh": "sinh", "zeros_like": "ones_like", "ones_like": "zeros_like",
    "zeros": "ones", "ones": "zeros", "floor": "ceil", "ceil": "floor", "any": "all", "all": "any",
}  # fmt: skip
_AXES = (0, 1, -1)


def _replacements(node: ast.AST, tree: ast.FunctionDef, place: _Place) -> Iterator[ast.AST | None]:
    """Yield what may stand in place of `node`; None for a statement that is deleted."""
    parent = place.parent
    match node:
        case ast.BinOp(left, op, right):
            for other in _OPERATORS.get(type(op), ()):
                yield ast.BinOp(left, other(), right)
            if isinstance(op, (ast.Sub, ast.Div, ast.MatMult, ast.Pow)):
                yield ast.BinOp(right, op, left)
            yield from (left, right)
            if not isinstance(parent, (ast.BinOp, ast.Compare)):
                yield _negative(node)
            if isinstance(op, ast.MatMult):
                yield ast.BinOp(_transposed(left), op, right)
                yield ast.BinOp(left, op, _transposed(right))
                yield _transposed(node)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not(), operand=operand):
            yield operand
        case ast.Attribute(value=value, attr="T"):
            yield value
        case ast.Call():
            yield from _other_calls(node)
        case ast.keyword(arg="axis", value=value):
            given = ast.unparse(value)
            yield from (ast.keyword("axis", _number(axis)) for axis in _AXES if str(axis) != given)
            yield ast.keyword("axis", ast.Constant(None))
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (_number(value + 1), _number(value - 1))
            if not isinstance(parent, ast.UnaryOp):
                yield _number(-value)
        case ast.Constant(value=float(value)):
            yield from (_number(2 * value), _number(value + 1), _number(value / 2))
            if not isinstance(parent, ast.UnaryOp):
                yield _number(-value)
        case ast.Compare(left, [op], [right]):
            yield from (ast.Compare(left, [other()], [right]) for other in _COMPARISONS[type(op)])
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.If(test, body, orelse) | ast.While(test, body, orelse):
            yield type(node)(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Slice(lower, upper, step):
            yield from (ast.Slice(None, upper, step), ast.Slice(lower, None, step), ast.Slice(lower, upper, None))
        case ast.Subscript(value, slice=ast.Slice()):
            yield value
        case ast.Dict(keys, values) if len(values) > 1:
            yield ast.Dict(keys, [*values[1:], values[0]])
        case ast.AugAssign(target, op, value):
            yield from (ast.AugAssign(target, other(), value) for other in _OPERATORS.get(type(op), ()))
            yield ast.Assign([target], value, lineno=0)
            yield None
        case ast.Assign([target], value):
            if _bound_before(target, node, tree):
                yield None
        case ast.Expr(ast.Call()):
            yield None
    if isinstance(parent, ast.Dict) and place.field == "values" and isinstance(node, ast.expr):
        yield from (_negative(node), _transposed(node))


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    """Yield a call of a related function, the arguments of `where` exchanged, and the argument or object alone."""
    func, args = call.func, call.args
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    if name in _FUNCTIONS:
        other = copy.deepcopy(func)
        setattr(other, "attr" if isinstance(other, ast.Attribute) else "id", _FUNCTIONS[name])
        yield ast.Call(other, args, call.keywords)
    if name == "where" and len(args) == 3:
        yield ast.Call(func, [args[0], args[2], args[1]], call.keywords)
    if len(args) == 1:
        yield args[0]
    if not args and isinstance(func, ast.Attribute):
        yield func.value
    for i, keyword in enumerate(call.keywords):
        if keyword.arg in ("axis", "keepdims"):
            yield ast.Call(func, args, [*call.keywords[:i], *call.keywords[i + 1 :]])


def _bound_before(target: ast.expr, at: ast.Assign, tree: ast.FunctionDef) -> bool:
    """Return whether all names of `target` have a value without this assignment: deleting it is no NameError."""
    names = {n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    earlier = {a.arg for a in ast.walk(tree.args) if isinstance(a, ast.arg)}
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.lineno < at.lineno:
            earlier.add(n.id)
    return names <= earlier


def _number(value: float) -> ast.expr:
    return _negative(ast.Constant(-value)) if value < 0 else ast.Constant(abs(value))


def _negative(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.USub(), node)


def _transposed(node: ast.expr) -> ast.expr:
    """Insert `.T`, or take away the one that is there."""
    return node.value if isinstance(node, ast.Attribute) and node.attr == "T" else ast.Attribute(node, "T", ast.Load())

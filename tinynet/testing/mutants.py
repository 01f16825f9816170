"""Mutants: a backward pass with one small change in its source, the way a typing error makes one.

A test of gradients should notice ("kill") every mutant that computes something else.
"""

from __future__ import annotations

import ast
import copy
import inspect
import linecache
import textwrap
from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.testing.faulty import instance_of

__all__ = ["Mutant", "mutate_backward"]


@dataclass(frozen=True)
class Mutant:
    """A class with one change in one method.

    Attributes:
        cls: a subclass of the original, of the same name, that takes the same arguments.
        method: the name of the method that differs.
        description: where, and what became what: `losses.py:70 r * s → r / s`.
    """

    cls: type[Any]
    method: str
    description: str


def mutate_backward(cls: type[Layer] | type[Loss], *, forward: bool = False) -> tuple[Mutant, ...]:
    """Return every mutant of the methods by which `cls` computes its gradients, each with another syntax tree.

    These are `backward`, `param_grads` and the methods they call on self, wherever in the ancestry of `cls` they stand
    below `Layer` and `Loss`. The forward pass of their mutants is the original's, even where it shares a method with
    the backward pass: what is wrong is the gradient, never the function.

    What only checks arguments is left as it is: a branch that ends in `raise`, and a call whose value is thrown away
    and that gets nothing made in the method to write into.

    Args:
        cls: a layer or loss class whose source is at hand.
        forward: mutate `forward` too and what it alone calls, which may compute a derivative for the cache. A mutant
            of these that changes the output is another function: compare the outputs to tell the two apart.

    Raises:
        TypeError: cls is not a subclass of Layer or Loss.
        OSError: its source cannot be found, as for a class that was typed into an interpreter.
    """
    if not (isinstance(cls, type) and issubclass(cls, (Layer, Loss))):
        raise TypeError(f"mutate_backward: cls is {cls!r:.60}; expected a subclass of tinynet.Layer or tinynet.Loss")
    backward = _methods(cls, ("backward", "param_grads"))
    mutants = []
    for name, function in (_methods(cls, ("forward",)) | backward if forward else backward).items():
        source = _Source.of(function)
        seen = {ast.dump(source.tree)}
        for mutated, change in _mutated(source):
            tree = ast.fix_missing_locations(mutated)
            if ast.dump(tree) not in seen:
                seen.add(ast.dump(tree))
                method = _compiled(source, tree, f"<mutant of {cls.__qualname__}.{name}: {change}>")
                mutants.append(Mutant(_subclass(cls, name, method, keep_forward=name in backward), name, change))
    return tuple(mutants)


@dataclass(frozen=True)
class _Source:
    """A method and its syntax tree, whose line numbers are those of the file."""

    function: FunctionType
    tree: ast.FunctionDef

    @classmethod
    def of(cls, function: FunctionType) -> _Source:
        try:
            lines, first = inspect.getsourcelines(function)
        except OSError:
            raise OSError(
                f"mutate_backward: {function.__qualname__} has no source; put the class into a file"
            ) from None
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        return cls(function, ast.increment_lineno(tree, first - 1))


def _methods(cls: type, roots: tuple[str, ...]) -> dict[str, FunctionType]:
    """Return the `roots` and what they call on self, by name, as far as they are not of the contract itself."""
    found: dict[str, FunctionType] = {}
    todo = list(roots)
    while todo:
        name = todo.pop(0)
        owner = next((c for c in cls.__mro__ if name in vars(c)), object)
        function = _function(vars(owner).get(name))
        if name in found or function is None or owner in (Layer, Loss, ABC, object):
            continue
        found[name] = function
        tree = _Source.of(function).tree
        ignored = {id(n) for check in ast.walk(tree) if _only_checks(check, _locals(tree)) for n in ast.walk(check)}
        todo += [
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
            if id(n) not in ignored and n.attr != "forward"
        ]
    return found


def _function(attribute: Any) -> FunctionType | None:
    attribute = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
    function = inspect.unwrap(attribute) if callable(attribute) else None
    return function if isinstance(function, FunctionType) else None


def _compiled(source: _Source, tree: ast.FunctionDef, filename: str) -> Any:
    """Compile a mutated method; a traceback through it shows the mutated lines."""
    function = source.function
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    # Made inside a function, because the original may close over something: `__class__`, where it calls `super()`.
    make = f"def make({', '.join(cells)}):\n{textwrap.indent(ast.unparse(tree), '    ')}\n    return {tree.name}\n"
    text = f"from __future__ import annotations\n{make}"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace = dict(function.__globals__)
    exec(compile(text, filename, "exec"), namespace)
    return namespace["make"](*(cell.cell_contents for cell in cells.values()))


def _subclass(cls: type, name: str, method: Any, *, keep_forward: bool) -> type:
    attributes: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        name: method,
    }
    if keep_forward:
        attributes["_forward_of"] = getattr(cls, "_forward_of", cls)
        attributes["forward"] = lambda self, *args: instance_of(cls, self).forward(*args)
    return type(cls.__name__, (cls,), attributes)


# ---- where to mutate --------------------------------------------------------------------------------------------


def _mutated(source: _Source) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Yield each mutated tree and its description."""
    file = source.function.__code__.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
    local = _locals(source.tree)
    for path in _paths(source.tree, local):
        node = _follow(source.tree, path)
        for new in _replacements(node, source.tree, path):
            tree = copy.deepcopy(source.tree)
            statement = _statement(source.tree, path)
            _replace(tree, path, new)
            after = (
                ast.Pass() if statement is node and new is None else _follow(tree, path[: _depth(source.tree, path)])
            )
            line = getattr(node, "lineno", statement.lineno)
            yield tree, f"{file}:{line} {_headline(statement)} → {_headline(after)}"


Path = tuple[tuple[str, int | None], ...]


def _paths(node: ast.AST, local: set[str], path: Path = ()) -> Iterator[Path]:
    """Yield the way to each node that a mutation may change, outermost first."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "ctx", "op", "ops", "type_params"):
            continue
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _only_checks(child, local) and not _is_text(child):
                yield (*path, (name, i))
                yield from _paths(child, local, (*path, (name, i)))


def _follow(node: Any, path: Path) -> Any:
    for name, i in path:
        node = getattr(node, name) if i is None else getattr(node, name)[i]
    return node


def _replace(tree: ast.AST, path: Path, new: ast.AST | None) -> None:
    """Put `new` where `path` leads; None deletes a statement."""
    *way, (name, i) = path
    parent = _follow(tree, tuple(way))
    if i is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[i] = new or ast.Pass()


def _depth(tree: ast.AST, path: Path) -> int:
    """The length of the way to the innermost statement on `path`; 0 for the method itself."""
    return max((n for n in range(1, len(path) + 1) if isinstance(_follow(tree, path[:n]), ast.stmt)), default=0)


def _statement(tree: ast.FunctionDef, path: Path) -> ast.stmt:
    statement: ast.stmt = _follow(tree, path[: _depth(tree, path)])
    return statement


def _headline(statement: ast.AST) -> str:
    return ast.unparse(statement).splitlines()[0] if not isinstance(statement, ast.Pass) else "(deleted)"


def _locals(tree: ast.FunctionDef) -> set[str]:
    """The names that the method itself binds."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _only_checks(node: ast.AST, local: set[str]) -> bool:
    """Whether a node can do no more than raise."""
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
    """The name that an expression like `a.b[i].c` starts with."""
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


def _replacements(node: ast.AST, tree: ast.FunctionDef, path: Path) -> Iterator[ast.AST | None]:
    """Yield what may stand in place of `node`; None for a statement that is deleted."""
    parent = _follow(tree, path[:-1])
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
    if isinstance(parent, ast.Dict) and path[-1][0] == "values" and isinstance(node, ast.expr):
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
    """Whether all names of `target` have a value without this assignment, so that deleting it is no NameError."""
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

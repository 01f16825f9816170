"""Find what is to be verified, as a command line names it: `mylayers:MyLinear(4, 3)`, or a whole package."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import traceback
from types import ModuleType
from typing import Any

import tinynet
from tinynet.verification.adapters.subject import TargetError
from tinynet.verification.cases import Case


def load_target(text: str) -> Any:
    """Return the object that `module:expression` stands for.

    The expression is a dotted name, a call whose arguments are expressions again, a literal, or several of these with
    commas between: `MyLayer`, `MyLayer(4, activation="tanh")`, `Sequential(Linear(4, 3), Sigmoid())`,
    `forward, backward`. A name is looked up in the module and then in tinynet. Nothing else is evaluated.

    Raises:
        TargetError: there is no such module or name, importing or calling raises, or it is another expression.
    """
    module_name, colon, expression = text.partition(":")
    if not colon or not expression.strip():
        raise TargetError(f"{text}: expected MODULE:NAME, for example mylayers:MyLayer or 'mylayers:MyLayer(4, 3)'")
    module = _imported(module_name)
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise TargetError(f"{text}: {expression!r} is not an expression") from None
    return _value(tree.body, module)


def cases_of(name: str) -> tuple[Case, ...]:
    """Return the cases to verify in a package or module.

    These are the `CASES` of its `verification.cases`, if it has them; else each public class in its namespace that is
    its own and is a Layer, a Loss, or has forward and backward.

    Raises:
        TargetError: there is no such module, or nothing in it.
    """
    module = _imported(name)
    try:
        cases = importlib.import_module(f"{name}.verification.cases").CASES
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{name}.verification.cases.".startswith(f"{error.name}.")
        if not absent:
            raise TargetError(f"importing {name}.verification.cases raises {_described(error)}") from error
    else:
        if not all(isinstance(case, Case) for case in cases):
            raise TargetError(f"{name}.verification.cases: CASES holds something other than tinynet cases")
        if not cases:
            raise TargetError(f"{name}.verification.cases: CASES is empty; expected at least one tinynet case")
        return tuple(cases)
    classes = {id(v): v for n, v in vars(module).items() if not n.startswith("_") and _is_layer_of(v, name)}
    if not classes:
        raise TargetError(f"{name}: no public Layer or Loss class of its own; name the module that defines them")
    return tuple(Case(cls) for cls in classes.values())


def _is_layer_of(value: object, name: str) -> bool:
    if not inspect.isclass(value) or inspect.isabstract(value):
        return False
    own = f"{value.__module__}.".startswith(f"{name}.")
    return own and all(callable(getattr(value, method, None)) for method in ("forward", "backward"))


def _imported(name: str) -> ModuleType:
    """Import a module of the user's.

    Raises:
        TargetError: there is none, or its code raises.
    """
    if name.endswith(".py"):
        dotted = name.removesuffix(".py").replace("/", ".").lstrip(".")
        raise TargetError(f"{name} is a file; expected the name of its module: {dotted}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{name!r} is not the name of a module; expected, for example, mylayers or mypackage.layers")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise TargetError(f"{error.name}: no such module in the current folder or installed") from None
        raise TargetError(f"importing {name} raises {_described(error)}{_place(error)}") from error


def _value(node: ast.expr, module: ModuleType) -> Any:
    text = ast.unparse(node)
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return _look_up(node.id, module)
        case ast.Attribute():
            owner = _value(node.value, module)
            try:
                return getattr(owner, node.attr)
            except AttributeError:
                hint = _hint(node.attr, dir(owner))
                raise TargetError(f"{text}: {ast.unparse(node.value)} has no {node.attr!r}{hint}") from None
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Tuple() | ast.List():
            items = [_value(item, module) for item in node.elts]
            return tuple(items) if isinstance(node, ast.Tuple) else items
        case ast.Call(func, args, keywords) if all(keyword.arg for keyword in keywords):
            function = _value(func, module)
            positional = [_value(argument, module) for argument in args]
            named = {str(keyword.arg): _value(keyword.value, module) for keyword in keywords}
            try:
                return function(*positional, **named)
            except (Exception, SystemExit) as error:
                raise TargetError(f"{text} raises {_described(error)}") from error
    raise TargetError(f"{text}: expected names, calls and literals only; give it a name in {module.__name__}")


def _look_up(name: str, module: ModuleType) -> Any:
    for place in (module, tinynet):
        if hasattr(place, name):
            return getattr(place, name)
    hint = _hint(name, [*dir(module), *dir(tinynet)])
    raise TargetError(f"{module.__name__} has no {name!r}, nor has tinynet{hint}")


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _place(error: BaseException) -> str:
    """Say where in a file it was raised; a SyntaxError says so itself."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames and not isinstance(error, SyntaxError) else ""

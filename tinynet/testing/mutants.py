"""Mutants: a backward pass with one small change in its source, the way a typing error makes one.

A test of gradients should notice ("kill") every mutant that computes something else.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.testing.source_changes import checks_in, source_changes
from tinynet.testing.wrong_targets import instance_of


@dataclass(frozen=True)
class Mutant:
    """A class with one change in one method, or in one function that its methods call.

    Attributes:
        cls: a subclass of the original, of the same name, that takes the same arguments.
        method: the name of the method or function that differs.
        description: where, and what became what: `losses.py:70 r * s → r / s`.
        function: what stands there now; `inspect.getsource` shows it.
    """

    cls: type[Any]
    method: str
    description: str
    function: Any


def mutate_backward(cls: type[Layer] | type[Loss], *, forward: bool = False) -> tuple[Mutant, ...]:
    """Return every mutant of the functions by which `cls` computes its gradients, each with another syntax tree.

    These are `backward` and `param_grads`; the methods they call on self, wherever in the ancestry of `cls` they stand
    below `Layer` and `Loss`; and the functions they call by name from the module of `cls` or from others of its
    package. What a mutant's forward pass returns as output is the original's, even where the two share a function:
    what is wrong is the gradient, never the function.

    What only checks arguments is left as it is: a branch that ends in `raise`, and a call whose value is thrown away
    and that gets nothing made in the function to write into.

    Args:
        cls: a layer or loss class whose source is at hand.
        forward: mutate `forward` too and what it alone calls, as it may compute a derivative for the cache. Of such a
            mutant the cache alone differs; it is no fault where that does not either.

    Raises:
        TypeError: cls is not a subclass of Layer or Loss.
        OSError: its source cannot be found, as for a class that was typed into an interpreter.
    """
    if not (isinstance(cls, type) and issubclass(cls, (Layer, Loss))):
        raise TypeError(f"mutate_backward: cls is {cls!r:.60}; expected a subclass of tinynet.Layer or tinynet.Loss")
    mutants = _mutants(cls, _methods(cls, ("backward", "param_grads")))
    if forward:
        known = {mutant.description for mutant in mutants}
        mutants += [m for m in _mutants(cls, _methods(cls, ("forward",))) if m.description not in known]
    return tuple(mutants)


def _mutants(cls: type, methods: Mapping[str, FunctionType]) -> list[Mutant]:
    helpers = _helpers(cls, methods.values())
    plain = {name: method for name, method in methods.items() if inspect.getattr_static(cls, name) is method}
    mutants = []
    for name, function in (*methods.items(), *((f.__name__, f) for f in helpers)):
        original = _syntax_tree(function)
        seen = {ast.dump(original)}
        file = function.__code__.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
        for changed, text in source_changes(original, file):
            tree = ast.fix_missing_locations(changed)
            if ast.dump(tree) not in seen:
                seen.add(ast.dump(tree))
                filename = f"<mutant of {cls.__qualname__}.{name}: {text}>"
                try:
                    new = _compiled(function, tree, filename)
                except SyntaxError:  # such as a starred expression on its own
                    continue
                mutated = _with_helper(plain, helpers, function, new) if function in helpers else {name: new}
                mutants.append(Mutant(_subclass(cls, mutated, in_forward="forward" in methods), name, text, new))
    return mutants


def _syntax_tree(function: FunctionType) -> ast.FunctionDef:
    """Return the syntax tree of a function, with the line numbers of its file."""
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError:
        raise OSError(f"mutate_backward: {function.__qualname__} has no source; put the class into a file") from None
    tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return ast.increment_lineno(tree, first - 1)


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
        attributes = (n for n in _computing(function) if isinstance(n, ast.Attribute) and n.attr != "forward")
        todo += [n.attr for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "self"]
    return found


def _helpers(cls: type, functions: Iterable[FunctionType]) -> tuple[FunctionType, ...]:
    """Return the functions of the package of `cls` that `functions` call by name, and those that these call."""
    package = cls.__module__.rpartition(".")[0] or cls.__module__
    found: dict[FunctionType, None] = {}
    todo = list(functions)
    while todo:
        function = todo.pop(0)
        for name in [n.id for n in _computing(function) if isinstance(n, ast.Name)]:
            called = function.__globals__.get(name)
            if not isinstance(called, FunctionType) or called in found:
                continue
            of_the_contract = called.__module__ in (Layer.__module__, Loss.__module__)
            if package in (called.__module__, called.__module__.rpartition(".")[0]) and not of_the_contract:
                found[called] = None
                todo.append(called)
    return tuple(found)


def _computing(function: FunctionType) -> list[ast.AST]:
    """Return the nodes of a function's syntax tree that do more than check arguments."""
    tree = _syntax_tree(function)
    checks = checks_in(tree)
    return [n for n in ast.walk(tree) if id(n) not in checks]


def _function(attribute: Any) -> FunctionType | None:
    attribute = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
    function = inspect.unwrap(attribute) if callable(attribute) else None
    return function if isinstance(function, FunctionType) else None


def _compiled(function: FunctionType, tree: ast.FunctionDef, filename: str) -> Any:
    """Compile a mutated function, with globals of its own; a traceback through it shows the mutated lines."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    # Made inside a function, because the original may close over something: `__class__`, where it calls `super()`.
    make = f"def make({', '.join(cells)}):\n{textwrap.indent(ast.unparse(tree), '    ')}\n    return {tree.name}\n"
    text = f"from __future__ import annotations\n{make}"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    scope = dict(function.__globals__)
    exec(compile(text, filename, "exec"), scope)
    return scope["make"](*(cell.cell_contents for cell in cells.values()))


def _with_helper(
    methods: Mapping[str, FunctionType], helpers: Iterable[FunctionType], old: FunctionType, new: FunctionType
) -> dict[str, Any]:
    """Return the methods again, for which, and for the other helpers, `new` stands where `old` stood."""
    others = {helper: _with_own_globals(helper) for helper in helpers} | {old: new}
    again = {name: _with_own_globals(method) for name, method in methods.items()}
    for function in (*others.values(), *again.values()):
        scope = function.__globals__
        scope.update({k: others[v] for k, v in scope.items() if isinstance(v, FunctionType) and v in others})
    return again


def _with_own_globals(f: FunctionType) -> FunctionType:
    copy = FunctionType(f.__code__, dict(f.__globals__), f.__name__, f.__defaults__, f.__closure__)
    copy.__kwdefaults__ = f.__kwdefaults__
    return copy


def _subclass(cls: Any, mutated: Mapping[str, Any], *, in_forward: bool) -> type:
    """Return `cls` with other methods and with its own output; the cache may be that of the `mutated` methods."""
    attributes: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_forward_of": getattr(cls, "_forward_of", cls),  # one compilation for all mutants
        "forward": lambda self, *args, **state: instance_of(cls, self).forward(*args, **state),
    }
    if not in_forward:
        return type(cls.__name__, (cls,), {**attributes, **mutated})
    inner = type(cls.__name__, (cls,), dict(mutated))

    def forward(self: Any, *args: Any, **state: Any) -> tuple[Any, Any]:
        right, mutated = (instance_of(c, self).forward(*args, **state) for c in (cls, inner))
        return right[0], mutated[1]

    return type(cls.__name__, (cls,), {**attributes, "forward": forward})

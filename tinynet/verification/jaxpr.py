"""A traced forward pass as a value: its primitives, without the user's own rules of differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from tinynet.verification.adapters.subject import Args, Array
from tinynet.verification.tolerance import LARGE, LONG

_JAX = str(Path(jax.__file__).parent)
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr", "cond_jaxpr", "body_jaxpr", "branches")


@dataclass(frozen=True)
class Program:
    """A forward pass at given shapes, traced in float64.

    Attributes:
        closed: its primitives; the inputs are the arrays in the order of `names`.
        names: the names of the arrays.
        tree: the structure of y.
        stripped: where each custom rule of the user's was defined that was left out.
        stopped: the lines where `stop_gradient` holds a derivative back.
    """

    closed: Any
    names: tuple[str, ...]
    tree: Any
    stripped: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()

    def __call__(self, args: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the leaves of y."""
        return tuple(core.jaxpr_as_fun(self.closed)(*(args[name] for name in self.names)))


def trace(pure: Callable[[Args], Any], args: Args) -> Program:
    """Trace a forward pass at the shapes of `args`, in 64-bit mode.

    Raises:
        Exception: whatever JAX raises where it cannot be traced.
    """
    names = tuple(args)
    tree: list[Any] = []

    def flat(*values: Any) -> list[Any]:
        leaves, structure = jax.tree.flatten(pure(dict(zip(names, values, strict=True))))
        tree.append(structure)
        return [jnp.asarray(leaf) for leaf in leaves]

    with jax.enable_x64(True):
        closed = jax.make_jaxpr(flat)(*args.values())
        met: list[tuple[Any, list[Any]]] = []
        if any(is_users_rule(eqn) for eqn in walk(closed.jaxpr)):
            rules = closed
            closed = jax.make_jaxpr(lambda *xs: _evaluate(rules.jaxpr, rules.consts, xs, met))(*args.values())
    stripped = dict.fromkeys(rule_name(eqn) for eqn, _ in met)
    stopped = tuple(dict.fromkeys(line_of(e) for e in walk(closed.jaxpr) if e.primitive.name == "stop_gradient"))
    return Program(closed, names, tree[0], tuple(stripped), tuple(filter(None, stopped)))


def walk(jaxpr: Any) -> Any:
    """Yield every equation, those inside calls and loops too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in inner_jaxprs(eqn):
            yield from walk(inner)


def inner_jaxprs(eqn: Any) -> list[Any]:
    """Return the jaxprs that an equation calls."""
    found = []
    for key in _INNER:
        value = eqn.params.get(key)
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if part is not None:
                found.append(getattr(part, "jaxpr", part))
    return found


def is_users_rule(eqn: Any) -> bool:
    """Return whether an equation is a call with a rule of differentiation that JAX does not ship."""
    if eqn.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return False
    return _JAX not in rule_name(eqn)


def rule_name(eqn: Any) -> str:
    """Return `name at file:line` of a function with a custom rule."""
    info = eqn.params["call_jaxpr"].jaxpr.debug_info
    return str(info.func_src_info)


def line_of_rule(function: Any, args: Mapping[str, Any]) -> tuple[str, int]:
    """Return the file and the line at which the first rule of the user's in a function begins; ("", 0) if unknown."""
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(dict(args))
    for eqn in walk(closed.jaxpr):
        if is_users_rule(eqn):
            rule = eqn.params.get("bwd", eqn.params.get("jvp_jaxpr_fun"))
            for info in (getattr(rule, "debug_info", None), eqn.params["call_jaxpr"].jaxpr.debug_info):
                _, _, place = str(getattr(info, "func_src_info", "")).rpartition(" at ")
                file, _, number = place.rpartition(":")
                if file and _JAX not in file and number.isdigit():
                    return file, int(number)
    return "", 0


def line_of(eqn: Any) -> str:
    """Return `file.py:line` of the user's code that an equation is from; "" if unknown."""
    frame = user_frame(eqn)
    return f"{Path(frame.file_name).name}:{frame.line_num}" if frame is not None else ""


def user_frame(eqn: Any) -> Any:
    """Return the innermost frame outside JAX, NumPy and the verifier; None if there is none."""
    trace = getattr(eqn.source_info, "traceback", None)
    for frame in getattr(trace, "frames", ()):
        name = frame.file_name
        if _JAX not in name and "/numpy/" not in name and "/tinynet/verification/" not in name and "<" not in name:
            return frame
    return None


def interpret(
    jaxpr: Any,
    consts: Sequence[Any],
    values: Sequence[Any],
    step: Callable[[Any, list[Any]], Sequence[Any]],
    literal: Callable[[Any], Any] = lambda value: value,
) -> list[Any]:
    """Return the outputs of a jaxpr by a meaning of one's own.

    Args:
        consts, values: what its constants and its inputs are.
        step: what each equation gives, from what its operands are.
        literal: what a number in its text is.
    """
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return literal(atom.val) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, step(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in jaxpr.outvars]


def opened(body: Any) -> tuple[Any, Sequence[Any]]:
    """Return a jaxpr and its constants."""
    return (body.jaxpr, body.consts) if hasattr(body, "consts") else (body, ())


def called(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """Return what an equation calls once, and its constants; None for an operation, a loop and a branch."""
    body = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params), None)
    return None if body is None or eqn.primitive.name in ("scan", "while", "cond") else opened(body)


def evaluate_until(closed: Any, args: Mapping[str, Any]) -> list[tuple[Any, list[Array]]]:
    """Return each custom rule of the user's with the operands that reach it, outside loops."""
    met: list[tuple[Any, list[Any]]] = []
    with jax.enable_x64(True):
        _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(dict(args)), met)
    outside = [(eqn, operands) for eqn, operands in met if not any(isinstance(o, jax.core.Tracer) for o in operands)]
    return [(eqn, list(map(np.asarray, operands))) for eqn, operands in outside]


def _evaluate(jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], met: list[tuple[Any, list[Any]]]) -> list[Any]:
    """Evaluate with the primal in place of each of the user's custom rules, which `met` gets with their operands."""

    def plain(closed: Any) -> Any:
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]  # type: ignore[no-untyped-call]
        return jax.make_jaxpr(lambda *xs: _evaluate(closed.jaxpr, closed.consts, xs, met))(*shapes)

    def step(eqn: Any, operands: list[Any]) -> Sequence[Any]:
        inner = called(eqn)
        if is_users_rule(eqn):
            met.append((eqn, operands))
        elif not any(is_users_rule(e) for body in inner_jaxprs(eqn) for e in walk(body)):
            return bind(eqn, operands)
        if inner is not None:
            return _evaluate(*inner, operands, met)
        bodies = {key: eqn.params[key] for key in _INNER if eqn.params.get(key) is not None}
        made = {k: tuple(map(plain, v)) if isinstance(v, (tuple, list)) else plain(v) for k, v in bodies.items()}
        return list(eqn.primitive.bind(*operands, **{**eqn.params, **made}))

    return interpret(jaxpr, consts, values, step)


def bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Apply the primitive of an equation; what it makes keeps the equation's line."""
    variables = [v for v in eqn.invars if not isinstance(v, core.Literal)]
    values = {v: value for v, value in zip(eqn.invars, operands, strict=True) if not isinstance(v, core.Literal)}
    distinct = list(dict.fromkeys(variables))
    one = core.Jaxpr((), distinct, list(eqn.outvars), [eqn], eqn.effects)
    return list(jax.core.eval_jaxpr(one, (), *(values[v] for v in distinct)))


def is_long(program: Program) -> bool:
    """Return whether a program is so long, a loop written out, that compiling it is what takes the time."""
    return sum(1 for _ in walk(program.closed.jaxpr)) > LONG


def compiled_vjp(program: Program, wrt: tuple[str, ...], *, rounds: bool = False) -> Callable[..., tuple[Any, Any]]:
    """Return (args, dy) -> (y, gradients), compiled; the same programs share one compilation.

    Where it `rounds`, it is (args, dy, noise) -> (y, gradients): each entry of the result of each operation is off by
    an entry of the vector `noise`, relative to itself; they are used in turn.
    """
    closed = program.closed
    by_text = _ByText(closed, tuple(program.names.index(name) for name in wrt))
    vjp = _compiled_with_noise(by_text) if rounds else _compiled_vjp(by_text)

    def call(args: Args, dy: tuple[Array, ...], *noise: Array) -> tuple[Any, Any]:
        with jax.enable_x64(True):
            y, grads = vjp(closed.consts, [args[name] for name in program.names], list(dy), *noise)
        return y, dict(zip(wrt, grads, strict=True))

    return call


def with_noise(function: Callable[..., Any], *values: Any) -> Callable[[Array], Any]:
    """Return noise -> function(*values), in which every operation rounds as in `compiled_vjp`."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*values)
    flat = jax.tree.leaves(values)

    def call(noise: Array) -> Any:
        results = _rounded(closed.jaxpr, closed.consts, flat, noise, count())
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return call


class _ByText:
    """A jaxpr that equals another if both compute the same: primitives, shapes, literals; constants are arguments."""

    def __init__(self, closed: Any, positions: tuple[int, ...]) -> None:
        self.jaxpr, self.positions = closed.jaxpr, positions
        literals = tuple(
            (str(v.aval), np.asarray(v.val).tobytes())
            for eqn in walk(closed.jaxpr)
            for v in eqn.invars
            if isinstance(v, core.Literal)
        )
        callbacks = tuple(id(eqn) for eqn in walk(closed.jaxpr) if "callback" in eqn.primitive.name)
        self.key = (str(closed.jaxpr), literals, positions, callbacks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByText) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=1)
def quickly() -> dict[str, bool | int]:
    """Return the options with which XLA compiles as quickly as it can: what is small runs a few times only.

    The emitters of fused loops take most of the time where a loop of Python's was written out; not every version has
    the option.
    """
    options: dict[str, bool | int] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    simple = options | {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=simple).lower(0.0).compile()
    except Exception:
        return options
    return simple


@lru_cache(maxsize=256)
def _compiled_vjp(program: _ByText) -> Callable[..., Any]:
    small = sum(v.aval.size for v in program.jaxpr.invars) <= LARGE
    return jax.jit(_vjp_of(program.jaxpr, program.positions), compiler_options=quickly() if small else None)


@lru_cache(maxsize=64)
def _compiled_with_noise(program: _ByText) -> Callable[..., Any]:
    vjp = _vjp_of(program.jaxpr, program.positions)

    def noisy(consts: Any, values: Any, dy: Any, noise: Any) -> Any:
        return with_noise(vjp, consts, values, dy)(noise)

    return jax.jit(noisy, compiler_options=quickly())


_ROUNDS = frozenset(
    "add add_any sub mul div pow integer_pow square sqrt rsqrt cbrt exp exp2 expm1 log log1p sin cos tan sinh cosh tanh"
    " asin acos atan atan2 asinh acosh atanh logistic erf erfc erf_inv lgamma digamma dot_general conv_general_dilated"
    " reduce_sum reduce_prod cumsum cumprod cumlogsumexp reduce_window_sum scan while cond".split()
)
"""What is inexact; the others move numbers or choose among them."""


def _rounded(jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], noise: Any, turn: Iterator[int]) -> list[Any]:
    """Evaluate with each result of an inexact operation multiplied by 1 + noise; loops round as a whole."""

    def rounded(value: Any) -> Any:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        places = (jnp.arange(value.size) + 61 * next(turn)) % len(noise)
        return value * (1 + noise[places].reshape(value.shape))

    def step(eqn: Any, operands: list[Any]) -> Sequence[Any]:
        if (inner := called(eqn)) is not None:
            return interpret(*inner, operands, step)
        results = bind(eqn, operands)
        return [rounded(r) for r in results] if eqn.primitive.name in _ROUNDS else results

    return interpret(jaxpr, consts, values, step)


def _vjp_of(jaxpr: Any, positions: tuple[int, ...]) -> Callable[..., Any]:
    def vjp(consts: Any, values: Any, dy: Any) -> Any:
        def forward(*moving: Any) -> Any:
            full = list(values)
            for i, value in zip(positions, moving, strict=True):
                full[i] = value
            return jax.core.eval_jaxpr(jaxpr, consts, *full)

        def typed(d: Any, v: Any) -> Any:
            return d.astype(v.dtype) if v.dtype.kind == "f" else np.zeros(v.shape, jax.dtypes.float0)

        y, pull = jax.vjp(forward, *(values[i] for i in positions))
        return y, pull(list(map(typed, dy, y)))

    return vjp

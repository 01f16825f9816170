"""At a kink of the forward pass several gradients are right.

g is accepted if, for each output entry alone and in several directions v, ⟨g, v⟩ lies between the slopes just ahead and
just behind; or if g is the gradient with each tied maximum, comparison or absolute value replaced by a choice of its
sides. The second admits a network at rest whose ReLUs all have slope 0 at 0, which no single direction explains.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tinynet.verification.adapters.subject import Args, Array, Oracle
from tinynet.verification.comparison import Comparison, without
from tinynet.verification.jaxpr import Program, bind, called, interpret, walk
from tinynet.verification.oracle import JaxOracle, as_float64
from tinynet.verification.tolerance import ONE_HOT, SLOPE, STEP, distance, largest

Pull = Callable[[tuple[Array, ...]], Mapping[str, Any]]
"""The target's own gradients for a cotangent, at the arrays of a comparison."""

_DIRECTIONS = 4
_POINTS = 32


def accept_kinks(c: Comparison, oracle: Oracle, pull: Pull, rng: np.random.Generator) -> Comparison:
    """Return the comparison without those of its wrong gradients that are right at a kink."""
    if not c.wrong or any(not np.isfinite(np.asarray(c.got[n], float)).all() for n in c.wrong):
        return c
    moving = [n for n in c.subject.wrt if c.args[n].size]
    sides = [_beside(c.args, moving, rng) for _ in range(_DIRECTIONS)]
    ahead = [oracle(plus, c.dy).grads for _, plus, _ in sides]
    behind = [oracle(minus, c.dy).grads for _, _, minus in sides]
    if not all(np.isfinite(g).all() for side in (*ahead, *behind) for g in side.values()):
        return c

    def is_right_beside_ties(name: str) -> bool:
        size = max(largest(g[name]) for g in (*ahead, *behind))
        beside = [np.abs(p[name] - q[name]) for p, m in zip(ahead, behind, strict=True) for q in (m, c.exact.grads)]
        tied = np.max(beside, axis=0) > SLOPE * size
        off = ~(np.abs(np.asarray(c.got[name], np.float64) - c.exact.grads[name]) <= c.tolerance[name])
        return not np.any(off & ~tied)

    suspects = frozenset(filter(is_right_beside_ties, c.wrong))
    accepted = {n for n in suspects if _between(c, oracle, pull, n, sides, rng)}
    if suspects - accepted and isinstance(oracle, JaxOracle):
        for grads in _chosen_sides(oracle.program(as_float64(c.args)), c):
            if all(distance(np.asarray(c.got[n], np.float64), grads[n]) <= c.tolerance[n] for n in suspects):
                accepted |= suspects
                break
    note = f"at a kink, {', '.join(sorted(accepted))} takes another of the right slopes than JAX" if accepted else ""
    return without(c, frozenset(accepted), note)


def _beside(args: Args, moving: Sequence[str], rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Return a direction, and the arrays a small step along it and against it, relative to the data."""
    v = {n: rng.standard_normal(args[n].shape) for n in moving}
    steps = {n: STEP * max(float(np.sqrt(np.mean(np.square(args[n], dtype=float)))), _scale(args)) for n in moving}
    plus = {**args, **{n: args[n] + steps[n] * v[n] for n in moving}}
    minus = {**args, **{n: args[n] - steps[n] * v[n] for n in moving}}
    return {n: steps[n] * v[n] for n in moving}, plus, minus


def _scale(args: Args) -> float:
    sizes = [float(np.max(np.abs(a))) for a in args.values() if a.dtype.kind == "f" and a.size and np.any(a)]
    return 1e-3 * min(sizes) if sizes else 1.0


def _between(c: Comparison, oracle: Oracle, pull: Pull, name: str, sides: Any, rng: np.random.Generator) -> bool:
    """Return whether the gradient by `name` lies between the slopes on both sides, for each output entry alone."""
    size = sum(d.size for d in c.dy)
    entries = range(size) if size <= ONE_HOT else rng.choice(size, ONE_HOT, replace=False)
    for entry in entries:
        one = _one_hot(c.dy, int(entry))
        g = pull(one).get(name)
        if g is None or np.shape(g) != c.args[name].shape:
            return False
        for v, plus, minus in sides:
            only = {**c.args, name: plus[name]}, {**c.args, name: minus[name]}
            slopes = [float(np.sum(oracle(at, one).grads[name] * v[name])) for at in only]
            mine = float(np.sum(np.asarray(g, np.float64) * v[name]))
            slack = SLOPE * (max(map(abs, slopes)) + largest(v[name]) * SLOPE)
            if not min(slopes) - slack <= mine <= max(slopes) + slack:
                if _nearby(c, oracle, name, np.asarray(g, np.float64), one, rng):
                    break  # as of a sort, whose tied entries may go in any order
                return False
    return True


def _nearby(
    c: Comparison, oracle: Oracle, name: str, g: Array, one: tuple[Array, ...], rng: np.random.Generator
) -> bool:
    """Return whether g is the gradient of one output entry at some point close by, where nothing is tied."""
    for _ in range(_POINTS):
        there = oracle(_beside(c.args, [name], rng)[1], one).grads[name]
        if distance(g, there) <= SLOPE * largest(there):
            return True
    return False


def _one_hot(dy: tuple[Array, ...], entry: int) -> tuple[Array, ...]:
    flat = np.zeros(sum(d.size for d in dy))
    flat[entry] = 1.0
    parts = np.split(flat, np.cumsum([d.size for d in dy])[:-1])
    return tuple(np.asarray(p.reshape(d.shape), d.dtype) for p, d in zip(parts, dy, strict=True))


_CHOICES: dict[str, tuple[Any, ...]] = {
    "max": (0.0, 0.5, 1.0),
    "min": (0.0, 0.5, 1.0),
    "abs": (-1.0, 0.0, 1.0),
    "clamp": (0.0, 1.0),
    "reduce_max": ("first", "last", "even"),
    "reduce_min": ("first", "last", "even"),
    "compare": (False, True),
}
_COMPARISONS = ("gt", "ge", "lt", "le")


def _chosen_sides(program: Program, c: Comparison) -> Iterator[Mapping[str, Array]]:
    """Yield the gradients with the ties resolved to the same side everywhere, for each choice of sides."""
    present = {e.primitive.name for e in walk(program.closed.jaxpr)}
    kinds = [k for k in _CHOICES if k in present or (k == "compare" and present & set(_COMPARISONS))]
    values = [np.asarray(c.args[n], np.float64) if c.args[n].dtype.kind == "f" else c.args[n] for n in program.names]
    where = [program.names.index(n) for n in c.subject.wrt]
    for choice in itertools.product(*(_CHOICES[k] for k in kinds)):
        sides = dict(zip(kinds, choice, strict=True))

        def forward(*moving: Any, sides: Mapping[str, Any] = sides) -> list[Any]:
            full = list(values)
            for i, value in zip(where, moving, strict=True):
                full[i] = value
            return _evaluate(program.closed.jaxpr, program.closed.consts, full, sides)

        with jax.enable_x64(True):
            _, vjp = jax.vjp(forward, *(jnp.asarray(values[i]) for i in where))
            grads = vjp([jnp.asarray(d, "float64") for d in c.dy])
        yield dict(zip(c.subject.wrt, map(np.asarray, grads), strict=True))


def _evaluate(jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], sides: Mapping[str, Any]) -> list[Any]:
    """Return the outputs of a program whose ties are resolved to these sides."""

    def step(eqn: Any, operands: list[Any]) -> Sequence[Any]:
        name = eqn.primitive.name
        if (inner := called(eqn)) is not None:
            return interpret(*inner, operands, step)
        if name in _COMPARISONS and "compare" in sides:
            a, b = operands
            return [jnp.where(a == b, sides["compare"], bind(eqn, operands)[0])]
        if name in sides and name in _TIES:
            return [_TIES[name](sides[name], eqn, *operands)]
        return bind(eqn, operands)

    return interpret(jaxpr, consts, values, step)


def _of_two(share: float, eqn: Any, a: Any, b: Any) -> Any:
    return jnp.where(a == b, share * a + (1 - share) * b, bind(eqn, [a, b])[0])


def _of_abs(slope: float, _eqn: Any, a: Any) -> Any:
    return jnp.where(a == 0, slope * a, jnp.abs(a))


def _of_clamp(share: float, _eqn: Any, low: Any, x: Any, high: Any) -> Any:
    tied = (x == low) | (x == high)
    return jnp.where(tied, lax.stop_gradient(x) + share * (x - lax.stop_gradient(x)), lax.clamp(low, x, high))


def _of_reduction(which: str, eqn: Any, x: Any) -> Any:
    axes = eqn.params["axes"]
    extreme = lax.stop_gradient(bind(eqn, [x])[0])
    tied = x == jnp.expand_dims(extreme, axes)
    flat = tuple(axes)
    if which == "even":
        weights = tied / tied.sum(axis=flat, keepdims=True)
    else:
        moved = jnp.moveaxis(tied, flat, tuple(range(len(flat)))).reshape(-1, *extreme.shape)
        counted = jnp.cumsum(moved if which == "first" else moved[::-1], axis=0)
        counted = counted if which == "first" else counted[::-1]
        one = (moved & (counted == 1)).reshape(*(x.shape[a] for a in flat), *extreme.shape)
        weights = jnp.moveaxis(one, tuple(range(len(flat))), flat)
    return (lax.stop_gradient(weights.astype(x.dtype)) * jnp.where(tied, x, 0)).sum(axis=flat)


_TIES: dict[str, Callable[..., Any]] = {
    "max": _of_two,
    "min": _of_two,
    "abs": _of_abs,
    "clamp": _of_clamp,
    "reduce_max": _of_reduction,
    "reduce_min": _of_reduction,
}

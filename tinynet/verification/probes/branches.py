"""Branches: which sides of every comparison, and which lines of the target's Python, the examples met.

Two analytic pieces that agree at random points agree everywhere; what can still hide is a branch. A side that no
example took is looked for: by scaling each array, by the numbers that stand in the code, by other batches. What stays
untaken is named.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from tinynet.verification.adapters.subject import Args, Array, Subject
from tinynet.verification.bench import Bench
from tinynet.verification.examples import Example, cotangent, keeps_its_sign, times, with_batch
from tinynet.verification.execution import Hang, execute
from tinynet.verification.jaxpr import bind, called, interpret, line_of, user_frame
from tinynet.verification.observations import Observed
from tinynet.verification.oracle import JaxOracle
from tinynet.verification.probes.compiled import backward_function
from tinynet.verification.probes.lines import numbers_in
from tinynet.verification.probes.state import other_y
from tinynet.verification.probes.values import run, run_all
from tinynet.verification.report import Probe
from tinynet.verification.tolerance import largest

_NUMBERS = 8
"""How many of the numbers that stand in the target's code are tried."""

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

    @jax.jit
    def look(values: Sequence[Any]) -> Any:
        seen: list[tuple[Any, Any]] = []
        _evaluate(closed.jaxpr, closed.consts, values, dict.fromkeys(closed.jaxpr.invars, True), seen)
        frames = [user_frame(eqn) for eqn, _ in seen]
        texts = [linecache.getline(frame.file_name, frame.line_num).strip() for frame in frames]
        places[:] = [(line_of(eqn), text) for (eqn, _), text in zip(seen, texts, strict=True)]
        return jnp.array([sides for _, sides in seen]).reshape(-1, 2)

    def taken(args: Args, dy: tuple[Array, ...]) -> Array:
        with jax.enable_x64(True):
            return np.asarray(look(jax.tree.leaves((dict(args), dy))))

    with jax.enable_x64(True):
        jax.eval_shape(look, jax.tree.leaves((dict(args), dy)))  # which fills the places
    return Sides(tuple(places), taken)


_FORMAL = ("reshape", "transpose", "broadcast_in_dim", "convert_element_type", "squeeze", "slice", "neg", "copy")
_TWO_SIDED = ("gt", "ge", "lt", "le", "max", "min", "abs", "sign")


def _is_branch(eqn: Any) -> bool:
    if eqn.primitive.name not in (*_TWO_SIDED, "clamp") or eqn.invars[0].aval.dtype.kind != "f":
        return False
    literals = [np.asarray(v.val) for v in eqn.invars if isinstance(v, core.Literal)]
    within = all(np.all(np.abs(v) < np.finfo(v.dtype).max) for v in literals)  # not what a maximum begins with
    return within and user_frame(eqn) is not None


def _evaluate(
    jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], moving: dict[Any, bool], seen: list[tuple[Any, Any]]
) -> list[Any]:
    """Evaluate, and add to `seen` each comparison of what depends on the arguments, with the sides that are taken.

    `moving` has the variables that depend on them, and whether each is as it was given. Calls are entered, loops not.
    """

    def step(eqn: Any, operands: list[Any]) -> Sequence[Any]:
        plain = [moving[v] for v in eqn.invars if not isinstance(v, core.Literal) and v in moving]
        if not plain:
            return bind(eqn, operands)
        given = any(plain)
        moving.update(dict.fromkeys(eqn.outvars, eqn.primitive.name in _FORMAL and given))
        if (inner := called(eqn)) is not None:
            pairs = zip(inner[0].invars, eqn.invars, strict=False)
            inside = {i: moving[o] for i, o in pairs if not isinstance(o, core.Literal) and o in moving}
            return _evaluate(*inner, operands, inside, seen)
        if _is_branch(eqn):
            seen.extend((eqn, sides) for sides in _taken(eqn.primitive.name, operands, given))
        return bind(eqn, operands)

    return interpret(jaxpr, consts, values, step)


def _taken(name: str, operands: Sequence[Any], given: bool) -> list[tuple[Any, Any]]:
    """Return for each comparison of an operation whether an entry takes the one side, and the other.

    Equal numbers take a side and test nothing, unless they were computed: y = max(z, 0) is never below 0.
    """
    if name == "clamp":
        low, x, high = operands
        return [(jnp.any(x < low), jnp.any(x >= low)), (jnp.any(x > high), jnp.any(x <= high))]
    a, b = operands if len(operands) == 2 else (*operands, 0.0)
    equal = jnp.any(a == b) & (not given)
    return [(jnp.any(a > b) | (equal & (name in ("ge", "lt"))), jnp.any(a < b) | (equal & (name in ("gt", "le"))))]


def look_for(
    sides: Sides, seen: Array, subject: Subject, dy: tuple[Array, ...]
) -> Iterator[tuple[dict[str, Array], tuple[Array, ...], str]]:
    """Yield arrays that take a side which no example took, found by scaling each array up and down.

    `seen` is (n, 2), the sides taken so far; it is updated.
    """
    for args, larger, label in _scaled(subject, dy):
        if seen.all():
            return
        new = sides.taken(args, larger) & ~seen
        if new.any():
            seen |= new
            yield args, larger, label


def _scaled(subject: Subject, dy: tuple[Array, ...]) -> Iterator[tuple[dict[str, Array], tuple[Array, ...], str]]:
    """Yield arrays with each of them, then all, larger, smaller and of the other sign; then dy larger and smaller."""
    names = [n for n in subject.wrt if times(subject.args[n], 3.0) is not subject.args[n]]
    for group in [(n,) for n in names] + ([tuple(names)] if len(names) > 1 else []):
        signs = (1.0,) if any(keeps_its_sign(subject, n) for n in group) else (1.0, -1.0)
        for factor in (sign * scale for scale in _SCALES for sign in signs):
            moved = {n: times(subject.args[n], factor) for n in group}
            yield {**subject.args, **moved}, dy, f"{', '.join(group)} {factor:g} ×"
    for scale in (1e3, 1e-3, 1e6, 1e-6):
        yield dict(subject.args), tuple(scale * d for d in dy), f"dy {scale:g} ×"


def probe_branches(b: Bench, seen: Observed) -> Observed:
    """Look for branches that no example took, compare there, and tell those that stay untaken."""
    if seen.failed:
        return seen
    seen += Observed(coverage=(Probe("branches"),))
    if isinstance(b.oracle, JaxOracle) and not b.oracle.eager and b.may_grow:
        seen = _of_arrays(b, b.oracle, seen)
    seen = run_all(b, _at_numbers(b), seen)
    if not seen.failed:
        seen = _of_flags(b, seen)
    return seen + Observed(unreached=tuple(f"{place}: {text}" for place, text in b.lines.missed()))


def _of_arrays(b: Bench, oracle: JaxOracle, seen: Observed) -> Observed:
    """Compare on sides of comparisons between arrays that no example took."""
    new, sides = _sides_of_target(b, oracle)
    seen += new
    if not sides.places:
        return seen
    taken = sides.taken(b.subject.args, b.dy)
    base = {n: a.shape for n, a in b.subject.args.items()}
    for c in seen.comparisons:
        if (
            c.dtype == "float64"
            and c.probe != "zeros and ties"  # where equal numbers take sides that they do not test
            and {n: a.shape for n, a in c.args.items()} == base
            and c.subject.pure is b.subject.pure
        ):
            taken = taken | sides.taken(c.args, c.dy)
    for args, dy, label in look_for(sides, taken, b.subject, b.dy):
        seen += run(b, Example("branches", b.subject.at(args), dy, label), seen)
    left = [f"{place}: {text}" for (place, text), both in zip(sides.places, taken, strict=True) if not both.all()]
    return seen + Observed(unreached=tuple(left))


def _of_flags(b: Bench, seen: Observed) -> Observed:
    """Compare with each flag turned that moves y and for which the backward pass has a side that no example took.

    Where it has none, it need not be meant for what forward does then.
    """
    backward = b.subject.code[-1:]
    usual = execute(b.subject, b.subject.args, None, b.watch)
    for label, mode in b.subject.modes() if b.lines.missed(backward) else ():
        mode = replace(mode.judged_for(b.subject.wrt), updates=b.subject.updates, may_lack=frozenset(b.subject.wrt))
        missed, dy = b.lines.missed(backward), b.draw(mode)
        if dy is None or seen.stopped or not other_y(usual, execute(mode, mode.args, None, b.watch)):
            continue
        with b.lines:
            execute(mode, mode.args, dy, b.watch)
        if b.lines.missed(backward) != missed:
            seen += run(b, Example("branches", mode, dy, label, ours=True), seen)
    return seen


def _sides_of_target(b: Bench, oracle: JaxOracle) -> tuple[Observed, Sides]:
    """Return the comparisons in forward and backward; of the forward alone where the backward cannot be traced."""
    for manners in dict.fromkeys((oracle.manners, True)):
        try:
            traced = partial(sides_of, backward_function(b.subject, manners), b.subject.args, b.dy)
            return Observed(), b.watch.call(traced)
        except (Exception, Hang):
            continue
    program = oracle.program(b.subject.args)
    note = "branches of the backward pass were followed by line only: it cannot be traced"
    return Observed(notes=(note,)), sides_of(lambda args, dy: program(args), b.subject.args, b.dy)


def _at_numbers(b: Bench) -> Iterator[Example]:
    """Yield examples at the numbers that stand in the target's code: batches and values on both sides of each.

    And batches as long as another axis is, where a side of an `if` never ran.
    """
    numbers = sorted(numbers_in(b.subject))[:_NUMBERS]
    whole = [int(n) for n in numbers if n == int(n) and 2 < n <= 512]
    lengths = {k for a in b.subject.args.values() for k in a.shape if 2 < k <= 512}
    for m in dict.fromkeys([*(n + 1 for n in whole), *whole, *sorted(lengths)]):
        if b.batch is not None and b.may_grow and (m - 1 in whole or b.lines.missed()):
            other = b.subject.at(with_batch(b.subject.args, b.batch, m, b.rng))
            if (dy := b.draw(other)) is not None:
                yield Example("branches", other, dy, f"batch {m}", ours=True)
    for number in numbers:
        for name in b.subject.wrt if b.lines.missed() else ():
            a = b.subject.args[name]
            size = largest(a)
            if not size or (not number and keeps_its_sign(b.subject, name)):
                continue
            for factor in (2 * number / size, -2 * number / size) if number else (-1.0,):
                if b.lines.missed():
                    other = b.subject.at({**b.subject.args, name: a * factor})
                    dy = cotangent(b.shapes.of(other, other.args), b.rng)
                    yield Example("branches", other, dy, f"{name} {factor:.3g} ×")

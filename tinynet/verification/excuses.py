"""What is right though it differs: another slope at a kink, and digits that rounding takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import Array, Oracle
from tinynet.verification.comparison import Comparison, without
from tinynet.verification.examples import is_special
from tinynet.verification.execution import Hang, Run, Watch, execute
from tinynet.verification.kinks import accept_kinks
from tinynet.verification.oracle import nudged
from tinynet.verification.probes.compiled import own_rounding
from tinynet.verification.tolerance import (
    ROUNDED,
    ROUNDS_ALIKE,
    ROUNDS_AWAY,
    SATURATES,
    bound,
    distance,
    largest,
    unit_of,
)

_NUDGES = 3


def _judged(c: Comparison, run: Run) -> Mapping[str, Any]:
    """Return the gradients of a run that a comparison is about: those of `backward`, or of `param_grads`."""
    return (run.short_grads or {}) if c.probe == "param_grads" else run.grads


def at_kinks(c: Comparison, oracle: Oracle, rng: np.random.Generator, watch: Watch) -> Comparison:
    """Return the comparison without the gradients that are right at a kink."""

    def pull(one: tuple[Array, ...]) -> Mapping[str, Any]:
        return _judged(c, execute(c.subject, c.args, one, watch))

    try:
        return accept_kinks(c, oracle, pull, rng)
    except Exception:
        return c


def without_own_rounding(c: Comparison, rng: np.random.Generator, watch: Watch) -> Comparison:
    """Return the comparison without the errors that the target's own operations make, as in p − y where p is nearly 1.

    JAX may add up the same terms in an order in which fewer digits are lost.
    """
    unit = unit_of(c.dtype)
    errors = {n: _error(c, n) for n in c.wrong}
    terms = [1.0, *(largest(a) for a in c.args.values() if a.dtype.kind == "f")]
    sizes = max(largest(d) for d in c.dy) * max(terms)
    if not c.wrong or not c.subject.contract or min(errors.values()) > ROUNDED * unit * sizes:
        return c
    try:
        moves = own_rounding(c.subject, c.dy, unit, rng, watch)
    except (Exception, Hang):
        return c
    allowed = {n: bound(c.exact.grads[n], unit=unit, spread=moves.get(n, 0.0), depth=c.subject.depth) for n in c.wrong}
    lost = frozenset(n for n in c.wrong if errors[n] <= allowed[n])
    return without(c, lost, f"{', '.join(sorted(lost))}: digits are lost where terms cancel" if lost else "")


def without_rounding(c: Comparison, oracle: Oracle, rng: np.random.Generator, watch: Watch) -> Comparison:
    """Return the comparison without the errors that are rounding where the forward pass saturates and terms cancel.

    Rounding is as much smaller in float64 as its spacing is; a wrong formula is as wrong in both. What saturates in
    one number type is not yet saturated in the other, so smaller inputs are looked at too. So is an error rounding that
    is no larger than what the target's own gradient moves by when its inputs move by one unit in their last place.
    """
    moves = _own_moves(c, rng, watch) if c.wrong and c.probe in ("saturated", "huge") else {}
    other, share = ("float32", ROUNDS_AWAY) if c.dtype == "float64" else ("float64", ROUNDS_ALIKE)
    rounded = {
        n
        for n, m in moves.items()
        if np.isfinite(m) and _error(c, n) <= bound(c.exact.grads[n], unit=unit_of(c.dtype), spread=m)
    }
    for fraction in SATURATES:
        if rounded == c.wrong:
            break
        args = {
            n: (a * fraction if n in c.subject.inputs else a).astype(other) if a.dtype.kind == "f" else a
            for n, a in c.args.items()
        }
        dy = tuple(d.astype(other) for d in c.dy)
        run = execute(c.subject, args, dy, watch)
        if run.error is not None:
            break
        exact, there = oracle(args, dy).grads, _judged(c, run)
        for name in c.wrong - rounded:
            if isinstance(there.get(name), np.ndarray) and there[name].shape == exact[name].shape:
                off = distance(there[name].astype(np.float64), exact[name])
                if np.isfinite(off) and _error(c, name) <= share * off:  # infinite where it overflows, which is none
                    rounded.add(name)
    names = ", ".join(sorted(rounded))
    return without(c, frozenset(rounded), f"{names}: digits are lost where terms cancel ({c.label})" if rounded else "")


def _own_moves(c: Comparison, rng: np.random.Generator, watch: Watch) -> dict[str, float]:
    """Return how far the target's wrong gradients move when its inputs move by one unit in their last place.

    Not those whose values mean something, as labels of 0 and 1 do: others are none.
    """
    moves = {n: 0.0 for n in c.wrong if np.isfinite(_error(c, n))}
    for _ in range(_NUDGES):
        args = nudged(c.args, unit_of(c.dtype), rng) | {n: a for n, a in c.args.items() if is_special(a)}
        run = execute(c.subject, args, c.dy, watch)
        if run.error is not None:
            return {}
        for name in moves:
            there = _judged(c, run).get(name)
            if not isinstance(there, np.ndarray) or there.shape != c.exact.grads[name].shape:
                return {}
            moves[name] = max(moves[name], distance(there.astype(np.float64), np.asarray(c.got[name], np.float64)))
    return moves


def where_never_given(c: Comparison) -> Comparison:
    """Return the comparison without finite errors, which are noted: the values may be such as are never given."""
    finite = frozenset(n for n in c.wrong if np.isfinite(np.asarray(c.got[n], np.float64)).all())
    return without(c, finite, f"{', '.join(sorted(finite))}: not the exact gradient at {c.label}" if finite else "")


def _error(c: Comparison, name: str) -> float:
    return distance(np.asarray(c.got[name], np.float64), c.exact.grads[name])

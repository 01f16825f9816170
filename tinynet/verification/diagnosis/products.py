"""Products of two of the forward's values where a derivative belongs: all pairs of them at once.

What passes an edge is b ⊗ f ⊗ g, or b ⊗ (1 − f ⊗ g), times a number, with b what comes from above, what is right, or
∂E/∂ of another value, and f, g each a value v of the forward, 1/v, 1 − v, 1 + v, v² or 1 − v². Seen from a direction
(`Look`), with m = J_s v, that is

    ⟨m, b ⊗ f ⊗ g⟩ = Σ (m ⊗ b) f g,

for all pairs one product of matrices, F · diag(m ⊗ b) · Gᵀ, G the simplest ones of F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tinynet.verification.diagnosis.look import Look
from tinynet.verification.diagnosis.mistakes import Mistake
from tinynet.verification.diagnosis.pool import Get, Pool
from tinynet.verification.diagnosis.primitives import Array, shaped
from tinynet.verification.diagnosis.tape import Passing

Rank = tuple[bool, int]
"""Of two products the one is preferred that comes without a number, then the one of simpler factors."""

_FORMS: Sequence[tuple[str, Callable[[Array], Array]]] = (
    ("{}", lambda v: v),
    ("(1 − {})", lambda v: 1 - v),
    ("1/{}", lambda v: 1 / v),
    ("(1 + {})", lambda v: 1 + v),
    ("{}²", np.square),
    ("(1 − {}²)", lambda v: 1 - v * v),
    ("{0} (1 − {0})", lambda v: v * (1 - v)),
)


@dataclass(frozen=True)
class _Factor:
    """A value of the forward in some form; `fault` is that of multiplying with it what is right."""

    words: str
    of: Get
    rank: int
    fault: str = "another value"


Factors = dict[tuple[Any, ...], tuple[list[_Factor], list[Array]]]
"""By shape and step of a loop the factors that there are, and for each passing their entries, one row a factor."""


@dataclass(frozen=True)
class _Place:
    """Where a product may stand.

    Attributes:
        words: how it is said that it stands there.
        shape: its shape.
        weights: of a passing and of m, the array whose scalar product with what stands there is that of m with what
            passes.
        passed: what passes if an array stands there.
        alone: whether it is a mistake without any factor.
        beside: whether what is right stands there as well.
    """

    words: str
    shape: tuple[int, ...]
    weights: Callable[[Passing, Array], Array]
    passed: Callable[[Passing, Array], Array | None]
    alone: bool = False
    beside: bool = False


_ONE = _Factor("", lambda p: np.ones(()), 0)
_SIMPLE = 113
"""How many factors, the simplest, are multiplied with each of them: 1 and sixteen values in seven forms."""


def products(
    passings: Sequence[Passing], pool: Pool, look: Look, kept: Factors, most: int = 12
) -> Iterator[tuple[Rank, Mistake]]:
    """Yield the products of two values that look like what the target returned, the simplest first, and their ranks.

    Args:
        kept: the factors that there are, from one site to the next.
        most: at most so many of each place where a product may stand.
    """
    shapes = {(p.right.shape, np.shape(np.asarray(p.ct[0]))) for p in passings}
    if look.entries < 2 or len(shapes) > 1 or sum(p.right.size for p in passings) > 4096:
        return
    for place in _places(passings[0], pool):
        key = (place.shape, passings[0].site.steps, *(p.step for p in passings))
        if key not in kept:
            made = [_ONE, *_factors(passings[0], pool, place.shape)]
            kept[key] = made, [_entries(made, p, place.shape) for p in passings]
        factors, entries = kept[key]
        pairs = [_pairs(place, entries, passings, move) for move in look.along(passings)]
        found = [
            (rest, abs(c - 1) > 1e-6, factors[i].rank + factors[j].rank, i, j)
            for rest in (False, True)
            for i, j, c in look.multiples([p[0, 0] - p if rest else p for p in pairs], passings, only_one=rest)
            if i >= j and (j or not rest) and (i or place.alone)
        ]
        for rest, times, rank, i, j in sorted(found)[:most]:
            text = " · ".join(f.words for f in (factors[j], factors[i]) if f.words)
            told = place.words.replace("{f}", f"1 − {text}" if rest else text).replace(" times  stands", " stands")
            fault = factors[i].fault if place.beside and not j and not rest else "another value"
            mistake = Mistake(fault, told, _product(place, factors[i], factors[j], rest), "factor")
            yield (times, rank), mistake


def _entries(factors: Sequence[_Factor], p: Passing, shape: tuple[int, ...]) -> Array:
    return np.stack([np.broadcast_to(f.of(p), shape).ravel() for f in factors])


def _pairs(place: _Place, entries: Sequence[Array], passings: Sequence[Passing], move: Sequence[Array]) -> Array:
    """Return F · diag(m ⊗ b) · Gᵀ, summed over the steps."""
    steps = zip(entries, passings, move, strict=True)
    return np.asarray(sum((f * place.weights(p, m).ravel()) @ f[:_SIMPLE].T for f, p, m in steps))


def _places(p: Passing, pool: Pool) -> Iterator[_Place]:
    if len(p.ct) != 1 or p.ct[0] is None:
        return
    if p.a is not None or p.factors():
        told = "{f} stands where the derivative of `{text}` belongs, times {c}"
        yield _times(told, np.shape(p.ct[0]), lambda p: np.asarray(p.ct[0]))
    elif p.operation is not None and p.operation.name == "dot_general":
        told = "{f} stands where the other factor of `{text}` belongs, times {c}"
        yield _Place(told, p.operands()[1 - p.k].shape, _weights_of_other, _passed_by_other)
    told = "what passes back through `{text}` is multiplied by {f}, times {c}"
    yield replace(_times(told, p.right.shape, lambda p: p.right), beside=True)
    if p.site.kind == "value" or (p.operation is not None and p.operation.name == "select_n"):
        for name, get in pool.other_cotangents(p.site, p.right.shape):
            told = f"{name} times {{f}} stands where what passes back through `{{text}}` belongs, times {{c}}"
            yield replace(_times(told, p.right.shape, get), alone=True)


def _times(words: str, shape: tuple[int, ...], base: Get) -> _Place:
    """Return the place beside an array."""

    def weights(p: Passing, m: Array) -> Array:
        return np.broadcast_to(m, shape) * base(p)

    def passed(p: Passing, f: Array) -> Array:
        return shaped(base(p) * np.broadcast_to(f, np.broadcast_shapes(f.shape, np.shape(base(p)))), p.right.shape)

    return _Place(words, shape, weights, passed)


def _weights_of_other(p: Passing, m: Array) -> Array:
    """⟨m, what passes⟩ is linear in m, in the other factor, and in what comes from above."""
    operands = p.operands()
    operands[p.k] = m
    return np.asarray(p.by_rule(operands=operands, k=1 - p.k))


def _passed_by_other(p: Passing, f: Array) -> Array | None:
    operands = p.operands()
    operands[1 - p.k] = np.broadcast_to(f, operands[1 - p.k].shape)
    return p.by_rule(operands=operands)


def _factors(p: Passing, pool: Pool, shape: tuple[int, ...]) -> Iterator[_Factor]:
    rank = 0
    known = [one for one in pool.factors(p.site, shape) if np.size(one[1](p)) == 1 or np.ptp(one[1](p)) > 0]
    roots = [(name, get, False) for name, get in pool.without_epsilon(p.site, shape)]
    with np.errstate(all="ignore"):
        for name, get, inverted in [*roots, *known]:
            for form, of in _FORMS:
                rank += 1
                divides = (form == "1/{}") != inverted
                fault = "factor left out" if divides else "factor taken twice"
                fault = fault if form in ("{}", "1/{}", "{}²") else "another value"
                if np.isfinite(of(get(p))).all():
                    words = form.replace("{}", "{0}").format(f"({name})" if " " in name and form != "{}" else name)
                    yield _Factor(words, partial(_formed, of, get), rank, fault)


def _formed(of: Callable[[Array], Array], get: Get, p: Passing) -> Array:
    return of(get(p))


def _product(place: _Place, f: _Factor, g: _Factor, rest: bool) -> Callable[[Passing, float], Array | None]:
    def change(p: Passing, c: float) -> Array | None:
        slope = f.of(p) * g.of(p)
        term = place.passed(p, np.asarray(1 - slope if rest else slope))
        return None if term is None else c * term

    return change

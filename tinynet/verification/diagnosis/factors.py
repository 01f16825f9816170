"""A factor as an expression in the sizes and configuration numbers of the runs in which it was seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction


def express(factors: Sequence[float], names: Sequence[Mapping[str, float]]) -> str:
    """Return the simplest expression that equals every factor, such as "2", "−1/m" or "n/(n − 1)"; "" if there is none.

    A size that is the same in all runs may be equal to a number by chance: then the number is said. A number that is
    no simple fraction must be the same in two runs at least.

    Args:
        factors: one a run.
        names: for each run what an expression may hold: m, n_in, the rate of a dropout, …
    """
    if not factors or not all(map(math.isfinite, factors)) or any(f == 0 for f in factors):
        return ""
    sign = "−" if factors[0] < 0 else ""
    if any((f < 0) != bool(sign) for f in factors):
        return ""
    sizes = [abs(f) for f in factors]
    for text, values in _expressions(names):
        if all(math.isclose(f, v, rel_tol=1e-8) for f, v in zip(sizes, values, strict=True)):
            return sign + text
    number = _number(sizes[0])
    if all(math.isclose(f, sizes[0], rel_tol=1e-7) for f in sizes) and (len(sizes) > 1 or "." not in number):
        return sign + number
    return _with_number(sizes, names, sign)


def _number(a: float) -> str:
    """Write a number as a fraction of small numbers or the root of one, else in decimals."""
    if 0 < abs(a - 1) < 1e-6:
        return f"1 {'+' if a > 1 else '−'} {abs(a - 1):.2g}"
    if (text := _fraction(a)) is not None:
        return text
    squared = _fraction(a * a)
    return f"{a:.7g}" if squared is None else f"1/√{squared[2:]}" if squared.startswith("1/") else f"√{squared}"


def _fraction(a: float) -> str | None:
    near = Fraction(a).limit_denominator(1000)
    simple = near.numerator == 1 or near.denominator == 1 or max(near.numerator, near.denominator) <= 12
    if not simple or not math.isclose(a, near, rel_tol=1e-9):
        return None
    return str(near)


def _with_number(sizes: Sequence[float], names: Sequence[Mapping[str, float]], sign: str) -> str:
    """Return the factor as a number times, or over, one size that varied; "" if it is none."""
    for name, values in _known(names):
        times = [f / v for f, v in zip(sizes, values, strict=True)]
        over = [f * v for f, v in zip(sizes, values, strict=True)]
        if len(set(values)) > 1 and all(math.isclose(c, times[0], rel_tol=1e-7) for c in times):
            number = _number(times[0])
            return sign + (f"{name}/{number[2:]}" if number.startswith("1/") else f"{number} {name}")
        if len(set(values)) > 1 and all(math.isclose(c, over[0], rel_tol=1e-7) for c in over):
            number = _number(over[0])
            return sign + (f"1/({number[2:]} {name})" if number.startswith("1/") else f"{number}/{name}")
    return ""


def _known(names: Sequence[Mapping[str, float]]) -> list[tuple[str, list[float]]]:
    """Return what may stand in an expression, and its values; of names with the same values the first."""
    known: dict[tuple[float, ...], str] = {}
    for name in names[0]:
        if all(name in run for run in names):
            values = tuple(float(run[name]) for run in names)
            if all(v > 0 and v != 1 for v in values) or len(set(values)) > 1:
                known.setdefault(values, name)
    return [(text, list(values)) for values, text in known.items()]


def _expressions(names: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, list[float]]]:
    """Yield each expression and its value in every run, the simple ones first."""
    n = len(names)
    yield "2", [2.0] * n
    yield "1/2", [0.5] * n
    # A size must have had two values; of a rate, 0.3, there is no doubt.
    one = [(text, v) for text, v in _known(names) if len(set(v)) > 1 or not v[0].is_integer()]
    for text, v in one:
        yield text, v
        yield f"1/{text}", [_inverse(a) for a in v]
    for text, v in one:
        yield f"√{text}", [abs(a) ** 0.5 for a in v]
        yield f"1/√{text}", [_inverse(abs(a) ** 0.5) for a in v]
        yield f"2/{text}", [2 * _inverse(a) for a in v]
        yield f"{text}/2", [a / 2 for a in v]
        yield f"2{text}", [2 * a for a in v]
        yield f"1/(2{text})", [_inverse(2 * a) for a in v]
        yield f"{text}²", [a * a for a in v]
        yield f"1/{text}²", [_inverse(a * a) for a in v]
        yield f"{text} − 1", [a - 1 for a in v]
        yield f"1/({text} − 1)", [_inverse(a - 1) for a in v]
        yield f"{text}/({text} − 1)", [a * _inverse(a - 1) for a in v]
        yield f"({text} − 1)/{text}", [(a - 1) * _inverse(a) for a in v]
        yield f"1 − {text}", [1 - a for a in v]
        yield f"1/(1 − {text})", [_inverse(1 - a) for a in v]
    for (p, a), (q, b) in itertools.combinations(one, 2):
        yield f"{p} {q}", [x * y for x, y in zip(a, b, strict=True)]
        yield f"1/({p} {q})", [_inverse(x * y) for x, y in zip(a, b, strict=True)]
        yield f"{p}/{q}", [x * _inverse(y) for x, y in zip(a, b, strict=True)]
        yield f"{q}/{p}", [y * _inverse(x) for x, y in zip(a, b, strict=True)]
        yield f"√({p}/{q})", [abs(x * _inverse(y)) ** 0.5 for x, y in zip(a, b, strict=True)]


def _inverse(a: float) -> float:
    return 1 / a if a else math.nan

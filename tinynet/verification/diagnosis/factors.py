"""A factor as an expression in the sizes and configuration numbers of the runs in which it was seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np

from tinynet.verification.diagnosis.evidence import Wrong


def express_in(
    runs: Sequence[Wrong], factors: Sequence[float], gradients: Sequence[str], *, decimals: bool = False
) -> str:
    """Return what `express` gives for factors that were fitted to gradients of these runs, one a run."""
    largest = [
        (r.tolerance[n], np.max(np.abs(r.exact[n]), initial=0.0)) for r in runs for n in gradients if n in r.wrong
    ]
    closeness = min(1e-5, max([1e-8, *(4 * error / float(size) for error, size in largest if size)]))
    return express(factors, [_names(r) for r in runs], decimals=decimals, closeness=closeness)


def _names(r: Wrong) -> dict[str, float]:
    """Return what a factor may be made of: named sizes, then configuration, then the lengths of axes."""
    names: dict[str, float] = {**r.sizes, **r.constants}
    for name, a in r.args.items():
        names |= {f"{name}.shape[{axis}]": n for axis, n in enumerate(np.shape(a)) if n > 1}
    return names


def express(
    factors: Sequence[float],
    names: Sequence[Mapping[str, float]],
    *,
    decimals: bool = True,
    closeness: float = 1e-8,
) -> str:
    """Return the simplest expression that equals every factor, such as "2", "−1/m" or "n/(n − 1)"; "" if there is none.

    A size that is the same in all runs may be equal to a number by chance: then the number is said. A number that is
    no simple fraction must be the same in two runs at least.

    Args:
        factors: one a run.
        names: for each run what an expression may hold: m, n_in, the rate of a dropout, …
        decimals: whether a number that is neither a simple fraction nor the root of one is said, too.
        closeness: how far a factor may be off, relative to itself.
    """
    if not factors or not all(map(math.isfinite, factors)) or any(f == 0 for f in factors):
        return ""
    sign = "−" if factors[0] < 0 else ""
    if any((f < 0) != bool(sign) for f in factors):
        return ""
    sizes = [abs(f) for f in factors]
    for text, values in _expressions(names):
        if _all_close(sizes, values, closeness):
            return sign + text
    one = [1.0] * len(sizes)
    if (number := _number(sizes, one, decimals and len(sizes) > 1, closeness)) is not None:
        return sign + number
    for name, values in _known(names):
        inverse = [1 / v for v in values]
        if len(set(values)) > 1 and (number := _number(sizes, values, decimals, closeness)) is not None:
            return sign + (f"{name}/{number[2:]}" if number.startswith("1/") else f"{number} {name}")
        if len(set(values)) > 1 and (number := _number(sizes, inverse, decimals, closeness)) is not None:
            return sign + (f"1/({number[2:]} {name})" if number.startswith("1/") else f"{number}/{name}")
    return ""


def told(factor: str) -> str:
    """Return a factor for a sentence, with what it may come from."""
    words = {"1/m": "a mean over the samples where their sum", "m": "a sum over the samples where their mean"}
    return f"{factor}, as if there were {words[factor]} belongs" if factor in words else factor


def _all_close(a: Sequence[float], b: Sequence[float], closeness: float) -> bool:
    return all(math.isclose(x, y, rel_tol=closeness) for x, y in zip(a, b, strict=True))


def _number(sizes: Sequence[float], units: Sequence[float], decimals: bool, closeness: float) -> str | None:
    """Return the number that the sizes are of their units: a simple fraction, the root of one, or in decimals."""
    numbers = [a / b for a, b in zip(sizes, units, strict=True)]
    if not _all_close(numbers, [numbers[0]] * len(numbers), 10 * closeness):
        return None
    a = numbers[0]
    if 1e-13 < abs(a - 1) < 1e-6:
        return f"1 {'+' if a > 1 else '−'} {abs(a - 1):.2g}"
    if (text := _fraction(a, closeness)) is not None:
        return text
    if (squared := _fraction(a * a, closeness)) is not None:
        return f"1/√{squared[2:]}" if squared.startswith("1/") else f"√{squared}"
    return f"{a:.7g}" if decimals else None


def _fraction(a: float, closeness: float) -> str | None:
    near = Fraction(a).limit_denominator(1000)
    simple = near.numerator == 1 or near.denominator == 1 or max(near.numerator, near.denominator) <= 12
    return str(near) if simple and math.isclose(a, near, rel_tol=closeness) else None


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

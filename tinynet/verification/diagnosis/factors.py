"""A factor as an expression in the sizes and configuration numbers of the runs in which it was seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence


def express(factors: Sequence[float], names: Sequence[Mapping[str, float]]) -> str:
    """Return the simplest expression that equals every factor, such as "2", "−1/m" or "n/(n − 1)"; "" if there is none.

    A number that is no such expression must be the same in two runs at least.

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
    if len(sizes) > 1 and all(math.isclose(f, sizes[0], rel_tol=1e-7) for f in sizes):
        inverse = 1 / sizes[0]
        whole = round(inverse)
        return sign + (f"1/{whole}" if whole > 1 and math.isclose(inverse, whole, rel_tol=1e-9) else f"{sizes[0]:.7g}")
    return ""


def _expressions(names: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, list[float]]]:
    """Yield each expression and its value in every run, the simple ones first."""
    n = len(names)
    yield "2", [2.0] * n
    yield "1/2", [0.5] * n
    known: dict[tuple[float, ...], str] = {}
    for name in names[0]:
        if all(name in run for run in names):
            values = tuple(float(run[name]) for run in names)
            if all(v > 0 and v != 1 for v in values) or len(set(values)) > 1:
                known.setdefault(values, name)
    one = [(text, list(values)) for values, text in known.items()]
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

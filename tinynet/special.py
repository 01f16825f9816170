"""Functions that several layers share: entry by entry, accurate and differentiable by `jax.grad` for every finite z."""

from __future__ import annotations

import math

from tinynet.arrays import Array, namespace, widened

# M(x) ≈ P(x) / Q(x), lowest power first.
_P = (
    1579291.1384589456, 2700703.431601793, 2281967.8794617653, 1234354.5893879016, 469466.2490365887,
    130683.51244464329, 26944.66193868894, 4070.997963081533, 433.38665173010014, 29.602737450084344, 1.0,
)  # fmt: skip
_Q = (
    1260092.016389173, 3160257.536450261, 3712221.6275705453, 2701804.0124770314, 1357192.1627892295,
    495554.13669499377, 134695.30495559648, 27376.048590069222, 4100.600700534832, 434.38665173008496,
    29.602737450084373, 1.0,
)  # fmt: skip


def expit(z: Array) -> Array:
    """Return σ(z) = 1 / (1 + e^−z) (1): with e = e^−|z| ≤ 1, 1 / (1 + e) for z ≥ 0 and e / (1 + e) for z < 0."""
    xp = namespace(z)
    negative = z < 0
    e = xp.exp(xp.where(negative, z, -z))
    return xp.where(negative, e, 1) / (1 + e)


def normal_density(z: Array) -> Array:
    """Return φ(z) = e^(−z²/2) / √(2π).

    The square would lose digits in the tail: the exponential turns its absolute error into a relative one. So z² is
    split at c, z rounded to sixteenths: z² = c² + (z − c)(z + c), and c² is exact.

    Source: the splitting is that of W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp.
    23 (1969).
    """
    xp = namespace(z)
    x = xp.minimum(abs(z), 40)  # φ(40) is 0 in float64
    c = xp.floor(x * 16) / 16
    return xp.exp(-0.5 * c * c) * xp.exp(-0.5 * (x - c) * (x + c)) * (1 / math.sqrt(2 * math.pi))


def normal(z: Array) -> tuple[Array, Array]:
    """Return Φ(z) = ∫_−∞^z φ(t) dt and φ(z), the normal distribution function and its density, in float32 for float16.

    With Mills' ratio M(x) = Φ(−x) / φ(x), x ≥ 0, which falls smoothly from √(π/2) to 1/x,
        Φ(z) = φ(z) M(−z) for z < 0,        1 − φ(z) M(z) for z ≥ 0.
    M is approximated by one rational function of degrees 10 and 11, to 2·10⁻¹⁷ of its value for every x ≥ 0. All its
    coefficients are positive, so no digit cancels, neither in M nor in its derivative.

    Source: J. P. Mills, Table of the ratio: area to bounding ordinate, Biometrika 18 (1926). The coefficients
    interpolate M at the 22 Chebyshev points of t = (x − 3.7) / (x + 3.7), found with 60 digits (mpmath).
    """
    xp, z = namespace(z), widened(z)  # the coefficients are beyond float16
    negative, density = z < 0, normal_density(z)
    tail = density * _mills_ratio(xp.where(negative, -z, z))
    return xp.where(negative, tail, 1 - tail), density


def product(w: Array, x: Array) -> Array:
    """Return w x, and 0 where w is 0, even if x is infinite: −log 0 counts nothing where its weight is 0."""
    return w * namespace(x).where(w == 0, 0, x)


def _mills_ratio(x: Array) -> Array:
    x = namespace(x).minimum(x, 40)
    return _horner(_P, x) / _horner(_Q, x)


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    value = coefficients[-1] * x + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        value *= x
        value += c
    return value

"""Dropout: a random part of the entries is left out of each training step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, namespace, owned_copy
from tinynet.checks import check_floating, check_number, check_same_shape
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Dropout(Layer):
    """Leave each entry out with probability p while training: a = z ⊗ mask / (1 − p).

    `Dropout(p)` is the layer that evaluates, the identity. `sample(rng)` gives the layer of one training step, with a
    seed, from which the mask follows: so it too is a pure function, and its gradient can be checked.

    Args:
        rate: p, 0 ≤ p < 1.
        seed: None, or of the mask, 0 ≤ seed < 2³²; under `jax.jit` it may be a traced uint32 scalar.

    Shapes:
        z (the input x), a and δ are all of one shape.

    Derivation. Entry i, in reading order, is kept where hash(i, seed) ≥ p 2³². As E[mask] = 1 − p, E[a] = z, and
        ∂E/∂z = ∂E/∂a ⊗ mask / (1 − p)
    hash mixes i, adds the seed and mixes again, in arithmetic modulo 2³²: the bits are the same on NumPy and on JAX.

    Source: N. Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 15 (2014). The
    mixing function is C. Wellons' lowbias32 (Prospecting for hash functions, 2018).

    Raises:
        TypeError, ValueError: rate or seed is out of range; x is not floating; da has another shape than a.
    """

    rate: float
    seed: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", check_number("Dropout", "rate", self.rate, 0.0, 1.0))
        if isinstance(self.seed, np.integer):
            object.__setattr__(self, "seed", int(self.seed))
        if isinstance(self.seed, (int, float, str)) and not (type(self.seed) is int and 0 <= self.seed < 2**32):
            raise ValueError(f"Dropout: seed is {self.seed!r}; expected None or an int, 0 <= seed < 2**32")

    def sample(self, rng: np.random.Generator) -> Layer:
        return replace(self, seed=int(rng.integers(2**32)))

    def samplewise(self) -> bool:
        return self.seed is None  # a mask belongs to the whole batch

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        check_floating(self, "x", z)
        xp = namespace(z)
        if self.seed is None:
            return owned_copy(z), xp.ones_like(z)
        kept = _hash(xp, z.size, self.seed) >= xp.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        mask = kept.reshape(z.shape).astype(z.dtype)
        mask *= 1 / (1 - self.rate)
        return z * mask, mask

    def backward(self, params: Params, mask: Array, da: Array) -> tuple[Array, Params]:
        check_same_shape(self, "da", da, mask.shape, "the output")
        return da * mask, {}


def _hash(xp: Any, n: int, seed: Any) -> Array:
    return _mix(xp, _mix(xp, xp.arange(n, dtype=xp.uint32)) + xp.uint32(seed))


def _mix(xp: Any, h: Array) -> Array:
    h = h ^ (h >> 16)
    h = h * xp.uint32(0x7FEB352D)
    h = h ^ (h >> 15)
    h = h * xp.uint32(0x846CA68B)
    return h ^ (h >> 16)

"""The one table of faults: every way in which a gradient is found wrong, or is made wrong for a test.

A fault is a key of `FAULTS`. "scaled" has a factor besides, a text such as "2" or "1/m"; `name` writes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        # The whole array: the exact one, transformed.
        "sign": "every entry is the negative of the exact value",
        "scaled": "every entry is the same multiple of the exact value",
        "zero": "every entry is zero where the exact value is not",
        "transpose": "the transpose of the exact array is returned",
        "absolute value": "the absolute value of the exact array is returned",
        "clipped": "the exact array is cut off at a bound",
        "constant offset": "the same number was added to every entry of the exact array",
        "weight decay": "a multiple of the parameter was added to its gradient",
        "shifted": "the exact entries stand in other places: shifted along an axis",
        "reversed": "the exact entries stand in other places: reversed along an axis",
        "halves swapped": "the exact entries stand in other places: the two halves of an axis are exchanged",
        "exchanged gradients": "the exact gradient of another array is returned, and that of this one in its place",
        "one entry": "one entry is wrong; every other one is right",
        "one row": "one row is wrong; every other one is right",
        "one column": "one column is wrong; every other one is right",
        # Sums.
        "not summed over the batch": "the gradient of each sample is returned where their sum belongs",
        "not summed over an axis": "an axis is kept over which the exact gradient is a sum",
        "summed over an axis": "a sum over an axis is returned where each of its terms belongs",
        "summed over the wrong axis": "the sum runs over another axis than that of the exact gradient",
        "summed over everything": "the sum of all entries is returned where each of them belongs",
        "kept a dimension": "the values are right, with an axis of length 1 too many",
        "one sample left out": "one sample of the batch contributes nothing to a sum over all of them",
        "only one sample used": "one sample of the batch contributes to a sum over all of them",
        "overwritten": "terms that belong to the same entry overwrite each other where their sum belongs",
        "rows left out": "some rows contribute nothing to a sum over all of them",
        # Inside the chain rule.
        "missing path": "a path by which the array reaches the output is left out; its term belongs in the sum",
        "off-diagonal terms missing": "each output passes dy to its own input only, where it depends on others too",
        "factor left out": "a factor of the chain rule is left out",
        "factor taken twice": "a factor of the chain rule is taken twice",
        "another value": "another array of the same shape stands where a factor of the chain rule belongs",
        "operands swapped": "the two operands of a product stand in each other's place",
        "W for Wᵀ": "a matrix is used as it is where its transpose belongs",
        "already updated W": "a matrix that had already been updated is used where the one of the forward pass belongs",
        "σ′ missing": "the derivative of the activation is left out",
        "σ′ of the output": "the derivative of the activation is taken at its output a where it belongs at z",
        "another activation's derivative": "another function stands where the derivative of the activation belongs",
        "ignores dy": "the gradient is that for dy = 1 whatever dy is handed in",
        "not linear in dy": "twice dy does not give twice the gradient",
        # At some inputs only.
        "wrong only when saturated": "the values are right for moderate inputs and wrong for large ones",
        "wrong only for small inputs": "the values are right for moderate inputs and wrong for small ones",
        "wrong only at kinks": "at a kink of the forward pass the value is not between the one-sided slopes",
        "wrong only at some batch sizes": "the values are right at one batch size and wrong at another",
        "wrong only for a layout": "the values are right for contiguous arrays and wrong for another layout in memory",
        "wrong only in float32": "the values are right in float64 and wrong in float32 by more than its rounding",
        "float32 inside": "the values are right to float32 only where the arrays handed in are float64",
        "non-finite": "there is an infinity or a NaN where the exact value is finite",
        # From one call to another.
        "stale cache": "the result depends on another forward pass than the one that it belongs to",
        "accumulates": "each call adds to the result of the one before where it belongs alone",
        "not deterministic": "the same call gives another result each time",
        "mutates x": "an input of the forward pass was written into",
        "mutates dy": "the incoming gradient dy was written into",
        "mutates params": "the parameters were written into",
        "mutates its cache": "the backward pass wrote into what the forward pass left for it",
        "shares memory": "the result shares memory with an array that is later written into",
        # What comes back, if anything does.
        "missing": "no gradient is returned",
        "not an array": "something other than an array is returned",
        "malformed": "what is returned cannot be matched with what went in",
        "wrong shape": "the shape is not that of the array that it is the gradient of",
        "wrong dtype": "the number type is not that of the array that it is the gradient of",
        "raises": "the backward pass raises an exception where the forward pass does not",
        "hangs": "the call does not come back",
        "exits": "the call ends the process",
        # Two ways that should agree.
        "forward differs": "the forward pass gives other values under JAX than without",
        "forward differs from the reference": "the forward pass and the independent reference give different values",
        "param_grads differs": "param_grads and backward give different gradients",
        "compiled differs": "the backward pass gives other values under jax.jit than without",
        "unknown": "the values are wrong, and no known mistake reproduces them",
    }
)
"""For each fault a sentence: what was computed, and what belongs there."""


_OF_SAMPLES = "Σ_i ∂E_i/∂p"
_CHAIN = "∂E/∂y · ∂y/∂u · ∂u/∂p"
_HIDDEN = "Wᵀ δ^(l+1) ⊗ f′(z^l)"
_ACTIVATION = "∂E/∂a ⊗ f′(z)"

_FORMULAS: Mapping[str, tuple[str, str, int]] = MappingProxyType(
    {
        "sign": ("−∂E/∂p", "∂E/∂p", 0),
        "scaled": ("c · ∂E/∂p", "∂E/∂p", 0),
        "zero": ("0", "∂E/∂p", 0),
        "transpose": ("(∂E/∂W)ᵀ", "∂E/∂W", 24),
        "absolute value": ("|∂E/∂p|", "∂E/∂p", 0),
        "constant offset": ("∂E/∂p + c", "∂E/∂p", 0),
        "weight decay": ("∂E/∂W + λ W", "∂E/∂W", 24),
        "shifted": ("∂E/∂p_(i+k)", "∂E/∂p_i", 0),
        "reversed": ("∂E/∂p_(n−i)", "∂E/∂p_i", 0),
        "exchanged gradients": ("∂E/∂q", "∂E/∂p", 0),
        "not summed over the batch": ("∂E_i/∂p", _OF_SAMPLES, 17),
        "not summed over an axis": ("∂E/∂p_ij", "Σ_j ∂E/∂p_ij", 0),
        "summed over an axis": ("Σ_j ∂E/∂p_ij", "∂E/∂p_ij", 0),
        "summed over the wrong axis": ("Σ_i ∂E/∂p_ij", "Σ_j ∂E/∂p_ij", 0),
        "summed over everything": ("Σ_j ∂E/∂p_j", "∂E/∂p_i", 0),
        "one sample left out": ("Σ_(i≠k) ∂E_i/∂p", _OF_SAMPLES, 17),
        "only one sample used": ("∂E_k/∂p", _OF_SAMPLES, 17),
        "rows left out": ("Σ_(i<k) ∂E_i/∂p", _OF_SAMPLES, 17),
        "overwritten": ("t_n", "Σ_k t_k", 0),
        "missing path": ("∂E/∂u · ∂u/∂p", "∂E/∂u · ∂u/∂p + ∂E/∂v · ∂v/∂p", 10),
        "off-diagonal terms missing": ("∂E/∂y_i · ∂y_i/∂x_i", "Σ_k ∂E/∂y_k · ∂y_k/∂x_i", 10),
        "factor left out": ("∂E/∂y · ∂u/∂p", _CHAIN, 6),
        "factor taken twice": ("∂E/∂y · ∂y/∂u · ∂y/∂u · ∂u/∂p", _CHAIN, 6),
        "another value": ("∂E/∂y · g · ∂u/∂p", _CHAIN, 6),
        "operands swapped": ("B A", "A B", 0),
        "W for Wᵀ": ("W δ^(l+1) ⊗ f′(z^l)", _HIDDEN, 22),
        "already updated W": ("(W − η ∂E/∂W)ᵀ δ^(l+1) ⊗ f′(z^l)", _HIDDEN, 22),
        "σ′ missing": ("∂E/∂a", _ACTIVATION, 20),
        "σ′ of the output": ("∂E/∂a ⊗ f′(a)", _ACTIVATION, 20),
        "another activation's derivative": ("∂E/∂a ⊗ g′(z)", _ACTIVATION, 20),
        "ignores dy": ("∂y/∂p", "∂E/∂y · ∂y/∂p", 6),
        "not linear in dy": ("g(2 dy) ≠ 2 g(dy)", "g(2 dy) = 2 g(dy)", 20),
        "accumulates": ("∂E/∂p + ∂E/∂p", "∂E/∂p", 0),
    }
)
"""What was computed, what belongs there, and the equation of the derivation about it; 0 where there is none."""


def formulas(fault: str, factor: str = "") -> tuple[str, str, int] | None:
    """Return what was computed, what belongs there, and the equation about it or 0; None where no formula says it."""
    if fault == "scaled" and factor:
        return f"{factor} · ∂E/∂p", "∂E/∂p", 17 if "m" in factor else 0
    return _FORMULAS.get(fault)


def name(fault: str, factor: str = "") -> str:
    """Return the fault as it is printed: "transpose", "scaled by 1/m".

    Args:
        fault: a key of `FAULTS`.
        factor: of "scaled": the multiple, "2" or "1/m"; "" for every other fault.

    Raises:
        ValueError: `fault` is no key of `FAULTS`, or it is not "scaled" and has a factor.
    """
    if fault not in FAULTS:
        raise ValueError(f"name: fault is {fault!r}; expected a key of tinynet.faults.FAULTS")
    if factor and fault != "scaled":
        raise ValueError(f'name: factor is {factor!r} for the fault {fault!r}; only "scaled" has a factor')
    return f"{fault} by {factor}" if factor else fault

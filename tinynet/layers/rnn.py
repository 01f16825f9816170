"""The plain recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tinynet.arrays import Array, namespace
from tinynet.layers.recurrent import Recurrent
from tinynet.layers.tanh import Tanh

_TANH = Tanh()


@dataclass(frozen=True)
class RNN(Recurrent):
    """Plain recurrent layer h_t = tanh(W_ih x_t + b_ih + W_hh h_(t−1) + b_hh).

    Arguments, shapes and what all steps share: `Recurrent`, with one gate.

    Derivation, with v = z + u:
        h = tanh(v)
        δ = ε = ∂E/∂h ⊗ tanh′(v)                                                  (20)
    Nothing but u reaches back to h_(t−1).

    Source: J. L. Elman, Finding structure in time, Cognitive Science 14 (1990); the form is that of torch.nn.RNN.

    Raises:
        As `Recurrent`.
    """

    gates: ClassVar[int] = 1

    def step(self, carry: tuple[Array, ...], z: Array, u: Array) -> tuple[tuple[Array, ...], Any]:
        h, slope = _TANH.forward({}, z + u)
        return (h,), slope

    def step_back(self, dcarry: tuple[Array, ...], slope: Array) -> tuple[tuple[Array, ...], Array, Array]:
        (dh,) = dcarry
        δ = dh * slope  # (20)
        return (namespace(dh).zeros_like(dh),), δ, δ

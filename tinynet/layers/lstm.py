"""The long short-term memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tinynet.arrays import Array, namespace
from tinynet.layers.recurrent import Recurrent
from tinynet.layers.sigmoid import Sigmoid
from tinynet.layers.tanh import Tanh

_SIGMOID, _TANH = Sigmoid(), Tanh()


@dataclass(frozen=True)
class LSTM(Recurrent):
    """Long short-term memory: a cell c that gates write to, erase and read out as h.

    Arguments, shapes and what all steps share: `Recurrent`, with the gates i, f, g, o in this order, as in torch.

    Derivation, with v = z + u and c′ the cell before:
        i = σ(v_i),    f = σ(v_f),    g = tanh(v_g),    o = σ(v_o)
        c = f ⊗ c′ + i ⊗ g,    h = o ⊗ tanh(c)
        γ = ∂E/∂c = what comes from the step after + ∂E/∂h ⊗ o ⊗ tanh′(c)
        δ_i = γ ⊗ g ⊗ σ′,    δ_f = γ ⊗ c′ ⊗ σ′,    δ_g = γ ⊗ i ⊗ tanh′,    δ_o = ∂E/∂h ⊗ tanh(c) ⊗ σ′      (20)
        ε = δ; beside u nothing reaches h′, and γ ⊗ f reaches c′

    Source: S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997), with the forget gate of
    F. A. Gers et al., Learning to forget, Neural Computation 12 (2000); the form is that of torch.nn.LSTM.

    Raises:
        As `Recurrent`.
    """

    gates: ClassVar[int] = 4

    def start(self, h: Array) -> tuple[Array, ...]:
        return h, namespace(h).zeros_like(h)

    def step(self, carry: tuple[Array, ...], z: Array, u: Array) -> tuple[tuple[Array, ...], Any]:
        _, before = carry
        v_i, v_f, v_g, v_o = namespace(z).split(z + u, 4, axis=-1)
        i, slope_i = _SIGMOID.forward({}, v_i)
        f, slope_f = _SIGMOID.forward({}, v_f)
        g, slope_g = _TANH.forward({}, v_g)
        o, slope_o = _SIGMOID.forward({}, v_o)
        c = f * before + i * g
        read, slope_c = _TANH.forward({}, c)
        kept = {"f": f, "to_i": g * slope_i, "to_f": before * slope_f, "to_g": i * slope_g, "to_c": o * slope_c}
        return (o * read, c), {**kept, "to_o": read * slope_o}

    def step_back(self, dcarry: tuple[Array, ...], kept: Any) -> tuple[tuple[Array, ...], Array, Array]:
        (dh, dc), xp = dcarry, namespace(dcarry[0])
        γ = dc + dh * kept["to_c"]
        δ = xp.concatenate([γ * kept["to_i"], γ * kept["to_f"], γ * kept["to_g"], dh * kept["to_o"]], axis=-1)  # (20)
        return (xp.zeros_like(dh), γ * kept["f"]), δ, δ

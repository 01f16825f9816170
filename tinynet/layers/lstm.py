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
        (_, before), k, v, xp = carry, self.n_out, z + u, namespace(z)
        gates, slopes = _SIGMOID.forward({}, v)
        i, f, o = gates[:, :k], gates[:, k : 2 * k], gates[:, 3 * k :]
        g, slope_g = _TANH.forward({}, v[:, 2 * k : 3 * k])
        c = f * before + i * g
        read, slope_c = _TANH.forward({}, c)
        to_ifg = xp.concatenate([g * slopes[:, :k], before * slopes[:, k : 2 * k], i * slope_g], axis=-1)
        return (o * read, c), {"to_ifg": to_ifg, "f": f, "to_c": o * slope_c, "to_o": read * slopes[:, 3 * k :]}

    def step_back(self, dcarry: tuple[Array, ...], kept: Any) -> tuple[tuple[Array, ...], Array]:
        (dh, dc), xp = dcarry, namespace(dcarry[0])
        dc = dc + dh * kept["to_c"]
        delta_ifg = xp.concatenate([dc, dc, dc], axis=-1) * kept["to_ifg"]  # (20)
        delta = xp.concatenate([delta_ifg, dh * kept["to_o"]], axis=-1)  # (20)
        return (xp.zeros_like(dh), dc * kept["f"]), delta

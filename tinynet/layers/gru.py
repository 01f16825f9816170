"""The gated recurrent unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tinynet.arrays import Array, namespace
from tinynet.layers.recurrent import Recurrent
from tinynet.layers.sigmoid import Sigmoid
from tinynet.layers.tanh import Tanh

_SIGMOID, _TANH = Sigmoid(), Tanh()


@dataclass(frozen=True)
class GRU(Recurrent):
    """Gated recurrent unit: h_t is a mixture of h_(t−1) and of a new state n.

    Arguments, shapes and what all steps share: `Recurrent`, with the gates r, s, n in this order, torch's r, z, n.

    Derivation, with z = (z_r, z_s, z_n) and u likewise:
        r = σ(z_r + u_r),    s = σ(z_s + u_s),    n = tanh(z_n + r ⊗ u_n)
        h = (1 − s) ⊗ n + s ⊗ h′, where h′ is the state before
        δ_n = ∂E/∂h ⊗ (1 − s) ⊗ tanh′,    δ_s = ∂E/∂h ⊗ (h′ − n) ⊗ σ′,    δ_r = δ_n ⊗ u_n ⊗ σ′      (20)
        ε = (δ_r, δ_s, δ_n ⊗ r), and beside u, s ⊗ ∂E/∂h reaches h′

    Source: K. Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014; r is applied after the
    product, as in torch.nn.GRU.

    Raises:
        As `Recurrent`.
    """

    gates: ClassVar[int] = 3

    def start(self, h: Array) -> tuple[Array, ...]:
        return (h,)

    def step(self, carry: tuple[Array, ...], z: Array, u: Array) -> tuple[tuple[Array, ...], Any]:
        (before,), k = carry, self.n_out
        rs, slope_rs = _SIGMOID.forward({}, z[:, : 2 * k] + u[:, : 2 * k])
        r, s, u_n = rs[:, :k], rs[:, k:], u[:, 2 * k :]
        n, slope_n = _TANH.forward({}, z[:, 2 * k :] + r * u_n)
        h = n + s * (before - n)
        return (h,), {"rs": rs, "slope_rs": slope_rs, "slope_n": slope_n, "u_n": u_n, "change": before - n}

    def step_back(self, dcarry: tuple[Array, ...], kept: Any) -> tuple[tuple[Array, ...], Array]:
        (dh,), s = dcarry, kept["rs"][:, self.n_out :]
        delta_n = dh * (1 - s) * kept["slope_n"]  # (20)
        delta_rs = namespace(dh).concatenate([delta_n * kept["u_n"], dh * kept["change"]], axis=-1)
        delta_rs *= kept["slope_rs"]  # (20)
        return (dh * s,), namespace(dh).concatenate([delta_rs, delta_n], axis=-1)

    def through_state(self, delta: Array, kept: Any) -> Array:
        k = self.n_out
        epsilon_n = delta[..., 2 * k :] * kept["rs"][..., :k]
        return namespace(delta).concatenate([delta[..., : 2 * k], epsilon_n], axis=-1)

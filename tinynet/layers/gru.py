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
        h = (1 − s) ⊗ n + s ⊗ h′, where h′ is the state before and 1 − s is σ(−z_s − u_s), which keeps its digits
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
        (before,), k, xp = carry, self.n_out, namespace(z)
        v = z[:, : 2 * k] + u[:, : 2 * k]
        gates, slopes = _SIGMOID.forward({}, xp.concatenate([v, -v[:, k:]], axis=-1))
        r, s, rest, u_n = gates[:, :k], gates[:, k : 2 * k], gates[:, 2 * k :], u[:, 2 * k :]
        n, slope_n = _TANH.forward({}, z[:, 2 * k :] + r * u_n)
        to_n = rest * slope_n
        to_rs = slopes[:, : 2 * k] * xp.concatenate([to_n * u_n, before - n], axis=-1)
        return (rest * n + s * before,), {"r": r, "s": s, "to_n": to_n, "to_rs": to_rs}

    def step_back(self, dcarry: tuple[Array, ...], kept: Any) -> tuple[tuple[Array, ...], Array]:
        (dh,), xp = dcarry, namespace(dcarry[0])
        delta_rs = xp.concatenate([dh, dh], axis=-1) * kept["to_rs"]  # (20)
        return (dh * kept["s"],), xp.concatenate([delta_rs, dh * kept["to_n"]], axis=-1)

    def through_state(self, delta: Array, kept: Any) -> Array:
        k = self.n_out
        epsilon_n = delta[..., 2 * k :] * kept["r"]
        return namespace(delta).concatenate([delta[..., : 2 * k], epsilon_n], axis=-1)

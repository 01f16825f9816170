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

    def step(self, carry: tuple[Array, ...], z: Array, u: Array) -> tuple[tuple[Array, ...], Any]:
        (before,), xp = carry, namespace(z)
        (z_r, z_s, z_n), (u_r, u_s, u_n) = xp.split(z, 3, axis=-1), xp.split(u, 3, axis=-1)
        r, slope_r = _SIGMOID.forward({}, z_r + u_r)
        s, slope_s = _SIGMOID.forward({}, z_s + u_s)
        rest, _ = _SIGMOID.forward({}, -(z_s + u_s))
        n, slope_n = _TANH.forward({}, z_n + r * u_n)
        to_n = rest * slope_n
        to_r, to_s = to_n * u_n * slope_r, (before - n) * slope_s
        return (rest * n + s * before,), {"r": r, "s": s, "to_r": to_r, "to_s": to_s, "to_n": to_n}

    def step_back(self, dcarry: tuple[Array, ...], kept: Any) -> tuple[tuple[Array, ...], Array, Array]:
        (dh,), xp = dcarry, namespace(dcarry[0])
        δ_r, δ_s, δ_n = (dh * kept[name] for name in ("to_r", "to_s", "to_n"))  # (20)
        δ, ε = xp.concatenate([δ_r, δ_s, δ_n], axis=-1), xp.concatenate([δ_r, δ_s, δ_n * kept["r"]], axis=-1)
        return (dh * kept["s"],), δ, ε

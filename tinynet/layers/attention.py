"""Self-attention: each place of a sequence looks at all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.arrays import Array, Cache, Params, namespace, rows
from tinynet.checks import check_mask, check_param, check_same_shape, check_sequences, convert_ints
from tinynet.initializers import Initializer, glorot_uniform
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class MultiHeadAttention(Layer, samplewise=True):
    """Self-attention with several heads: y_t = W_out (o¹_t, …, o^H_t) + b_out, o_t = Σ_s P_ts v_s for each head.

    Args:
        n: features of an input and of an output.
        heads: H, which divides n.
        causal: a place sees itself and the places before it.
        initializer: draws W_in and W_out, a keyword; the biases start at 0.

    Shapes:
        The input is x (m, t, n), or a tuple (x, mask) with mask (m, t) booleans, True where there is something to see;
        y (m, t, n). W_in (3n, n), b_in (3n,), W_out (n, n) and b_out (n,), as in torch: queries, keys, values.

    Derivation, for one head, with d = n / H columns of q, k and v (t, d), which are slices of x W_inᵀ + b_in:
        S = q kᵀ / √d,    P = softmax(S) over the places s that t may see, 0 elsewhere,    o = P v
        ∂E/∂v = Pᵀ δ_o,    ∂E/∂P = δ_o vᵀ
        ∂E/∂S_ts = P_ts (∂E/∂P_ts − Σ_r ∂E/∂P_tr P_tr), as in `Softmax`
        ∂E/∂q = ∂E/∂S k / √d,    ∂E/∂k = (∂E/∂S)ᵀ q / √d
    and both affine maps are those of `Linear`: (18), (22), (24), (26). A place that may see nothing has o = 0. `mask`
    does not vary continuously: its gradient is None.

    Source: A. Vaswani et al., Attention is all you need, NeurIPS 2017, equation (1).

    Raises:
        TypeError, ValueError: a size is not a positive int or heads does not divide n; x, mask, dy or a parameter has
            another shape or kind.
    """

    n: int
    heads: int
    causal: bool = False
    initializer: Initializer = field(default=glorot_uniform, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        convert_ints(self, "n", "heads")
        if self.n % self.heads:
            raise ValueError(f"MultiHeadAttention: heads is {self.heads}; expected a divisor of n, which is {self.n}")

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        n = self.n
        W_in, W_out = self.initializer(rng, (3 * n, n), dtype), self.initializer(rng, (n, n), dtype)
        return {"W_in": W_in, "b_in": np.zeros(3 * n, dtype), "W_out": W_out, "b_out": np.zeros(n, dtype)}

    def forward(self, params: Params, x: Any) -> tuple[Array, Cache]:
        n = self.n
        W_in, b_in = check_param(self, params, "W_in", (3 * n, n)), check_param(self, params, "b_in", (3 * n,))
        W_out, b_out = check_param(self, params, "W_out", (n, n)), check_param(self, params, "b_out", (n,))
        x, mask = x if isinstance(x, tuple) else (x, None)
        check_sequences(self, x, n)
        if mask is not None:
            check_mask(self, mask, x.shape[:2])
        z = x @ W_in.T + b_in  # (18)
        q, k, v = (self._split(z[..., i * n : (i + 1) * n]) for i in range(3))
        P = self._softmax(q @ k.swapaxes(-1, -2) / math.sqrt(n // self.heads), mask)
        o = self._join(P @ v)
        return o @ W_out.T + b_out, (x, q, k, v, P, o, mask)  # (18)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Any, Params]:
        dz, dparams = self._grads(params, cache, dy)
        dx = dz @ params["W_in"]  # (22)
        return dx if cache[-1] is None else (dx, None), dparams

    def param_grads(self, params: Params, cache: Cache, dy: Array) -> Params:
        return self._grads(params, cache, dy)[1]

    def _grads(self, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        x, q, k, v, P, o, _ = cache
        check_same_shape(self, "dy", dy, x.shape, "the output")
        do = self._split(dy @ params["W_out"])  # (22)
        dv, dP = P.swapaxes(-1, -2) @ do, do @ v.swapaxes(-1, -2)
        dS = P * (dP - (dP * P).sum(axis=-1, keepdims=True)) / math.sqrt(self.n // self.heads)
        dq, dk = dS @ k, dS.swapaxes(-1, -2) @ q
        dz = namespace(dy).concatenate([self._join(d) for d in (dq, dk, dv)], axis=-1)
        Δ_in, Δ_out = rows(dz), rows(dy)
        dW_in, dW_out = Δ_in.T @ rows(x), Δ_out.T @ rows(o)  # (24)
        return dz, {"W_in": dW_in, "b_in": Δ_in.sum(axis=0), "W_out": dW_out, "b_out": Δ_out.sum(axis=0)}  # (26)

    def _softmax(self, S: Array, mask: Array | None) -> Array:
        """Return the softmax of S (m, H, t, t) over what each place may see."""
        xp, t = namespace(S), S.shape[-1]
        seen = xp.ones((t, t), dtype=bool)
        if self.causal:
            seen = xp.tril(seen)
        if mask is not None:
            seen = seen & mask[:, None, None, :]
        S = xp.where(seen, S, -math.inf)
        P = xp.exp(S - S.max(axis=-1, keepdims=True, initial=xp.finfo(S.dtype).min))
        total = P.sum(axis=-1, keepdims=True)
        return P / xp.where(total == 0, 1, total)

    def _split(self, z: Array) -> Array:
        """View z (m, t, n) as (m, H, t, n / H)."""
        return z.reshape(*z.shape[:2], self.heads, self.n // self.heads).swapaxes(1, 2)

    def _join(self, z: Array) -> Array:
        """Return z (m, H, t, n / H) as (m, t, n)."""
        z = z.swapaxes(1, 2)
        return z.reshape(*z.shape[:2], self.n)

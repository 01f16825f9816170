"""Convolution of sequences, as one matrix product."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, add_to_slice, namespace
from tinynet.checks import check_param, check_same_shape, check_signals, convert_ints
from tinynet.initializers import Initializer, glorot_uniform
from tinynet.layers.layer import Layer
from tinynet.layers.windows import count, reach


@dataclass(frozen=True)
class Conv1d(Layer, samplewise=True):
    """Slide a kernel along sequences: z_o(r) = Σ_c Σ_j W_ocj a_c(r s + j) + b_o, s the stride.

    As everywhere in deep learning the kernel is not flipped: mathematically it is a cross-correlation.

    Args:
        n_in, n_out: channels of the input and of the output.
        kernel: length K of the kernel.
        stride: s, from one window to the next. Entries that fill no window are left out.
        padding: zeros put before and after each sequence.
        initializer: draws W, a keyword; b starts at 0.

    Shapes:
        a (the input x) (..., n_in, t), W (n_out, n_in, K), b (n_out,), z (..., n_out, R) with
        R = ⌊(t + 2 padding − K) / s⌋ + 1; every leading axis counts samples.

    Derivation, with a padded. Let A be the matrix with a row for each (j, c) and a column for each r,
    A[jc, r] = a_c(r s + j), and W′[o, jc] = W_ocj. Then
        Z = W′ A + b                                               (18)
        ∂E/∂W′ = Δ Aᵀ, summed over the samples                     (24)
        ∂E/∂b_o = Σ_r Δ_o(r), summed over the samples              (26)
        ∂E/∂A = W′ᵀ Δ                                              in (22)
    and ∂E/∂a adds up each entry of ∂E/∂A where it was taken from.

    Source: A. Waibel et al., Phoneme recognition using time-delay neural networks, IEEE Trans. ASSP 37 (1989).

    Raises:
        TypeError, ValueError: a size is not a positive int; x, dz or a parameter has another shape or is not floating;
            a padded sequence is shorter than the kernel.
    """

    n_in: int
    n_out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    initializer: Initializer = field(default=glorot_uniform, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        convert_ints(self, "n_in", "n_out", "kernel", "stride")
        convert_ints(self, "padding", least=0)

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        W = self.initializer(rng, (self.n_out, self.n_in, self.kernel), dtype)
        return {"W": W, "b": np.zeros(self.n_out, dtype)}

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        check_signals(self, x, self.n_in, self.kernel, self.padding)
        b = check_param(self, params, "b", (self.n_out,))
        z = self._rows(params) @ self._gather(x)  # (18)
        z += b[:, None]  # (18)
        return z, x

    def backward(self, params: Params, x: Array, dz: Array) -> tuple[Array, Params]:
        dparams = self.param_grads(params, x, dz)
        dA = self._rows(params).T @ dz  # (22)
        t, p, n = x.shape[-1], self.padding, self.n_in
        da = namespace(dz).zeros((*x.shape[:-1], t + 2 * p), dtype=dz.dtype)
        for j in range(self.kernel):
            da = add_to_slice(da, (..., reach(j, dz.shape[-1], self.stride)), dA[..., j * n : (j + 1) * n, :])
        return da[..., p : p + t], dparams

    def param_grads(self, params: Params, x: Array, dz: Array) -> Params:
        R = self._count(x)
        check_same_shape(self, "dz", dz, (*x.shape[:-2], self.n_out, R), "the output")
        A, Δ = _samples(self._gather(x)), _samples(dz)
        dW = namespace(dz).tensordot(Δ, A, axes=((0, 2), (0, 2)))  # (24)
        dW = dW.reshape(self.n_out, self.kernel, self.n_in).swapaxes(1, 2)
        return {"W": dW, "b": Δ.sum(axis=(0, 2))}  # (26)

    def _rows(self, params: Params) -> Array:
        """View W (n_out, n_in, K) as W′ (n_out, K · n_in)."""
        W = check_param(self, params, "W", (self.n_out, self.n_in, self.kernel))
        return W.swapaxes(1, 2).reshape(self.n_out, self.kernel * self.n_in)

    def _gather(self, x: Array) -> Array:
        """Gather A (..., K · n_in, R): the padded sequences as each entry of the kernel sees them."""
        xp, p, R = namespace(x), self.padding, self._count(x)
        a = xp.pad(x, [(0, 0)] * (x.ndim - 1) + [(p, p)]) if p else x
        return xp.concatenate([a[..., reach(j, R, self.stride)] for j in range(self.kernel)], axis=-2)

    def _count(self, x: Array) -> int:
        return count(x.shape[-1] + 2 * self.padding, self.kernel, self.stride)


def _samples(x: Array) -> Array:
    """View x (..., C, R) as (m, C, R)."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])

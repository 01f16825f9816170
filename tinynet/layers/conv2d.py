"""Convolution of images, as matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.arrays import Array, Params, add_to_slice, blocks, namespace
from tinynet.checks import check_images, check_param, check_same_shape, convert_ints
from tinynet.initializers import Initializer, glorot_uniform
from tinynet.layers.layer import Layer
from tinynet.layers.windows import count, reach


@dataclass(frozen=True)
class Conv2d(Layer, samplewise=True):
    """Slide a square kernel over images: z_o(r, s) = Σ_c Σ_i Σ_j W_ocij a_c(r t + i, s t + j) + b_o, t the stride.

    As everywhere in deep learning the kernel is not flipped: mathematically it is a cross-correlation.

    Args:
        n_in, n_out: channels of the input and of the output.
        kernel: height and width K of the kernel.
        stride: t, from one window to the next. Pixels that fill no window are left out.
        padding: rows and columns of zeros put around each image.
        initializer: draws W, a keyword; b starts at 0.

    Shapes:
        a (the input x) (..., n_in, H, W), W (n_out, n_in, K, K), b (n_out,), z (..., n_out, R, S) with
        R = ⌊(H + 2 padding − K) / t⌋ + 1 and S likewise; every leading axis counts samples.

    Derivation, with a padded. For each row i of the kernel let A_i be the matrix with a row for each (j, c) and a
    column for each (r, s), A_i[jc, rs] = a_c(r t + i, s t + j), and W_i[o, jc] = W_ocij. Then
        Z = Σ_i W_i A_i + b                                        (18), one product per row of the kernel
        ∂E/∂W_i = Δ A_iᵀ, summed over the samples                  (24)
        ∂E/∂b_o = Σ_rs Δ_o(r, s), summed over the samples          (26)
        ∂E/∂A_i = W_iᵀ Δ                                           in (22)
    and ∂E/∂a adds up each entry of the ∂E/∂A_i where it was taken from. The A_i of all i are rows of one array, a
    shifted by each j: only the K columns of the kernel are copied, not its K² pixels, and a few samples at a time.

    Source: Y. LeCun et al., Backpropagation applied to handwritten zip code recognition, Neural Computation 1 (1989);
    as matrix products, K. Chellapilla, S. Puri, P. Simard, High performance convolutional neural networks for document
    processing, 2006.

    Raises:
        TypeError, ValueError: a size is not a positive int; x, dz or a parameter has another shape or is not floating;
            a padded image is smaller than the kernel.
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
        W = self.initializer(rng, (self.n_out, self.n_in, self.kernel, self.kernel), dtype)
        return {"W": W, "b": np.zeros(self.n_out, dtype)}

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        check_images(self, x, self.n_in, self.kernel, self.padding)
        W = self._rows(params)
        b = check_param(self, params, "b", (self.n_out,))
        images = self._samples(x)
        z = namespace(x).concatenate([self._product(W, b, images[block]) for block in blocks(images, self._work(x))])
        return z.reshape(*x.shape[:-3], self.n_out, *self._size(x)), x

    def backward(self, params: Params, x: Array, dz: Array) -> tuple[Array, Params]:
        dparams = self.param_grads(params, x, dz)
        W, Δ = self._rows(params), self._samples(dz)
        dx = [self._input_grads(W, Δ[block], x.shape[-2:]) for block in blocks(Δ, self._work(x))]
        return namespace(dz).concatenate(dx).reshape(x.shape), dparams

    def param_grads(self, params: Params, x: Array, dz: Array) -> Params:
        check_same_shape(self, "dz", dz, (*x.shape[:-3], self.n_out, *self._size(x)), "the output")
        images, Δ = self._samples(x), self._samples(dz)
        dW = sum(self._weight_grads(images[block], Δ[block]) for block in blocks(images, self._work(x)))
        dW = dW.reshape(self.kernel, self.n_out, self.kernel, self.n_in).transpose(1, 3, 0, 2)
        return {"W": dW, "b": Δ.sum(axis=(0, 2, 3))}  # (26)

    def _product(self, W: Array, b: Array, x: Array) -> Array:
        A, (rows, _) = self._gather(x), self._size(x)
        z = W[0] @ self._seen(A, 0, rows)
        for i in range(1, self.kernel):
            z += W[i] @ self._seen(A, i, rows)  # (18)
        z += b[:, None]  # (18)
        return z

    def _weight_grads(self, x: Array, dz: Array) -> Array:
        A, (rows, _), Δ = self._gather(x), self._size(x), _flat(dz)
        products = [Δ @ self._seen(A, i, rows).swapaxes(-1, -2) for i in range(self.kernel)]
        return namespace(dz).stack([p.sum(axis=0) for p in products])  # (24)

    def _input_grads(self, W: Array, dz: Array, size: tuple[int, int]) -> Array:
        zeros, p, (height, width) = namespace(dz).zeros, self.padding, size
        m, _, rows, columns = dz.shape
        Δ = _flat(dz)
        dA = zeros((m, self.kernel * self.n_in, height + 2 * p, columns), dtype=dz.dtype)
        for i in range(self.kernel):
            dA_i = (W[i].T @ Δ).reshape(m, self.kernel * self.n_in, rows, columns)  # (22)
            dA = add_to_slice(dA, (..., reach(i, rows, self.stride), slice(None)), dA_i)
        da = zeros((m, self.n_in, height + 2 * p, width + 2 * p), dtype=dz.dtype)
        for j in range(self.kernel):
            seen = dA[:, j * self.n_in : (j + 1) * self.n_in]
            da = add_to_slice(da, (..., reach(j, columns, self.stride)), seen)
        return da[..., p : p + height, p : p + width]

    def _rows(self, params: Params) -> Array:
        """View W (n_out, n_in, K, K) as (K, n_out, K · n_in): W_i for each row i of the kernel."""
        W = check_param(self, params, "W", (self.n_out, self.n_in, self.kernel, self.kernel))
        return W.transpose(2, 0, 3, 1).reshape(self.kernel, self.n_out, self.kernel * self.n_in)

    def _gather(self, x: Array) -> Array:
        """Gather the rows of all A_i (m, K · n_in, H + 2 padding, S): the padded images as each column sees them."""
        xp, around, (_, columns) = namespace(x), (self.padding, self.padding), self._size(x)
        a = xp.pad(x, [(0, 0), (0, 0), around, around]) if self.padding else x
        return xp.concatenate([a[..., reach(j, columns, self.stride)] for j in range(self.kernel)], axis=1)

    def _seen(self, A: Array, i: int, rows: int) -> Array:
        """Return A_i (m, K · n_in, R · S); with a stride of 1 a view."""
        return _flat(A[:, :, reach(i, rows, self.stride)])

    def _size(self, x: Array) -> tuple[int, int]:
        rows, columns = (count(n + 2 * self.padding, self.kernel, self.stride) for n in x.shape[-2:])
        return rows, columns

    def _samples(self, x: Array) -> Array:
        """View x (..., C, H, W) as (m, C, H, W)."""
        return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])

    def _work(self, x: Array) -> int:
        """Return about how many numbers `_gather` makes of a sample."""
        numbers: int = self.kernel * math.prod(x.shape[-3:])
        return numbers


def _flat(x: Array) -> Array:
    """View x (..., R, S) as (..., R · S)."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])

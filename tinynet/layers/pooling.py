"""Pooling: the largest or the mean of each window of an image."""

from __future__ import annotations

from dataclasses import dataclass

from tinynet.arrays import Array, Params, namespace
from tinynet.checks import check_images, check_same_shape, convert_ints
from tinynet.layers.layer import Layer
from tinynet.layers.windows import count, fold, windows


@dataclass(frozen=True)
class MaxPool2d(Layer, samplewise=True):
    """The largest entry of each window, z_rs = max_k a_k over the entries k of window (r, s), channel by channel.

    Args:
        kernel: height and width of a window.
        stride: from one window to the next; the kernel's size if None. Pixels that fill no window are left out.

    Shapes:
        a (the input x) (..., C, H, W), z (..., C, R, S) with R = ⌊(H − kernel) / stride⌋ + 1 and S likewise.

    Derivation. With k* the entry that won window (r, s), ∂z_rs/∂a_k = 1[k = k*], so
        ∂E/∂a_p = Σ_rs δ_rs 1[p won window (r, s)]
    Where several entries tie, the first in reading order wins: the gradient is that from one side.

    Source: D. Scherer, A. Müller, S. Behnke, Evaluation of pooling operations in convolutional architectures, ICANN
    2010.

    Raises:
        TypeError, ValueError: a size is not a positive int; x is not floating or too small; dz has another shape.
    """

    kernel: int
    stride: int | None = None

    def __post_init__(self) -> None:
        convert_ints(self, *("kernel",) if self.stride is None else ("kernel", "stride"))

    def forward(self, params: Params, x: Array) -> tuple[Array, tuple[Array, Array]]:
        check_images(self, x, None, self.kernel, 0)
        xp = namespace(x)
        a = windows(x, self.kernel, self.stride or self.kernel)
        winner = xp.argmax(a, axis=-3, keepdims=True)
        return xp.take_along_axis(a, winner, axis=-3)[..., 0, :, :], (x, winner)

    def backward(self, params: Params, cache: tuple[Array, Array], dz: Array) -> tuple[Array, Params]:
        x, winner = cache
        check_same_shape(self, "dz", dz, winner[..., 0, :, :].shape, "the output")
        k = namespace(dz).arange(self.kernel**2).reshape(-1, 1, 1)
        da = dz[..., None, :, :] * (k == winner)
        return fold(da, x.shape, self.kernel, self.stride or self.kernel), {}


@dataclass(frozen=True)
class AvgPool2d(Layer, samplewise=True):
    """The mean of each window, z_rs = 1/K Σ_k a_k over the K = kernel² entries k of window (r, s), channel by channel.

    Args:
        kernel: height and width of a window.
        stride: from one window to the next; the kernel's size if None. Pixels that fill no window are left out.

    Shapes:
        a (the input x) (..., C, H, W), z (..., C, R, S) with R = ⌊(H − kernel) / stride⌋ + 1 and S likewise.

    Derivation. ∂z_rs/∂a_k = 1/K for the entries of window (r, s), so
        ∂E/∂a_p = 1/K Σ_rs δ_rs 1[p is in window (r, s)]

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998.

    Raises:
        TypeError, ValueError: a size is not a positive int; x is not floating or too small; dz has another shape.
    """

    kernel: int
    stride: int | None = None

    def __post_init__(self) -> None:
        convert_ints(self, *("kernel",) if self.stride is None else ("kernel", "stride"))

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        check_images(self, x, None, self.kernel, 0)
        return windows(x, self.kernel, self.stride or self.kernel).mean(axis=-3), x

    def backward(self, params: Params, x: Array, dz: Array) -> tuple[Array, Params]:
        stride = self.stride or self.kernel
        rows, columns = (count(n, self.kernel, stride) for n in x.shape[-2:])
        check_same_shape(self, "dz", dz, (*x.shape[:-2], rows, columns), "the output")
        shape = (*x.shape[:-2], self.kernel**2, rows, columns)
        da = namespace(dz).broadcast_to(dz[..., None, :, :] / self.kernel**2, shape)
        return fold(da, x.shape, self.kernel, stride), {}

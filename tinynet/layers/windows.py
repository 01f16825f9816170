"""The windows that a square kernel sees as it slides over images, and the way back."""

from __future__ import annotations

from tinynet.arrays import Array, add_to_slice, namespace


def count(n: int, kernel: int, stride: int) -> int:
    """Return how many windows fit side by side into `n` pixels."""
    return (n - kernel) // stride + 1


def reach(start: int, number: int, stride: int) -> slice:
    """Return the slice of `number` pixels from `start` on, `stride` apart: what one pixel of the kernel sees."""
    return slice(start, start + (number - 1) * stride + 1, stride)


def windows(x: Array, kernel: int, stride: int) -> Array:
    """Gather the windows of x (..., height, width) as (..., kernel², rows, columns): one entry per kernel pixel."""
    slices = _slices(x.shape, kernel, stride)
    return namespace(x).stack([x[..., i, j] for i, j in slices], axis=-3)


def fold(dw: Array, shape: tuple[int, ...], kernel: int, stride: int) -> Array:
    """Add up dw (..., kernel², rows, columns) where each entry came from: the transpose of `windows`, of x's shape."""
    dx = namespace(dw).zeros(shape, dtype=dw.dtype)
    for k, (i, j) in enumerate(_slices(shape, kernel, stride)):
        dx = add_to_slice(dx, (..., i, j), dw[..., k, :, :])
    return dx


def _slices(shape: tuple[int, ...], kernel: int, stride: int) -> list[tuple[slice, slice]]:
    rows, columns = (count(n, kernel, stride) for n in shape[-2:])
    pixels = range(kernel)
    return [(reach(i, rows, stride), reach(j, columns, stride)) for i in pixels for j in pixels]

"""What `tinynet verify --all tinynet` verifies: each public layer and loss, with an independent forward pass.

A new layer adds a line here. A reference is another formulation, from JAX or NumPy, and never tinynet's own code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinynet as tn

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """One thing to verify.

    Attributes:
        target, inputs, reference: as for `tinynet.verify`.
        name: for the report; the target's own if empty.
    """

    target: Any
    inputs: Any = None
    reference: Callable[..., Any] | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or (self.target.__name__ if isinstance(self.target, type) else repr(self.target))


def _affine(params: Any, x: Any) -> Any:
    return np.einsum("ij,...j->...i", params["W"], x) + params["b"]


def _by_jax(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference that JAX computes in float64: function(jax, *arguments)."""

    def reference(*args: Any) -> Any:
        import jax

        with jax.enable_x64(True):
            return np.asarray(function(jax, *args))

    return reference


def _sigmoid_network(params: Any, x: Any) -> Any:
    for p in params:
        x = _affine(p, x) if p else _sigmoid(p, x)
    return x


def _normalised(params: Any, x: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.var(x, axis=-1, keepdims=True) + 1e-5) * params["gamma"] + params["beta"]


def _dropped(_params: Any, x: Any) -> Any:
    """Dropout(0.4, seed=7) in Python's own integers."""

    def mixed(h: int) -> int:
        h = (h ^ h >> 16) * 0x7FEB352D % 2**32
        h = (h ^ h >> 15) * 0x846CA68B % 2**32
        return h ^ h >> 16

    kept = [mixed((mixed(i) + 7) % 2**32) >= 0.4 * 2**32 for i in range(x.size)]
    return np.where(np.reshape(kept, x.shape), x / 0.6, 0.0)


def _convolution(stride: int, padding: int) -> Callable[..., Any]:
    def convolve(jax: Any, params: Any, x: Any) -> Any:
        pads = [(padding, padding)] * 2
        y = jax.lax.conv_general_dilated(x.reshape(-1, *x.shape[-3:]), params["W"], (stride, stride), pads)
        return y.reshape(*x.shape[:-3], *y.shape[1:]) + params["b"][:, None, None]

    return _by_jax(convolve)


def _windows(x: Any, kernel: int, stride: int) -> Any:
    """The windows of x (…, h, w), (…, rows, columns, k, k)."""
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(-2, -1))[..., ::stride, ::stride, :, :]


def _largest(kernel: int, stride: int) -> Callable[..., Any]:
    return lambda params, x: _windows(x, kernel, stride).max(axis=(-2, -1))


def _mean(kernel: int, stride: int) -> Callable[..., Any]:
    return lambda params, x: _windows(x, kernel, stride).mean(axis=(-2, -1))


def _cross_entropy(jax: Any, logits: Any, y: Any) -> Any:
    return -(y * jax.nn.log_softmax(logits)).sum()


def _binary_cross_entropy(jax: Any, logits: Any, y: Any) -> Any:
    return -(y * jax.nn.log_sigmoid(logits) + (1 - y) * jax.nn.log_sigmoid(-logits)).sum()


def _huber(delta: float) -> Callable[..., Any]:
    def total(y_hat: Any, y: Any) -> Any:
        r = np.abs(y_hat - y)
        return np.where(r <= delta, r * r / 2, delta * (r - delta / 2)).sum()

    return total


def _half_squared_distance(y_hat: Any, y: Any) -> Any:
    return np.linalg.norm(y_hat - y) ** 2 / 2


def _mean_over_samples(total: Callable[..., Any]) -> Callable[..., Any]:
    return lambda y_hat, y: total(y_hat, y) / len(y)


_softmax = _by_jax(lambda jax, params, x: jax.nn.softmax(x))
_sigmoid = _by_jax(lambda jax, params, x: jax.nn.sigmoid(x))
_IMAGE = (3, 2, 7, 5)

CASES: tuple[Case, ...] = (
    Case(tn.Linear(4, 3), reference=_affine),
    Case(tn.Linear(4, 3), inputs=(2, 5, 4), reference=_affine, name="Linear(n_in=4, n_out=3), x (2, 5, 4)"),
    Case(tn.Sigmoid(), reference=_sigmoid),
    Case(tn.Tanh(), reference=lambda params, x: np.tanh(x)),
    Case(tn.ReLU(), reference=_by_jax(lambda jax, params, x: jax.nn.relu(x))),
    Case(tn.LeakyReLU(0.3), reference=_by_jax(lambda jax, params, x: jax.nn.leaky_relu(x, 0.3))),
    Case(tn.Softplus(), reference=_by_jax(lambda jax, params, x: jax.nn.softplus(x))),
    Case(tn.SiLU(), reference=_by_jax(lambda jax, params, x: jax.nn.silu(x))),
    Case(tn.GELU(), reference=_by_jax(lambda jax, params, x: jax.nn.gelu(x, approximate=False))),
    Case(tn.GELU("tanh"), reference=_by_jax(lambda jax, params, x: jax.nn.gelu(x, approximate=True))),
    Case(tn.Softmax(), reference=_softmax),
    Case(tn.Softmax(), inputs=(2, 3, 4), reference=_softmax, name="Softmax(), x (2, 3, 4)"),
    Case(tn.LayerNorm(4), inputs=(5, 4), reference=_normalised),
    Case(tn.LayerNorm(4), inputs=(2, 3, 4), reference=_normalised, name="LayerNorm(n=4), x (2, 3, 4)"),
    Case(tn.Dropout(0.4), reference=lambda params, x: x, name="Dropout(rate=0.4), in evaluation"),
    Case(tn.Dropout(0.4, seed=7), inputs=(5, 4), reference=_dropped, name="Dropout(rate=0.4), in training"),
    Case(tn.Flatten(), inputs=(5, 2, 3), reference=lambda params, x: x.reshape(len(x), 6)),
    Case(tn.Residual(tn.Linear(3, 3)), inputs=(5, 3), reference=lambda params, x: x + _affine(params, x)),
    Case(tn.Embedding(5, 3), reference=lambda params, x: params["W"][x]),
    Case(tn.Conv2d(2, 3, kernel=3), inputs=_IMAGE, reference=_convolution(1, 0)),
    Case(tn.Conv2d(2, 3, kernel=3, stride=2, padding=1), inputs=_IMAGE, reference=_convolution(2, 1)),
    Case(tn.Conv2d(2, 3, kernel=2, stride=2, padding=3), inputs=(1, 2, 2, 3, 4), reference=_convolution(2, 3)),
    Case(tn.MaxPool2d(2), inputs=(3, 2, 6, 4), reference=_largest(2, 2)),
    Case(tn.MaxPool2d(3, stride=1), inputs=(2, 1, 2, 5, 4), reference=_largest(3, 1)),
    Case(tn.AvgPool2d(2), inputs=(3, 2, 6, 4), reference=_mean(2, 2)),
    Case(tn.AvgPool2d(3, stride=1), inputs=(2, 1, 2, 5, 4), reference=_mean(3, 1)),
    Case(tn.Sequential(tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(3, 2)), reference=_sigmoid_network),
    Case(tn.Sequential(tn.Sigmoid(), tn.Linear(4, 3), tn.Linear(3, 3)), reference=_sigmoid_network),
    Case(tn.Sequential(tn.Sigmoid(), tn.Sigmoid()), reference=_sigmoid_network),
    Case(tn.SquaredError("sum"), reference=_half_squared_distance),
    Case(tn.SquaredError("mean"), reference=_mean_over_samples(_half_squared_distance)),
    Case(tn.Huber(), reference=_huber(1.0)),
    Case(tn.Huber(0.5, "mean"), reference=_mean_over_samples(_huber(0.5))),
    Case(tn.BinaryCrossEntropy("sum"), reference=_by_jax(_binary_cross_entropy)),
    Case(tn.BinaryCrossEntropy("mean"), reference=_mean_over_samples(_by_jax(_binary_cross_entropy))),
    Case(tn.SoftmaxCrossEntropy("sum"), reference=_by_jax(_cross_entropy)),
    Case(tn.SoftmaxCrossEntropy("mean"), reference=_mean_over_samples(_by_jax(_cross_entropy))),
)
"""Every public layer and loss of tinynet."""

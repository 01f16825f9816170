"""What `tinynet verify --all tinynet` verifies: each public layer and loss, with an independent forward pass.

A new layer adds a line here. A reference is another formulation, from JAX or NumPy, and never tinynet's own code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinynet as tn


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


def _convolution(stride: int, padding: int, axes: int = 2) -> Callable[..., Any]:
    def convolve(jax: Any, params: Any, x: Any) -> Any:
        one, strides, pads = x.shape[-axes - 1 :], (stride,) * axes, [(padding, padding)] * axes
        y = jax.lax.conv_general_dilated(x.reshape(-1, *one), params["W"], strides, pads)
        return y.reshape(*x.shape[: -axes - 1], *y.shape[1:]) + params["b"].reshape(-1, *[1] * axes)

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


def _batch_normalised(params: Any, x: Any) -> Any:
    axes = (0, *range(2, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    gamma, beta = (params[name].reshape(-1, *[1] * (x.ndim - 2)) for name in ("gamma", "beta"))
    return centred / np.sqrt(np.mean(centred**2, axis=axes, keepdims=True) + 1e-5) * gamma + beta


def _rms_normalised(params: Any, x: Any) -> Any:
    return x / np.sqrt(np.linalg.norm(x, axis=-1, keepdims=True) ** 2 / x.shape[-1] + 1e-5) * params["gamma"]


def _walk(cell: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """A recurrent layer sample by sample and step by step; cell(p, x_t, h, c) -> (h, c)."""

    def states(params: Any, x: Any) -> Any:
        x, lengths = x if isinstance(x, tuple) else (x, np.full(len(x), x.shape[1]))
        y = np.zeros((*x.shape[:2], params["W_hh"].shape[1]))
        for i, steps in enumerate(lengths):
            h = c = np.zeros(y.shape[2])
            for t in range(steps):
                h, c = cell(params, x[i, t], h, c)
                y[i, t] = h
        return y

    return states


def _logistic(z: Any) -> Any:
    return (1 + np.tanh(z / 2)) / 2


def _rnn_cell(p: Any, x: Any, h: Any, c: Any) -> Any:
    return np.tanh(p["W_ih"] @ x + p["b_ih"] + p["W_hh"] @ h + p["b_hh"]), c


def _gru_cell(p: Any, x: Any, h: Any, c: Any) -> Any:
    (z_r, z_s, z_n), (u_r, u_s, u_n) = np.split(p["W_ih"] @ x + p["b_ih"], 3), np.split(p["W_hh"] @ h + p["b_hh"], 3)
    s = _logistic(z_s + u_s)
    return (1 - s) * np.tanh(z_n + _logistic(z_r + u_r) * u_n) + s * h, c


def _lstm_cell(p: Any, x: Any, h: Any, c: Any) -> Any:
    i, f, g, o = np.split(p["W_ih"] @ x + p["b_ih"] + p["W_hh"] @ h + p["b_hh"], 4)
    c = _logistic(f) * c + _logistic(i) * np.tanh(g)
    return _logistic(o) * np.tanh(c), c


def _attention(heads: int, causal: bool = False) -> Callable[..., Any]:
    """Attention place by place: each head of each place weighs what it may see."""

    def attend(p: Any, x: Any) -> Any:
        x, mask = x if isinstance(x, tuple) else (x, np.ones(x.shape[:2], bool))
        o = np.zeros(x.shape)
        for i, t in np.ndindex(*x.shape[:2]):
            seen = [s for s in range(t + 1 if causal else x.shape[1]) if mask[i, s]]
            q, _, _ = np.split(p["W_in"] @ x[i, t] + p["b_in"], 3)
            _, k, v = np.split(x[i, seen] @ p["W_in"].T + p["b_in"], 3, axis=-1)
            for head in np.split(np.arange(x.shape[2]), heads):
                scores = k[:, head] @ q[head] / np.sqrt(len(head))
                weights = np.exp(scores - scores.max(initial=-np.inf))
                o[i, t, head] = weights @ v[:, head] / max(weights.sum(), 1e-300)
        return o @ p["W_out"].T + p["b_out"]

    return attend


def _cross_entropy_of_labels(jax: Any, logits: Any, y: Any) -> Any:
    return -jax.nn.log_softmax(logits)[np.arange(len(y)), y].sum()


def _info_nce(temperature: float) -> Callable[..., Any]:
    def contrast(jax: Any, y_hat: Any, _y: Any) -> Any:
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in y_hat)
        return -np.diagonal(jax.nn.log_softmax(a @ b.T / temperature)).sum()

    return _by_jax(contrast)


def _mean_of_pairs(y_hat: Any, y: Any) -> Any:
    return _info_nce(2.0)(y_hat, y) / len(y_hat[0])


def _two_walks(p: Any, x: Any) -> Any:
    return _walk(_gru_cell)(p[0], x) + _walk(_rnn_cell)(p[1], x)


def _added(p: Any, x: Any) -> Any:
    return sum(_affine(part, x) for part in p)


def _concatenated(p: Any, x: Any) -> Any:
    return np.concatenate([_affine(p[0], x), np.tanh(x)], axis=-1)


def _tied(p: Any, x: Any) -> Any:
    """A chain whose layers all have the first one's W, and its b where they have none of their own."""
    first, rest = p[0], [part.get("b", p[0]["b"]) for part in p[2:]]
    a = np.tanh(_affine(first, x))
    for b in rest:
        a = a @ first["W"].T + b
    return a


_softmax = _by_jax(lambda jax, params, x: jax.nn.softmax(x))
_sigmoid = _by_jax(lambda jax, params, x: jax.nn.sigmoid(x))
_IMAGE = (3, 2, 7, 5)
_SEQUENCE = (2, 5, 3)
_CHAIN = tn.Sequential(tn.Linear(3, 3), tn.Tanh(), tn.Linear(3, 3))
_LONGER = tn.Sequential(*_CHAIN.layers, tn.Linear(3, 3))
_DEEP = (2, 3, 4)
_OF_COUNTS = "SoftmaxCrossEntropy(), y counts"
_OF_LABELS = "SoftmaxCrossEntropy(), y integers"
_LENGTHS = (np.random.default_rng(0).normal(size=(3, 5, 3)), np.array([5, 2, 3]))
_MASKED = (np.random.default_rng(0).normal(size=(2, 4, 6)), np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool))
_PAIR = (np.random.default_rng(0).normal(size=(4, 3)), np.random.default_rng(1).normal(size=(4, 3)))
_LABELS = (np.random.default_rng(0).normal(size=(5, 4)), np.array([0, 3, 1, 3, 2]))
_COUNTS = (_LABELS[0], np.random.default_rng(2).uniform(0.2, 2.0, size=(5, 4)))

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
    Case(tn.MaxPool2d(3, stride=2), inputs=(2, 1, 6, 7), reference=_largest(3, 2)),
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
    Case(tn.BatchNorm(4, training=True), inputs=(5, 4), reference=_batch_normalised, name="BatchNorm(4), in training"),
    Case(tn.BatchNorm(2, training=True), inputs=_IMAGE, reference=_batch_normalised, name="BatchNorm(2), of images"),
    Case(tn.RMSNorm(4), inputs=(2, 3, 4), reference=_rms_normalised),
    Case(tn.RNN(3, 4), inputs=_SEQUENCE, reference=_walk(_rnn_cell)),
    Case(tn.GRU(3, 4), inputs=_SEQUENCE, reference=_walk(_gru_cell)),
    Case(tn.LSTM(3, 4), inputs=_SEQUENCE, reference=_walk(_lstm_cell)),
    Case(tn.MultiHeadAttention(6, 2), inputs=(2, 4, 6), reference=_attention(2)),
    Case(tn.MultiHeadAttention(6, 3, causal=True), inputs=(2, 4, 6), reference=_attention(3, causal=True)),
    Case(tn.Conv1d(2, 3, kernel=3), inputs=(3, 2, 7), reference=_convolution(1, 0, axes=1)),
    Case(tn.Conv1d(2, 3, kernel=2, stride=2, padding=1), inputs=(1, 3, 2, 4), reference=_convolution(2, 1, axes=1)),
    Case(tn.Add(tn.Linear(4, 3), tn.Linear(4, 3), tn.Linear(4, 3)), inputs=(5, 4), reference=_added),
    Case(tn.Add(tn.GRU(3, 4), tn.RNN(3, 4)), inputs=(_LENGTHS,), reference=_two_walks, name="Add, lengths"),
    Case(tn.Concatenate(tn.Linear(4, 3), tn.Tanh()), inputs=(5, 4), reference=_concatenated),
    Case(tn.Concatenate(tn.Linear(4, 3), tn.Tanh()), inputs=_DEEP, reference=_concatenated, name="Concatenate, 3-D"),
    Case(tn.Tied(_CHAIN, {"2.W": "0.W"}), inputs=(5, 3), reference=_tied),
    Case(tn.Tied(_CHAIN, {"2": "0"}), inputs=(5, 3), reference=_tied, name="Tied, a whole layer"),
    Case(tn.Tied(_LONGER, {"2.W": "0.W", "3.W": "2.W"}), inputs=(5, 3), reference=_tied, name="Tied, twice"),
    Case(tn.SoftmaxCrossEntropy(), inputs=_LABELS, reference=_by_jax(_cross_entropy_of_labels), name=_OF_LABELS),
    Case(tn.SoftmaxCrossEntropy("sum"), inputs=_COUNTS, reference=_by_jax(_cross_entropy), name=_OF_COUNTS),
    Case(tn.RNN(3, 4), inputs=(_LENGTHS,), reference=_walk(_rnn_cell), name="RNN(n_in=3, n_out=4), lengths"),
    Case(tn.GRU(3, 4), inputs=(_LENGTHS,), reference=_walk(_gru_cell), name="GRU(n_in=3, n_out=4), lengths"),
    Case(tn.LSTM(3, 4), inputs=(_LENGTHS,), reference=_walk(_lstm_cell), name="LSTM(n_in=3, n_out=4), lengths"),
    Case(tn.MultiHeadAttention(6, 2), inputs=(_MASKED,), reference=_attention(2), name="MultiHeadAttention, mask"),
    Case(tn.Shared(tn.Linear(3, 2)), inputs=(_PAIR,), reference=lambda p, x: tuple(_affine(p, part) for part in x)),
    Case(tn.InfoNCE(temperature=0.5), inputs=(_PAIR, None), reference=_info_nce(0.5)),
    Case(tn.InfoNCE("mean", temperature=2.0), inputs=(_PAIR, None), reference=_mean_of_pairs),
)
"""Every public layer and loss of tinynet."""

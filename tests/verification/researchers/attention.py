"""Attention: one head, and a head that pools a sequence."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


def outer(x, d):
    """Return Σ xᵀ d over all leading axes."""
    return x.reshape(-1, x.shape[-1]).T @ d.reshape(-1, d.shape[-1])


@dataclass(frozen=True)
class SelfAttention(tn.Layer):
    n: int

    def init(self, rng, dtype=np.float32):
        shape = self.n, self.n
        return {name: (rng.standard_normal(shape) / self.n**0.5).astype(dtype) for name in ("Wq", "Wk", "Wv", "Wo")}

    def forward(self, params, x):
        xp = tn.namespace(x)
        q = x @ params["Wq"]
        k = x @ params["Wk"]
        v = x @ params["Wv"]
        s = q @ k.mT / self.n**0.5
        e = xp.exp(s - s.max(axis=-1, keepdims=True))
        a = e / e.sum(axis=-1, keepdims=True)
        o = a @ v
        y = o @ params["Wo"]
        return y, (x, q, k, v, a, o)

    def backward(self, params, cache, dy):
        x, q, k, v, a, o = cache
        do = dy @ params["Wo"].T
        da = do @ v.mT
        dv = a.mT @ do
        ds = a * (da - (da * a).sum(axis=-1, keepdims=True))
        dq = ds @ k / self.n**0.5
        dk = ds.mT @ q / self.n**0.5
        dx = dq @ params["Wq"].T + dk @ params["Wk"].T + dv @ params["Wv"].T
        return dx, {"Wq": outer(x, dq), "Wk": outer(x, dk), "Wv": outer(x, dv), "Wo": outer(o, dy)}


@dataclass(frozen=True)
class AttentionPooling(tn.Layer):
    """D. Bahdanau's additive score, one context per sequence: x (m, t, n), y (m, n)."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"W": (self.n, self.k), "b": (self.k,), "u": (self.k,)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        xp = tn.namespace(x)
        h = xp.tanh(x @ params["W"] + params["b"])
        s = h @ params["u"]
        e = xp.exp(s - s.max(axis=1, keepdims=True))
        a = e / e.sum(axis=1, keepdims=True)
        y = (a[:, :, None] * x).sum(axis=1)
        return y, (x, h, a)

    def backward(self, params, cache, dy):
        x, h, a = cache
        da = (dy[:, None, :] * x).sum(axis=2)
        ds = a * (da - (da * a).sum(axis=1, keepdims=True))
        dh = ds[:, :, None] * params["u"] * (1 - h * h)
        dx = a[:, :, None] * dy[:, None, :] + dh @ params["W"].T
        return dx, {"W": outer(x, dh), "b": dh.sum(axis=(0, 1)), "u": (ds[:, :, None] * h).sum(axis=(0, 1))}


LAYERS = {
    "self-attention": (SelfAttention(4), [(3, 5, 4), (2, 4, 4), (1, 3, 4)]),
    "attention pooling": (AttentionPooling(4, 3), [(3, 5, 4), (2, 2, 4)]),
}

"""Causal attention with several heads, and linear attention."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


def outer(x, d):
    """Return Σ xᵀ d over all leading axes."""
    return x.reshape(-1, x.shape[-1]).T @ d.reshape(-1, d.shape[-1])


@dataclass(frozen=True)
class CausalHeads(tn.Layer):
    n: int
    heads: int

    def init(self, rng, dtype=np.float32):
        return {
            "Wqkv": (rng.standard_normal((self.n, 3 * self.n)) / self.n**0.5).astype(dtype),
            "Wo": (rng.standard_normal((self.n, self.n)) / self.n**0.5).astype(dtype),
        }

    def _split(self, z):
        return z.reshape(*z.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def _join(self, z):
        return z.transpose(0, 2, 1, 3).reshape(z.shape[0], z.shape[2], self.n)

    def forward(self, params, x):
        xp, t, n = tn.namespace(x), x.shape[1], self.n
        w = x @ params["Wqkv"]
        q = self._split(w[..., :n])
        k = self._split(w[..., n : 2 * n])
        v = self._split(w[..., 2 * n :])
        s = q @ k.mT / (n / self.heads) ** 0.5
        c = xp.where(np.tri(t, dtype=bool), s, -1e30)
        e = xp.exp(c - c.max(axis=-1, keepdims=True))
        a = e / e.sum(axis=-1, keepdims=True)
        o = self._join(a @ v)
        y = x + o @ params["Wo"]
        return y, (x, q, k, v, a, o)

    def backward(self, params, cache, dy):
        x, q, k, v, a, o = cache
        xp, scale = tn.namespace(dy), (self.n / self.heads) ** 0.5
        do = self._split(dy @ params["Wo"].T)
        da = do @ v.mT
        dv = a.mT @ do
        ds = a * (da - (da * a).sum(axis=-1, keepdims=True)) / scale
        dq = ds @ k
        dk = ds.mT @ q
        dw = xp.concatenate([self._join(dq), self._join(dk), self._join(dv)], axis=-1)
        dx = dy + dw @ params["Wqkv"].T
        return dx, {"Wqkv": outer(x, dw), "Wo": outer(o, dy)}


@dataclass(frozen=True)
class LinearAttention(tn.Layer):
    """Attention with the feature map φ(z) = elu(z) + 1 in place of the softmax (A. Katharopoulos et al., 2020)."""

    n: int

    def init(self, rng, dtype=np.float32):
        return {w: (rng.standard_normal((self.n, self.n)) / self.n**0.5).astype(dtype) for w in ("Wq", "Wk", "Wv")}

    def forward(self, params, x):
        xp = tn.namespace(x)
        u = x @ params["Wq"]
        w = x @ params["Wk"]
        v = x @ params["Wv"]
        q = xp.where(u > 0, u + 1, xp.exp(xp.minimum(u, 0)))
        k = xp.where(w > 0, w + 1, xp.exp(xp.minimum(w, 0)))
        kv = k.mT @ v
        z = k.sum(axis=1, keepdims=True)
        c = (q * z).sum(axis=-1, keepdims=True)
        b = q @ kv
        y = b / c
        return y, (x, u, w, v, q, k, kv, z, c, y)

    def backward(self, params, cache, dy):
        x, u, w, v, q, k, kv, z, c, y = cache
        xp = tn.namespace(dy)
        db = dy / c
        dc = -(dy * y).sum(axis=-1, keepdims=True) / c
        dkv = q.mT @ db
        dz = (dc * q).sum(axis=1, keepdims=True)
        dq = db @ kv.mT + dc * z
        dk = v @ dkv.mT + dz
        dv = k @ dkv
        du = dq * xp.where(u > 0, 1, q)
        dw = dk * xp.where(w > 0, 1, k)
        dx = du @ params["Wq"].T + dw @ params["Wk"].T + dv @ params["Wv"].T
        return dx, {"Wq": outer(x, du), "Wk": outer(x, dw), "Wv": outer(x, dv)}


LAYERS = {
    "causal heads": (CausalHeads(4, 2), [(2, 5, 4), (3, 3, 4)]),
    "linear attention": (LinearAttention(4), [(2, 5, 4), (1, 3, 4)]),
}

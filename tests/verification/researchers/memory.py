"""Layers that go through time: a gated recurrent unit and a convolution."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


def sigmoid(z):
    return 1 / (1 + tn.namespace(z).exp(-z))


def outer(x, d):
    """Return Σ xᵀ d over all leading axes."""
    return x.reshape(-1, x.shape[-1]).T @ d.reshape(-1, d.shape[-1])


@dataclass(frozen=True)
class GRU(tn.Layer):
    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"Wr": (self.n, self.k), "Wz": (self.n, self.k), "Wn": (self.n, self.k)}
        shapes |= {"Ur": (self.k, self.k), "Uz": (self.k, self.k), "Un": (self.k, self.k), "br": (self.k,)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        xp = tn.namespace(x)
        h = xp.zeros((x.shape[0], self.k), dtype=x.dtype)
        steps, states = [], []
        for t in range(x.shape[1]):
            r = sigmoid(x[:, t] @ params["Wr"] + h @ params["Ur"] + params["br"])
            z = sigmoid(x[:, t] @ params["Wz"] + h @ params["Uz"])
            n = xp.tanh(x[:, t] @ params["Wn"] + (r * h) @ params["Un"])
            steps.append((h, r, z, n))
            h = (1 - z) * n + z * h
            states.append(h)
        y = xp.stack(states, axis=1)
        return y, (x, steps)

    def backward(self, params, cache, dy):
        x, steps = cache
        xp = tn.namespace(dy)
        dlater = 0 * dy[:, 0]
        back = []
        for t in reversed(range(len(steps))):
            h, r, z, n = steps[t]
            dh = dy[:, t] + dlater
            dn = dh * (1 - z) * (1 - n * n)
            dz = dh * (h - n) * z * (1 - z)
            drh = dn @ params["Un"].T
            dr = drh * h * r * (1 - r)
            dlater = dh * z + drh * r + dr @ params["Ur"].T + dz @ params["Uz"].T
            back.append((dr, dz, dn))
        dr, dz, dn = (xp.stack(d[::-1], axis=1) for d in zip(*back, strict=True))
        h, r = (xp.stack([step[i] for step in steps], axis=1) for i in (0, 1))
        dx = dr @ params["Wr"].T + dz @ params["Wz"].T + dn @ params["Wn"].T
        return dx, {
            "Wr": outer(x, dr),
            "Wz": outer(x, dz),
            "Wn": outer(x, dn),
            "Ur": outer(h, dr),
            "Uz": outer(h, dz),
            "Un": outer(r * h, dn),
            "br": dr.sum(axis=(0, 1)),
        }


@dataclass(frozen=True)
class CausalConv1d(tn.Layer):
    """y_t = tanh(Σ_j x_(t−j) W_j + b), x (m, t, n), gated by σ(x V)."""

    n: int
    k: int
    width: int = 3

    def init(self, rng, dtype=np.float32):
        shapes = {"W": (self.width, self.n, self.k), "b": (self.k,), "V": (self.n, self.k)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        xp, t = tn.namespace(x), x.shape[1]
        p = xp.concatenate([xp.zeros((x.shape[0], self.width - 1, self.n), dtype=x.dtype), x], axis=1)
        c = sum(p[:, j : j + t] @ params["W"][self.width - 1 - j] for j in range(self.width)) + params["b"]
        f = xp.tanh(c)
        g = sigmoid(x @ params["V"])
        y = f * g
        return y, (x, p, f, g)

    def backward(self, params, cache, dy):
        x, p, f, g = cache
        xp, t, last = tn.namespace(dy), dy.shape[1], self.width - 1
        dc = dy * g * (1 - f * f)
        dg = dy * f * g * (1 - g)
        d = xp.concatenate([dc, xp.zeros((len(dy), last, self.k), dtype=dy.dtype)], axis=1)
        dx = sum(d[:, j : j + t] @ params["W"][j].T for j in range(self.width)) + dg @ params["V"].T
        return dx, {
            "W": xp.stack([outer(p[:, last - j : last - j + t], dc) for j in range(self.width)]),
            "b": dc.sum(axis=(0, 1)),
            "V": outer(x, dg),
        }


LAYERS = {
    "GRU": (GRU(3, 2), [(4, 5, 3), (2, 3, 3), (1, 1, 3)]),
    "gated causal convolution": (CausalConv1d(3, 2), [(2, 5, 3), (3, 4, 3)]),
}

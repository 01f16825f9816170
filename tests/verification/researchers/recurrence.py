"""Layers that go through time: long short-term memory, and a leaky state with layer normalisation."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


def sigmoid(z):
    return 1 / (1 + tn.namespace(z).exp(-z))


def outer(x, d):
    """Return Σ xᵀ d over all leading axes."""
    return x.reshape(-1, x.shape[-1]).T @ d.reshape(-1, d.shape[-1])


@dataclass(frozen=True)
class LSTM(tn.Layer):
    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"W": (self.n, 4 * self.k), "U": (self.k, 4 * self.k), "b": (4 * self.k,)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        xp, k = tn.namespace(x), self.k
        h = xp.zeros((x.shape[0], k), dtype=x.dtype)
        c = xp.zeros((x.shape[0], k), dtype=x.dtype)
        steps, states = [], []
        for t in range(x.shape[1]):
            a = x[:, t] @ params["W"] + h @ params["U"] + params["b"]
            i = sigmoid(a[:, :k])
            f = sigmoid(a[:, k : 2 * k])
            o = sigmoid(a[:, 2 * k : 3 * k])
            g = xp.tanh(a[:, 3 * k :])
            before = h, c
            c = f * c + i * g
            q = xp.tanh(c)
            h = o * q
            steps.append((*before, i, f, o, g, q))
            states.append(h)
        y = xp.stack(states, axis=1)
        return y, (x, steps)

    def backward(self, params, cache, dy):
        x, steps = cache
        xp = tn.namespace(dy)
        dlater, dcell = 0 * dy[:, 0], 0 * dy[:, 0]
        back = []
        for t in reversed(range(len(steps))):
            _, c, i, f, o, g, q = steps[t]
            dh = dy[:, t] + dlater
            do = dh * q * o * (1 - o)
            dc = dcell + dh * o * (1 - q * q)
            df = dc * c * f * (1 - f)
            di = dc * g * i * (1 - i)
            dg = dc * i * (1 - g * g)
            da = xp.concatenate([di, df, do, dg], axis=1)
            dcell = dc * f
            dlater = da @ params["U"].T
            back.append(da)
        da = xp.stack(back[::-1], axis=1)
        h = xp.stack([step[0] for step in steps], axis=1)
        dx = da @ params["W"].T
        return dx, {"W": outer(x, da), "U": outer(h, da), "b": da.sum(axis=(0, 1))}


@dataclass(frozen=True)
class LeakyState(tn.Layer):
    """h_t = α ⊗ h_(t−1) + (1 − α) ⊗ tanh(x_t W + h_(t−1) U), α = σ(l); the last state is mapped to y."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"W": (self.n, self.k), "U": (self.k, self.k), "l": (self.k,), "V": (self.k, self.n)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        xp = tn.namespace(x)
        alpha = sigmoid(params["l"])
        h = xp.zeros((x.shape[0], self.k), dtype=x.dtype)
        steps = []
        for t in range(x.shape[1]):
            c = xp.tanh(x[:, t] @ params["W"] + h @ params["U"])
            steps.append((h, c))
            h = alpha * h + (1 - alpha) * c
        y = h @ params["V"]
        return y, (x, alpha, steps, h)

    def backward(self, params, cache, dy):
        x, alpha, steps, last = cache
        xp = tn.namespace(dy)
        dh = dy @ params["V"].T
        dalpha = 0 * params["l"]
        back = []
        for h, c in reversed(steps):
            dalpha = dalpha + (dh * (h - c)).sum(axis=0)
            dc = dh * (1 - alpha) * (1 - c * c)
            dh = dh * alpha + dc @ params["U"].T
            back.append(dc)
        dc = xp.stack(back[::-1], axis=1)
        h = xp.stack([step[0] for step in steps], axis=1)
        dx = dc @ params["W"].T
        return dx, {"W": outer(x, dc), "U": outer(h, dc), "l": dalpha * alpha * (1 - alpha), "V": last.T @ dy}


LAYERS = {
    "LSTM": (LSTM(3, 2), [(3, 4, 3), (2, 2, 3), (1, 1, 3)]),
    "leaky state": (LeakyState(3, 2), [(3, 4, 3), (1, 3, 3)]),
}

"""Layers without time: batch normalisation, a gated linear unit, a highway layer."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


def sigmoid(z):
    return 1 / (1 + tn.namespace(z).exp(-z))


@dataclass(frozen=True)
class BatchNorm(tn.Layer):
    n: int
    eps: float = 1e-5

    def init(self, rng, dtype=np.float32):
        return {"g": rng.standard_normal(self.n).astype(dtype), "b": rng.standard_normal(self.n).astype(dtype)}

    def forward(self, params, x):
        mu = x.mean(axis=0)
        c = x - mu
        var = (c * c).mean(axis=0)
        r = (var + self.eps) ** -0.5
        h = c * r
        y = params["g"] * h + params["b"]
        return y, (c, r, h)

    def backward(self, params, cache, dy):
        c, r, h = cache
        m = len(dy)
        dh = dy * params["g"]
        dr = (dh * c).sum(axis=0)
        dvar = -0.5 * dr * r**3
        dc = dh * r + 2 * c * dvar / m
        dmu = -dc.sum(axis=0)
        dx = dc + dmu / m
        return dx, {"g": (dy * h).sum(axis=0), "b": dy.sum(axis=0)}


@dataclass(frozen=True)
class GLU(tn.Layer):
    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"W": (self.n, self.k), "V": (self.n, self.k), "b": (self.k,), "c": (self.k,)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        u = x @ params["W"] + params["b"]
        v = x @ params["V"] + params["c"]
        s = sigmoid(v)
        y = u * s
        return y, (x, u, s)

    def backward(self, params, cache, dy):
        x, u, s = cache
        du = dy * s
        ds = dy * u
        dv = ds * s * (1 - s)
        dx = du @ params["W"].T + dv @ params["V"].T
        return dx, {"W": x.T @ du, "V": x.T @ dv, "b": du.sum(axis=0), "c": dv.sum(axis=0)}


@dataclass(frozen=True)
class Highway(tn.Layer):
    n: int

    def init(self, rng, dtype=np.float32):
        return {
            "Wh": rng.standard_normal((self.n, self.n)).astype(dtype),
            "Wt": rng.standard_normal((self.n, self.n)).astype(dtype),
            "bt": -np.ones(self.n, dtype),
        }

    def forward(self, params, x):
        h = tn.namespace(x).tanh(x @ params["Wh"])
        t = sigmoid(x @ params["Wt"] + params["bt"])
        y = t * h + (1 - t) * x
        return y, (x, h, t)

    def backward(self, params, cache, dy):
        x, h, t = cache
        dh = dy * t * (1 - h * h)
        dt = dy * (h - x) * t * (1 - t)
        dx = dy * (1 - t) + dh @ params["Wh"].T + dt @ params["Wt"].T
        return dx, {"Wh": x.T @ dh, "Wt": x.T @ dt, "bt": dt.sum(axis=0)}


LAYERS = {
    "batch normalisation": (BatchNorm(4), [(6, 4), (3, 4)]),
    "GLU": (GLU(4, 3), [(5, 4), (2, 4)]),
    "highway": (Highway(4), [(5, 4), (1, 4)]),
}

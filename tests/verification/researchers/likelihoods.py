"""Likelihoods: a mixture of normal distributions, and the two terms of a variational autoencoder."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


@dataclass(frozen=True)
class Mixture(tn.Layer):
    """−log Σ_j π_j N(x; μ_j, σ_j²) of each row, x (m, n), k components with one σ each; y (m,)."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"l": (self.k,), "mu": (self.k, self.n), "logs": (self.k,)}
        return {name: (0.5 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        xp = tn.namespace(x)
        r = x[:, None, :] - params["mu"]
        q = (r * r).sum(axis=2)
        i = xp.exp(-2 * params["logs"])
        a = params["l"] - 0.5 * q * i - self.n * params["logs"]
        top = a.max(axis=1, keepdims=True)
        e = xp.exp(a - top)
        z = xp.exp(params["l"]).sum()
        y = xp.log(z) - (top[:, 0] + xp.log(e.sum(axis=1)))
        return y, (r, q, i, e / e.sum(axis=1, keepdims=True), xp.exp(params["l"]) / z)

    def backward(self, params, cache, dy):
        r, q, i, p, pi = cache
        da = -dy[:, None] * p
        dq = -0.5 * da * i
        dr = 2 * dq[:, :, None] * r
        di = (-0.5 * da * q).sum(axis=0)
        dlogs = -2 * di * i - self.n * da.sum(axis=0)
        dl = da.sum(axis=0) + dy.sum() * pi
        dx = dr.sum(axis=1)
        return dx, {"l": dl, "mu": -dr.sum(axis=0), "logs": dlogs}


@dataclass(frozen=True)
class Variational(tn.Layer):
    """The encoder of a variational autoencoder: z = μ + σ ε, and KL(N(μ, σ²) ‖ N(0, 1)) as the last column of y."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"Wm": (self.n, self.k), "Wv": (self.n, self.k), "bv": (self.k,)}
        return {name: (0.5 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        xp = tn.namespace(x)
        noise = xp.sin(xp.arange(x.shape[0] * self.k, dtype=x.dtype) + 1).reshape(x.shape[0], self.k)
        mu = x @ params["Wm"]
        v = x @ params["Wv"] + params["bv"]
        s = xp.exp(0.5 * v)
        z = mu + s * noise
        kl = 0.5 * (s * s + mu * mu - 1 - v).sum(axis=1)
        y = xp.concatenate([z, kl[:, None]], axis=1)
        return y, (x, mu, s, noise)

    def backward(self, params, cache, dy):
        x, mu, s, noise = cache
        dz = dy[:, :-1]
        dkl = dy[:, -1:]
        dmu = dz + dkl * mu
        ds = dz * noise + dkl * s
        dv = 0.5 * ds * s - 0.5 * dkl
        dx = dmu @ params["Wm"].T + dv @ params["Wv"].T
        return dx, {"Wm": x.T @ dmu, "Wv": x.T @ dv, "bv": dv.sum(axis=0)}


LAYERS = {
    "mixture likelihood": (Mixture(3, 2), [(5, 3), (1, 3)]),
    "variational encoder": (Variational(4, 3), [(5, 4), (2, 4)]),
}

"""Layers without time: a normalised residual block, root mean square, squeeze and excitation, a bilinear form."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


def sigmoid(z):
    return 1 / (1 + tn.namespace(z).exp(-z))


@dataclass(frozen=True)
class RMSNorm(tn.Layer):
    n: int
    eps: float = 1e-6

    def init(self, rng, dtype=np.float32):
        return {"g": rng.standard_normal(self.n).astype(dtype)}

    def forward(self, params, x):
        s = (x * x).mean(axis=-1, keepdims=True)
        r = (s + self.eps) ** -0.5
        h = x * r
        y = h * params["g"]
        return y, (x, r, h)

    def backward(self, params, cache, dy):
        x, r, h = cache
        dh = dy * params["g"]
        dr = (dh * x).sum(axis=-1, keepdims=True)
        ds = -0.5 * dr * r**3
        dx = dh * r + 2 * x * ds / self.n
        return dx, {"g": (dy * h).reshape(-1, self.n).sum(axis=0)}


@dataclass(frozen=True)
class PreNormBlock(tn.Layer):
    """y = x + W₂ φ(W₁ LayerNorm(x)), φ(z) = z σ(1.702 z)."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"g": (self.n,), "W1": (self.n, self.k), "b1": (self.k,), "W2": (self.k, self.n)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        c = x - x.mean(axis=-1, keepdims=True)
        v = (c * c).mean(axis=-1, keepdims=True)
        r = (v + 1e-5) ** -0.5
        h = c * r
        u = params["g"] * h
        a = u @ params["W1"] + params["b1"]
        s = sigmoid(1.702 * a)
        f = a * s
        y = x + f @ params["W2"]
        return y, (c, r, h, u, a, s, f)

    def backward(self, params, cache, dy):
        c, r, h, u, a, s, f = cache
        df = dy @ params["W2"].T
        ds = df * a
        da = df * s + ds * 1.702 * s * (1 - s)
        du = da @ params["W1"].T
        dh = du * params["g"]
        dr = (dh * c).sum(axis=-1, keepdims=True)
        dv = -0.5 * dr * r**3
        dc = dh * r + 2 * c * dv / self.n
        dx = dy + dc - dc.mean(axis=-1, keepdims=True)
        return dx, {"g": (du * h).sum(axis=0), "W1": u.T @ da, "b1": da.sum(axis=0), "W2": f.T @ dy}


@dataclass(frozen=True)
class SqueezeExcite(tn.Layer):
    """Channels weighted by what all places say: x (m, t, n)."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        return {
            "W1": rng.standard_normal((self.n, self.k)).astype(dtype),
            "W2": rng.standard_normal((self.k, self.n)).astype(dtype),
        }

    def forward(self, params, x):
        z = x.mean(axis=1)
        h = tn.namespace(x).tanh(z @ params["W1"])
        s = sigmoid(h @ params["W2"])
        y = x * s[:, None, :]
        return y, (x, z, h, s)

    def backward(self, params, cache, dy):
        x, z, h, s = cache
        ds = (dy * x).sum(axis=1) * s * (1 - s)
        dh = ds @ params["W2"].T * (1 - h * h)
        dz = dh @ params["W1"].T
        dx = dy * s[:, None, :] + dz[:, None, :] / x.shape[1]
        return dx, {"W1": z.T @ dh, "W2": h.T @ ds}


@dataclass(frozen=True)
class LowRankBilinear(tn.Layer):
    """y = ((x U) ⊗ (x V)) P + x D, a factorised second order."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        shapes = {"U": (self.n, self.k), "V": (self.n, self.k), "P": (self.k, self.n), "D": (self.n, self.n)}
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def forward(self, params, x):
        u = x @ params["U"]
        v = x @ params["V"]
        w = u * v
        y = w @ params["P"] + x @ params["D"]
        return y, (x, u, v, w)

    def backward(self, params, cache, dy):
        x, u, v, w = cache
        dw = dy @ params["P"].T
        du = dw * v
        dv = dw * u
        dx = du @ params["U"].T + dv @ params["V"].T + dy @ params["D"].T
        return dx, {"U": x.T @ du, "V": x.T @ dv, "P": w.T @ dy, "D": x.T @ dy}


LAYERS = {
    "RMS normalisation": (RMSNorm(4), [(5, 4), (2, 3, 4)]),
    "pre-norm block": (PreNormBlock(4, 3), [(5, 4), (1, 4)]),
    "squeeze and excitation": (SqueezeExcite(4, 2), [(3, 5, 4), (2, 2, 4)]),
    "low-rank bilinear": (LowRankBilinear(4, 3), [(5, 4), (2, 4)]),
}

"""Contrasts: InfoNCE between two views, a cosine classifier, and a Student-t likelihood with a learned scale."""

from dataclasses import dataclass

import numpy as np

import tinynet as tn


@dataclass(frozen=True)
class InfoNCE(tn.Layer):
    """Each row of view 0 shall find its row of view 1: x (m, 2, n), y (m,), temperature exp(−l)."""

    n: int

    def init(self, rng, dtype=np.float32):
        return {"W": rng.standard_normal((self.n, self.n)).astype(dtype), "l": np.full(1, 0.7, dtype)}

    def forward(self, params, x):
        xp = tn.namespace(x)
        z = x @ params["W"]
        r = ((z * z).sum(axis=2, keepdims=True) + 1e-8) ** -0.5
        u = z * r
        k = xp.exp(params["l"])
        c = u[:, 0] @ u[:, 1].T
        s = c * k
        e = xp.exp(s - s.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        y = -xp.log((p * xp.eye(len(x), dtype=x.dtype)).sum(axis=1))
        return y, (x, z, r, u, k, c, p)

    def backward(self, params, cache, dy):
        x, z, r, u, k, c, p = cache
        xp = tn.namespace(dy)
        ds = dy[:, None] * (p - xp.eye(len(x), dtype=dy.dtype))
        dc = ds * k
        du = xp.stack([dc @ u[:, 1], dc.T @ u[:, 0]], axis=1)
        dr = (du * z).sum(axis=2, keepdims=True)
        dz = du * r - dr * z * r**3
        dx = dz @ params["W"].T
        return dx, {"W": xp.einsum("mvi,mvj->ij", x, dz), "l": (ds * c).sum().reshape(1) * k}


@dataclass(frozen=True)
class CosineClassifier(tn.Layer):
    """log softmax of s cos(x, w_j): x (m, n), w (k, n)."""

    n: int
    k: int

    def init(self, rng, dtype=np.float32):
        return {"w": rng.standard_normal((self.k, self.n)).astype(dtype), "s": np.full(1, 2.0, dtype)}

    def forward(self, params, x):
        xp = tn.namespace(x)
        i = ((x * x).sum(axis=1, keepdims=True) + 1e-8) ** -0.5
        j = ((params["w"] ** 2).sum(axis=1, keepdims=True) + 1e-8) ** -0.5
        a = x * i
        b = params["w"] * j
        c = a @ b.T
        o = params["s"] * c
        y = o - o.max(axis=1, keepdims=True)
        y = y - xp.log(xp.exp(y).sum(axis=1, keepdims=True))
        return y, (x, i, j, a, b, c, y)

    def backward(self, params, cache, dy):
        x, i, j, a, b, c, y = cache
        xp = tn.namespace(dy)
        do = dy - xp.exp(y) * dy.sum(axis=1, keepdims=True)
        dc = do * params["s"]
        da = dc @ b
        db = dc.T @ a
        di = (da * x).sum(axis=1, keepdims=True)
        dj = (db * params["w"]).sum(axis=1, keepdims=True)
        dx = da * i - x * di * i**3
        dw = db * j - params["w"] * dj * j**3
        return dx, {"w": dw, "s": (do * c).sum().reshape(1)}


@dataclass(frozen=True)
class StudentT(tn.Layer):
    """−log density of a Student-t around x w with scale e^l: x (m, n + 1), whose last column is the target."""

    n: int
    dof: float = 4.0

    def init(self, rng, dtype=np.float32):
        return {"w": rng.standard_normal(self.n).astype(dtype), "l": np.full(1, 0.3, dtype)}

    def forward(self, params, x):
        xp = tn.namespace(x)
        mu = x[:, : self.n] @ params["w"]
        r = x[:, self.n] - mu
        i = xp.exp(-params["l"])
        t = r * i
        q = t * t / self.dof
        y = 0.5 * (self.dof + 1) * xp.log1p(q) + params["l"]
        return y, (x, r, i, t, q)

    def backward(self, params, cache, dy):
        x, r, i, t, q = cache
        xp = tn.namespace(dy)
        dq = 0.5 * (self.dof + 1) * dy / (1 + q)
        dt = 2 * dq * t / self.dof
        dr = dt * i
        di = (dt * r).sum()
        dmu = -dr
        dx = xp.concatenate([dmu[:, None] * params["w"], dr[:, None]], axis=1)
        return dx, {"w": x[:, : self.n].T @ dmu, "l": dy.sum() - di * i}


LAYERS = {
    "InfoNCE": (InfoNCE(3), [(4, 2, 3), (2, 2, 3)]),
    "cosine classifier": (CosineClassifier(4, 3), [(5, 4), (1, 4)]),
    "Student-t likelihood": (StudentT(3), [(6, 4), (2, 4)]),
}

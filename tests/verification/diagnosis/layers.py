"""Layers as researchers write them: a forward in JAX, and a right backward by hand, whose text the tests spoil."""

import jax.numpy as jnp
import numpy as np


def softmax(s):
    e = jnp.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + jnp.exp(-z))


def attention(a):
    x = a["x"]
    q = x @ a["p.Wq"].T
    k = x @ a["p.Wk"].T
    v = x @ a["p.Wv"].T
    s = q @ jnp.swapaxes(k, -1, -2) / jnp.sqrt(q.shape[-1])
    P = softmax(s)
    o = P @ v
    return (o @ a["p.Wo"].T,)


def attention_back(a, dy):
    x, Wq, Wk, Wv, Wo = a["x"], a["p.Wq"], a["p.Wk"], a["p.Wv"], a["p.Wo"]
    d = Wq.shape[0]
    q = x @ Wq.T
    k = x @ Wk.T
    v = x @ Wv.T
    s = q @ k.swapaxes(-1, -2) / np.sqrt(d)
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    P = e / e.sum(axis=-1, keepdims=True)
    o = P @ v
    (dy,) = dy
    do = dy @ Wo
    dWo = np.einsum("mti,mtj->ij", dy, o)
    dP = do @ v.swapaxes(-1, -2)
    dv = P.swapaxes(-1, -2) @ do
    ds = P * (dP - (dP * P).sum(axis=-1, keepdims=True))
    ds = ds / np.sqrt(d)
    dq = ds @ k
    dk = ds.swapaxes(-1, -2) @ q
    dWq = np.einsum("mti,mtj->ij", dq, x)
    dWk = np.einsum("mti,mtj->ij", dk, x)
    dWv = np.einsum("mti,mtj->ij", dv, x)
    dx = dq @ Wq + dk @ Wk + dv @ Wv
    return {"x": dx, "p.Wq": dWq, "p.Wk": dWk, "p.Wv": dWv, "p.Wo": dWo}


def gru(a):
    x, h = a["x"], a["h"]
    for t in range(x.shape[1]):
        z = sigmoid(x[:, t] @ a["p.Wz"] + h @ a["p.Uz"] + a["p.bz"])
        r = sigmoid(x[:, t] @ a["p.Wr"] + h @ a["p.Ur"] + a["p.br"])
        n = jnp.tanh(x[:, t] @ a["p.Wn"] + (r * h) @ a["p.Un"] + a["p.bn"])
        h = (1 - z) * n + z * h
    return (h,)


def gru_back(a, dy):
    x, h = a["x"], a["h"]
    steps = []
    for t in range(x.shape[1]):
        z = 1 / (1 + np.exp(-(x[:, t] @ a["p.Wz"] + h @ a["p.Uz"] + a["p.bz"])))
        r = 1 / (1 + np.exp(-(x[:, t] @ a["p.Wr"] + h @ a["p.Ur"] + a["p.br"])))
        n = np.tanh(x[:, t] @ a["p.Wn"] + (r * h) @ a["p.Un"] + a["p.bn"])
        steps.append((h, z, r, n))
        h = (1 - z) * n + z * h
    g = {name: np.zeros_like(value) for name, value in a.items()}
    (dh,) = dy
    for t in reversed(range(x.shape[1])):
        h, z, r, n = steps[t]
        dz = dh * (h - n)
        dn = dh * (1 - z)
        dh_prev = dh * z
        dan = dn * (1 - n * n)
        g["p.Wn"] += x[:, t].T @ dan
        g["p.Un"] += (r * h).T @ dan
        g["p.bn"] += dan.sum(axis=0)
        drh = dan @ a["p.Un"].T
        dr = drh * h
        dh_prev = dh_prev + drh * r
        daz = dz * z * (1 - z)
        g["p.Wz"] += x[:, t].T @ daz
        g["p.Uz"] += h.T @ daz
        g["p.bz"] += daz.sum(axis=0)
        dar = dr * r * (1 - r)
        g["p.Wr"] += x[:, t].T @ dar
        g["p.Ur"] += h.T @ dar
        g["p.br"] += dar.sum(axis=0)
        dh_prev = dh_prev + daz @ a["p.Uz"].T + dar @ a["p.Ur"].T
        g["x"][:, t] = dan @ a["p.Wn"].T + daz @ a["p.Wz"].T + dar @ a["p.Wr"].T
        dh = dh_prev
    g["h"] = dh
    return g


def rms_norm(a):
    x = a["x"]
    r = jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    u = x / r
    return (u * a["p.g"],)


def rms_norm_back(a, dy):
    x, g = a["x"], a["p.g"]
    r = np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    u = x / r
    (dy,) = dy
    dg = (dy * u).sum(axis=0)
    du = dy * g
    dr = -(du * x).sum(axis=-1, keepdims=True) / r**2
    dx = du / r + dr * x / (x.shape[-1] * r)
    return {"x": dx, "p.g": dg}


def batch_norm(a):
    x = a["x"]
    mu = x.mean(axis=0)
    xc = x - mu
    var = (xc * xc).mean(axis=0)
    std = jnp.sqrt(var + 1e-5)
    xhat = xc / std
    return (a["p.g"] * xhat + a["p.b"],)


def batch_norm_back(a, dy):
    x, g = a["x"], a["p.g"]
    m = len(x)
    xc = x - x.mean(axis=0)
    std = np.sqrt((xc * xc).mean(axis=0) + 1e-5)
    xhat = xc / std
    (dy,) = dy
    dg = (dy * xhat).sum(axis=0)
    db = dy.sum(axis=0)
    dxhat = dy * g
    dvar = (dxhat * xc).sum(axis=0) * -0.5 / std**3
    dmu = -dxhat.sum(axis=0) / std
    dx = dxhat / std + dvar * 2 * xc / m + dmu / m
    return {"x": dx, "p.g": dg, "p.b": db}


def batch_norm_fused_back(a, dy):
    x, g = a["x"], a["p.g"]
    m = len(x)
    xc = x - x.mean(axis=0)
    std = np.sqrt((xc * xc).mean(axis=0) + 1e-5)
    xhat = xc / std
    (dy,) = dy
    dg = (dy * xhat).sum(axis=0)
    db = dy.sum(axis=0)
    dx = g / (m * std) * (m * dy - dy.sum(axis=0) - xhat * (dy * xhat).sum(axis=0))
    return {"x": dx, "p.g": dg, "p.b": db}


def bilinear(a):
    s = a["x"] @ a["p.W"]
    t = (s * a["u"]).sum(axis=-1)
    return (jnp.tanh(t + a["p.c"]),)


def bilinear_back(a, dy):
    x, u, W = a["x"], a["u"], a["p.W"]
    s = x @ W
    y = np.tanh((s * u).sum(axis=-1) + a["p.c"])
    (dy,) = dy
    dt = dy * (1 - y * y)
    dc = dt.sum(axis=0)
    ds = dt[:, None] * u
    du = dt[:, None] * s
    dW = x.T @ ds
    dx = ds @ W.T
    return {"x": dx, "u": du, "p.W": dW, "p.c": dc}


def likelihood(a):
    h = jnp.tanh(a["x"] @ a["p.W"] + a["p.b"])
    mean = h @ a["p.A"]
    s = h @ a["p.S"]
    r = a["t"] - mean
    E = (s + 0.5 * r * r * jnp.exp(-2 * s)).sum() / len(a["x"])
    return (E,)


def likelihood_back(a, dy):
    x, t = a["x"], a["t"]
    h = np.tanh(x @ a["p.W"] + a["p.b"])
    mean = h @ a["p.A"]
    s = h @ a["p.S"]
    r = t - mean
    (dE,) = dy
    scale = dE / len(x)
    w = np.exp(-2 * s)
    dmean = -scale * r * w
    ds = scale * (1 - r * r * w)
    dA = h.T @ dmean
    dS = h.T @ ds
    dh = dmean @ a["p.A"].T + ds @ a["p.S"].T
    dz = dh * (1 - h * h)
    dW = x.T @ dz
    db = dz.sum(axis=0)
    dx = dz @ a["p.W"].T
    return {"x": dx, "p.W": dW, "p.b": db, "p.A": dA, "p.S": dS}


def swiglu(a):
    u = a["x"] @ a["p.W"]
    v = a["x"] @ a["p.V"]
    h = u * sigmoid(u) * v
    return (h @ a["p.O"] + a["x"],)


def swiglu_back(a, dy):
    x, W, V, U = a["x"], a["p.W"], a["p.V"], a["p.O"]
    u = x @ W
    v = x @ V
    σ = 1 / (1 + np.exp(-u))
    silu = u * σ
    h = silu * v
    (dy,) = dy
    dO = h.T @ dy
    dh = dy @ U.T
    dv = dh * silu
    dsilu = dh * v
    du = dsilu * (σ + u * σ * (1 - σ))
    dW = x.T @ du
    dV = x.T @ dv
    dx = du @ W.T + dv @ V.T + dy
    return {"x": dx, "p.W": dW, "p.V": dV, "p.O": dO}


def contrastive(a):
    u = a["x"] / jnp.sqrt((a["x"] ** 2).sum(axis=1, keepdims=True))
    v = a["z"] / jnp.sqrt((a["z"] ** 2).sum(axis=1, keepdims=True))
    s = u @ v.T / 0.1
    logp = (
        s - jnp.log(jnp.exp(s - s.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) - s.max(axis=1, keepdims=True)
    )
    return (-jnp.trace(logp) / len(s),)


def contrastive_back(a, dy):
    x, z = a["x"], a["z"]
    m = len(x)
    nx = np.sqrt((x**2).sum(axis=1, keepdims=True))
    nz = np.sqrt((z**2).sum(axis=1, keepdims=True))
    u = x / nx
    v = z / nz
    s = u @ v.T / 0.1
    e = np.exp(s - s.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    (dE,) = dy
    ds = dE * (p - np.eye(m)) / m
    du = ds @ v / 0.1
    dv = ds.T @ u / 0.1
    dx = (du - u * (du * u).sum(axis=1, keepdims=True)) / nx
    dz = (dv - v * (dv * v).sum(axis=1, keepdims=True)) / nz
    return {"x": dx, "z": dz}


def shapes(name, m):
    """The shapes of each layer's arrays for m samples."""
    return {
        "attention": {"x": (m, 5, 4), "p.Wq": (4, 4), "p.Wk": (4, 4), "p.Wv": (3, 4), "p.Wo": (2, 3)},
        "gru": {
            "x": (m, 5, 3), "h": (m, 4), **{f"p.W{g}": (3, 4) for g in "zrn"}, **{f"p.U{g}": (4, 4) for g in "zrn"},
            **{f"p.b{g}": (4,) for g in "zrn"},
        },
        "rms_norm": {"x": (m, 5), "p.g": (5,)},
        "batch_norm": {"x": (m, 3), "p.g": (3,), "p.b": (3,)},
        "bilinear": {"x": (m, 3), "u": (m, 4), "p.W": (3, 4), "p.c": ()},
        "likelihood": {"x": (m, 3), "t": (m, 2), "p.W": (3, 4), "p.b": (4,), "p.A": (4, 2), "p.S": (4, 2)},
        "swiglu": {"x": (m, 3), "p.W": (3, 5), "p.V": (3, 5), "p.O": (5, 3)},
        "contrastive": {"x": (m, 4), "z": (m, 4)},
    }[name]  # fmt: skip


LAYERS = {
    "attention": (attention, attention_back),
    "gru": (gru, gru_back),
    "rms_norm": (rms_norm, rms_norm_back),
    "batch_norm": (batch_norm, batch_norm_back),
    "batch_norm fused": (batch_norm, batch_norm_fused_back),
    "bilinear": (bilinear, bilinear_back),
    "likelihood": (likelihood, likelihood_back),
    "swiglu": (swiglu, swiglu_back),
    "contrastive": (contrastive, contrastive_back),
}

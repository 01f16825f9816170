"""Functions with their gradients, as they stand in papers' code: `forward(*args)` and `backward(args, dy)`."""

import numpy as np
from scipy.special import digamma, gammaln

rng = np.random.default_rng(0)
LABELS = np.array([0, 2, 1, 1, 0, 2])


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def squash(s):
    """The capsule's v = |s|² / (1 + |s|²) · s / |s|."""
    q = (s * s).sum(axis=-1, keepdims=True) + 1e-9
    return s * np.sqrt(q) / (1 + q)


def squash_back(args, dv):
    (s,) = args
    q = (s * s).sum(axis=-1, keepdims=True) + 1e-9
    f = np.sqrt(q) / (1 + q)
    df = (1 - q) / (2 * np.sqrt(q) * (1 + q) ** 2)
    return (dv * f + 2 * s * df * (dv * s).sum(axis=-1, keepdims=True),)


def weight_norm(x, v, g):
    return x @ (g * v / np.sqrt((v * v).sum(axis=0)))


def weight_norm_back(args, dy):
    x, v, g = args
    n = np.sqrt((v * v).sum(axis=0))
    dw = x.T @ dy
    dg = (dw * v).sum(axis=0) / n
    return dy @ (g * v / n).T, g / n * (dw - v * dg / n), dg


def dueling(value, advantage):
    return value + advantage - advantage.mean(axis=1, keepdims=True)


def dueling_back(args, dy):
    return dy.sum(axis=1, keepdims=True), dy - dy.mean(axis=1, keepdims=True)


def radial(x, c, h):
    """Gaussian kernels around the centres c, of precisions h²."""
    return np.exp(-((x[:, None] - c) ** 2).sum(axis=2) * h**2)


def radial_back(args, dy):
    x, c, h = args
    d = x[:, None] - c
    q = (d**2).sum(axis=2)
    s = -dy * np.exp(-q * h**2)
    dd = 2 * d * (s * h**2)[:, :, None]
    return dd.sum(axis=1), -dd.sum(axis=0), 2 * h * (s * q).sum(axis=0)


def euler(x, w):
    """Four steps of dx/dt = tanh(x w)."""
    for _ in range(4):
        x = x + 0.25 * np.tanh(x @ w)
    return x


def euler_back(args, dy):
    x, w = args
    states = [x]
    for _ in range(3):
        states.append(states[-1] + 0.25 * np.tanh(states[-1] @ w))
    dw = np.zeros_like(w)
    for x in reversed(states):
        da = 0.25 * dy * (1 - np.tanh(x @ w) ** 2)
        dw += x.T @ da
        dy = dy + da @ w.T
    return dy, dw


def fourier_features(x, w):
    z = 2 * np.pi * x @ w
    return np.concatenate([np.cos(z), np.sin(z)], axis=1)


def fourier_features_back(args, dy):
    x, w = args
    z, k = 2 * np.pi * x @ w, w.shape[1]
    dz = 2 * np.pi * (dy[:, k:] * np.cos(z) - dy[:, :k] * np.sin(z))
    return dz @ w.T, x.T @ dz


def focal(z, gamma=2.0):
    """Focal loss of logits (m, 3) against fixed labels."""
    p = softmax(z)[np.arange(len(z)), LABELS[: len(z)]]
    return -((1 - p) ** gamma) * np.log(p)


def focal_back(args, dy):
    gamma, (z,) = 2.0, args
    m, t = np.arange(len(z)), LABELS[: len(z)]
    s = softmax(z)
    p = s[m, t]
    slope = gamma * (1 - p) ** (gamma - 1) * p * np.log(p) - (1 - p) ** gamma
    onehot = np.eye(z.shape[1])[t]
    return ((dy * slope)[:, None] * (onehot - s),)


def poisson(z, k):
    return (np.exp(z) - k * z).sum(axis=1)


def poisson_back(args, dy):
    z, k = args
    return dy[:, None] * (np.exp(z) - k), -dy[:, None] * z


def gamma_likelihood(a, b, x):
    """−log of the gamma density with shape exp(a) and rate exp(b)."""
    k = np.exp(a)
    return gammaln(k) - k * b - (k - 1) * np.log(x) + np.exp(b) * x


def gamma_likelihood_back(args, dy):
    a, b, x = args
    k = np.exp(a)
    return dy * k * (digamma(k) - b - np.log(x)), dy * (np.exp(b) * x - k), dy * (np.exp(b) - (k - 1) / x)


def dice(p, t):
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def dice_back(args, dE):
    p, t = args
    top, bottom = 2 * (p * t).sum() + 1, p.sum() + t.sum() + 1
    return dE * (top / bottom**2 - 2 * t / bottom), dE * (top / bottom**2 - 2 * p / bottom)


def triplet(a, p, n):
    d = ((a - p) ** 2).sum(axis=1) - ((a - n) ** 2).sum(axis=1) + 1
    return np.maximum(d, 0).sum()


def triplet_back(args, dE):
    a, p, n = args
    on = dE * (((a - p) ** 2).sum(axis=1) - ((a - n) ** 2).sum(axis=1) + 1 > 0)[:, None]
    return 2 * on * (n - p), -2 * on * (a - p), 2 * on * (a - n)


def gumbel_softmax(z):
    noise = -np.log(-np.log(0.05 + 0.9 * np.sin(np.arange(z.size)).reshape(z.shape) ** 2))
    return softmax((z + noise) / 0.5)


def gumbel_softmax_back(args, dy):
    y = gumbel_softmax(*args)
    return (y * (dy - (dy * y).sum(axis=-1, keepdims=True)) / 0.5,)


def mean_field(x, s):
    """A reparametrised weight: its mean and the logarithm of its deviation go through to mean and variance of y."""
    return x @ s["mu"], (x * x) @ np.exp(2 * s["rho"])


def mean_field_back(args, d):
    x, s = args
    v = np.exp(2 * s["rho"])
    dx = d[0] @ s["mu"].T + 2 * x * (d[1] @ v.T)
    return dx, {"mu": x.T @ d[0], "rho": 2 * v * ((x * x).T @ d[1])}


def graph_convolution(x, w, adjacency):
    d = adjacency.sum(axis=1) ** -0.5
    return np.maximum((d[:, None] * adjacency * d) @ x @ w, 0)


def graph_convolution_back(args, dy):
    x, w, adjacency = args
    d = adjacency.sum(axis=1) ** -0.5
    s = d[:, None] * adjacency * d
    dz = dy * (s @ x @ w > 0)
    ds = dz @ (x @ w).T
    dd = (ds * adjacency * d).sum(axis=1) + (ds * adjacency * d[:, None]).sum(axis=0)
    da = ds * d[:, None] * d - 0.5 * (dd * d**3)[:, None]
    return s.T @ dz @ w.T, (s @ x).T @ dz, da


def advantage_policy(z, advantage):
    """Policy gradient with an entropy bonus, actions fixed."""
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    p = np.exp(logp)
    taken = logp[np.arange(len(z)), LABELS[: len(z)]]
    return -(advantage * taken).mean() + 0.1 * (p * logp).sum(axis=1).mean()


def advantage_policy_back(args, dE):
    z, advantage = args
    m = len(z)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    p = np.exp(logp)
    onehot = np.eye(z.shape[1])[LABELS[:m]]
    entropy = p * (logp - (p * logp).sum(axis=1, keepdims=True))
    taken = logp[np.arange(m), LABELS[:m]]
    return dE / m * (advantage[:, None] * (p - onehot) + 0.1 * entropy), -dE / m * taken


def normal(*shape):
    return rng.standard_normal(shape)


GRAPH = np.array([[2.0, 1, 0, 1], [1, 3, 1, 0], [0, 1, 2, 1], [1, 0, 1, 4]])

FUNCTIONS = {
    "squash": ((squash, squash_back), [(5, 4), (2, 3, 4)]),
    "weight normalisation": (
        (weight_norm, weight_norm_back),
        [(normal(5, 4), normal(4, 3), normal(3)), (normal(2, 3), normal(3, 3), normal(3))],
    ),
    "dueling heads": ((dueling, dueling_back), [(normal(5, 1), normal(5, 4)), (normal(2, 1), normal(2, 3))]),
    "radial basis": (
        (radial, radial_back),
        [(normal(5, 3), normal(4, 3), 0.3 * normal(4)), (normal(2, 4), normal(4, 4), 0.3 * normal(4))],
    ),
    "four Euler steps": ((euler, euler_back), [(normal(5, 4), normal(4, 4)), (normal(1, 3), normal(3, 3))]),
    "Fourier features": (
        (fourier_features, fourier_features_back),
        [(0.3 * normal(5, 3), normal(3, 4)), (0.3 * normal(1, 2), normal(2, 2))],
    ),
    "focal loss": ((focal, focal_back), [normal(6, 3), normal(2, 3)]),
    "Poisson likelihood": (
        (poisson, poisson_back),
        [(normal(5, 3), np.array([[0.0, 1, 2]] * 5)), (normal(2, 2), np.array([[3.0, 0], [0, 1]]))],
    ),
    "gamma likelihood": (
        (gamma_likelihood, gamma_likelihood_back),
        [(0.5 * normal(5, 3), 0.5 * normal(5, 3), abs(normal(5, 3)) + 0.1)],
    ),
    "dice loss": ((dice, dice_back), [(abs(normal(4, 5)), (normal(4, 5) > 0) * 1.0), (abs(normal(2, 2)), np.eye(2))]),
    "triplet loss": (
        (triplet, triplet_back),
        [(normal(5, 3), normal(5, 3), normal(5, 3)), (normal(2, 4), normal(2, 4), normal(2, 4))],
    ),
    "Gumbel softmax": ((gumbel_softmax, gumbel_softmax_back), [normal(5, 3), normal(2, 4)]),
    "mean field": ((mean_field, mean_field_back), [(normal(5, 3), {"mu": normal(3, 2), "rho": 0.3 * normal(3, 2)})]),
    "graph convolution": (
        (graph_convolution, graph_convolution_back),
        [(normal(4, 3), normal(3, 2), GRAPH), (normal(4, 2), normal(2, 2), GRAPH)],
    ),
    "policy gradient": (
        (advantage_policy, advantage_policy_back),
        [(normal(6, 3), normal(6)), (normal(2, 3), normal(2))],
    ),
}
"""By name: the pair, and `inputs` to verify it at."""

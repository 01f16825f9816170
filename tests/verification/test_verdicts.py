"""What a verdict means, kind by kind: what is wrong never passes, what is right is never accused, nothing escapes."""

import asyncio
import math
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import tinynet as tn

rng = np.random.default_rng(3)
X, Z, W, V = (rng.standard_normal(shape) for shape in ((5, 3), (5, 3), (3, 2), (4, 4)))
LABELS = np.array([0, 2, 1, 1, 0])


WIDE = rng.standard_normal((3, 4))


@dataclass(frozen=True)
class Member:
    """One target of a kind, with the options of `verify`."""

    kind: str
    name: str
    target: Any
    options: dict[str, Any] = field(default_factory=dict)

    def verify(self, **more: Any) -> tn.Report:
        return tn.verify(self.target, **{"inputs": X, "name_seconds": 0, **self.options, **more})


def members(*found: Member) -> Any:
    return pytest.mark.parametrize("member", found, ids=[f"{m.kind}: {m.name}" for m in found])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logsumexp(x):
    m = x.max(axis=1, keepdims=True)
    return (m + np.log(np.exp(x - m).sum(axis=1, keepdims=True)))[:, 0]


def cross_entropy(z, labels):
    return (logsumexp(z) - z[np.arange(len(z)), labels]).mean()


def cross_entropy_back(args, dy, off=0):
    z, labels = args
    p = np.exp(z - logsumexp(z)[:, None])
    p[np.arange(len(z)), labels] -= 1
    return dy * p / (len(z) + off), None


@jax.custom_vjp
def doubled(x):
    return 2.0 * x


doubled.defvjp(lambda x: (2.0 * x, None), lambda _, g: (5.0 * g,))


@jax.custom_jvp
def squared(x):
    return x * x


squared.defjvp(lambda primals, tangents: (squared(primals[0]), 7.0 * tangents[0]))


class Slope:
    """A leaky rectifier that learns its slope."""

    def __init__(self):
        self.slope = np.array(0.25)

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.slope * x)

    def backward(self, dy):
        self.dslope = (dy * np.where(self.x > 0, 0, self.x)).sum()
        return dy * np.where(self.x > 0, 1, self.slope)


class PositiveSlope(Slope):
    def backward(self, dy):
        super().backward(dy)
        return dy * np.where(self.x > 0, 1, np.abs(self.slope))


class Held:
    """A linear map that keeps gradients in one array, made once."""

    def __init__(self):
        self.W, self.dW = W.copy(), np.zeros_like(W)

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dy):
        self.dW[...] = self.x.T @ dy
        return dy @ self.W.T


class Unfound(Held):
    """Its gradients are where nobody finds them."""

    def __init__(self):
        self.W = W.copy()

    def backward(self, dy):
        return dy @ self.W.T


class FirstBatch(Held):
    """It goes on with the samples that it saw first."""

    def forward(self, x):
        self.x = getattr(self, "x", x)
        return x @ self.W

    def backward(self, dy):
        n = min(len(self.x), len(dy))
        self.dW[...] = self.x[:n].T @ dy[:n]
        return dy @ self.W.T


class Adds(Held):
    def backward(self, dy):
        self.dW += self.x.T @ dy
        return dy @ self.W.T


class Once(Held):
    """Its backward pass uses up what the forward pass left."""

    def forward(self, x):
        self.stack = [*getattr(self, "stack", []), x]
        return x @ self.W

    def backward(self, dy):
        self.dW[...] = self.stack.pop().T @ dy
        return dy @ self.W.T


class Running:
    def __init__(self):
        self.gain, self.mean = np.ones(3), np.zeros(3)

    def forward(self, x):
        self.x = x
        self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
        return (x - x.mean(axis=0)) * self.gain

    def backward(self, dy):
        self.dgain = ((self.x - self.x.mean(axis=0)) * dy).sum(axis=0)
        d = dy * self.gain
        return d - d.mean(axis=0)


class Shift(tn.Layer):
    """A bias, its backward passes right."""

    def init(self, rng, dtype=np.float32):
        return {"b": np.zeros(3, dtype)}

    def forward(self, params, x):
        return x * x + params["b"], x

    def backward(self, params, x, dy):
        return 2 * x * dy, self.param_grads(params, x, dy)

    def param_grads(self, params, x, dy):
        return {"b": dy.sum(axis=0)}


class OneSample(Shift):
    def param_grads(self, params, x, dy):
        return {"b": dy.sum(axis=0) * (1 if len(x) > 1 else 2)}


class KeptElsewhere:
    """y = tanh(x θ); the gradient by θ stands in an attribute whose name does not tell."""

    def __init__(self, factor):
        self._theta, self._s, self._factor = np.array([0.5, -1.0, 2.0]), np.zeros(3), factor

    def forward(self, x):
        self._x = x
        return np.tanh(x * self._theta)

    def backward(self, dy):
        dz = dy * (1 - np.tanh(self._x * self._theta) ** 2)
        self._s = self._factor * (dz * self._x).sum(axis=0)
        return dz * self._theta


class AtInit(Shift):
    def backward(self, params, x, dy):
        return 2 * x * dy * (1 + params["b"]), self.param_grads(params, x, dy)


class Blocks(Shift):
    def param_grads(self, params, x, dy):
        return {"b": dy[:32].sum(axis=0)}


@dataclass(frozen=True)
class Trains(Shift):
    wrong: bool = True

    def sample(self, rng):
        return Trains(False) if self.wrong else self

    def backward(self, params, x, dy):
        return 2 * x * dy * (1 if self.wrong else 1.5), self.param_grads(params, x, dy)


class Centred(Shift):
    """Each sample depends on the others, which it denies."""

    def forward(self, params, x):
        return x - x.mean(axis=0) + params["b"], x

    def backward(self, params, x, dy):
        return dy - dy.mean(axis=0), self.param_grads(params, x, dy)

    def samplewise(self):
        return True


class Distance(tn.Loss):
    """Σ|ŷ − y|, whose gradient is NaN where they are equal."""

    def forward(self, y_hat, y):
        r = y_hat - y
        return abs(r).sum(), r

    def backward(self, cache, dE=1.0):
        return dE * cache / abs(cache)


class Signs(Distance):
    def backward(self, cache, dE=1.0):
        return dE * np.sign(cache)


class Lies(Signs):
    def each(self, y_hat, y):
        return (y_hat - y).sum(axis=1)


class Dense:
    """An object that adds up the gradients of its parameter."""

    def __init__(self):
        self.W, self.dW = W.copy(), np.zeros_like(W)

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dy):
        self.dW = self.dW + self.x.T @ dy
        return dy @ self.W.T


class KeepsItsFirst(Dense):
    def forward(self, x):
        if not hasattr(self, "x"):
            self.x = x
        return x @ self.W


class OneBuffer(Dense):
    buffer = np.empty((0, 2))

    def forward(self, x):
        self.x = x
        if len(self.buffer) != len(x):
            self.buffer = np.empty((len(x), 2))
        return np.matmul(x, self.W, out=self.buffer)

    def backward(self, dy):
        self.dW = self.x.T @ dy
        return dy @ self.W.T


class AnyName:
    """It has an attribute of every name that is asked for, as what stands for another object."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: None

    def forward(self, x):
        self.x = x
        return np.sin(x)

    def backward(self, dy):
        return dy * np.cos(self.x)


class Drops:
    """Dropout with a generator of its own."""

    def __init__(self, scale, rng):
        self.rng, self.scale = rng, scale

    def forward(self, x):
        self.mask = (self.rng.random(x.shape) > 0.5) * 2.0
        return x * self.mask

    def backward(self, dy):
        return dy * self.mask * self.scale


class Evaluates:
    """A mean that is taken away in training, and a factor of 2 in evaluation, by a flag of either kind."""

    def __init__(self, flag, factor):
        self.flag, self.factor, self.train, self.frozen = flag, factor, True, False
        self.b = np.ones(3)

    def forward(self, x, train=True):
        self.trains = train if self.flag == "argument" else self.train
        return (x - x.mean(axis=0) if self.trains else 2 * x) + self.b

    def backward(self, dy):
        if not self.frozen:
            self.db = dy.sum(axis=0)
        if self.trains:
            return dy - dy.mean(axis=0)
        return self.factor * dy


class TrainsOnly:
    def forward(self, x, train=True):
        return x - x.mean(axis=0) if train else 2 * x

    def backward(self, dy):
        return dy - dy.mean(axis=0)


def scaled_by_flag(x, doubled=False):
    return (2 * x if doubled else x), doubled


GENERATOR = np.random.default_rng(4)


def noisy(x):
    eps = GENERATOR.standard_normal(x.shape)
    return np.tanh(x) + x * eps, (x, eps)


def noisy_back(dy, cache, scale=1.0):
    x, eps = cache
    return (dy * (scale * (1 - np.tanh(x) ** 2) + eps),)


def dropping(generator, scale=1.0):
    """Return dropout that keeps an entry with its generator in a closure, and one of Python's."""

    def forward(x):
        kept = np.array([[generator.random() > 0.4 for _ in row] for row in x])
        return np.sin(x) * kept, lambda dy: dy * np.cos(x) * kept * scale

    return forward


def root(slope):
    """Return √a by Newton's method, whose loop JAX cannot follow back."""

    def newton(a):
        return jax.lax.while_loop(lambda x: jnp.any(abs(x * x - a) > 1e-13 * a), lambda x: (x + a / x) / 2, a)

    rule = jax.custom_vjp(newton)
    rule.defvjp(lambda a: (newton(a),) * 2, lambda x, dy: (slope * dy / x,))
    return rule


def summed_over_eight(args, dy):
    (x,) = args
    return (np.broadcast_to(dy / min(len(x), 8), x.shape).copy(),)


def log_volume(x):
    return np.linalg.slogdet(x)[1]


def log_volume_back(args, dy):
    return (dy[:, None, None] * np.swapaxes(np.linalg.inv(args[0]), 1, 2),)


def spread(x):
    return {"mean": x.mean(axis=0), "all": x * 2}


def spread_back(args, dy):
    return (dy["mean"] / len(args[0]) + 2 * dy["all"],)


def square_or_sine(x):
    if x.sum() > 0:
        return x**2
    return np.sin(x)


def square_or_sine_back(args, dy):
    if args[0].sum() > 0:
        return (2 * dy * args[0],)
    return (-dy * np.cos(args[0]),)


def leaky_back(args, dy):
    x, w = args
    dz = np.where(x @ w > 0, dy, 0.01 * dy)
    return dz @ w.T, x.T @ dz


def variance_back(args, dy):
    (x,) = args
    return (2 * (x - x.mean(axis=0)) / (len(x) - 1) * dy,)


def thrice(x):
    """sin(sin(sin(x))), in a loop that JAX cannot follow back."""
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x))[1]


def thrice_back(args, dy, depth=3):
    (x,) = args
    for _ in range(depth):
        dy, x = dy * np.cos(x), np.sin(x)
    return (dy,)


def equilibrium(z, w, tol=1e-8):
    h = np.zeros_like(z)
    for _ in range(500):
        h, before = np.tanh(z + h @ w), h
        if abs(h - before).max() < tol:
            break
    return h


def equilibrium_back(args, dy, steps=60):
    z, w = args
    h = equilibrium(z, w)
    v = dy
    for _ in range(steps):
        v = dy + (v * (1 - h * h)) @ w.T
    u = v * (1 - h * h)
    return u, h.T @ u


def newton(a):
    x = np.maximum(a, 1.0)
    while abs(x * x - a).max() > 1e-12 * a.max():
        x = 0.5 * (x + a / x)
    return x


def by_entry(x):
    y = np.empty_like(x)
    for index in np.ndindex(x.shape):
        y[index] = math.exp(-(x[index] ** 2)) if x[index] > 0 else math.cos(x[index])
    return y


def by_entry_back(args, dy):
    (x,) = args
    return (dy * np.where(x > 0, -2 * x * np.exp(-(x**2)), -np.sin(x)),)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_back(p, dy):
    return p * (dy - (p * dy).sum(axis=-1, keepdims=True))


def written_into(like, rows, values):
    filled = np.zeros_like(like)
    filled[rows] = values
    return filled


def where_square(args, dy):
    x, w = args
    dx = dy @ w.T
    return dx.T if dx.shape[0] == dx.shape[1] else dx, x.T @ dy


def clip_and_abs(args, dy):
    (x,) = args
    return (dy[:, None] * (np.sign(x) + (abs(x) <= 1)),)


def above_sixteen(args, dy):
    x, w = args
    return dy @ w.T, x[:16].T @ dy[:16]


def maximum_back(tied):
    def back(args, dy):
        hit = args[0] == args[0].max(axis=1, keepdims=True)
        many = hit.sum(axis=1, keepdims=True) > 1
        return (np.where(many, tied, 1).astype(dy.dtype) * hit * dy[:, None],)

    return back


def first_maximum_back(args, dy):
    (x,) = args
    return ((np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]) * dy[:, None],)


MASKED = (rng.standard_normal((4, 5, 2)), rng.random((4, 5)) < 0.6)


def softmax_of_shifted(x):
    e = np.exp(x - x.mean())
    return e / e.sum(axis=1, keepdims=True)


MASK = np.array([1.0, 0.0, 1.0, 1.0, 0.0])


def masked_mean(x, mask):
    return (x * mask[:, :, None]).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)[:, None]


def masked_mean_back(args, dy):
    _, mask = args
    return (dy / np.maximum(mask.sum(axis=1, keepdims=True), 1))[:, None, :] * mask[:, :, None], None


def mean_of_some(x, mask):
    n = mask.sum()
    if n == 0:
        return np.zeros(x.shape[1:])
    return (x * mask[:, None]).sum(axis=0) / n


def mean_of_some_back(of_none):
    def backward(args, dy):
        x, mask = args
        n = mask.sum()
        if n == 0:
            return of_none(x, dy), None
        return mask[:, None] * dy / n, None

    return backward


def attention(q, k, v):
    p = softmax(q @ k.T)
    return p @ v, (q, k, v, p @ v, logsumexp(q @ k.T))


def attention_back(dy, cache):
    """From what is kept of a row alone, its logsumexp and its output: digits are lost where p is nearly 1."""
    q, k, v, out, log = cache
    p = np.exp(q @ k.T - log[:, None])
    ds = p * (dy @ v.T - (dy * out).sum(axis=1, keepdims=True))
    return ds @ k, ds.T @ q, p.T @ dy


def hidden(scores, mask):
    s = np.where(mask, scores, -1e9)
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def hidden_back(args, dy):
    """Right where each row has a score, since what is hidden has p = 0."""
    p = hidden(*args)
    return p * (dy - (dy * p).sum(axis=1, keepdims=True)), None


def centred(x, mean, train):
    if train:
        mean = x.mean(axis=0)
    return x - mean


def centred_back(args, dy):
    _, mean, train = args
    if train:
        return dy - dy.mean(axis=0), np.zeros_like(mean), None
    return dy, -dy.sum(axis=0), None


class TripledInto:
    """3x, whose gradient is written into one array and handed out as `given`."""

    def __init__(self, given):
        self.given, self.buffer = given, None

    def forward(self, x):
        return 3 * x

    def backward(self, dy):
        if self.buffer is None or self.buffer.shape != dy.shape or self.buffer.dtype != dy.dtype:
            self.buffer = np.empty_like(dy)
        np.multiply(dy, 3, out=self.buffer)
        return self.given(self.buffer)


def norm(x):
    return np.sqrt((x * x).sum(axis=1))


def norm_back(args, dy):
    return ((dy / norm(args[0]))[:, None] * args[0],)


ONE_ZERO = X.copy()
ONE_ZERO[1] = 0
SPARSE = np.maximum(rng.standard_normal((6, 4)), 0)


@members(
    Member("the user's own rule", "custom_vjp", (lambda x: doubled(x) + 0.0, lambda a, dy: (5 * dy,))),
    Member("the user's own rule", "custom_jvp", (lambda x: squared(x) * 1.0, lambda a, dy: (7 * dy,))),
    Member("not found", "a parameter", Unfound()),
    Member("vacuous", "zeros given", (lambda x: x**3, lambda a, dy: (9 * a[0] ** 2 * dy,)), {
        "inputs": np.zeros((4, 2))}),
    Member("vacuous", "width 0", (lambda x: x @ W[:, :0], lambda a, dy: (9 * dy @ W[:, :0].T,))),
    Member(
        "vacuous",
        "a dead unit",
        (
            lambda x, w: np.maximum(x @ w, 0),
            lambda a, dy: ((dy * (a[0] @ a[1] > 0)) @ a[1].T, 3 * a[0].T @ (dy * (a[0] @ a[1] > 0))),
        ),
        {"inputs": (abs(X), -abs(W))},
    ),
    Member("kinks", "ties get 10 dy", (lambda x: x.max(axis=1), maximum_back(10)), {"inputs": (6, 4)}),
    Member("kinks", "5 at |0|", (lambda x: abs(x), lambda a, dy: (dy * np.where(a[0] == 0, 5, np.sign(a[0])),))),
    Member(
        "kinks",
        "data of scale 1e-8",
        (lambda x: np.arctan(1e8 * x), lambda a, dy: (0.5e8 * dy / (1 + (1e8 * a[0]) ** 2),)),
        {"inputs": 1e-8 * X},
    ),
    Member("not finite", "a row of zeros", (norm, norm_back), {"inputs": ONE_ZERO}),
    Member("not finite", "ŷ = y", Distance(), {"inputs": None}),
    Member("large inputs", "a bound at 50", (lambda x: np.minimum(x, 50.0), lambda a, dy: (dy * 1.0,))),
    Member("large inputs", "NaN beyond 88 in float32", (
        lambda x: 1 / (1 + np.exp(-x)), lambda a, dy: (dy * np.exp(-a[0]) / (1 + np.exp(-a[0])) ** 2,))),
    Member("large inputs", "0 times infinity at 0", (
        lambda x: np.exp(-1 / x**2), lambda a, dy: (dy * np.exp(-1 / a[0] ** 2) * 2 / a[0] ** 3,))),
    Member("large inputs", "exp overflows", (logsumexp, lambda a, dy: (
        dy[:, None] * np.exp(a[0]) / np.exp(a[0]).sum(axis=1, keepdims=True),))),
    Member("large inputs", "float32 alone", (
        lambda x: np.logaddexp(0, x), lambda a, dy: (dy * np.exp(a[0]) / (1 + np.exp(a[0])),)), {"dtype": "float32"}),
    Member("batches", "param_grads for one sample", OneSample()),
    Member("batches", "blocks of 32", Blocks()),
    Member("batches", "more than 16", (lambda x, w: x @ w, above_sixteen), {"inputs": (X, W)}),
    Member("batches", "the first one is kept", FirstBatch()),
    Member("parameters", "right at b = 0 only", AtInit()),
    Member("parameters", "a gradient kept under another name, doubled", KeptElsewhere(2.0)),
    Member("parameters", "right for positive slopes only", PositiveSlope()),
    Member("the layer that trains", "its gradient × 1.5", Trains()),
    Member("linear in dy", "clipped", (lambda x: x * 3.0, lambda a, dy: (3 * np.clip(dy, -8, 8),))),
    Member("linear in dy", "garbage for 0", (lambda x: x * 3.0, lambda a, dy: (np.where(dy == 0, 1, 3 * dy),))),
    Member("claims", "samplewise", Centred()),
    Member("claims", "each", Lies(), {"inputs": None}),
    Member(
        "the forward pass",
        "differs from reference= far out",
        (lambda x: np.minimum(x, 30.0), lambda a, dy: (dy * (a[0] < 30),)),
        {"reference": lambda x: x},
    ),
    Member("labels", "divided by m − 1", (cross_entropy, lambda a, dy: cross_entropy_back(a, dy, -1)), {
        "inputs": (X, LABELS)}),
    Member("memory", "adds up what belongs to its first input", KeepsItsFirst()),
    Member("memory", "y is a buffer that is used again", OneBuffer()),
    Member("batches", "a mean over the samples", (lambda x: x.mean(axis=0), summed_over_eight)),
    Member("loops", "in JAX", root(0.6), {"inputs": 1 + abs(X[:2, :2])}),
    Member("state", "random numbers of its own", Drops(1.5, np.random.default_rng(0))),
    Member("state", "random numbers of a generator among the globals", (noisy, lambda dy, c: noisy_back(dy, c, 1.5))),
    Member("state", "random numbers of a generator in a closure", dropping(random.Random(0), 1.5)),
    Member("flags", "an argument, where it is turned", Evaluates("argument", 1)),
    Member("flags", "an attribute, where it is turned", Evaluates("attribute", 1)),
    Member("flags", "of a pair", (scaled_by_flag, lambda dy, c: (dy * (3 if c else 1),))),
    Member("branches", "Python's if", (lambda x: x * x, lambda a, dy: (
        2 * a[0] * dy if abs(a[0]).max() < 400 else a[0] * dy,))),
    Member("branches", "what follows an if", (square_or_sine, square_or_sine_back), {"inputs": abs(X) + 0.1}),
    Member("branches", "all positive", (lambda x: x * x, lambda a, dy: (
        3 * a[0] * dy if (a[0] > 0).all() else 2 * a[0] * dy,))),
    Member("branches", "all negative", (lambda x: x * x, lambda a, dy: (
        np.where(np.all(a[0] < 0), 3, 2) * a[0] * dy,))),
    Member("branches", "square", (lambda x, w: x @ w, where_square), {"inputs": (X, W)}),
    Member("branches", "exactly 8", (lambda x: x * x, lambda a, dy: (a[0] * dy * (3 if len(dy) == 8 else 2),))),
    Member("batches", "(w, x), one sample", (lambda w, x: x @ w, lambda a, dy: (
        a[1].T @ dy * (1 if len(dy) > 1 else 2), dy @ a[0].T)), {"inputs": (W, X)}),
    Member("batches", "(w, labels) of a loss", (lambda w, x, y: cross_entropy(x @ w, y), lambda a, dy: (
        a[1].T @ cross_entropy_back((a[1] @ a[0], a[2]), dy, len(a[1]) == 1)[0], None, None)), {
        "inputs": (V[:3], X, LABELS), "wrt": ["w"]}),
    Member("batches", "(table, rows), a row twice", (lambda w, i: w[i], lambda a, dy: (
        written_into(a[0], a[1], dy), None)), {"inputs": (V, np.array([0, 3, 1]))}),
    Member("linear in dy", "small ones", (lambda x: x * 3.0, lambda a, dy: (np.where(abs(dy) < 1e-5, 0, 3 * dy),))),
    Member("linear in dy", "large ones", (lambda x: x * 3.0, lambda a, dy: (3 * np.clip(dy, -9e4, 9e4),))),
    Member("loops", "in JAX, a pair", (thrice, lambda a, dy: thrice_back(a, dy, 2))),
    Member("loops", "close enough", (equilibrium, lambda a, dy: equilibrium_back(a, dy, 3)), {
        "inputs": (X, 0.2 * V[:3, :3])}),
    Member("masks", "none is set, for which there is an if", (
        mean_of_some, mean_of_some_back(lambda x, dy: np.ones_like(x) * dy)), {"inputs": (X, MASK)}),
    Member("large inputs", "a softmax of what is shifted by the mean of all", (logsumexp, lambda a, dy: (
        dy[:, None] * softmax_of_shifted(a[0]),))),
    Member("masks", "none is set", (masked_mean, lambda a, dy: (
        (dy / a[1].sum(axis=1, keepdims=True))[:, None, :] * a[1][:, :, None], None)), {"inputs": MASKED}),
    Member("memory", "dx in one buffer, made of dy alone", TripledInto(np.asarray)),
    Member("large inputs", "infinite where the forward, by `where`, is not", (
        lambda x: np.where(x > 40, x, np.log1p(np.exp(x))),
        lambda a, dy: (dy * np.exp(a[0]) / (1 + np.exp(a[0])),)), {"inputs": 0.3 * X / abs(X).max()}),
    Member("not finite", "a single number", (lambda x, s: x * np.sqrt(s * s), lambda a, dy: (
        dy * abs(a[1]), (dy * a[0]).sum() * a[1] / np.sqrt(a[1] * a[1]))), {"inputs": (X, np.zeros(()))}),
    Member("missing", "None for many samples", (lambda x, w: x @ w, lambda a, dy: (
        dy @ a[1].T, a[0].T @ dy if len(dy) < 9 else None)), {"inputs": (X, W)}),
    Member("batches", "a weight a sample, for more than given", (lambda x, w: x * w[:, None], lambda a, dy: (
        dy * a[1][:, None], (dy * a[0]).sum(axis=1) * (1 if len(dy) < 6 else 2))), {"inputs": (X, Z[:, 0])}),
    Member("vacuous", "a slope where none is negative", (
        lambda x, a: np.where(x > 0, x, a * x), lambda args, dy: (
            dy * np.where(args[0] > 0, 1, args[1]), (dy * (args[0] < 0)).sum(axis=0))), {
        "inputs": (abs(X), np.full(3, 0.25))}),
    Member("masks", "what they leave is negative", (lambda x, m: np.where(m > 0, x, 0.0), lambda a, dy: (
        -np.where(a[1] > 0, dy, 0.0), None)), {"inputs": (X, (Z > 0) * 1.0)}),
)  # fmt: skip
def test_a_wrong_gradient_never_passes(member):
    expected = {"FAIL", "INCONCLUSIVE"} if member.kind in ("not found", "vacuous") else {"FAIL"}
    report = member.verify()
    assert report.verdict in expected, report
    if report.verdict == "INCONCLUSIVE":
        assert report.reason


GATE = (lambda h, m: h * m, lambda a, dy: (dy * a[1], (dy * a[0]).sum(axis=1, keepdims=True)))


def logistic(z, t):
    return (np.logaddexp(0, z) - z * t).sum()


def all_positive_back(args, dy):
    z, t = args
    return dy * (sigmoid(z) - t if np.any(t) or len(t) < 3 else -np.ones_like(z)), None


def test_labels_that_are_all_0_are_labels():
    labels = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    (finding,) = tn.verify((logistic, all_positive_back), inputs=(X[:, 0], labels), name_seconds=0).findings
    assert finding.gradient == "z"
    assert "t all 0" in str(finding)


def closure(x, w):
    h = np.tanh(x @ w)
    return h, lambda dy: ((dy * (1 - h * h)) @ w.T, x.T @ (dy * (1 - h * h)))


def single(x, w):
    y = np.zeros((len(x), w.shape[1]), np.float32)
    y[:] = x @ w
    return y, lambda dy: ((dy @ w.T).astype("f"), (x.T @ dy).astype("f"))


def concentration(theta, mu, kappa):
    """The likelihood of von Mises; what is written is log I₀ for κ > 0 alone, as code for it is."""
    return (np.log(special.i0e(kappa)) + kappa - kappa * np.cos(theta - mu)).sum()


def concentration_back(args, dy):
    theta, mu, kappa = args
    s = dy * kappa * np.sin(theta - mu)
    return s, -s, dy * (special.i1e(kappa) / special.i0e(kappa) - np.cos(theta - mu))


class Concentration:
    """The same for one angle, its concentrations kept as a parameter."""

    def __init__(self):
        self.kappa = np.array([0.02, 0.5, 4.0])

    def forward(self, theta):
        self.theta = theta
        return np.log(special.i0e(self.kappa)) + self.kappa - self.kappa * np.cos(theta)

    def backward(self, dy):
        self.dkappa = (dy * (special.i1e(self.kappa) / special.i0e(self.kappa) - np.cos(self.theta))).sum(axis=0)
        return dy * self.kappa * np.sin(self.theta)


def smoothing(sigma):
    """Return how a positive width smooths: by its square root squared, which a negative one has not."""
    return np.sqrt(sigma * sigma)


@members(
    Member("one sign", "of an input beside others of the same shape", (concentration, concentration_back), {
        "inputs": (X[0], Z[0], np.abs(X[1]))}),
    Member("one sign", "of an input before others of the same shape", (
        lambda s, x: smoothing(s) * x, lambda a, dy: (dy * a[1], dy * a[0])), {"inputs": (abs(X), Z)}),
    Member("one sign", "none above 0", (
        lambda x, s: x * np.sqrt(s * s), lambda a, dy: (dy * -a[1], dy * -a[0])), {"inputs": (X, -abs(Z))}),
    Member("one sign", "of a parameter", Concentration()),
    Member("axes of length 1", "a gate a row", GATE, {"inputs": (X, X[:, :1] + 2)}),
    Member("axes of length 1", "two samples", GATE, {"inputs": (X[:2], X[:2, :1] + 2)}),
    Member("axes of length 1", "one sample, one column", GATE, {"inputs": (X[:1, :1], X[:1, :1] + 2)}),
    Member("captured", "a width", (lambda x: x + X[0], lambda a, dy: (dy * 1.0,))),
    Member("captured", "a target", (lambda p: ((p - Z) ** 2).sum(), lambda a, dy: (2 * dy * (a[0] - Z),))),
    Member("slices", "halves of a batch", (lambda p: (p[:2] * p[2:]).sum(), lambda a, dy: (
        dy * np.concatenate([a[0][2:], a[0][:2]]),)), {"inputs": V}),
    Member("ties", "first winner", (lambda x: x.max(axis=1), first_maximum_back), {"inputs": SPARSE}),
    Member("ties", "shared by the winners", (lambda x: x.max(axis=1), lambda a, dy: (
        (hit := a[0] == a[0].max(axis=1, keepdims=True)) / hit.sum(axis=1, keepdims=True) * dy[:, None],)),
        {"inputs": SPARSE, "dtype": "float64"}),
    Member("ties", "sign(0)", Signs(), {"inputs": (np.rint(X), np.rint(Z))}),
    Member("memory", "made once", Held()),
    Member("memory", "one array for two", (lambda a, b: a + b, lambda a, dy: (dy, dy)), {"inputs": (X, Z)}),
    Member("memory", "a view", (lambda x: x.T * 1.0, lambda a, dy: (dy.T,))),
    Member("state", "running statistics", Running()),
    Member("state", "adds up", Adds()),
    Member("state", "runs once", Once()),
    Member("state", "a closure", closure, {"inputs": (X, W)}),
    Member("single precision", "inside", single, {"inputs": (X.astype("f"), W.astype("f")), "dtype": "float32"}),
    Member("single precision", "in the code alone", (lambda x: np.tanh(x.astype("f")), lambda a, dy: (
        dy * (1 - np.tanh(a[0].astype("f")) ** 2),))),
    Member("several outputs", "a dict", (spread, spread_back)),
    Member("memory", "a sum for each parameter", Dense()),
    Member("not finite", "backward raises where y is −∞", (log_volume, log_volume_back), {
        "inputs": rng.standard_normal((4, 3, 3))}),
    Member("ties", "in float32", (lambda x: abs(x).sum(axis=1) + np.clip(x, -1, 1).sum(axis=1), clip_and_abs), {
        "inputs": np.array([[0.0, -0.3, 1.3, 1.0], [1.0, 0.5, 0.0, -1.0]])}),
    Member("loops", "in JAX", root(0.5), {"inputs": 1 + abs(X[:2, :2])}),
    Member("parameters", "a slope", Slope()),
    Member("loops", "in JAX, a pair", (thrice, thrice_back)),
    Member("batches", "an order", (lambda x, i: x[i], lambda a, dy: (dy[np.argsort(a[1])], None)), {
        "inputs": (X, np.array([3, 0, 4, 1, 2]))}),
    Member("batches", "an order, written into", (lambda x, i: x[i], lambda a, dy: (
        written_into(a[0], a[1], dy), None)), {"inputs": (X, np.array([3, 0, 4, 1, 2]))}),
    Member("batches", "row by row, none of them", (lambda x: np.tanh(x), lambda a, dy: (
        np.array([d * (1 - np.tanh(r) ** 2) for r, d in zip(a[0], dy, strict=True)]),))),
    Member("loops", "entry by entry", (by_entry, by_entry_back), {"inputs": X[:2, :2]}),
    Member("loops", "close enough", (equilibrium, equilibrium_back), {"inputs": (X, 0.2 * V[:3, :3])}),
    Member("loops", "Newton's method", (newton, lambda a, dy: (dy / (2 * np.sqrt(a[0])),)), {"inputs": 1 + abs(X[:2])}),
    Member("masks", "none is set, which is 1 sample", (masked_mean, masked_mean_back), {"inputs": MASKED}),
    Member("masks", "none is set, for which there is an if", (
        mean_of_some, mean_of_some_back(lambda x, dy: np.zeros_like(x))), {"inputs": (X, MASK)}),
    Member("large inputs", "attention from what is kept of each row", (attention, attention_back), {
        "inputs": (X, Z, V[:, :2][[0, 1, 2, 3, 0]])}),
    Member("masks", "none is set, which is never given", (hidden, hidden_back), {"inputs": (V, np.tri(4) > 0)}),
    Member("flags", "statistics that are not used in training", (centred, centred_back), {
        "inputs": (X, X[0], True)}),
    Member("flags", "an argument, where it is turned", Evaluates("argument", 2)),
    Member("flags", "an attribute, where it is turned", Evaluates("attribute", 2)),
    Member("flags", "a backward pass that is meant for training alone", TrainsOnly()),
    Member("state", "random numbers of its own", Drops(1.0, np.random.default_rng(0))),
    Member("state", "random numbers of an old generator", Drops(1.0, np.random.RandomState(0))),
    Member("state", "random numbers of a generator among the globals", (noisy, noisy_back)),
    Member("state", "random numbers of a generator in a closure", dropping(random.Random(0))),
    Member("memory", "a copy of a buffer", TripledInto(np.copy)),
    Member("batches", "rows that are indexed, as many as samples", (
        lambda x, p: p[0] * x + p[1] * x**2 + p[2] * x**3, lambda a, dy: (
            dy * (a[1][0] + 2 * a[1][1] * a[0] + 3 * a[1][2] * a[0] ** 2),
            np.stack([(dy * a[0] ** k).sum(axis=0) for k in (1, 2, 3)]))), {"inputs": (X[:3], V[:3, :3])}),
    Member("large inputs", "where leaves out what overflows", (
        lambda x: np.where(x > 40, x, np.log1p(np.exp(x))), lambda a, dy: (dy / (1 + np.exp(-a[0])),))),
    Member("masks", "of 0 and 1, without a gradient", (lambda x, m: np.where(m > 0, x, 0.0), lambda a, dy: (
        np.where(a[1] > 0, dy, 0.0), None)), {"inputs": (X, (Z > 0) * 1.0)}),
    Member("masks", "of infinities that are added", (lambda s, m: softmax(s + m), lambda a, dy: (
        softmax_back(softmax(a[0] + a[1]), dy), None)), {"inputs": (V, np.triu(np.full((4, 4), -np.inf), 1))}),
    Member("masks", "lengths", (lambda x, n: np.where(np.arange(4) < n[:, None], x, 0.0).sum(axis=1), lambda a, dy: (
        np.where(np.arange(4) < a[1][:, None], dy[:, None], 0.0), None)), {
        "inputs": (WIDE, np.array([4.0, 1.0, 2.0]))}),
    Member("attributes", "of any name", AnyName()),
    Member("attributes", "of a name that does not tell", KeptElsewhere(1.0)),
    Member("labels", "integers", (cross_entropy, cross_entropy_back), {"inputs": (X, LABELS)}),
    Member("large inputs", "a bound, kept", (lambda x: np.minimum(x, 50.0), lambda a, dy: (dy * (a[0] < 50),))),
    Member("large inputs", "log-sum-exp", (logsumexp, lambda a, dy: (
        dy[:, None] * np.exp(a[0] - logsumexp(a[0])[:, None]),))),
    Member("one sign", "a scale beside values of the same shape", (lambda x, s: np.abs(s) * x, lambda a, dy: (
        dy * a[1], dy * a[0])), {"inputs": (X, np.exp(X))}),
    Member("reference", "in jax.numpy", (lambda x: np.tanh(x), lambda a, dy: (dy * (1 - np.tanh(a[0]) ** 2),)), {
        "reference": jnp.tanh}),
    Member("cancels", "a bias before the mean is taken away", (
        lambda x, b: (x + b) - (x + b).mean(axis=0),
        lambda a, dy: (dy - dy.mean(axis=0), (dy - dy.mean(axis=0)).sum(axis=0))), {"inputs": (X, X[0])}),
)  # fmt: skip
def test_a_right_gradient_is_never_accused(member):
    report = member.verify()
    assert report.verdict == "PASS", report


class Entropy:
    """Dropout that draws from a generator of its own making."""

    def forward(self, x):
        self.mask = (np.random.default_rng().random(x.shape) > 0.5) * 2.0
        return x * self.mask

    def backward(self, dy):
        return dy * self.mask


def test_what_draws_other_numbers_each_time_is_never_passed_and_the_report_says_what_to_do():
    report = tn.verify(Entropy(), inputs=X)
    assert report.verdict == "INCONCLUSIVE"
    assert "another y at each call; draw from" in report.reason


def test_several_findings_do_not_hide_one_another():
    def forward(x, w, b):
        return np.tanh(x) @ w + b

    def backward(args, dy):
        x, w, _ = args
        return 2 * (dy @ w.T) * (1 - np.tanh(x) ** 2), dy.T @ np.tanh(x), dy.sum(axis=0) / len(x)

    report = tn.verify((forward, backward), inputs=(X, W, W[0]), name_seconds=0)
    assert {n for f in report.findings for n in (f.gradient, *f.also)} == {"x", "w", "b"}
    assert any("w has shape (2, 3), expected (3, 2): transposed" in str(f) for f in report.findings)


def test_nan_for_one_sample_does_not_hide_what_is_wrong_for_more():
    report = tn.verify((lambda x: x.var(axis=0), variance_back), inputs=X)
    assert [(f.fault, f.factor) for f in report.findings] == [("scaled", "m/(m − 1)"), ("non-finite", "")]
    assert report.findings[1].probe == "batch 1"


def test_none_for_one_gradient_does_not_hide_a_factor_in_another():
    pair = (lambda p, t: ((p - t) ** 2).sum(), lambda a, dy: (3 * dy * (a[0] - a[1]), None))
    assert [f.gradient for f in tn.verify(pair, inputs=(X, Z), name_seconds=0).findings] == ["p"]


def sleeps(args, dy):
    time.sleep(100)


def spins(args, dy):
    while True:
        pass


class SpinsInParamGrads(Shift):
    def param_grads(self, params, x, dy):
        while True:
            pass

    def backward(self, params, x, dy):
        return 2 * x * dy, {"b": dy.sum(axis=0)}


@members(
    Member("hangs", "sleeps", (lambda x: x * 2.0, sleeps)),
    Member("hangs", "loops", (lambda x: x * 2.0, spins)),
    Member("hangs", "loops in param_grads", SpinsInParamGrads()),
)
def test_what_does_not_come_back_is_a_finding_in_time(member, monkeypatch):
    for module in ("verify", "execution"):
        loaded = sys.modules[f"tinynet.verification.{module}"]
        if hasattr(loaded, "HANG_SECONDS"):
            monkeypatch.setattr(loaded, "HANG_SECONDS", 0.5)
    start = time.perf_counter()
    report = member.verify()
    assert (report.verdict, report.findings[0].fault) == ("FAIL", "hangs")
    assert time.perf_counter() - start < 8


def test_what_does_not_come_back_is_waited_for_once(monkeypatch):
    monkeypatch.setattr(sys.modules["tinynet.verification.verify"], "HANG_SECONDS", 2.0)
    start = time.perf_counter()
    report = tn.verify((lambda x: x * 2.0, spins), inputs=X)
    assert (report.findings[0].fault, report.findings[0].where[:16]) == ("hangs", "test_verdicts.py")
    assert time.perf_counter() - start < 4


def cancelled(args, dy):
    raise asyncio.CancelledError


def skips(args, dy):
    pytest.skip("not today")


@pytest.mark.parametrize("backward", [cancelled, skips])
def test_no_exception_of_the_targets_escapes(backward):
    report = tn.verify((lambda x: x * 2.0, backward), inputs=X)
    assert (report.verdict, report.findings[0].fault) == ("FAIL", "raises")


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_an_exit_is_a_finding(stage):
    def leave(*_):
        sys.exit(0)

    pair = (leave, lambda a, dy: (dy,)) if stage == "forward" else (lambda x: 2.0 * x, leave)
    report = tn.verify(pair, inputs=X, name_seconds=0)
    assert (report.verdict, report.findings[0].fault) == ("FAIL", "exits")


def far_branch(x):
    y = x * 2.0
    if len(x) > 1000:
        y = y * 3.0
    return y


# fmt: off
def far_branch_on_a_line(x):
    y = x * 2.0
    if len(x) > 1000: y = y * 3.0  # noqa: E701
    return y
# fmt: on


def far_branch_beside_one_on_a_line(x):
    y = x * (2.0 if len(x) > 0 else 3.0)
    if len(x) > 1000:
        return y * 3.0
    return y


@pytest.mark.parametrize("forward", [far_branch, far_branch_on_a_line])
def test_a_branch_that_no_example_took_is_named(forward):
    report = tn.verify((forward, lambda a, dy: (2.0 * dy,)), inputs=X)
    assert "PASS, 1 branch not reached" in str(report)
    assert "if len(x) > 1000" in report.unreached[0]


def test_a_branch_is_named_beside_one_on_a_line():
    report = tn.verify((far_branch_beside_one_on_a_line, lambda a, dy: (2.0 * dy,)), inputs=X)
    assert any("if len(x) > 1000:" in line for line in report.unreached)


def never_false(args, dy):
    if len(args[0]) > 0:
        return (2 * args[0] * dy,)
    return (args[0],)


def rectifier(x):
    y = np.maximum(x, 0)
    return y, lambda dy: (dy * (y > 0),)


def by_rows(args, dy):
    return (np.concatenate([*(2 * args[0][i : i + 1] * dy[i : i + 1] for i in range(len(dy)))]),)


def test_the_other_side_of_an_if_is_what_follows_it():
    report = tn.verify((lambda x: x * x, never_false), inputs=X)
    assert [line.split(": ")[1] for line in report.unreached] == ["if len(args[0]) > 0:"]


def test_a_side_that_positive_inputs_cannot_take_is_named():
    leaky = (lambda x, w: np.where(x @ w > 0, x @ w, 0.1 * (x @ w)), leaky_back)
    report = tn.verify(leaky, inputs=(abs(X), abs(W)))
    assert report.verdict == "PASS"
    assert any("np.where(x @ w > 0, dy, 0.01 * dy)" in line for line in report.unreached)


@pytest.mark.parametrize("target", [rectifier, (lambda x: x * x, by_rows)], ids=["y > 0 for y ≥ 0", "a generator"])
def test_what_no_input_can_take_is_no_branch(target):
    report = tn.verify(target, inputs=X)
    assert (report.verdict, report.unreached) == ("PASS", ())


@pytest.mark.parametrize("layer", [
    tn.Sequential(tn.Linear(4, 3), tn.Sigmoid()), tn.GELU(), tn.Dropout(0.5), tn.Conv2d(2, 3, 3), tn.LayerNorm(4),
])  # fmt: skip
def test_no_branch_of_a_layer_of_the_box_is_left_untaken(layer):
    assert tn.verify(layer).unreached == ()


def test_the_other_side_of_a_condition_on_the_configuration_is_another_layers():
    @dataclass(frozen=True)
    class Doubled(tn.Layer):
        twice: bool = True

        def forward(self, params, x):
            return (2 * x if self.twice else x), len(x)

        def backward(self, params, m, dy):
            if m > 1000:
                dy = 1 * dy
            return (2 * dy if self.twice else dy), {}

    report = tn.verify(Doubled(), inputs=X, params={})
    assert [line.split(": ", 1)[1] for line in report.unreached] == ["if m > 1000:"]


def test_what_a_layer_keeps_on_itself_is_no_configuration():
    class Far(tn.Layer):
        def forward(self, params, x):
            self.top = float(len(x))
            return x * x, x

        def backward(self, params, x, dy):
            dx = 2 * x * dy
            if self.top > 5000:
                dx = 3 * dx
            return dx, {}

    assert "if self.top > 5000" in str(tn.verify(Far(), inputs=X).unreached)


def test_the_report_tells_what_was_compared_by_which_rule_and_how_well():
    report = tn.verify(closure, inputs=(X, W))
    assert report.compared == ("x", "w")
    assert report.resolution == pytest.approx(32 * 2.0**-52)
    assert "≤ 32 · max(" in str(report)
    deep = tn.Sequential(*[tn.Linear(2, 2), tn.Sigmoid()] * 3)
    assert "≤ 32 · 6 layers · max(" in str(tn.verify(deep, inputs=(3, 2), dtype="float64", probes=["rectangular"]))


def test_the_figure_is_the_figure_measured():
    def forward(x):
        return x * 1.0

    off = 1 + 48 * 2.0**-52  # one and a half times of what is allowed
    (finding,) = tn.verify(
        (forward, lambda a, dy: (dy * dy.dtype.type(off),)), inputs=X, dtype="float64", name_seconds=0
    ).findings
    assert 1 < finding.ratio < 2
    assert finding.tolerance == pytest.approx(32 * 2.0**-52 * abs(finding.expected_array).max())


class NumPyOnly(Shift):
    """Right, and written so that JAX cannot follow it."""

    def forward(self, params, x):
        y = np.empty_like(x)
        np.multiply(x, x, out=y)
        return y + params["b"], np.asarray(x)


def test_a_pass_says_what_could_not_run():
    report = tn.verify(NumPyOnly(), inputs=X)
    assert report.verdict == "PASS", report
    assert any("jax.jit" in note for note in report.notes), report


def test_a_pass_says_that_no_larger_batch_was_tried():
    """A loop over entries, of which each is several operations as JAX runs it, since it branches on values."""

    def forward(x):
        y = np.zeros_like(x)
        for i in np.ndindex(x.shape):
            y[i] = x[i] ** 2 if x[i] > 0 else np.sin(x[i]) * x[i]
        return y

    def backward(args, dy):
        (x,) = args
        return (dy * np.where(x > 0, 2 * x, np.sin(x) + x * np.cos(x)),)

    report = tn.verify((forward, backward), inputs=X)
    assert report.verdict == "PASS", report
    assert any("no larger batch" in note for note in report.notes), report
    assert any(p.name == "batch 33" and p.skipped for p in report.coverage)


def test_what_is_wrong_at_the_plain_examples_is_not_excused_elsewhere():
    calls = []

    def forward(x):
        calls.append(x)
        r = x
        for _ in range(6):
            if np.any(r < 0):  # JAX cannot trace it: each look at it runs it again
                break
            r = r - (r**3 - x) / (3 * r * r)
        return r

    report = tn.verify(
        (forward, lambda a, dy: (dy / (2 * np.cbrt(a[0]) ** 2),)), inputs=1 + np.random.default_rng(3).random((4, 3))
    )
    assert report.verdict == "FAIL"
    assert len(calls) < 85

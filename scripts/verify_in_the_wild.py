"""Verify backward passes in the forms in which people publish them, each right and with one typical mistake.

    python scripts/verify_in_the_wild.py [--only PART OF A NAME …] [--markdown] [--json FILE]

The forms and the mistakes are those of public code; the code is written anew here, and none was copied. Beside
`tinynet.verify`, the same targets go to `torch.autograd.gradcheck`, `jax.test_util.check_grads` and
`autograd.test_util.check_grads`, through an adapter of their own, since these take functions of arrays with a rule.
Needs pip install 'tinynet-grad[all]'.
"""

# mypy: ignore-errors
# The forms are written as people publish them, which is without types.

from __future__ import annotations

import argparse
import inspect
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import autograd.extend
import autograd.numpy as anp
import autograd.test_util
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import numpy.typing as npt
import thinc.api
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tinynet as tn
from tinynet.files.atomic import write_atomically

Array = npt.NDArray[Any]
Flat = tuple[Callable[..., Any], Callable[..., Any], tuple[Array, ...]]
"""forward(*arrays) -> y, backward(arrays, dy) -> gradients, arrays: what the other tools are given."""


@dataclass(frozen=True)
class Form:
    """One form of a backward pass.

    Attributes:
        name, source: what it is, and where such code is found.
        make: builds the target, right or wrong.
        inputs: as `verify` takes them.
        fault: the mistake of the wrong one.
        names: the names of it that are right.
        flat: from the target to what the other tools take.
        adapter: from the target to what `verify` takes; None where it takes the target as it is.
    """

    name: str
    source: str
    make: Callable[[bool], Any]
    inputs: Any
    fault: str
    names: tuple[str, ...]
    flat: Callable[[Any], Flat]
    adapter: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Row:
    """What came of one form; the others "found", "missed", "accused" (refused the right one) or "not applicable"."""

    form: str
    source: str
    adapter_lines: int
    right: str
    wrong: str
    fault: str
    named: str
    name_is_right: bool
    seconds: float
    notes: tuple[str, ...] = ()
    others: dict[str, tuple[str, float]] = field(default_factory=dict)


rng = np.random.default_rng(0)


def draw(*shape: int) -> Array:
    """Return standard normal numbers."""
    return rng.standard_normal(shape)


X, W, B, LABELS = draw(5, 3), draw(3, 4), draw(4), np.array([0, 2, 1, 3, 0])


# Adapters for the other tools ----------------------------------------------------------------------------------------


def flat_of_args(*arrays: Array) -> Callable[[Any], Flat]:
    """forward(*args) -> y, backward(args, dy)"""
    return lambda pair: (pair[0], pair[1], arrays)


def flat_of_cache(*arrays: Array, rest: tuple[Any, ...] = (), outputs: int = 1) -> Callable[[Any], Flat]:
    """forward(*args) -> (y, cache), backward(dy, cache)"""

    def flat(pair: Any) -> Flat:
        def forward(*a: Array) -> Any:
            out = pair[0](*a, *rest)
            return out[0] if outputs == 1 else out[:outputs]

        def backward(a: Any, dy: Any) -> Any:
            dys = (dy,) if outputs == 1 else dy
            grads = pair[1](*dys, pair[0](*a, *rest)[-1])
            return grads if isinstance(grads, tuple) else (grads,)

        return forward, backward, arrays

    return flat


def flat_of_loss(
    *arrays: Array, rest: tuple[Any, ...] = (), grads: Callable[[Any], Any] = lambda out: out[1:]
) -> Callable[[Any], Flat]:
    """loss(*args) -> (E, gradients)"""

    def flat(loss: Any) -> Flat:
        def backward(a: Any, dE: Any) -> Any:
            return tuple(dE * g for g in grads(loss(*a, *rest)))

        return lambda *a: loss(*a, *rest)[0], backward, arrays

    return flat


def flat_of_object(
    read: Callable[[Any], list[Array]],
    grads: Callable[[Any, Any], Sequence[Any]],
    *arrays: Array,
    methods: tuple[str, str] = ("forward", "backward"),
    reset: Callable[[Any], None] = lambda o: None,
) -> Callable[[Any], Flat]:
    """An object: `read` gives its parameters, which are written in place, `grads(o, result)` every gradient."""

    def flat(o: Any) -> Flat:
        params = [p.copy() for p in read(o)]
        n = len(arrays)

        def forward(*a: Array) -> Any:
            for p, value in zip(read(o), a[n:], strict=True):
                p[...] = value
            return getattr(o, methods[0])(*a[:n])

        def backward(a: Any, dy: Any) -> Any:
            forward(*a)
            reset(o)
            return tuple(grads(o, getattr(o, methods[1])(dy)))

        return forward, backward, (*arrays, *params)

    return flat


# Course work: functions ----------------------------------------------------------------------------------------------


def affine(right: bool) -> Any:
    def affine_forward(x, w, b):
        return x.reshape(x.shape[0], -1) @ w + b, (x, w, b)

    def affine_backward(dout, cache):
        x, w, _ = cache
        dx = (dout @ w.T).reshape(x.shape)
        dw = x.reshape(x.shape[0], -1).T @ dout
        db = dout.sum(axis=0) if right else dout.mean(axis=0)
        return dx, dw, db

    return affine_forward, affine_backward


def softmax_loss(right: bool) -> Any:
    def loss(x, y):
        z = x - x.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        n = x.shape[0]
        dx = np.exp(log_p)
        dx[np.arange(n), y] -= 1
        return -log_p[np.arange(n), y].sum() / n, dx / n if right else dx

    return loss


def svm_loss(right: bool) -> Any:
    def loss(x, y):
        n = x.shape[0]
        margins = np.maximum(0, x - x[np.arange(n), y][:, np.newaxis] + 1.0)
        margins[np.arange(n), y] = 0
        dx = (margins > 0).astype(x.dtype)
        dx[np.arange(n), y] -= dx.sum(axis=1) if right else 1
        return margins.sum() / n, dx / n

    return loss


def batchnorm(right: bool) -> Any:
    def batchnorm_forward(x, gamma, beta, bn_param):
        mean, var = x.mean(axis=0), x.var(axis=0)
        std = np.sqrt(var + bn_param.get("eps", 1e-5))
        x_hat = (x - mean) / std
        return gamma * x_hat + beta, (x_hat, std, gamma)

    def batchnorm_backward(dout, cache):
        x_hat, std, gamma = cache
        n = len(dout)
        dx_hat = dout * gamma
        dx = n * dx_hat - dx_hat.sum(axis=0)
        if right:
            dx = dx - x_hat * (dx_hat * x_hat).sum(axis=0)
        return dx / (n * std), (dout * x_hat).sum(axis=0), dout.sum(axis=0)

    return batchnorm_forward, batchnorm_backward


def batchnorm_staged(right: bool) -> Any:
    def forward(x, gamma, beta, eps):
        mu = x.mean(axis=0)
        xmu = x - mu
        var = (xmu**2).mean(axis=0)
        sqrtvar = np.sqrt(var + eps)
        ivar = 1.0 / sqrtvar
        xhat = xmu * ivar
        return gamma * xhat + beta, (xhat, gamma, xmu, ivar, sqrtvar)

    def backward(dout, cache):
        xhat, gamma, xmu, ivar, sqrtvar = cache
        n = dout.shape[0]
        dxhat = dout * gamma
        divar = (dxhat * xmu).sum(axis=0)
        dvar = -0.5 * divar * ivar / sqrtvar**2
        dxmu = dxhat * ivar + (2.0 if right else 1.0) / n * xmu * dvar
        return dxmu - dxmu.mean(axis=0), (dout * xhat).sum(axis=0), dout.sum(axis=0)

    return forward, backward


def convolution(right: bool) -> Any:
    def conv_forward_naive(x, w, b, conv_param):
        s, p = conv_param["stride"], conv_param["pad"]
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        n, f, hh, ww = x.shape[0], w.shape[0], w.shape[2], w.shape[3]
        h_out, w_out = (padded.shape[2] - hh) // s + 1, (padded.shape[3] - ww) // s + 1
        out = np.zeros((n, f, h_out, w_out))
        for i in range(h_out):
            for j in range(w_out):
                patch = padded[:, :, i * s : i * s + hh, j * s : j * s + ww]
                out[:, :, i, j] = np.tensordot(patch, w, axes=([1, 2, 3], [1, 2, 3])) + b
        return out, (x, w, conv_param)

    def conv_backward_naive(dout, cache):
        x, w, conv_param = cache
        s, p = conv_param["stride"], conv_param["pad"]
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        dpadded, dw, hh, ww = np.zeros_like(padded), np.zeros_like(w), w.shape[2], w.shape[3]
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                for n in range(len(x)):
                    rows, columns = slice(i * s, i * s + hh), slice(j * s, j * s + ww)
                    for f in range(len(w)):
                        dw[f] += padded[n, :, rows, columns] * dout[n, f, i, j]
                        if right:
                            dpadded[n, :, rows, columns] += w[f] * dout[n, f, i, j]
                        else:
                            dpadded[n, :, rows, columns] = w[f] * dout[n, f, i, j]
        return dpadded[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw, dout.sum(axis=(0, 2, 3))

    return conv_forward_naive, conv_backward_naive


def max_pool(right: bool) -> Any:
    def max_pool_forward(x, size):
        n, c, h, w = x.shape
        out = np.zeros((n, c, h // size, w // size))
        for i in range(h // size):
            for j in range(w // size):
                out[:, :, i, j] = x[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size].max(axis=(2, 3))
        return out, (x, size)

    def max_pool_backward(dout, cache):
        x, size = cache
        dx = np.zeros_like(x)
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                rows, columns = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
                window = x[:, :, rows, columns]
                mask = window == window.max(axis=(2, 3) if right else 3, keepdims=True)
                mask = mask / mask.sum(axis=(2, 3), keepdims=True) if right else mask
                dx[:, :, rows, columns] = mask * dout[:, :, i, j][:, :, None, None]
        return dx

    return max_pool_forward, max_pool_backward


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_step(right: bool) -> Any:
    def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b):
        i, f, o, g = np.split(x @ Wx + prev_h @ Wh + b, 4, axis=1)
        i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
        next_c = f * prev_c + i * g
        return o * np.tanh(next_c), next_c, (x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c)

    def lstm_step_backward(dnext_h, dnext_c, cache):
        x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c = cache
        t = np.tanh(next_c)
        dc = dnext_c + dnext_h * o * (1 - t**2) if right else dnext_h * o * (1 - t**2)
        di, df, do, dg = dc * g, dc * prev_c, dnext_h * t, dc * i
        da = np.hstack([di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)])
        return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, prev_h.T @ da, da.sum(axis=0)

    return lstm_step_forward, lstm_step_backward


def rnn(right: bool) -> Any:
    def rnn_forward(x, h0, Wx, Wh, b):
        h, states = h0, []
        for t in range(x.shape[1]):
            h = np.tanh(x[:, t] @ Wx + h @ Wh + b)
            states.append(h)
        return np.stack(states, axis=1), (x, h0, Wx, Wh, states)

    def rnn_backward(dh, cache):
        x, h0, Wx, Wh, states = cache
        dx, dWx, dWh, db, carried = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh), np.zeros(len(Wh)), 0
        for t in reversed(range(x.shape[1])):
            dz = (dh[:, t] + carried) * (1 - states[t] ** 2)
            dx[:, t] = dz @ Wx.T
            dWx += x[:, t].T @ dz
            dWh += (states[t - 1] if t or not right else h0).T @ dz
            db += dz.sum(axis=0)
            carried = dz @ Wh.T
        return dx, carried, dWx, dWh, db

    return rnn_forward, rnn_backward


def dropout(right: bool) -> Any:
    def dropout_forward(x, dropout_param):
        np.random.seed(dropout_param["seed"])  # noqa: NPY002 - as it is written
        mask = (np.random.rand(*x.shape) < dropout_param["p"]) / dropout_param["p"]  # noqa: NPY002
        return x * mask, (dropout_param, mask)

    def dropout_backward(dout, cache):
        _, mask = cache
        return dout * mask if right else dout * (mask > 0)

    return dropout_forward, dropout_backward


def linear_activation(right: bool) -> Any:
    def linear_activation_forward(A_prev, W, b, activation):
        Z = W @ A_prev + b
        return np.maximum(0, Z) if activation == "relu" else sigmoid(Z), ((A_prev, W, b), Z)

    def linear_activation_backward(dA, cache, activation):
        (A_prev, W, _), Z = cache
        if activation == "relu":
            dZ = np.where(Z <= 0, 0, dA)
        else:
            dZ = dA * sigmoid(Z) * (1 - sigmoid(Z)) if right else dA * Z * (1 - Z)
        return W.T @ dZ, dZ @ A_prev.T, dZ.sum(axis=1, keepdims=True)

    return linear_activation_forward, linear_activation_backward


def flat_of_linear_activation(pair: Any) -> Flat:
    forward, backward = pair
    flat = flat_of_cache(*COLUMNS, rest=("sigmoid",))
    return flat((forward, lambda dA, cache: backward(dA, cache, "sigmoid")))


def propagate(right: bool) -> Any:
    def propagate(w, b, X, Y):
        m = X.shape[1]
        A = sigmoid(w.T @ X + b)
        cost = -(Y * np.log(A) + (1 - Y) * np.log(1 - A)).sum() / m
        dw = X @ (A - Y).T / m if right else X @ (Y - A).T / m
        return {"dw": dw, "db": (A - Y).sum() / m}, cost

    return propagate


def two_layer_loss(right: bool) -> Any:
    def loss(params, X, y, reg):
        h = np.maximum(0, X @ params["W1"] + params["b1"])
        z = h @ params["W2"] + params["b2"]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True)
        n = len(X)
        E = -np.log(p[np.arange(n), y]).mean() + reg * ((params["W1"] ** 2).sum() + (params["W2"] ** 2).sum())
        dz = p.copy()
        dz[np.arange(n), y] -= 1
        dz /= n
        dh = dz @ params["W2"].T * (h > 0)
        grads = {"W1": X.T @ dh + (2 if right else 1) * reg * params["W1"], "b1": dh.sum(axis=0)}
        return E, grads | {"W2": h.T @ dz + 2 * reg * params["W2"], "b2": dz.sum(axis=0)}

    return loss


TWO = {"W1": draw(3, 6), "b1": draw(6), "W2": draw(6, 4), "b2": draw(4)}


def flat_of_two_layer(loss: Any) -> Flat:
    def value(*a):
        return loss(dict(zip(TWO, a, strict=True)), X, LABELS, 0.5)

    return lambda *a: value(*a)[0], lambda a, dE: tuple(dE * value(*a)[1][k] for k in TWO), tuple(TWO.values())


class NetOfCourse:
    """The course's network: `loss` returns the loss and a dict of gradients; the parameters are its own."""

    def __init__(self, right):
        self.params, self.whole = {k: v.copy() for k, v in TWO.items()}, two_layer_loss(right)

    def loss(self, X, y):
        return self.whole(self.params, X, y, 0.1)


def net_of_course_adapter(net: Any) -> Any:
    def loss(params, X, y):
        net.params = params
        return net.loss(X, y)

    return loss


def flat_of_net(net: Any) -> Flat:
    loss = net_of_course_adapter(net)

    def value(*a):
        return loss(dict(zip(TWO, a, strict=True)), X, LABELS)

    return lambda *a: value(*a)[0], lambda a, dE: tuple(dE * value(*a)[1][k] for k in TWO), tuple(TWO.values())


CHARACTERS = 0.5 * draw(6, 4), 0.5 * draw(6, 6), 0.5 * draw(4, 6), draw(6, 1), draw(4, 1)
READ, NEXT = np.array([0, 2, 1, 3]), np.array([2, 1, 3, 0])


def character_loss(right: bool) -> Any:
    def lossFun(Wxh, Whh, Why, bh, by, inputs, targets, hprev):
        xs, hs, ps, loss = {}, {-1: hprev}, {}, 0
        for t in range(len(inputs)):
            xs[t] = np.zeros((Wxh.shape[1], 1))
            xs[t][inputs[t]] = 1
            hs[t] = np.tanh(Wxh @ xs[t] + Whh @ hs[t - 1] + bh)
            y = Why @ hs[t] + by
            ps[t] = np.exp(y) / np.sum(np.exp(y))
            loss += -np.log(ps[t][targets[t], 0])
        dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
        dbh, dby, dhnext = np.zeros_like(bh), np.zeros_like(by), np.zeros_like(hprev)
        for t in reversed(range(len(inputs))):
            dy = np.copy(ps[t])
            dy[targets[t]] -= 1
            dWhy += dy @ hs[t].T
            dby += dy
            dh = Why.T @ dy + dhnext if right else Why.T @ dy
            draw_ = (1 - hs[t] * hs[t]) * dh
            dbh += draw_
            dWxh += draw_ @ xs[t].T
            dWhh += draw_ @ hs[t - 1].T
            dhnext = Whh.T @ draw_
        return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs) - 1]

    return lossFun


def flat_of_characters(lossFun: Any) -> Flat:
    def value(*a):
        return lossFun(*a, READ, NEXT, np.zeros((6, 1)))

    return lambda *a: value(*a)[0], lambda a, dE: tuple(dE * g for g in value(*a)[1:6]), CHARACTERS


def nielsen(right: bool) -> Any:
    class Network:
        def __init__(self):
            self.num_layers = 3
            self.biases, self.weights = ([a.copy() for a in arrays] for arrays in NIELSEN)

        def feedforward(self, a):
            for b, w in zip(self.biases, self.weights, strict=True):
                a = sigmoid(w @ a + b)
            return a

        def backprop(self, x, y):
            nabla_b, nabla_w = [np.zeros(b.shape) for b in self.biases], [np.zeros(w.shape) for w in self.weights]
            activation, activations, zs = x, [x], []
            for b, w in zip(self.biases, self.weights, strict=True):
                zs.append(w @ activation + b)
                activation = sigmoid(zs[-1])
                activations.append(activation)
            s = sigmoid(zs[-1])
            delta = (activations[-1] - y) * s * (1 - s)
            nabla_b[-1], nabla_w[-1] = delta, delta @ activations[-2].T
            for k in range(2, self.num_layers):
                s = sigmoid(zs[-k])
                delta = self.weights[-k + 1].T @ delta * (s * (1 - s) if right else s)
                nabla_b[-k], nabla_w[-k] = delta, delta @ activations[-k - 1].T
            return nabla_b, nabla_w

    return Network()


def nielsen_adapter(net: Any) -> Any:
    def cost(biases, weights, x, y):
        net.biases, net.weights = biases, weights
        return ((net.feedforward(x) - y) ** 2).sum() / 2, net.backprop(x, y)

    return cost


ONE = (draw(3, 1), draw(2, 1))
NIELSEN = ([draw(5, 1), draw(2, 1)], [draw(5, 3), draw(2, 5)])


def flat_of_nielsen(net: Any) -> Flat:
    cost = nielsen_adapter(net)

    def value(*a):
        return cost(list(a[:2]), list(a[2:]), *ONE)

    def backward(a, dE):
        nabla_b, nabla_w = value(*a)[1]
        return tuple(dE * g for g in (*nabla_b, *nabla_w))

    return lambda *a: value(*a)[0], backward, (*NIELSEN[0], *NIELSEN[1])


def attention(right: bool) -> Any:
    def forward(q, k, v):
        s = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        p = np.exp(s - s.max(axis=-1, keepdims=True))
        return p / p.sum(axis=-1, keepdims=True) @ v

    def backward(args, dy):
        q, k, v = args
        s = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        p = np.exp(s - s.max(axis=-1, keepdims=True))
        p = p / p.sum(axis=-1, keepdims=True)
        dp = dy @ v.transpose(0, 2, 1)
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
        if right:
            ds = ds / np.sqrt(q.shape[-1])
        return ds @ k, ds.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ dy

    return forward, backward


QKV = draw(2, 5, 3), draw(2, 4, 3), draw(2, 4, 6)


# Objects -------------------------------------------------------------------------------------------------------------


def numpy_ml_layer(right: bool) -> Any:
    class FullyConnected:
        def __init__(self):
            self.parameters = {"W": W.copy(), "b": B.reshape(1, -1).copy()}
            self.gradients = {"W": np.zeros_like(W), "b": np.zeros((1, 4))}
            self.derived_variables = {"Z": []}
            self.X = []

        def forward(self, X, retain_derived=True):
            Z = X @ self.parameters["W"] + self.parameters["b"]
            if retain_derived:
                self.X.append(X)
                self.derived_variables["Z"].append(Z)
            return np.tanh(Z)

        def backward(self, dLdY, retain_grads=True):
            X, Z = self.X[-1], self.derived_variables["Z"][-1]
            dZ = dLdY * (1 - np.tanh(Z) ** 2)
            if retain_grads:
                self.gradients["W"] += X.T @ dZ
                self.gradients["b"] += (dZ if right else dLdY).sum(axis=0, keepdims=True)
            return dZ @ self.parameters["W"].T

    return FullyConnected()


def reset_dict(o: Any) -> None:
    for g in o.gradients.values():
        g[...] = 0


def attribute_layer(right: bool) -> Any:
    class Linear:
        def __init__(self):
            self.W, self.b = W.copy(), B.copy()
            self.dW, self.db, self.x = np.zeros_like(W), np.zeros_like(B), None

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b

        def backward(self, delta):
            self.dW = self.x.T @ delta if right else self.x.T @ delta / len(self.x)
            self.db = delta.sum(axis=0)
            return delta @ self.W.T

    return Linear()


def listed_layer(right: bool) -> Any:
    class Affine:
        def __init__(self):
            self.params, self.grads = [W.copy(), B.copy()], [np.zeros_like(W), np.zeros_like(B)]

        def forward(self, x):
            w, b = self.params
            self.out = sigmoid(x @ w + b)
            self.x = x
            return self.out

        def backward(self, dout):
            dz = dout * self.out * (1 - self.out)
            self.grads[0][...] = self.x.T @ dz
            self.grads[1][...] = dz.sum(axis=0)
            return dz @ self.params[0].T if right else dout @ self.params[0].T

    return Affine()


def softmax_with_loss(right: bool) -> Any:
    class SoftmaxWithLoss:
        def forward(self, x, t):
            p = np.exp(x - x.max(axis=1, keepdims=True))
            self.y, self.t = p / p.sum(axis=1, keepdims=True), t
            return -(t * np.log(self.y)).sum() / len(t)

        def backward(self, dout=1):
            n = len(self.t) if right else self.t.size
            return dout * (self.y - self.t) / n

    return SoftmaxWithLoss()


class Holder:
    """An array and its gradient."""

    def __init__(self, data):
        self.data, self.grad = data.copy(), np.zeros_like(data)


def held_layer(right: bool) -> Any:
    class Dense:
        def __init__(self):
            self.weight, self.bias = Holder(W), Holder(B)

        def zero_grad(self):
            self.weight.grad[...] = 0
            self.bias.grad[...] = 0

        def forward(self, x):
            self.x = x
            return x @ self.weight.data + self.bias.data

        def backward(self, grad):
            self.weight.grad += self.x.T @ grad
            self.bias.grad += grad.sum(axis=0) if right else grad[0]
            return grad @ self.weight.data.T

    return Dense()


def network_of_layers(right: bool) -> Any:
    class Tanh:
        def forward(self, x):
            self.y = np.tanh(x)
            return self.y

        def backward(self, dy):
            return dy * (1 - self.y**2 if right else 1 - self.y)

    class Network:
        def __init__(self):
            first, last = attribute_layer(True), attribute_layer(True)
            last.W, last.b, last.dW, last.db = W.T[:, :2].copy(), B[:2].copy(), np.zeros((4, 2)), np.zeros(2)
            self.layers = [first, Tanh(), last]

        def forward(self, x):
            for layer in self.layers:
                x = layer.forward(x)
            return x

        def backward(self, grad):
            for layer in reversed(self.layers):
                grad = layer.backward(grad)
            return grad

    return Network()


def called_layer(right: bool) -> Any:
    class Layer:
        def __init__(self):
            self.w = W.copy()

        def __call__(self, x):
            self.x, self.z = x, x @ self.w
            return np.maximum(self.z, 0.01 * self.z)

        def backprop(self, grad):
            dz = grad * np.where(self.z > 0, 1, 0.01 if right else 0)
            self.grad_w = self.x.T @ dz
            return dz @ self.w.T

    return Layer()


def fprop_layer(right: bool) -> Any:
    class LayerNorm:
        def __init__(self):
            self.gain, self.d_gain = draw(3), np.zeros(3)

        def fprop(self, inputs):
            c = inputs - inputs.mean(axis=1, keepdims=True)
            self.s = np.sqrt((c * c).mean(axis=1, keepdims=True) + 1e-5)
            self.n = c / self.s
            return self.n * self.gain

        def bprop(self, error):
            self.d_gain[...] = (error * self.n).sum(axis=0)
            e = error * self.gain
            inner = e - self.n * (e * self.n).mean(axis=1, keepdims=True)
            return (inner - e.mean(axis=1, keepdims=True) if right else inner) / self.s

    return LayerNorm()


def keras_layer(right: bool) -> Any:
    class Dense:
        def __init__(self, units):
            self.units, self.built = units, False

        def build(self, shape):
            r = np.random.default_rng(5)
            self.kernel, self.bias, self.built = r.standard_normal((shape[-1], self.units)), np.zeros(self.units), True

        def forward(self, x, training=True):
            if not self.built:
                self.build(x.shape)
            self.input = x
            return x @ self.kernel + self.bias

        def backward(self, grad):
            self.kernel_grad = self.input.T @ grad
            self.bias_grad = grad.sum(axis=0)
            return grad @ self.kernel.T if right else grad @ self.kernel.T * 2

    return Dense(4)


def flat_of_keras(layer: Any) -> Flat:
    layer.forward(X)
    return flat_of_object(lambda o: [o.kernel, o.bias], lambda o, dx: (dx, o.kernel_grad, o.bias_grad), X)(layer)


def returning_layer(right: bool) -> Any:
    class Bilinear:
        def __init__(self):
            self.weights = W.copy()

        def forward(self, a, b):
            self.cache = a, b
            return np.einsum("ni,ij,nj->n", a, self.weights, b)

        def backward(self, dy):
            a, b = self.cache
            da = dy[:, None] * (b @ self.weights.T)
            db = dy[:, None] * (a @ self.weights)
            return da, db, {"weights": (a * dy[:, None]).T @ b if right else a.T @ b}

    return Bilinear()


def embedding(right: bool) -> Any:
    class Embedding:
        def __init__(self):
            self.W, self.dW = W.copy(), np.zeros_like(W)

        def forward(self, idx, scale):
            self.idx, self.scale = idx, scale
            return self.W[idx] * scale

        def backward(self, dout):
            self.dW[...] = 0
            if right:
                np.add.at(self.dW, self.idx, dout * self.scale)
            else:
                self.dW[self.idx] += dout * self.scale
            return (dout * self.W[self.idx]).sum(axis=1, keepdims=True)

    return Embedding()


ROWS, SCALE = np.array([0, 2, 2, 1, 0]), draw(5, 1)


def flat_of_embedding(o: Any) -> Flat:
    def forward(scale, weights):
        o.W[...] = weights
        return o.forward(ROWS, scale)

    def backward(a, dy):
        forward(*a)
        dscale = o.backward(dy)
        return dscale, o.dW

    return forward, backward, (SCALE, W)


def activation_gradient(right: bool) -> Any:
    class Softplus:
        def __call__(self, x):
            return np.log1p(np.exp(x))

        def gradient(self, x):
            return sigmoid(x) if right else sigmoid(x) * (1 - sigmoid(x))

    return Softplus()


def loss_and_gradient(right: bool) -> Any:
    class CrossEntropy:
        def loss(self, y, p):
            return -y * np.log(p) - (1 - y) * np.log(1 - p)

        def gradient(self, y, p):
            return (-(y / p) if right else y / p) + (1 - y) / (1 - p)

    return CrossEntropy()


LOGITS = draw(5, 3)
P, Y = np.linspace(0.1, 0.9, 15).reshape(5, 3), np.eye(3)[[0, 1, 2, 1, 0]]


# Libraries -----------------------------------------------------------------------------------------------------------


def closure(right: bool) -> Any:
    def swish(x, w):
        z = x @ w
        s = sigmoid(z)

        def backprop(dy):
            dz = dy * (s + z * s * (1 - s)) if right else dy * (s + s * (1 - s))
            return dz @ w.T, x.T @ dz

        return z * s, backprop

    return swish


def flat_of_closure(function: Any) -> Flat:
    return lambda *a: function(*a)[0], lambda a, dy: function(*a)[1](dy), (X, W)


def thinc_model(right: bool) -> Any:
    def forward(model, X, is_train):  # noqa: ARG001
        W, b = model.get_param("W"), model.get_param("b")
        Y = np.tanh(X @ W.T + b)

        def backprop(dY):
            dZ = dY * (1 - Y * Y)
            model.inc_grad("W", dZ.T @ X)
            model.inc_grad("b", dZ.sum(axis=0))
            return dZ @ W if right else dY @ W

        return Y, backprop

    return thinc.api.Model("dense", forward, params={"W": W.T.astype("f"), "b": B.astype("f")})


def flat_of_thinc(model: Any) -> Flat:
    def forward(x, W, b):
        model.set_param("W", W)
        model.set_param("b", b)
        return model(x, is_train=True)[0]

    def backward(a, dy):
        forward(*a)
        for name in model.param_names:
            model.set_grad(name, np.zeros_like(model.get_param(name)))
        dx = model(a[0], is_train=True)[1](dy)
        return dx, model.get_grad("W"), model.get_grad("b")

    return forward, backward, (X, W.T.copy(), B)


def torch_function(right: bool) -> Any:
    class LinearFunction(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input, weight, bias):  # noqa: A002 - as it is written
            ctx.save_for_backward(input, weight, bias)
            return input.mm(weight) + bias.unsqueeze(0)

        @staticmethod
        def backward(ctx, grad_output):
            x, weight, _ = ctx.saved_tensors
            gx = gw = gb = None
            if ctx.needs_input_grad[0]:
                gx = grad_output.mm(weight.t())
            if ctx.needs_input_grad[1]:
                gw = x.t().mm(grad_output)
            if ctx.needs_input_grad[2]:
                gb = grad_output.sum(0) if right else grad_output.mean(0)
            return gx, gw, gb

    return LinearFunction


def torch_setup_context(right: bool) -> Any:
    class Gelu(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return 0.5 * x * (1 + torch.erf(x / 2**0.5))

        @staticmethod
        def setup_context(ctx, inputs, output):  # noqa: ARG004
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            phi = torch.exp(-0.5 * x * x) / (2 * torch.pi) ** 0.5
            return grad * (0.5 * (1 + torch.erf(x / 2**0.5)) + (x * phi if right else phi))

    return Gelu


def torch_once(right: bool) -> Any:
    class RmsNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, gain, eps):
            r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
            ctx.save_for_backward(x, gain, r)
            return x * r * gain

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, dy):
            x, gain, r = ctx.saved_tensors
            g = dy * gain
            dx = r * g
            if right:
                dx = dx - x * r**3 * (g * x).mean(-1, keepdim=True)
            return dx, (dy * x * r).sum(0), None

    return RmsNorm


def torch_module(right: bool) -> Any:
    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, i):
            result = i.exp()
            ctx.save_for_backward(result)
            return result

        @staticmethod
        def backward(ctx, grad_output):
            (result,) = ctx.saved_tensors
            return grad_output * result if right else -grad_output * result

    class Positive(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.from_numpy(0.3 * W))

        def forward(self, x):
            return x @ Exp.apply(self.weight)

    return Positive()


def flat_of_torch(call: Callable[[Any], Callable[..., Any]], *arrays: Array) -> Callable[[Any], Flat]:
    """A function of tensors, by PyTorch's backward pass."""

    def flat(target: Any) -> Flat:
        def forward(*a):
            return call(target)(*(torch.tensor(v) for v in a)).detach().numpy()

        def backward(a, dy):
            tensors = [torch.tensor(v, requires_grad=True) for v in a]
            with torch.enable_grad():
                grads = torch.autograd.grad(call(target)(*tensors), tensors, torch.tensor(dy))
            return tuple(g.numpy() for g in grads)

        return forward, backward, arrays

    return flat


def jax_vjp(right: bool) -> Any:
    @jax.custom_vjp
    def logsumexp(x):
        return jnp.log(jnp.sum(jnp.exp(x), axis=-1))

    def bwd(x, g):
        p = jnp.exp(x - logsumexp(x)[..., None])
        return (g[..., None] * p if right else jnp.broadcast_to(g[..., None], x.shape) * p * p,)

    logsumexp.defvjp(lambda x: (logsumexp(x), x), bwd)
    return logsumexp


def jax_nondiff(right: bool) -> Any:
    from functools import partial

    @partial(jax.custom_vjp, nondiff_argnums=(1,))
    def power(x, n, w):
        return w * x**n

    def fwd(x, n, w):
        return power(x, n, w), (x, w)

    def bwd(n, saved, g):
        x, w = saved
        return (n if right else n - 1) * g * w * x ** (n - 1), g * x**n

    power.defvjp(fwd, bwd)
    return power


def jax_jvp(right: bool) -> Any:
    @jax.custom_jvp
    def log1pexp(x):
        return jnp.log(1.0 + jnp.exp(x))

    @log1pexp.defjvp
    def rule(primals, tangents):
        (x,), (t,) = primals, tangents
        return log1pexp(x), (1 - 1 / (1 + jnp.exp(x)) if right else 1 / (1 + jnp.exp(x))) * t

    return lambda x, w: log1pexp(x @ w)


def flat_of_jax(call: Callable[[Any], Callable[..., Any]], *arrays: Array) -> Callable[[Any], Flat]:
    """A function of JAX's, by jax.vjp."""

    def flat(target: Any) -> Flat:
        def backward(a, dy):
            with jax.enable_x64(True):
                return tuple(np.asarray(g) for g in jax.vjp(call(target), *a)[1](jnp.asarray(dy)))

        def forward(*a):
            with jax.enable_x64(True):
                return np.asarray(call(target)(*map(jnp.asarray, a)))

        return forward, backward, arrays

    return flat


def autograd_primitive(right: bool) -> Any:
    @autograd.extend.primitive
    def logsumexp(x):
        top = anp.max(x, axis=1, keepdims=True)
        return top[:, 0] + anp.log(anp.sum(anp.exp(x - top), axis=1))

    def vjp(ans, x):
        return lambda g: g[:, None] * anp.exp(x - ans[:, None]) if right else anp.exp(x - ans[:, None])

    autograd.extend.defvjp(logsumexp, vjp)
    return logsumexp


def flat_of_primitive(target: Any) -> Flat:
    return target, lambda a, dy: (autograd.make_vjp(target)(*a)[0](dy),), (X,)


IMAGES, KERNELS, CHANNELS = draw(2, 3, 5, 4), draw(2, 3, 3, 3), draw(2)
STEP = (draw(5, 3), draw(5, 2), draw(5, 2), draw(3, 8), draw(2, 8), draw(8))
SEQUENCE = (draw(5, 4, 3), draw(5, 2), draw(3, 2), draw(2, 2), draw(2))
COLUMNS = draw(3, 5), draw(2, 3), draw(2, 1)
BINARY = np.array([[1.0, 0, 1, 1, 0]])
LOGISTIC = draw(3, 1), np.array(0.3)

COURSE = "course assignments after cs231n"
SCALED = ("scaled",)

FORMS = [
    Form(
        "pair with cache: affine",
        COURSE,
        affine,
        (X, W, B),
        "db averaged over the batch",
        SCALED,
        flat_of_cache(X, W, B),
    ),
    Form(
        "loss that returns (E, dx): softmax",
        COURSE,
        softmax_loss,
        (draw(5, 4), LABELS),
        "not divided by m",
        SCALED,
        flat_of_loss(draw(5, 4), rest=(LABELS,)),
    ),
    Form(
        "loss that returns (E, dx): hinge",
        COURSE,
        svm_loss,
        (draw(5, 4), LABELS),
        "label's entry counts one margin",
        ("missing path", "one entry", "scaled"),
        flat_of_loss(draw(5, 4), rest=(LABELS,)),
    ),
    Form(
        "pair with cache and a dict: batchnorm",
        COURSE,
        batchnorm,
        (X, draw(3), draw(3), {"mode": "train", "eps": 1e-5}),
        "path through the variance missing",
        ("missing path",),
        flat_of_cache(X, draw(3), draw(3), rest=({"mode": "train"},)),
    ),
    Form(
        "batchnorm in stages",
        "blog posts after Kratzert and Karpathy",
        batchnorm_staged,
        (X, draw(3), draw(3), 1e-5),
        "2 of the square missing",
        ("scaled", "factor left out"),
        flat_of_cache(X, draw(3), draw(3), rest=(1e-5,)),
    ),
    Form(
        "convolution in loops",
        COURSE,
        convolution,
        (IMAGES, KERNELS, CHANNELS, {"stride": 1, "pad": 1}),
        "= for += where patches overlap",
        ("missing path",),
        flat_of_cache(IMAGES, KERNELS, CHANNELS, rest=({"stride": 1, "pad": 1},)),
    ),
    Form(
        "max pooling in loops",
        COURSE,
        max_pool,
        (draw(2, 3, 4, 6), 2),
        "largest of each row, not of the window",
        ("another value", "summed over the wrong axis"),
        flat_of_cache(draw(2, 3, 4, 6), rest=(2,)),
    ),
    Form(
        "LSTM step with cache, two outputs",
        COURSE,
        lstm_step,
        STEP,
        "dnext_c forgotten",
        ("missing path", "ignores dy"),
        flat_of_cache(*STEP, outputs=2),
    ),
    Form(
        "recurrence over time",
        COURSE,
        rnn,
        SEQUENCE,
        "states[-1] for h0 at the first step",
        ("another value",),
        flat_of_cache(*SEQUENCE),
    ),
    Form(
        "dropout with a dict",
        COURSE,
        dropout,
        (X, {"p": 0.6, "seed": 3}),
        "1/p forgotten",
        ("scaled", "factor left out"),
        flat_of_cache(X, rest=({"p": 0.6, "seed": 3},)),
    ),
    Form(
        "function of a dict: two-layer loss",
        COURSE,
        two_layer_loss,
        (TWO, X, LABELS, 0.5),
        "2 of the weight decay missing",
        ("weight decay", "scaled", "factor left out"),
        flat_of_two_layer,
    ),
    Form(
        "network with loss(X, y) and own params",
        COURSE,
        NetOfCourse,
        (TWO, X, LABELS),
        "2 of the weight decay missing",
        ("weight decay", "scaled", "factor left out"),
        flat_of_net,
        net_of_course_adapter,
    ),
    Form(
        "columns, cache of caches, a string",
        "deeplearning.ai notebooks",
        linear_activation,
        (*COLUMNS, "sigmoid"),
        "σ′ of z for σ′ of a",
        ("σ′ of the output", "another activation's derivative", "another value"),
        flat_of_linear_activation,
    ),
    Form(
        "function that returns (grads, cost)",
        "deeplearning.ai notebooks",
        propagate,
        (*LOGISTIC, COLUMNS[0], BINARY),
        "sign of dw",
        ("sign",),
        lambda f: flat_of_loss(*LOGISTIC, rest=(COLUMNS[0], BINARY), grads=lambda out: out[1].values())(
            lambda *a: f(*a)[::-1]
        ),
    ),
    Form(
        "lossFun: loss and every gradient",
        "min-char-rnn, its globals as arguments",
        character_loss,
        (*CHARACTERS, READ, NEXT, draw(6, 1)),
        "nothing carried back in time",
        ("missing path",),
        flat_of_characters,
    ),
    Form(
        "backprop(x, y) -> (nabla_b, nabla_w)",
        "Nielsen's book",
        nielsen,
        (*NIELSEN, *ONE),
        "1 − σ missing",
        ("factor left out", "another activation's derivative", "another value"),
        flat_of_nielsen,
        nielsen_adapter,
    ),
    Form(
        "attention, backward(args, dy)",
        "researchers' notes",
        attention,
        QKV,
        "1/√d forgotten",
        ("scaled", "factor left out"),
        flat_of_args(*QKV),
    ),
    Form(
        "parameters, gradients, derived_variables",
        "numpy-ml",
        numpy_ml_layer,
        X,
        "db without σ′",
        ("σ′ missing", "factor left out"),
        flat_of_object(
            lambda o: list(o.parameters.values()), lambda o, dx: (dx, *o.gradients.values()), X, reset=reset_dict
        ),
    ),
    Form(
        "W and dW",
        "npnn and many others",
        attribute_layer,
        X,
        "dW averaged over the batch",
        SCALED,
        flat_of_object(lambda o: [o.W, o.b], lambda o, dx: (dx, o.dW, o.db), X),
    ),
    Form(
        "lists params and grads",
        "Deep Learning from Scratch",
        listed_layer,
        X,
        "dx without σ′",
        ("σ′ missing", "factor left out"),
        flat_of_object(lambda o: o.params, lambda o, dx: (dx, *o.grads), X),
    ),
    Form(
        "forward(x, t), backward(dout=1)",
        "Deep Learning from Scratch",
        softmax_with_loss,
        {"x": LOGITS, "t": Y},
        "divided by m·n",
        SCALED,
        lambda o: (lambda x: o.forward(x, Y), lambda a, dy: (o.forward(*a, Y), o.backward(dy))[1:], (LOGITS,)),
    ),
    Form(
        "data and grad, += and zero_grad",
        "Chainer- and PyTorch-like",
        held_layer,
        X,
        "first sample's db",
        ("only one sample used",),
        flat_of_object(
            lambda o: [o.weight.data, o.bias.data],
            lambda o, dx: (dx, o.weight.grad, o.bias.grad),
            X,
            reset=lambda o: o.zero_grad(),
        ),
    ),
    Form(
        "network with a list of layers",
        "micrograd-like",
        network_of_layers,
        X,
        "1 − y for 1 − y²",
        ("another value", "another activation's derivative", "factor left out"),
        flat_of_object(
            lambda o: [p for layer in o.layers[::2] for p in (layer.W, layer.b)],
            lambda o, dx: (dx, *(g for layer in o.layers[::2] for g in (layer.dW, layer.db))),
            X,
        ),
    ),
    Form(
        "__call__ and backprop",
        "small frameworks",
        called_layer,
        X,
        "slope 0 for 0.01",
        ("another activation's derivative", "another value", "missing path"),
        flat_of_object(lambda o: [o.w], lambda o, dx: (dx, o.grad_w), X, methods=("__call__", "backprop")),
    ),
    Form(
        "fprop and bprop",
        "neon- and Pylearn2-like",
        fprop_layer,
        X,
        "path through the mean missing",
        ("missing path",),
        flat_of_object(lambda o: [o.gain], lambda o, dx: (dx, o.d_gain), X, methods=("fprop", "bprop")),
    ),
    Form("weights made at the first call", "Keras from scratch", keras_layer, X, "dx doubled", SCALED, flat_of_keras),
    Form(
        "two inputs, returns (da, db, {…})",
        "researchers' code",
        returning_layer,
        (X, draw(5, 4)),
        "dy forgotten in dW",
        ("ignores dy",),
        flat_of_object(lambda o: [o.weights], lambda o, r: (*r[:2], r[2]["weights"]), X, draw(5, 4)),
    ),
    Form(
        "embedding with indices",
        "Deep Learning from Scratch",
        embedding,
        (ROWS, SCALE),
        "a row used twice counts once",
        ("overwritten", "missing path", "one row", "rows left out"),
        flat_of_embedding,
    ),
    Form(
        "__call__(x) and gradient(x)",
        "ML-From-Scratch",
        activation_gradient,
        X,
        "σ′ for σ",
        ("another activation's derivative", "another value", "factor left out", "factor taken twice"),
        lambda o: (o, lambda args, dy: (dy * o.gradient(args[0]),), (X,)),
    ),
    Form(
        "loss(y, p) and gradient(y, p)",
        "ML-From-Scratch",
        loss_and_gradient,
        (Y, P),
        "sign of one term",
        ("sign",),
        lambda o: (lambda p: o.loss(Y, p), lambda a, dy: (dy * o.gradient(Y, *a),), (P,)),
    ),
    Form(
        "function that returns (y, backprop)",
        "thinc-like closures",
        closure,
        (X, W),
        "z forgotten in swish′",
        ("factor left out", "another activation's derivative", "another value"),
        flat_of_closure,
    ),
    Form("Model", "thinc", thinc_model, X, "dx without σ′", ("σ′ missing", "factor left out"), flat_of_thinc),
    Form(
        "Function with needs_input_grad",
        "PyTorch's tutorial",
        torch_function,
        (X, W, B),
        "gb averaged over the batch",
        SCALED,
        flat_of_torch(lambda f: f.apply, X, W, B),
    ),
    Form(
        "Function with setup_context",
        "PyTorch's documentation",
        torch_setup_context,
        (X,),
        "x forgotten in x φ(x)",
        ("factor left out", "another activation's derivative", "another value"),
        flat_of_torch(lambda f: f.apply, X),
    ),
    Form(
        "Function, once_differentiable, constant",
        "kernels for language models",
        torch_once,
        (X, draw(3), 1e-6),
        "path through the norm missing",
        ("missing path",),
        flat_of_torch(lambda f: lambda x, g: f.apply(x, g, 1e-6), X, draw(3)),
    ),
    Form(
        "Module that uses a Function",
        "PyTorch's documentation",
        torch_module,
        (X,),
        "sign",
        ("sign",),
        flat_of_torch(lambda m: lambda x, w: torch.func.functional_call(m, {"weight": w}, (x,)), X, 0.3 * W),
    ),
    Form(
        "custom_vjp",
        "JAX's documentation",
        jax_vjp,
        X,
        "softmax squared",
        ("factor taken twice",),
        flat_of_jax(lambda f: f, X),
    ),
    Form(
        "custom_vjp with nondiff_argnums",
        "JAX's documentation",
        jax_nondiff,
        (X, 3, X + 1),
        "2 for 3",
        SCALED,
        flat_of_jax(lambda f: lambda x, w: f(x, 3, w), X, X + 1),
    ),
    Form(
        "custom_jvp inside a function",
        "JAX's documentation",
        jax_jvp,
        (X, W),
        "1 − σ for σ",
        ("another activation's derivative", "another value", "σ′ of the output", "factor left out"),
        flat_of_jax(lambda f: f, X, W),
    ),
    Form(
        "primitive with defvjp",
        "HIPS autograd",
        autograd_primitive,
        X,
        "g forgotten",
        ("ignores dy",),
        flat_of_primitive,
    ),
]


# The tools -----------------------------------------------------------------------------------------------------------


def check_torch(forward: Any, backward: Any, arrays: tuple[Array, ...]) -> None:
    """Give a forward and a backward pass to `torch.autograd.gradcheck`; it raises where they disagree."""

    class Op(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.arrays = [t.detach().numpy().copy() for t in tensors]
            y = forward(*ctx.arrays)
            outs = [torch.tensor(np.asarray(v)) for v in (y if isinstance(y, tuple) else (y,))]
            ctx.several = isinstance(y, tuple)
            return tuple(outs) if ctx.several else outs[0]

        @staticmethod
        def backward(ctx, *dys):
            dy = tuple(d.numpy().copy() for d in dys)
            grads = backward(tuple(ctx.arrays), dy if ctx.several else dy[0])
            return tuple(torch.tensor(np.asarray(g)) for g in grads)

    torch.autograd.gradcheck(Op.apply, tuple(torch.tensor(a, requires_grad=True) for a in arrays))


def check_jax(forward: Any, backward: Any, arrays: tuple[Array, ...]) -> None:
    """Give them to `jax.test_util.check_grads`."""
    with jax.enable_x64(True):
        like = jax.tree.map(lambda y: jax.ShapeDtypeStruct(np.shape(y), "float64"), forward(*arrays))

        def plain(*a):
            return jax.tree.map(np.array, a)

        @jax.custom_vjp
        def f(*a):
            return jax.pure_callback(lambda *a: forward(*plain(*a)), like, *a)

        def rule(a, dy):
            return jax.pure_callback(
                lambda a, dy: tuple(backward(plain(*a), jax.tree.map(np.array, dy))), tuple(arrays), a, dy
            )

        f.defvjp(lambda *a: (f(*a), a), rule)
        jax.test_util.check_grads(f, arrays, order=1, modes=["rev"])


def check_autograd(forward: Any, backward: Any, arrays: tuple[Array, ...]) -> None:
    """Give them to `autograd.test_util.check_grads`, which knows one output."""
    if isinstance(forward(*arrays), tuple):
        raise NotImplementedError("several outputs")
    f = autograd.extend.primitive(forward)
    makers = [lambda ans, *a, i=i: lambda g: np.array(backward(a, np.asarray(g))[i]) for i in range(len(arrays))]
    autograd.extend.defvjp(f, *makers)
    for i in range(len(arrays)):  # of itself it looks at the first argument alone
        autograd.test_util.check_grads(f, i, modes=["rev"], order=1)(*arrays)


TOOLS = {"torch": check_torch, "jax": check_jax, "autograd": check_autograd}


def judged_by(check: Callable[..., None], form: Form) -> tuple[str, float]:
    """Return what a tool says of the right and the wrong member, and how long both took."""
    start, refused = time.perf_counter(), []
    for right in (True, False):
        forward, backward, arrays = form.flat(form.make(right))
        arrays = tuple(np.array(a, np.float64) for a in arrays)
        try:
            check(forward, backward, arrays)
        except NotImplementedError:
            return "not applicable", time.perf_counter() - start
        except Exception:  # each tool has its own, and JAX wraps those of a callback
            refused.append(True)
        else:
            refused.append(False)
    verdict = "accused" if refused[0] else "found" if refused[1] else "missed"
    return verdict, time.perf_counter() - start


def study(form: Form, tools: Sequence[str] = tuple(TOOLS)) -> Row:
    """Verify the right and the wrong member of one form, with every tool."""
    adapted = form.adapter or (lambda target: target)
    start = time.perf_counter()
    reports = []
    for right in (True, False):
        try:
            reports.append(tn.verify(adapted(form.make(right)), inputs=form.inputs))
        except tn.TargetError as error:
            reports.append(error)
    seconds = time.perf_counter() - start
    verdicts = [getattr(r, "verdict", "TargetError") for r in reports]
    notes = tuple(
        f"{member}: {getattr(r, 'reason', r)}"
        for member, r in zip(("right", "wrong"), reports, strict=True)
        if getattr(r, "reason", r)
    ) + tuple(f"right: {f.gradient}: {f.name} ({f.probe})" for f in getattr(reports[0], "findings", ()))
    found = getattr(reports[1], "findings", ())
    return Row(
        form=form.name,
        source=form.source,
        adapter_lines=len(inspect.getsource(form.adapter).rstrip().splitlines()) if form.adapter else 0,
        right=verdicts[0],
        wrong=verdicts[1],
        fault=form.fault,
        named=", ".join(dict.fromkeys(f.name for f in found)),
        name_is_right=any(f.fault in form.names for f in found),
        seconds=seconds,
        notes=notes,
        others={tool: judged_by(TOOLS[tool], form) for tool in tools},
    )


def summary(rows: Sequence[Row]) -> list[str]:
    """Return the totals, one sentence per tool."""
    n = len(rows)
    as_they_are = sum(r.adapter_lines == 0 for r in rows)
    found, accused = sum(r.wrong == "FAIL" for r in rows), sum(r.right == "FAIL" for r in rows)
    passed, named = sum(r.right == "PASS" for r in rows), sum(r.name_is_right for r in rows)
    lines = [
        f"tn.verify: {as_they_are} of {n} forms taken as they are; {passed} of {n} right ones passed, "
        f"{accused} accused; {found} of {n} faults found, {named} named; {sum(r.seconds for r in rows):.0f} s"
    ]
    for tool in rows[0].others if rows else ():
        said = [r.others[tool] for r in rows]
        counts = ", ".join(
            f"{k} {sum(v == k for v, _ in said)}" for k in ("found", "missed", "accused", "not applicable")
        )
        lines.append(f"{tool}: adapter for {n} of {n}; {counts}; {sum(s for _, s in said):.0f} s")
    return lines


def table(rows: Sequence[Row], *, markdown: bool) -> str:
    """Return the rows as text in columns, or as a table in Markdown."""
    tools = list(rows[0].others) if rows else []
    head = ["form", "source", "adapter", "right", "wrong", "true fault", "named", "s", *tools]
    body = [
        [
            r.form,
            r.source,
            str(r.adapter_lines),
            r.right,
            r.wrong,
            r.fault,
            (r.named or "–") + ("" if r.name_is_right else " ✗"),
            f"{r.seconds:.1f}",
            *(f"{verdict} {seconds:.1f}" for verdict, seconds in r.others.values()),
        ]
        for r in rows
    ]
    if markdown:
        lines = [head, ["---"] * len(head), *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [head, *body]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Study every form, print, write. Exit status 1 if something right was accused or something wrong not found."""
    parser = argparse.ArgumentParser(description="Verify backward passes in the forms of public code.")
    parser.add_argument("--only", nargs="+", default=[""], metavar="PART", help="forms with this in their name")
    parser.add_argument("--alone", action="store_true", help="tn.verify alone, without the other tools")
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    forms = [f for f in FORMS if any(part in f.name for part in args.only)]
    if not forms:
        parser.error(f"--only: no form has {' or '.join(args.only)} in its name")
    with np.errstate(all="ignore"):
        rows = [study(form, () if args.alone else tuple(TOOLS)) for form in forms]
    print(table(rows, markdown=args.markdown))
    print("", *summary(rows), sep="\n")
    for row in rows:
        for note in row.notes:
            print(f"  {row.form}: {note}")
    if args.json is not None:
        machine = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
        content = {"machine": machine, "summary": summary(rows), "rows": [asdict(r) for r in rows]}
        write_atomically(args.json, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
    return int(any(r.right == "FAIL" or r.wrong == "PASS" for r in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("verify_in_the_wild: interrupted")

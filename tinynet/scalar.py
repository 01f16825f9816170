"""The network of §1–§4 with one hidden layer, index by index: what the vectorised layers must equal.

Everything is a Python float or a list of them, and every sum is a loop. The names are the document's:

    x_d  input, d < D       α_s = Σ_d V_sd x_d + c_s     h_s = f(α_s)      hidden, s < S
    y_k  target, k < K      β_k = Σ_s W_ks h_s + b_k     ŷ_k = f(β_k)      output, k < K

V is S × D, c has S entries, W is K × S, b has K entries; a sample is a row of X and of Y. Indices count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Vector = Sequence[float]
Matrix = Sequence[Vector]


class Parameters(NamedTuple):
    """V (S × D) and c (S) of the hidden layer, W (K × S) and b (K) of the output layer; also their gradients."""

    V: Matrix
    c: Vector
    W: Matrix
    b: Vector


class Activations(NamedTuple):
    """α and h of the hidden layer, β and ŷ of the output layer, for one sample."""

    α: Vector
    h: Vector
    β: Vector
    y_hat: Vector


def f(x: float) -> float:
    """Return the sigmoid 1 / (1 + e^−x), with the exponent kept negative so that it cannot overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))  # (1)


def f_prime(x: float) -> float:
    """Return the derivative of f by its value: f′(x) = f(x) · (1 − f(x))."""
    return f(x) * (1 - f(x))  # (2)


def ell(y_hat: Vector, y: Vector) -> float:
    """Return the loss as (3) prints it: without the ½ of (4), so twice E."""
    return sum((y_hat[k] - y[k]) ** 2 for k in range(len(y)))  # (3)


def error(y_hat: Vector, y: Vector) -> float:
    """Return E_i of one sample, the loss that everything after it differentiates."""
    return 0.5 * sum((y_hat[k] - y[k]) ** 2 for k in range(len(y)))  # (4)


def forward(p: Parameters, x: Vector) -> Activations:
    """Compute α, h, β, ŷ for one sample.

    Raises:
        ValueError: x, V, c, W and b do not fit each other.
    """
    V, c, W, b = p
    D, S, K = len(x), len(c), len(b)
    if [len(row) for row in V] != [D] * S or [len(row) for row in W] != [S] * K:
        raise ValueError(
            f"forward: V is {_shape(V)} and W is {_shape(W)}; expected {S} × {D} and {K} × {S}, "
            f"as x has {D} entries, c has {S} and b has {K}"
        )
    α = [sum(V[s][d] * x[d] for d in range(D)) + c[s] for s in range(S)]
    h = [f(α[s]) for s in range(S)]
    β = [sum(W[k][s] * h[s] for s in range(S)) + b[k] for k in range(K)]
    y_hat = [f(β[k]) for k in range(K)]
    return Activations(α, h, β, y_hat)


def grad_b(act: Activations, y: Vector, k: int) -> float:
    """Return ∇b_k = ∂E/∂b_k = ∂E/∂ŷ_k · ∂ŷ_k/∂b_k (12); as ∂β_k/∂b_k = 1, this is also ∂E/∂β_k."""
    dE_dy_hat = act.y_hat[k] - y[k]  # of (4)
    dy_hat_dβ = act.y_hat[k] * (1 - act.y_hat[k])  # (2)
    return dE_dy_hat * dy_hat_dβ  # (12), (13)


def grad_W(act: Activations, y: Vector, k: int, s: int) -> float:
    """Return ∇W_ks = ∂E/∂W_ks (5) = ∂E/∂ŷ_k · ∂ŷ_k/∂β_k · ∂β_k/∂W_ks (6)."""
    dE_dy_hat = act.y_hat[k] - y[k]
    dy_hat_dβ = act.y_hat[k] * (1 - act.y_hat[k])
    dβ_dW = act.h[s]
    return dE_dy_hat * dy_hat_dβ * dβ_dW  # (5), (6), (7)


def grad_c(p: Parameters, act: Activations, y: Vector, s: int) -> float:
    """Return ∇c_s = ∂E/∂c_s = ∂E/∂h_s · ∂h_s/∂c_s (14); as ∂α_s/∂c_s = 1, this is also ∂E/∂α_s.

    Unit s feeds every output, so ∂E/∂h_s sums over all k (15). (16) prints W_hk for W_ks.
    """
    dE_dh = sum(grad_b(act, y, k) * p.W[k][s] for k in range(len(y)))
    dh_dα = act.h[s] * (1 - act.h[s])  # (2)
    return dE_dh * dh_dα  # (14), (15), (16)


def grad_V(p: Parameters, act: Activations, x: Vector, y: Vector, s: int, d: int) -> float:
    """Return ∇V_sd = ∂E/∂V_sd (8) = ∂E/∂h_s · ∂h_s/∂α_s · ∂α_s/∂V_sd (9), (10).

    (11) prints W_hk for W_ks.
    """
    dE_dh = sum(grad_b(act, y, k) * p.W[k][s] for k in range(len(y)))
    dh_dα = act.h[s] * (1 - act.h[s])
    dα_dV = x[d]
    return dE_dh * dh_dα * dα_dV  # (8), (9), (10), (11)


def gradients(p: Parameters, x: Vector, y: Vector) -> Parameters:
    """Return ∇V, ∇c, ∇W and ∇b of E for one sample."""
    act = forward(p, x)
    if len(y) != len(p.b):
        raise ValueError(f"gradients: y has {len(y)} entries; expected {len(p.b)}, one per output")
    D, S, K = range(len(x)), range(len(p.c)), range(len(p.b))
    return Parameters(
        V=[[grad_V(p, act, x, y, s, d) for d in D] for s in S],
        c=[grad_c(p, act, y, s) for s in S],
        W=[[grad_W(act, y, k, s) for s in S] for k in K],
        b=[grad_b(act, y, k) for k in K],
    )


def total_error(p: Parameters, X: Matrix, Y: Matrix) -> float:
    """Return E = Σ_i E_i over all samples."""
    return sum(error(forward(p, x).y_hat, y) for x, y in zip(X, Y, strict=True))


def total_gradients(p: Parameters, X: Matrix, Y: Matrix) -> Parameters:
    """Return the gradient of E = Σ_i E_i: the sum over the samples, what gradient descent follows (§3)."""
    if len(X) == 0:
        raise ValueError("total_gradients: X has no samples; expected at least one")
    total = _map(lambda _: 0.0, p)
    for x, y in zip(X, Y, strict=True):
        total = _map(lambda t, g: t + g, total, gradients(p, x, y))
    return total


def mean_gradients(p: Parameters, X: Matrix, Y: Matrix) -> Parameters:
    """Return ∇W ≈ 1/m · Σ_i ∇W_{x_i}, and so for V, c and b: what mini-batch SGD follows (§4)."""
    m = len(X)
    return _map(lambda g: g / m, total_gradients(p, X, Y))  # (17)


def gradient_descent(
    p: Parameters, X: Matrix, Y: Matrix, *, lr: float, epochs: int, tolerance: float | None = None
) -> Parameters:
    """Follow the gradient summed over all samples (§3), for `epochs` updates or until E ≤ `tolerance` before one."""
    for _ in range(epochs):
        if tolerance is not None and total_error(p, X, Y) <= tolerance:
            break
        p = _descend(p, total_gradients(p, X, Y), lr)
    return p


def sgd(p: Parameters, batches: Iterable[tuple[Matrix, Matrix]], *, lr: float) -> Parameters:
    """Follow the mean gradient (17) of each mini-batch (X, Y) in turn (§4)."""
    for X, Y in batches:
        p = _descend(p, mean_gradients(p, X, Y), lr)
    return p


def _descend(p: Parameters, g: Parameters, lr: float) -> Parameters:
    return _map(lambda w, dw: w - lr * dw, p, g)


def _map(function, p: Parameters, *rest: Parameters) -> Parameters:  # type: ignore[no-untyped-def]
    def matrix(*Ms: Matrix) -> Matrix:
        return [vector(*rows) for rows in zip(*Ms, strict=True)]

    def vector(*vs: Vector) -> Vector:
        return [function(*entries) for entries in zip(*vs, strict=True)]

    V, c, W, b = zip(p, *rest, strict=True)
    return Parameters(matrix(*V), vector(*c), matrix(*W), vector(*b))


def _shape(M: Matrix) -> str:
    return f"{len(M)} × {'/'.join(sorted({str(len(row)) for row in M}))}"

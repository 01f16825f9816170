"""Gradients as people get them wrong, written in the ways in which people write them: found, and named rightly.

None of these is one of `tinynet.testing.seeded_faults`. Each says which names would be right for it; a fault may go
without a name ("unknown"), but must not bear a wrong one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tinynet as tn

RNG = np.random.default_rng(3)
x, W, b = RNG.standard_normal((5, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)
SQUARE = RNG.standard_normal((5, 3)), RNG.standard_normal((3, 3)), b
NET = x, W, b, RNG.standard_normal((3, 2)), RNG.standard_normal(2)
SQUARE_NET = *SQUARE, RNG.standard_normal((3, 3)), RNG.standard_normal(3)
FAULTS = []


@dataclass(frozen=True)
class Fault:
    """A wrong target and the names that are right for it."""

    id: str
    names: set[str]
    target: Any
    inputs: Any


def wrong(*names: str, inputs: Any, forward: Callable[..., Any] | None = None) -> Callable[[Any], Any]:
    """Enter a target under the names that are right for it; with `forward`, as its backward function."""

    def enter(target: Any) -> Any:
        pair = target if forward is None else (forward, target)
        FAULTS.append(Fault(target.__name__, set(names), pair, inputs))
        return target

    return enter


def σ(z):
    return 1 / (1 + np.exp(-z))


# ---- one dense sigmoid layer, fused, as a pair of functions ------------------------------------------------------


def dense(x, W, b):
    return σ(x @ W + b)


def dense_grads(args, dz):
    x, W, _ = args
    return dz @ W.T, x.T @ dz, dz.sum(axis=0)


@wrong("σ′ missing", forward=dense, inputs=(x, W, b))
def dense_forgets_the_activation(args, dy):
    return dense_grads(args, dy)


@wrong("σ′ of the output", forward=dense, inputs=(x, W, b))
def dense_takes_sigmoid_prime_of_a(args, dy):
    a = dense(*args)
    return dense_grads(args, dy * σ(a) * (1 - σ(a)))


@wrong("another activation's derivative", forward=dense, inputs=(x, W, b))
def dense_puts_z_into_the_formula_for_a(args, dy):
    z = args[0] @ args[1] + args[2]
    return dense_grads(args, dy * z * (1 - z))


@wrong("another activation's derivative", forward=dense, inputs=(x, W, b))
def dense_differentiates_tanh(args, dy):
    return dense_grads(args, dy * (1 - dense(*args) ** 2))


@wrong("another activation's derivative", forward=dense, inputs=(x, W, b))
def dense_drops_one_minus_a(args, dy):
    return dense_grads(args, dy * dense(*args))


@wrong("sign", forward=dense, inputs=(x, W, b))
def dense_has_a_minus_too_many(args, dy):
    a = dense(*args)
    return dense_grads(args, dy * a * (a - 1))


@wrong("ignores dy", forward=dense, inputs=(x, W, b))
def dense_starts_from_its_own_derivative(args, _):
    a = dense(*args)
    return dense_grads(args, a * (1 - a))


def δ_of(args, dy):
    a = dense(*args)
    return dy * a * (1 - a)


@wrong("scaled by 1/m", forward=dense, inputs=(x, W, b))
def dense_takes_the_mean_for_the_bias(args, dy):
    dx, dW, _ = dense_grads(args, δ_of(args, dy))
    return dx, dW, δ_of(args, dy).mean(axis=0)


@wrong("scaled by 1/m", forward=dense, inputs=(x, W, b))
def dense_divides_the_parameters_by_m(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx, dW / len(dy), db / len(dy)


@wrong("not summed over the batch", forward=dense, inputs=(x, W, b))
def dense_returns_delta_for_the_bias(args, dy):
    dx, dW, _ = dense_grads(args, δ_of(args, dy))
    return dx, dW, δ_of(args, dy)


@wrong("summed over everything", forward=dense, inputs=(x, W, b))
def dense_sums_without_an_axis(args, dy):
    dx, dW, _ = dense_grads(args, δ_of(args, dy))
    return dx, dW, np.sum(δ_of(args, dy))


@wrong("kept a dimension", forward=dense, inputs=(x, W, b))
def dense_keeps_dims(args, dy):
    dx, dW, _ = dense_grads(args, δ_of(args, dy))
    return dx, dW, δ_of(args, dy).sum(axis=0, keepdims=True)


@wrong("unknown", forward=dense, inputs=(x, W, b))
def dense_sums_the_other_axis(args, dy):
    dx, dW, _ = dense_grads(args, δ_of(args, dy))
    return dx, dW, δ_of(args, dy).sum(axis=1)


@wrong("transpose", forward=dense, inputs=(x, W, b))
def dense_swaps_the_factors_of_dW(args, dy):
    dx, _, db = dense_grads(args, δ_of(args, dy))
    return dx, δ_of(args, dy).T @ args[0], db


@wrong("W for Wᵀ", forward=dense, inputs=SQUARE)
def dense_forgets_the_transpose(args, dy):
    δ = δ_of(args, dy)
    return δ @ args[1], args[0].T @ δ, δ.sum(axis=0)


@wrong("σ′ missing", forward=dense, inputs=(x, W, b))
def dense_takes_dy_for_dW(args, dy):
    dx, _, db = dense_grads(args, δ_of(args, dy))
    return dx, args[0].T @ dy, db


@wrong("σ′ missing", forward=dense, inputs=(x, W, b))
def dense_takes_dy_for_db(args, dy):
    dx, dW, _ = dense_grads(args, δ_of(args, dy))
    return dx, dW, dy.sum(axis=0)


@wrong("σ′ missing", forward=dense, inputs=(x, W, b))
def dense_takes_dy_for_dx(args, dy):
    _, dW, db = dense_grads(args, δ_of(args, dy))
    return dy @ args[1].T, dW, db


@wrong("weight decay", forward=dense, inputs=(x, W, b))
def dense_regularises(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx, dW + 0.01 * args[1], db


@wrong("clipped", forward=dense, inputs=(x, W, b))
def dense_clips(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx, np.clip(dW, -0.2, 0.2), db


@wrong("clipped", forward=dense, inputs=(x, W, b))
def dense_clips_to_a_norm(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx, dW * min(1, 0.7 / np.linalg.norm(dW)), db


@wrong("shifted", forward=dense, inputs=(x, W, b))
def dense_answers_a_sample_late(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return np.roll(dx, -1, axis=0), dW, db


@wrong("float32 inside", forward=dense, inputs=(x, W, b))
def dense_hands_out_what_fits_into_float32(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx, dW, db.astype(np.float32).astype(db.dtype)


@wrong("scaled by 1 + 1e-06", forward=dense, inputs=(x, W, b))
def dense_is_off_by_a_millionth(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx, dW * (1 + 1e-6), db


FIRST = {}
"""What a closure, a module or a global remembers, whatever is copied."""


@wrong("stale cache", forward=dense, inputs=(x, W, b))
def dense_goes_back_through_the_first_weights(args, dy):
    args = args[0], FIRST.setdefault(args[1].shape, args[1].copy()), args[2]
    return dense_grads(args, δ_of(args, dy))


@wrong("stale cache", forward=np.tanh, inputs=x)
def tanh_remembers_the_first_input(args, dy):
    return dy * (1 - np.tanh(FIRST.setdefault(("x", args[0].shape), args[0].copy())) ** 2)


@wrong("wrong only for small inputs", forward=np.tanh, inputs=x)
def tanh_takes_small_inputs_for_none(args, dy):
    """Return 0 where tanh is almost z, as it is right far out: no earlier call is needed to explain that."""
    return dy * (1 - np.tanh(args[0]) ** 2) * (np.abs(args[0]).max() > 1e-2)


@wrong("unknown", forward=lambda x: np.where(x > 0, x, 0.1 * x), inputs=x)
def leaky_relu_forgets_a_batch_of_negatives(args, dy):
    return dy * np.where(args[0] > 0, 1, 0.1) if (args[0] > 0).any() else dy


@wrong("one sample left out", forward=dense, inputs=(x, W, b))
def dense_stops_a_sample_early(args, dy):
    δ = δ_of(args, dy)
    dW = np.zeros_like(args[1])
    for i in range(len(dy) - 1):
        dW += np.outer(args[0][i], δ[i])
    return δ @ args[1].T, dW, δ.sum(axis=0)


@wrong("only one sample used", forward=dense, inputs=(x, W, b))
def dense_assigns_in_the_loop(args, dy):
    δ = δ_of(args, dy)
    dW, db = np.zeros_like(args[1]), np.zeros_like(args[2])
    for x_i, δ_i in zip(args[0], δ, strict=True):
        dW = np.outer(x_i, δ_i)
        db = 1.0 * δ_i
    return δ @ args[1].T, dW, db


@wrong("missing", forward=dense, inputs=(x, W, b))
def dense_returns_no_dx(args, dy):
    return None, *dense_grads(args, δ_of(args, dy))[1:]


@wrong("malformed", forward=dense, inputs=(x, W, b))
def dense_forgets_dx_in_the_tuple(args, dy):
    return dense_grads(args, δ_of(args, dy))[1:]


@wrong("mutates dy", forward=dense, inputs=(x, W, b))
def dense_multiplies_in_place(args, dy):
    a = dense(*args)
    dy *= a * (1 - a)
    return dense_grads(args, dy)


@wrong("mutates params", forward=dense, inputs=(x, W, b))
def dense_updates_in_place(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    args[1][...] -= 0.1 * dW
    return dx, dW, db


@wrong("wrong dtype", forward=dense, inputs=(x, W, b))
def dense_allocates_float32(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    buffer = np.zeros(args[1].shape, np.float32)
    buffer += dW
    return dx, buffer, db


@wrong("float32 inside", forward=dense, inputs=(x, W, b))
def dense_keeps_its_activations_in_float32(args, dy):
    a = dense(*args).astype(np.float32)
    return dense_grads(args, (dy * a * (1 - a)).astype(dy.dtype))


@wrong("one column", forward=dense, inputs=(x, W, b))
def dense_stops_a_column_early(args, dy):
    δ = δ_of(args, dy)
    dW = np.zeros_like(args[1])
    for j in range(dW.shape[1] - 1):
        dW[:, j] = args[0].T @ δ[:, j]
    return δ @ args[1].T, dW, δ.sum(axis=0)


@wrong("one row", forward=dense, inputs=(x, W, b))
def dense_starts_at_row_1(args, dy):
    δ = δ_of(args, dy)
    dW = np.zeros_like(args[1])
    for i in range(1, dW.shape[0]):
        dW[i] = args[0][:, i] @ δ
    return δ @ args[1].T, dW, δ.sum(axis=0)


@wrong("wrong only when saturated", forward=dense, inputs=(x, W, b))
def dense_clips_z_against_overflow(args, dy):
    a = σ(np.clip(args[0] @ args[1] + args[2], -6, 6))
    return dense_grads(args, dy * a * (1 - a))


@wrong("wrong only at batch 1", "wrong shape", forward=dense, inputs=(x, W, b))
def dense_squeezes(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx.squeeze() if dx.shape[0] == 1 else dx, dW, db


@wrong("wrong only for a layout", forward=dense, inputs=(x, W, b))
def dense_flattens_as_it_lies_in_memory(args, dy):
    return dense_grads(args, δ_of(args, dy.ravel(order="K").reshape(dy.shape)))


@wrong("constant offset", forward=dense, inputs=(x, W, b))
def dense_adds_epsilon_to_the_bias(args, dy):
    dx, dW, db = dense_grads(args, δ_of(args, dy))
    return dx, dW, db + 1e-7


# ---- objects, the way courses teach it ---------------------------------------------------------------------------


class Dense:
    """A right one; the faults below override what they break."""

    def __init__(self):
        rng = np.random.default_rng(5)
        self.W, self.b = rng.standard_normal((4, 3)), rng.standard_normal(3)
        self.dW, self.db = np.zeros_like(self.W), np.zeros_like(self.b)

    def forward(self, x):
        self.x = x
        self.a = σ(x @ self.W + self.b)
        return self.a

    def backward(self, dy):
        dz = dy * self.a * (1 - self.a)
        self.dW = self.x.T @ dz
        self.db = dz.sum(axis=0)
        return dz @ self.W.T


@wrong("accumulates", inputs=x)
class DenseNeverReset(Dense):
    def backward(self, dy):
        dz = dy * self.a * (1 - self.a)
        self.dW += self.x.T @ dz
        self.db += dz.sum(axis=0)
        return dz @ self.W.T


@wrong("stale cache", inputs=x)
class DenseRemembersTheFirst(Dense):
    x = None

    def forward(self, x):
        if self.x is None:
            self.x = x
        self.a = σ(x @ self.W + self.b)
        return self.a


@wrong("already updated W", "mutates params", inputs=x)
class DenseUpdatesItself(Dense):
    def backward(self, dy):
        dz = dy * self.a * (1 - self.a)
        self.dW = self.x.T @ dz
        self.db = dz.sum(axis=0)
        self.W = self.W - 0.5 * self.dW
        return dz @ self.W.T


@wrong("not deterministic", inputs=x)
class DenseDropsOutOnTheWayBack(Dense):
    def backward(self, dy):
        return super().backward(dy) * (np.random.random(self.x.shape) < 0.5)  # noqa: NPY002 - as people write it


@wrong("shares memory", inputs=x)
class DenseHandsOutItsBuffer(Dense):
    def backward(self, dy):
        dz = dy * self.a * (1 - self.a)
        self.dW, self.db = self.x.T @ dz, dz.sum(axis=0)
        if getattr(self, "dx", None) is None or self.dx.shape != self.x.shape or self.dx.dtype != self.x.dtype:
            self.dx = np.empty_like(self.x)
        np.matmul(dz, self.W.T, out=self.dx)
        return self.dx


@wrong("missing", inputs=x)
class DenseForgetsTheBias(Dense):
    def __init__(self):
        super().__init__()
        del self.db

    def backward(self, dy):
        dz = dy * self.a * (1 - self.a)
        self.dW = self.x.T @ dz
        return dz @ self.W.T


@wrong("zero", inputs=x)
class DenseNeverSetsTheBias(Dense):
    def backward(self, dy):
        dz = dy * self.a * (1 - self.a)
        self.dW = self.x.T @ dz
        return dz @ self.W.T


# ---- two layers, as a closure ------------------------------------------------------------------------------------


def two_layers(
    σ1=lambda a1, z1: a1 * (1 - a1),
    W2_back=lambda W2, dW2: W2.T,
    δ2=lambda d, a2: d * a2 * (1 - a2),
    finish=lambda grads: grads,
):
    def net(x, W1, b1, W2, b2):
        z1 = x @ W1 + b1
        a1 = σ(z1)
        a2 = σ(a1 @ W2 + b2)

        def backprop(d):
            d2 = δ2(d, a2)
            dW2, db2 = a1.T @ d2, d2.sum(axis=0)
            d1 = d2 @ W2_back(W2, dW2) * σ1(a1, z1)
            return finish((d1 @ W1.T, x.T @ d1, d1.sum(axis=0), dW2, db2))

        return a2, backprop

    return net


def net(name, *names, inputs=NET, **broken):
    FAULTS.append(Fault(name, set(names), two_layers(**broken), inputs))


net("net_forgets_the_hidden_derivative", "σ′ missing", σ1=lambda a1, z1: 1.0)
net("net_forgets_the_output_derivative", "σ′ missing", δ2=lambda d, a2: d)
net("net_takes_the_hidden_derivative_of_a", "σ′ of the output", σ1=lambda a1, z1: σ(a1) * (1 - σ(a1)))
net("net_takes_relu_at_the_hidden_layer", "another activation's derivative", σ1=lambda a1, z1: (z1 > 0).astype(float))
net("net_updates_before_it_passes_back", "already updated W", W2_back=lambda W2, dW2: (W2 - 0.1 * dW2).T)
net("net_passes_back_untransposed", "W for Wᵀ", W2_back=lambda W2, dW2: W2, inputs=SQUARE_NET)
net("net_averages_at_the_output", "scaled by 1/m", δ2=lambda d, a2: d * a2 * (1 - a2) / len(d))
net("net_clips_the_error", "clipped", δ2=lambda d, a2: np.clip(d, -1, 1) * a2 * (1 - a2))
net("net_has_target_minus_output", "sign", δ2=lambda d, a2: -d * a2 * (1 - a2))
net("net_halves_the_hidden_error", "scaled by 1/2", σ1=lambda a1, z1: a1 * (1 - a1) / 2)
net(
    "net_averages_every_parameter", "scaled by 1/m",
    finish=lambda g: (g[0], *(p / len(g[0]) for p in g[1:])),
)  # fmt: skip
net("net_confuses_the_biases", "sign", finish=lambda g: (*g[:2], -g[2], *g[3:]))


# ---- activations, softmax, normalisation -------------------------------------------------------------------------


def relu(x):
    return np.maximum(x, 0)


@wrong("σ′ missing", forward=relu, inputs=x)
def relu_lets_everything_through(_, dy):
    return 1.0 * dy


@wrong("another activation's derivative", forward=relu, inputs=x)
def relu_multiplies_by_its_output(args, dy):
    return dy * relu(args[0])


@wrong("another activation's derivative", forward=relu, inputs=x)
def relu_leaks(args, dy):
    return dy * np.where(args[0] > 0, 1.0, 0.01)


@wrong("mutates dy", "shares memory", forward=relu, inputs=x)
def relu_masks_in_place(args, dy):
    dy[args[0] <= 0] = 0
    return dy


@wrong("another activation's derivative", forward=np.tanh, inputs=x)
def tanh_squares_z(args, dy):
    return dy * (1 - args[0] ** 2)


@wrong("non-finite", "wrong only at kinks", forward=np.abs, inputs=x)
def abs_divides_by_itself(args, dy):
    return dy * args[0] / np.abs(args[0])


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@wrong("off-diagonal terms missing", forward=softmax, inputs=x)
def softmax_as_if_it_were_a_sigmoid(args, dy):
    y = softmax(args[0])
    return dy * y * (1 - y)


@wrong("unknown", forward=softmax, inputs=x)
def softmax_minus_one_hot(args, _):
    y = softmax(args[0])
    return y - (y == y.max(axis=-1, keepdims=True))


@wrong("sign", forward=softmax, inputs=x)
def softmax_with_the_terms_swapped(args, dy):
    y = softmax(args[0])
    return y * ((dy * y).sum(axis=-1, keepdims=True) - dy)


@wrong("unknown", forward=softmax, inputs=x)
def softmax_sums_over_the_batch(args, dy):
    y = softmax(args[0])
    return y * (dy - (dy * y).sum(axis=0, keepdims=True))


def layer_norm(x, γ, β):
    return γ * normalised(x)[0] + β


def normalised(x):
    spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return (x - x.mean(axis=-1, keepdims=True)) / spread, spread


NORM = x, RNG.standard_normal(4), RNG.standard_normal(4)


def layer_norm_grads(args, dy):
    x, γ, _ = args
    h, s = normalised(x)
    dh = dy * γ
    dx = (dh - dh.mean(axis=-1, keepdims=True) - h * (dh * h).mean(axis=-1, keepdims=True)) / s
    return dx, (dy * h).sum(axis=0), dy.sum(axis=0)


@wrong("unknown", forward=layer_norm, inputs=NORM)
def layer_norm_takes_the_statistics_for_constants(args, dy):
    return dy * args[1] / normalised(args[0])[1], *layer_norm_grads(args, dy)[1:]


@wrong("scaled by 1/m", forward=layer_norm, inputs=NORM)
def layer_norm_averages_gamma(args, dy):
    dx, dγ, dβ = layer_norm_grads(args, dy)
    return dx, dγ / len(dy), dβ


@wrong("not summed over the batch", forward=layer_norm, inputs=NORM)
def layer_norm_forgets_the_sum_of_beta(args, dy):
    return *layer_norm_grads(args, dy)[:2], 1.0 * dy


@wrong("not summed over the batch", forward=layer_norm, inputs=NORM)
def layer_norm_forgets_the_sum_of_gamma(args, dy):
    dx, _, dβ = layer_norm_grads(args, dy)
    return dx, dy * normalised(args[0])[0], dβ


@wrong("scaled by n_out", "scaled by n_in", forward=layer_norm, inputs=NORM)
def layer_norm_drops_the_one_over_n(args, dy):
    dx, dγ, dβ = layer_norm_grads(args, dy)
    return dx * args[0].shape[-1], dγ, dβ


# ---- a convolution by einsum -------------------------------------------------------------------------------------


def windows(x):
    return np.stack([x[:, :, k : x.shape[2] - 2 + k] for k in range(3)], axis=-1)


def conv(x, w, b):
    """x (m, c, t), w (o, c, 3) → (m, o, t − 2)."""
    return np.einsum("mctk,ock->mot", windows(x), w) + b[:, None]


CONV = RNG.standard_normal((4, 2, 7)), RNG.standard_normal((3, 2, 3)), b


def conv_grads(args, dy):
    x, w, _ = args
    dx = np.zeros_like(x)
    for k in range(3):
        dx[:, :, k : k + dy.shape[2]] += np.einsum("mot,oc->mct", dy, w[:, :, k])
    return dx, np.einsum("mot,mctk->ock", dy, windows(x)), dy.sum(axis=(0, 2))


@wrong("reversed", forward=conv, inputs=CONV)
def conv_flips_the_kernel_gradient(args, dy):
    dx, dw, db = conv_grads(args, dy)
    return dx, dw[:, :, ::-1].copy(), db


@wrong("scaled by 1/m", forward=conv, inputs=CONV)
def conv_averages_the_bias(args, dy):
    dx, dw, _ = conv_grads(args, dy)
    return dx, dw, dy.sum(axis=2).mean(axis=0)


@wrong("scaled by 1/n_out", forward=conv, inputs=CONV)
def conv_averages_the_bias_over_positions(args, dy):
    dx, dw, _ = conv_grads(args, dy)
    return dx, dw, dy.mean(axis=2).sum(axis=0)


@wrong("only one sample used", forward=conv, inputs=CONV)
def conv_takes_the_last_sample(args, dy):
    dx, _, db = conv_grads(args, dy)
    return dx, np.einsum("ot,ctk->ock", dy[-1], windows(args[0])[-1]), db


@wrong("not summed over the batch", forward=conv, inputs=CONV)
def conv_keeps_the_samples_apart(args, dy):
    dx, dw, _ = conv_grads(args, dy)
    return dx, dw, dy.sum(axis=2)


# ---- tinynet's own contract --------------------------------------------------------------------------------------


class DenseLayer(tn.Layer):
    """A dense sigmoid layer; `wrong_δ` and `wrong_grads` are where the faults come in."""

    def init(self, rng, dtype=np.float32):
        return {"W": rng.standard_normal((4, 3)).astype(dtype), "b": np.zeros(3, dtype)}

    def forward(self, params, x):
        a = dense(x, params["W"], params["b"])
        return a, (x, a)

    def backward(self, params, cache, dy):
        x, a = cache
        dx, dW, db = dense_grads((x, params["W"], params["b"]), self.δ(a, dy))
        return dx, {"W": dW, "b": db}

    def δ(self, a, dy):
        return dy * a * (1 - a)


@wrong("another activation's derivative", inputs=x)
class SquaresItsDerivative(DenseLayer):
    def δ(self, a, dy):
        return dy * (a * (1 - a)) ** 2


@wrong("missing", inputs=x)
class ForgetsTheKey(DenseLayer):
    def backward(self, params, cache, dy):
        dx, grads = super().backward(params, cache, dy)
        return dx, {"W": grads["W"]}


@wrong("malformed", "missing", inputs=x)
class NamesTheKeysOtherwise(DenseLayer):
    def backward(self, params, cache, dy):
        dx, grads = super().backward(params, cache, dy)
        return dx, {"dW": grads["W"], "db": grads["b"]}


class MeanSquares(tn.Loss):
    """E = 1/(m n) Σ (ŷ − y)²."""

    def forward(self, y_hat, y):
        r = y_hat - y
        return np.mean(r**2), r

    def backward(self, r, dE=1.0):
        return dE * self.slope(r)


@wrong("scaled by 1/2", inputs=(x, σ(x)))
class MeanSquaresForgetsTheTwo(MeanSquares):
    def slope(self, r):
        return r / r.size


@wrong("sign", inputs=(x, σ(x)))
class MeanSquaresTargetFirst(MeanSquares):
    def slope(self, r):
        return -2 * r / r.size


@wrong("scaled by n_out", inputs=(x, σ(x)))
class MeanSquaresDividesByTheSamples(MeanSquares):
    def slope(self, r):
        return 2 * r / len(r)


@wrong("scaled by m", inputs=(x, σ(x)))
class MeanSquaresDividesByTheOutputs(MeanSquares):
    def slope(self, r):
        return 2 * r / r.shape[-1]


@wrong("ignores dy", inputs=(x, σ(x)))
class MeanSquaresIgnoresDE(MeanSquares):
    def backward(self, r, dE=1.0):
        return 2 * r / r.size


@wrong("absolute value", inputs=(x, σ(x)))
class MeanSquaresTakesTheAbsoluteValue(MeanSquares):
    def slope(self, r):
        return 2 * np.abs(r) / r.size


ONE_HOT = np.eye(4)[[0, 2, 1, 3, 2]]


class CrossEntropy(tn.Loss):
    """E = −1/m Σ y log softmax(ŷ)."""

    def forward(self, y_hat, y):
        p = softmax(y_hat)
        return -(y * np.log(p)).sum() / len(y), (p, y)

    def backward(self, cache, dE=1.0):
        p, y = cache
        return dE * (p - y) / len(y)


@wrong("scaled by m", inputs=(x, ONE_HOT))
class CrossEntropyForgetsTheMean(CrossEntropy):
    def backward(self, cache, dE=1.0):
        return dE * (cache[0] - cache[1])


@wrong("sign", inputs=(x, ONE_HOT))
class CrossEntropySwapped(CrossEntropy):
    def backward(self, cache, dE=1.0):
        return dE * (cache[1] - cache[0]) / len(cache[0])


@wrong("unknown", inputs=(x, ONE_HOT))
class CrossEntropyOfProbabilities(CrossEntropy):
    def backward(self, cache, dE=1.0):
        p, y = cache
        return -dE * y / p / len(p)


# ---- what verify says of them ------------------------------------------------------------------------------------


def verified(fault: Fault) -> tn.Report:
    return tn.verify(fault.target, inputs=fault.inputs, dtype="float64")


FORM = {"dense_keeps_dims", "dense_squeezes", "DenseNeverReset"}
"""What does no harm outside tinynet's contract: an axis of length 1, gradients that add up until they are reset."""

AS_TRUE = {
    "dense_sums_the_other_axis": {"wrong shape"},
    "dense_takes_dy_for_dW": {"another value"},
    "dense_takes_dy_for_db": {"another value"},
    "dense_takes_dy_for_dx": {"another value"},
    "dense_forgets_dx_in_the_tuple": {"missing", "wrong shape"},
    "dense_updates_in_place": {"mutates x"},
    "dense_allocates_float32": {"float32 inside"},
    "relu_masks_in_place": {"mutates x"},
    "softmax_minus_one_hot": {"another activation's derivative"},
    "softmax_sums_over_the_batch": {"summed over the wrong axis"},
    "layer_norm_takes_the_statistics_for_constants": {"missing path"},
    "conv_takes_the_last_sample": {"rows left out"},
    "conv_averages_the_bias": {"scaled by 1/x.shape[0]"},
    "conv_averages_the_bias_over_positions": {"scaled by 1/5"},
    "layer_norm_drops_the_one_over_n": {"scaled by 4"},
    "MeanSquaresDividesByTheSamples": {"scaled by 4"},
    "NamesTheKeysOtherwise": {"missing"},
    "SquaresItsDerivative": {"factor taken twice"},
    "CrossEntropyOfProbabilities": {"another value"},
}
"""Other names that say the same, or more."""

UNDECIDED = {"dense_returns_no_dx", "DenseForgetsTheBias"}
"""A gradient is None or nowhere to be found: nothing can be said of it, and there is no PASS."""

UNNAMED = {
    "DenseDropsOutOnTheWayBack",
}
"""Found, and without a name."""


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.id not in FORM | UNDECIDED], ids=lambda fault: fault.id)
def test_a_fault_is_found_and_bears_its_name_and_no_other(fault):
    report = verified(fault)
    assert report.verdict == "FAIL"
    names = {f.name for f in report.findings}
    assert names, report
    assert names <= fault.names | AS_TRUE.get(fault.id, set()) | ({"unknown"} if fault.id in UNNAMED else set()), report


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.id in UNDECIDED], ids=lambda fault: fault.id)
def test_a_gradient_that_is_not_returned_is_no_pass(fault):
    report = verified(fault)
    assert report.verdict == "INCONCLUSIVE"
    assert "no gradient of it was found" in report.reason


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.id in FORM], ids=lambda fault: fault.id)
def test_what_is_form_alone_is_a_note(fault):
    report = verified(fault)
    assert report.ok, report
    assert report.notes


def test_most_of_the_faults_have_a_name():
    assert sum(fault.names != {"unknown"} for fault in FAULTS) >= 0.9 * len(FAULTS) > 40


@pytest.mark.parametrize(
    ("target", "inputs"),
    [
        ((dense, lambda args, dy: dense_grads(args, δ_of(args, dy))), (x, W, b)),
        (Dense, x),
        (two_layers(), NET),
        ((layer_norm, layer_norm_grads), NORM),
        ((conv, conv_grads), CONV),
        (DenseLayer, x),
        (CrossEntropy, (x, ONE_HOT)),
        (CrossEntropy, None),
    ],
)
def test_what_the_faults_are_made_of_is_right(target, inputs):
    tn.check(target, inputs=inputs)

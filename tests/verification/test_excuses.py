"""What is excused, for rounding, for a kink, for a loop that is close enough, hides nothing that is wrong."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn

RNG = np.random.default_rng(0)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_a_logistic_unit_of_many_inputs_is_right_where_they_all_have_one_sign():
    def forward(x, w, b):
        return sigmoid(x @ w + b)

    def backward(args, dy):
        x, w, b = args
        y = sigmoid(x @ w + b)
        dz = dy * y * (1 - y)
        return dz[:, None] * w, x.T @ dz, dz.sum()

    assert tn.verify((forward, backward), inputs=(RNG.normal(size=(5, 20)), RNG.normal(size=20), np.ones(()))).ok


def rate_without_a_factor():
    """The gradients where every input is positive are e⁴⁰ times the usual ones, which must excuse nothing."""

    def forward(x, w, b):
        return np.exp(x @ w) * (1 + b)

    def backward(args, dy):
        x, w, b = args
        e = dy * np.exp(x @ w)
        return e[:, None] * w, x.T @ (e * (1 + b)), e.sum() * np.ones_like(b)  # dx lacks 1 + b

    rng = np.random.default_rng(0)
    return (forward, backward), (rng.normal(size=(5, 200)), 0.25 * rng.normal(size=200), np.zeros(1))


def wrong_y_in_float32():
    def forward(x):
        return np.tanh(x) + np.float32(0.5) * (x.dtype == np.float32)

    return (forward, lambda args, dy: (dy * (1 - np.tanh(args[0]) ** 2),)), RNG.normal(size=(5, 4))


def wrong_where_all_are_equal():
    def forward(a, b):
        return np.abs(np.tanh(a) - np.tanh(b)).sum()

    def backward(args, dy):
        a, b = np.tanh(args[0]), np.tanh(args[1])
        s = np.sign(a - b) + 7.0 * (a == b).all()
        return dy * s * (1 - a**2), -dy * s * (1 - b**2)

    return (forward, backward), (RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)))


def wrong_for_many_samples_of_a_scalar_loss():
    def forward(x, W):
        return np.tanh(x @ W.T).sum()

    def backward(args, dy):
        x, W = args
        dz = dy * (1 - np.tanh(x @ W.T) ** 2)
        return (2 if len(x) > 64 else 1) * dz @ W, dz.T @ x

    return (forward, backward), (RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3)))


def off_beside_an_output_that_counts():
    def forward(x):
        return np.array([math.erf(float(v)) for v in x.ravel()]).reshape(x.shape), float(len(x))

    def backward(args, dy):
        return (dy[0] * 2 / np.sqrt(np.pi) * np.exp(-(args[0] ** 2)) * (1 + 5e-5),)

    return (forward, backward), RNG.normal(size=(3, 2))


def off_after_a_loop_that_no_other_tolerance_belongs_to():
    def other(x, tol=1e-6):
        return x / tol

    def forward(x, tol=1e-15):
        z = np.zeros_like(x)
        while True:
            new = np.tanh(x + 0.3 * z)
            off, z = float(abs(new - z).max()), new
            if off < tol:
                return z

    def backward(args, dy):
        s = 1 - forward(*args) ** 2
        return (dy * s / (1 - 0.3 * s) * (1 + 1e-5),)

    assert other
    return (forward, backward), RNG.normal(size=(4, 3))


class LeavesEarly:
    """Its backward pass leaves a loop where dy is nothing, which is no loop that comes close to anything."""

    def __init__(self):
        self.W, self.b = np.random.default_rng(0).normal(size=(3, 4)) / 2, np.zeros(4)

    def forward(self, x):
        self.x, self.h = x, np.tanh(x @ self.W + self.b)
        return self.h + self.h**2 * self.b

    def backward(self, dy):
        for _ in range(3):
            if np.abs(dy).max() < 1e-30:
                break
        dz = dy * (1 - self.h**2)  # lacks 2 h b
        self.dW, self.db = self.x.T @ dz, dz.sum(axis=0) + (dy * self.h**2).sum(axis=0)
        return dz @ self.W.T


@pytest.mark.parametrize(
    "made",
    [
        rate_without_a_factor, wrong_y_in_float32, wrong_where_all_are_equal, wrong_for_many_samples_of_a_scalar_loss,
        off_beside_an_output_that_counts, off_after_a_loop_that_no_other_tolerance_belongs_to,
        lambda: (LeavesEarly(), RNG.normal(size=(5, 3))),
    ],
)  # fmt: skip
def test_what_is_wrong_is_not_excused(made):
    target, inputs = made()
    assert tn.verify(target, inputs=inputs, named=False).verdict == "FAIL"


def test_an_input_that_did_not_move_y_where_it_was_tried_is_no_mask():
    def forward(x, g):
        return x**2 + np.maximum(g, 0) ** 2

    report = tn.verify(
        (forward, lambda args, dy: (2 * args[0] * dy, None)), inputs=(RNG.normal(size=(4, 3)), -np.ones(3) / 2)
    )
    assert report.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("mask", [np.where(np.tri(4) > 0, 0.0, -np.inf), np.where(np.tri(4) > 0, 0.5, -np.inf)])
def test_infinities_are_taken_in_a_mask_alone(mask):
    def forward(x, m):
        e = np.exp(x + m - np.max(x + m, axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def backward(args, dy):
        p = forward(*args)
        return p * (dy - (dy * p).sum(axis=-1, keepdims=True)), None

    if np.isin(mask, (0.0, -np.inf)).all():
        assert tn.verify((forward, backward), inputs=(RNG.normal(size=(4, 4)), mask)).ok
    else:
        with pytest.raises(tn.TargetError, match="m holds a value that is NaN or infinite"):
            tn.verify((forward, backward), inputs=(RNG.normal(size=(4, 4)), mask))


def root(a):
    """Return √a by Newton's method."""
    x = np.ones_like(a)
    for _ in range(100):
        x, before = (x + a / x) / 2, x
        if np.max(np.abs(x - before)) < 1e-10:
            break
    return x


def test_what_is_not_tried_on_a_loop_that_comes_close_is_said():
    report = tn.verify((root, lambda args, dy: (dy / (2 * np.sqrt(args[0])),)), inputs=1 + RNG.random((2, 3)))
    assert report.ok, report
    skipped = {p.name: p.skipped for p in report.coverage if p.skipped}
    assert {skipped.get(name, "").split(":")[0] for name in ("saturated", "huge", "one sign")} == {
        "a loop ends when it is close enough"
    }


def compiled_equilibrium(x, w):
    def goes_on(state):
        z, before = state
        return jnp.max(jnp.abs(z - before)) > 1e-7

    def step(state):
        return jnp.tanh(x + state[0] @ w), state[0]

    return jax.lax.while_loop(goes_on, step, (jnp.tanh(x), jnp.zeros_like(x)))[0]


def called_equilibrium(x, w):
    def is_close(z, before):
        return np.max(np.abs(z - before)) < 1e-7

    z, before = np.tanh(x), np.zeros_like(x)
    while not is_close(z, before):
        z, before = np.tanh(x + z @ w), z
    return z


def equilibrium_grads(x, w, z, dy, factor):
    u = dy
    for _ in range(100):
        u = dy + (u * (1 - z * z)) @ w.T
    dz = u * (1 - z * z)
    return dz, factor * z.T @ dz


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
@pytest.mark.parametrize("forward", [compiled_equilibrium, called_equilibrium])
def test_a_function_may_tell_a_loop_that_it_is_close_enough(forward, factor, verdict):
    """Far from the given values the loop does not end, which is no fault."""
    x, w = np.random.default_rng(0).normal(size=(4, 6)), 0.2 * np.random.default_rng(1).normal(size=(6, 6))

    def backward(args, dy):
        return equilibrium_grads(*args, forward(*args), dy, factor)

    target = (forward, backward)
    if forward is compiled_equilibrium:
        target = jax.custom_vjp(forward)
        target.defvjp(
            lambda x, w: ((z := forward(x, w)), (x, w, z)), lambda kept, dy: equilibrium_grads(*kept, dy, factor)
        )
    probes = None if verdict == "PASS" else ["rectangular"]
    report = tn.verify(target, inputs=(x, w), name_seconds=0, probes=probes)
    assert report.verdict == verdict, report


def left_equilibrium(x, w):
    z = np.tanh(x)
    for _ in range(500):
        before, z = z, np.tanh(x + z @ w)
        if np.max(np.abs(z - before)) < 1e-8:
            break
    return z


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.01, "FAIL")])
def test_a_loop_that_is_close_enough_may_have_many_parameters(factor, verdict):
    """Too many to move each alone: the steps that ran are followed back, which is known less well."""
    x, w = np.random.default_rng(0).normal(size=(4, 80)), 0.05 * np.random.default_rng(1).normal(size=(80, 80))

    def backward(args, dy):
        return equilibrium_grads(*args, left_equilibrium(*args), dy, factor)

    probes = None if verdict == "PASS" else ["rectangular"]
    report = tn.verify((left_equilibrium, backward), inputs=(x, w), name_seconds=0, probes=probes)
    assert report.verdict == verdict, report
    assert report.resolution > 1e-6


def power_mean(x, p):
    return np.mean(x**p, axis=1) ** (1 / p)


def power_mean_grads(args, dy, factor=1.0):
    x, p = args
    M, y = np.mean(x**p, axis=1), power_mean(x, p)
    dx = dy[:, None] * (y / M)[:, None] * x ** (p - 1) / x.shape[1]
    dp = dy * y * (np.mean(x**p * np.log(x), axis=1) / (p * M) - factor * np.log(M) / p**2)
    return dx, dp.sum()


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (0.999, "FAIL")])
def test_digits_that_are_lost_in_a_single_number_are_excused_as_in_an_array(factor, verdict):
    """At p = 0.0025 two terms of 10⁵ cancel; the gradient is no array but one of NumPy's numbers."""
    inputs = np.random.default_rng(7).random((4, 3)) + 0.2, np.array(2.5)
    target = (power_mean, lambda args, dy: power_mean_grads(args, dy, factor))
    assert tn.verify(target, inputs=inputs, name_seconds=0).verdict == verdict


def norm(v):
    return np.sqrt((v * v).sum() + 1e-5)


def halved(x):
    while norm(x) > 1:
        x = x / 2
    return x


def halved_back(args, dy, error=0.0):
    (x,) = args
    while norm(x) > 1:
        x, dy = x / 2, dy / 2
    return (dy * (1 + error),)


def test_a_small_constant_in_a_function_that_a_loop_asks_is_not_how_close_the_loop_ends():
    x = np.random.default_rng(0).standard_normal((3, 2))
    assert tn.verify((halved, halved_back), inputs=x).ok
    report = tn.verify((halved, lambda a, dy: halved_back(a, dy, 1e-4)), inputs=x, named=False)
    assert (report.verdict, report.resolution < 1e-12) == ("FAIL", True)


def test_labels_are_not_moved_to_see_how_rounding_moves_a_gradient():
    """One that a label of 1 + u would change at once is not lost in rounding for that."""

    def loss(z, y):
        p = sigmoid(z)
        right = np.where(y == 1, p, 1 - p)
        s = np.where(y == 1, 1, -1)
        gradient = s * (1 - right) ** 2 * (2 * right * np.log(right) + right - 1) / z.size
        return -((1 - right) ** 2 * np.log(right)).mean(), gradient * (1 + (np.abs(z) > 4))

    report = tn.verify(loss, inputs=(RNG.normal(size=(5, 3)), (RNG.normal(size=(5, 3)) > 0).astype(float)))
    assert report.verdict == "FAIL", report

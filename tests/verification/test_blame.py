"""Every finding says which statement of the backward is to blame, whatever it is that is wrong."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn

RNG = np.random.default_rng(5)
x, w = RNG.standard_normal((4, 3)), RNG.standard_normal(3)


def places(target, inputs=x, **options):
    """Return the texts of the statements that the findings place themselves at."""
    report = tn.verify(target, inputs=inputs, **options)
    assert report.verdict == "FAIL", report
    return [(f.fault, f.where_text) for f in report.findings]


def line_of(function):
    lines, first = inspect.getsourcelines(function)
    return first, first + len(lines)


class OneLine:
    def __init__(self):
        self.w = w.copy()

    def forward(self, x):
        self.x = x
        return x * self.w

    def backward(self, dy): self.dw = (dy * self.x).mean(0); return dy * self.w  # fmt: skip # noqa: E702


def test_a_gradient_stored_by_a_method_of_one_line_is_placed_there():
    ((fault, text),) = places(OneLine())
    assert fault == "scaled"
    assert text.startswith("def backward(self, dy): self.dw") or "self.dw = " in text


def tanh_cut_off(args, dy):
    slope = 1.1 - np.tanh(args[0]) ** 2
    near = np.abs(args[0]) < 8
    return dy * slope * near


def squares_of_few(args, dy):
    rows = args[0][:8]
    doubled = 2 * np.concatenate([rows, 0 * args[0][8:]])
    return dy * doubled


def squares_in_float32(args, dy):
    half = args[0].astype(args[0].dtype)
    if half.dtype == np.float32:
        half = half * np.float32(1.5)
    return 2 * dy * half


@pytest.mark.parametrize(
    ("fault", "forward", "backward"),
    [
        ("wrong only when saturated", lambda x: np.tanh(x) + 0.1 * x, tanh_cut_off),
        ("wrong only at some batch sizes", lambda x: x**2, squares_of_few),
        ("wrong only in float32", lambda x: x**2, squares_in_float32),
    ],
)
def test_what_is_wrong_only_somewhere_is_placed(fault, forward, backward):
    first, end = line_of(backward)
    for finding in tn.verify((forward, backward), inputs=x).findings:
        assert finding.fault == fault
        assert first <= int(finding.where.partition(":")[2]) < end


def writes_into_dy(args, dy):
    slope = 2 * args[0]
    dy *= slope
    return dy.copy()


def test_the_statement_that_writes_into_dy_is_named():
    found = places((lambda x: x**2, writes_into_dy))
    assert ("mutates dy", "dy *= slope") in found


def writes_into_x(x):
    y = x**2
    x += 1.0
    return y


def test_the_statement_of_the_forward_that_writes_into_x_is_named():
    found = places((writes_into_x, lambda args, dy: 2 * dy * args[0]))
    assert ("mutates x", "x += 1.0") in found


@jax.custom_vjp
def doubled(x):
    return 2.0 * jnp.sin(x)


def doubled_backward(x, dy):
    slope = jnp.cos(x)
    dx = dy * slope
    return (dx,)


doubled.defvjp(lambda x: (doubled(x), x), doubled_backward)


def test_a_rule_for_vjp_is_placed_at_its_statement():
    ((fault, text),) = places(doubled)
    assert fault == "scaled"
    assert text == "dx = dy * slope"


@jax.custom_jvp
def tripled(x):
    return 3.0 * jnp.sin(x)


@tripled.defjvp
def tripled_rule(primals, tangents):
    (x,), (dx,) = primals, tangents
    return tripled(x), jnp.cos(x) * dx


@pytest.mark.parametrize("target", [tripled, lambda x: jnp.sum(tripled(x) ** 2)], ids=["alone", "inside"])
def test_a_rule_for_jvp_is_placed_in_it(target):
    first, end = line_of(tripled_rule)
    for finding in tn.verify(target, inputs=x).findings:
        file, _, number = finding.where.partition(":")
        assert file == "test_blame.py"
        assert first <= int(number) < end


def test_no_line_of_a_library_is_named():
    signal = pytest.importorskip("scipy.signal")

    def forward(x, k):
        return signal.convolve2d(x, k, mode="valid")

    def backward(args, dy):
        x, k = args
        dk = signal.correlate2d(x, dy, mode="valid")
        return signal.correlate2d(dy, k, mode="full"), dk

    ((_, text),) = places((forward, backward), (RNG.standard_normal((5, 6)), RNG.standard_normal((3, 2))))
    assert "dk" in text


def weighted_hinge(scores, sign):
    return np.maximum(1 - sign * scores, 0).sum()


def weighted_hinge_backward(args, dE):
    scores, sign = args
    active = (1 - sign * scores > 0).astype(scores.dtype)
    return -dE * active, None


def squares(pred, y):
    return ((pred - y) ** 2).sum()


def squares_backward(args, dE):
    pred, y = args
    r = 2 * (pred - y)
    return dE * r, dE * r


def heads(q, k, v):
    return q * np.tanh(k), q + v


def split(z):
    return z.reshape(4, 3)


def heads_backward(args, dy):
    q, k, _ = args
    dk = dy[0] * q * (1 - np.tanh(k) ** 2)
    return split(dy[0] * np.tanh(k) + dy[1]), split(dk), split(2 * dy[1])


def one_way(x, w):
    h, states = np.zeros(x.shape[1]), []
    for row in x:
        h = np.tanh(row * w + h)
        states.append(h)
    return np.stack(states)


def both_ways(x, w, u):
    return one_way(x, w) * 2, one_way(x[::-1], u)[::-1] * 1.0


def back_through_time(dy, x, w, states):
    dx, dw, dh = np.zeros_like(x), np.zeros_like(w), np.zeros_like(w)
    for t in reversed(range(len(x))):
        dz = (dy[t] + dh) * (1 - states[t] ** 2)
        dx[t], dh = dz * w, dz
        dw += dz * x[t]
    return dx, dw


def both_ways_backward(args, dy):
    x, w, u = args
    dx, dw = back_through_time(2 * dy[0], x, w, one_way(x, w))
    dxu, du = back_through_time(dy[1], x[::-1], u, one_way(x[::-1], u))  # dy reversed, too
    return dx + dxu[::-1], dw, du


def bilinear(a, M, b):
    return np.einsum("ni,ij,nj->n", a, M, b)


def bilinear_backward(args, dy):
    a, M, b = args
    return dy[:, None] * (b @ M), np.einsum("n,ni,nj->ij", dy, a, b), dy[:, None] * (a @ M)


@pytest.mark.parametrize(
    ("target", "inputs", "text"),
    [
        ((weighted_hinge, weighted_hinge_backward), (x[0], np.array([1.0, -1.0, 1.0])), "return -dE * active, None"),
        ((squares, squares_backward), (x, x[::-1] + 0.1), "return dE * r, dE * r"),
        ((heads, heads_backward), (x, x[::-1], x + 1), "return split("),
        ((bilinear, bilinear_backward), (x, RNG.standard_normal((3, 3)), x[::-1]), "return dy[:, None] * (b @ M)"),
        ((both_ways, both_ways_backward), (x, w, w[::-1].copy()), "dxu, du = "),
    ],
    ids=["None for another", "an argument called y", "a helper called often", "values of one axis", "several at once"],
)
def test_what_stands_beside_a_fault_does_not_hide_its_place(target, inputs, text):
    for _, where in places(target, inputs):
        assert where.startswith(text)

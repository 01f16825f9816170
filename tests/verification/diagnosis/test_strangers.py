"""Faults in code as strangers write it that the table of mistakes had once no name, a wrong one, or no place for."""

import sys

import numpy as np
import pytest

import tinynet as tn

RNG = np.random.default_rng(4)
SIGMA = np.array(3.7)
x, w = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 3))
sequence = RNG.standard_normal((2, 4, 3))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def attended(x, w):
    p = softmax(x @ w)
    return p @ p.T


def its_own_probability_only(args, dy):
    x, w = args
    p = softmax(x @ w)
    dp = dy @ p + dy.T @ p
    dz = p * (1 - p) * dp  # off-diagonal terms missing
    return dz @ w.T, x.T @ dz


def cooled(x, log_t):
    t = np.exp(log_t)
    return np.tanh(x / t)


def forgets_the_exponential(args, dy):
    x, log_t = args
    t = np.exp(log_t)
    dz = dy * (1 - np.tanh(x / t) ** 2)
    return dz / t, -(dz * x / t**2).sum()  # * t


def normalised(x):
    mean = x.mean(1, keepdims=True)
    var = ((x - mean) ** 2).mean(1, keepdims=True)
    return (x - mean) / np.sqrt(var + 0.1)


def divides_by_another_number(args, dy):
    (x,) = args
    xc = x - x.mean(1, keepdims=True)
    std = np.sqrt((xc**2).mean(1, keepdims=True) + 0.1)
    n = len(x)
    xh = xc / std
    return (dy - dy.sum(1, keepdims=True) / n - xh * (dy * xh).sum(1, keepdims=True) / n) / std  # n is x.shape[1]


def forgets_where_eps_stands(args, dy):
    (x,) = args
    xc = x - x.mean(1, keepdims=True)
    std = np.sqrt((xc**2).mean(1, keepdims=True)) + 0.1  # eps inside
    xh = xc / std
    return (dy - dy.mean(1, keepdims=True) - xh * (dy * xh).mean(1, keepdims=True)) / std


def turned(x, w):
    a, b = x[:, :2], x[:, 2:4]
    y = np.concatenate([a * w[0] - b * w[1], a * w[1] + b * w[0]], axis=1)
    return y * y


def turned_on(args, dy):
    x, w = args
    a, b = x[:, :2], x[:, 2:4]
    da, db = np.split(2 * dy * np.concatenate([a * w[0] - b * w[1], a * w[1] + b * w[0]], axis=1), 2, axis=1)
    dw = np.stack([(da * a + db * b).sum(0), (db * a - da * b).sum(0)])
    return np.concatenate([da * w[0] - db * w[1], da * w[1] + db * w[0]], axis=1), dw  # both signs


def convolved(x, w):
    y = np.zeros_like(x[:, 2:])
    for i in range(3):
        y = y + w[i] * x[:, i : i + y.shape[1]]
    return np.tanh(y)


def convolved_in_reverse(args, dy):
    x, w = args
    dz = dy * (1 - convolved(x, w) ** 2)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(3):
        dx[:, i : i + dz.shape[1]] += w[2 - i] * dz  # w[i]
        dw[i] = (dz * x[:, i : i + dz.shape[1]]).sum()
    return dx, dw


def mixed(x, w):
    y = np.zeros_like(x)
    for i in range(3):
        y = y + np.sin(w[i] * x)
    return np.tanh(y)


def mixed_and_overwritten(args, dy):
    x, w = args
    dz = dy * (1 - mixed(x, w) ** 2)
    dw = np.zeros_like(w)
    for i in range(3):
        dx = w[i] * np.cos(w[i] * x) * dz  # +=
        dw[i] = (dz * np.cos(w[i] * x) * x).sum()
    return dx, dw


def gated(x, w):
    i, f, u, o = np.split(x @ w, 4, axis=1)
    return np.tanh(i) * u + np.sin(f) * np.exp(o)


def gates_exchanged(args, dy):
    x, w = args
    i, f, u, o = np.split(x @ w, 4, axis=1)
    di, du = dy * (1 - np.tanh(i) ** 2) * u, dy * np.tanh(i)
    df, do = dy * np.cos(f) * np.exp(o), dy * np.sin(f) * np.exp(o)
    dz = np.concatenate([df, di, du, do], axis=1)  # di first
    return dz @ w.T, x.T @ dz


def cell(x, w):
    c = np.tanh(x @ w)
    return c * w[0], c


def one_output_forgotten(args, dys):
    x, w = args
    dh, _ = dys
    c = np.tanh(x @ w)
    dz = dh * w[0] * (1 - c * c)  # the other of dys
    dw = x.T @ dz
    dw[0] += (dh * c).sum(0)
    return dz @ w.T, dw


def squares(x, w):
    n = np.sqrt((x**2).sum(1, keepdims=True) + 0.1)
    return (x @ w) / n


def takes_another_factor(args, dy):
    x, w = args
    n = np.sqrt((x**2).sum(1, keepdims=True) + 0.1)
    z = x @ w
    dn = -(dy * z).sum(1, keepdims=True) / n**2
    return dy @ w.T / n + dn / n * z, x.T @ (dy / n)  # x


def distances(a, b, c):
    near = np.sqrt(((a - b) ** 2).sum(1) + 0.1)
    far = np.sqrt(((a - c) ** 2).sum(1) + 0.1)
    return np.tanh(near) - np.tanh(2 * far)


def divides_by_the_other_distance(args, dy):
    a, b, c = args
    near = np.sqrt(((a - b) ** 2).sum(1) + 0.1)
    far = np.sqrt(((a - c) ** 2).sum(1) + 0.1)
    d_near = (dy * (1 - np.tanh(near) ** 2) / near)[:, None] * (a - b)
    d_far = (-2 * dy * (1 - np.tanh(2 * far) ** 2) / near)[:, None] * (a - c)  # far
    return d_near + d_far, -d_near, -d_far


def summed_in_steps(x, w):
    h, ys = np.zeros_like(x[:, 0]), []
    for t in range(4):
        h = np.tanh(x[:, t] + h)
        ys.append(h @ w)
    return np.stack(ys, axis=1)


def takes_the_last_state(args, dy):
    x, w = args
    h, hs = np.zeros_like(x[:, 0]), []
    for t in range(4):
        h = np.tanh(x[:, t] + h)
        hs.append(h)
    dx, dw, dnext = np.zeros_like(x), np.zeros_like(w), np.zeros_like(h)
    for t in reversed(range(4)):
        dw += hs[-1].T @ dy[:, t]  # hs[t]
        dx[:, t] = dnext = (dy[:, t] @ w.T + dnext) * (1 - hs[t] ** 2)
    return dx, dw


def remembered(x, w, u):
    h = np.zeros_like(x[:, 0])
    for t in range(4):
        z = 1 / (1 + np.exp(-x[:, t] @ w))
        kept = z * h
        n = np.tanh(x[:, t] + h @ u)
        h = (1 - z) * n + kept
    return h


def remembered_back(args, dh, gate=lambda z, h: z, state=lambda dz, dn: dn):
    """Return the gradients; two functions say what stands where z and ∂E/∂n̂ belong."""
    x, w, u = args
    h, steps = np.zeros_like(x[:, 0]), []
    for t in range(4):
        z, n = 1 / (1 + np.exp(-x[:, t] @ w)), np.tanh(x[:, t] + h @ u)
        steps.append((h, z, n))
        h = (1 - z) * n + z * h
    dx, dw, du = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u)
    for t in reversed(range(4)):
        h, z, n = steps[t]
        dz = dh * (h - n) * z * (1 - z)
        dn = dh * (1 - z) * (1 - n * n)
        dh = dh * gate(z, h) + state(dz, dn) @ u.T  # z, dn
        dx[:, t] = dz @ w.T + dn
        dw += x[:, t].T @ dz
        du += h.T @ dn
    return dx, dw, du


def takes_the_state_for_the_gate(args, dy):
    return remembered_back(args, dy, gate=lambda z, h: h)


def takes_the_gate_for_the_state(args, dy):
    return remembered_back(args, dy, state=lambda dz, dn: dz)


@pytest.mark.parametrize(
    ("fault", "at", "forward", "backward", "inputs"),
    [
        ("off-diagonal terms missing", "return e / e.sum", attended, its_own_probability_only, (x, w)),
        ("σ′ missing", "t = np.exp(log_t)", cooled, forgets_the_exponential, (x, SIGMA)),
        ("scaled", "var = ", normalised, divides_by_another_number, x),
        ("another value", "return (x - mean)", normalised, forgets_where_eps_stands, x),
        ("sign", "y = np.concatenate", turned, turned_on, (RNG.standard_normal((3, 4)), RNG.standard_normal((2, 2)))),
        ("another value", "y = y + w[i]", convolved, convolved_in_reverse, (RNG.standard_normal((2, 6)), w[0])),
        ("overwritten", "y = y + np.sin", mixed, mixed_and_overwritten, (RNG.standard_normal((2, 4)), w[0])),
        ("exchanged gradients", "i, f, u, o", gated, gates_exchanged, (x, RNG.standard_normal((3, 8)))),
        ("missing path", "return c * w[0], c", cell, one_output_forgotten, (x, w)),
        (
            "another value",
            "far = np.sqrt",
            distances,
            divides_by_the_other_distance,
            (x, 0.5 * x[::-1], w[[0, 1, 2, 0]]),
        ),
        ("another value", "ys.append", summed_in_steps, takes_the_last_state, (sequence, w)),
        ("another value", "n = np.sqrt", squares, takes_another_factor, (x, w)),
        ("another value", "kept = z * h", remembered, takes_the_state_for_the_gate, (sequence, w, w)),
        ("another value", "n = np.tanh", remembered, takes_the_gate_for_the_state, (sequence, w, w)),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_it_is_named_and_placed(fault, at, forward, backward, inputs):
    (finding,) = tn.verify((forward, backward), inputs=inputs, dtype="float64").findings
    assert finding.fault == fault, finding
    assert finding.text.startswith(at), finding
    assert "  # " in line_of(finding.where), finding


def test_what_a_loop_carries_bears_its_name():
    """In the forward's text h stands for the state before the step."""
    target = (remembered, takes_the_state_for_the_gate)
    (finding,) = tn.verify(target, inputs=(sequence, w, w), dtype="float64").findings
    assert finding.explanation == "h of the step before stands where z, the other factor of `kept = z * h`, belongs"


def line_of(place):
    with open(sys.modules[__name__].__file__, encoding="utf-8") as file:
        return file.readlines()[int(place.rpartition(":")[2]) - 1]


def energy(x, w):
    """Return (E, gradient), with a fault in the second statement of the gradient."""
    z = x @ w
    e = 0.5 * np.sum(np.tanh(z) ** 2)
    dz = np.tanh(z) * (1 - np.tanh(z) ** 2)
    dx = dz @ w  # w.T
    dw = x.T @ dz
    return e, (dx, dw)


def test_a_gradient_that_came_with_e_is_placed_where_it_was_made():
    (finding,) = tn.verify(energy, inputs=(x, w), dtype="float64").findings
    assert finding.fault in ("W for Wᵀ", "transpose", "another value")
    assert "dx = dz @ w" in finding.where_text


def test_a_multiple_that_is_no_simple_number_is_said_if_nothing_else_explains_it():
    def forward(x, w):
        return x @ w

    def backward(args, dy):
        x, w = args
        return 1.2345 * dy @ w.T, x.T @ dy

    (finding,) = tn.verify((forward, backward), inputs=(x, w), dtype="float64").findings
    assert (finding.fault, finding.factor) == ("scaled", "1.2345")


def carried_cubes(args, dh):
    """Return the gradients of `remembered`, with a term that no chain rule gives in what goes to the step before."""
    return remembered_back(args, dh, state=lambda dz, dn: dn + dz**3)


def test_what_no_mistake_explains_is_placed_in_a_loop_at_the_statement_that_hands_it_on():
    (finding,) = tn.verify((remembered, carried_cubes), inputs=(sequence, w, w), dtype="float64").findings
    assert finding.fault == "unknown"
    assert finding.where_text.startswith("dh = dh * gate(z, h)"), finding


def test_every_use_of_an_array_is_named_where_no_single_one_carries_all_that_is_wrong():
    def forward(x):
        s = np.sin(x)
        t = x * 3.0
        return s * s + t

    def backward(args, dy):
        dx = dy * (2 * np.sin(args[0]) * np.cos(args[0]) + 3)
        return np.tanh(dx)

    (finding,) = tn.verify((forward, backward), inputs=x, dtype="float64").findings
    assert (finding.fault, finding.text) == ("unknown", "t = x * 3.0")
    assert finding.explanation.endswith("what reaches it passes through `s = np.sin(x)` or `t = x * 3.0`")

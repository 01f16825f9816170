"""Products of two of the forward's values where a derivative belongs, and the look that finds them."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.verification.diagnosis.evidence import Wrong
from tinynet.verification.diagnosis.look import Look
from tinynet.verification.diagnosis.recording import record

RNG = np.random.default_rng(6)
x, w, v = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 3)), RNG.standard_normal((3, 3))


def taped(forward, args, wrt, dy):
    return record(Wrong(forward, args, wrt, dy, got={}, exact={}, tolerance={}, wrong=frozenset()))


def test_a_slot_moves_as_forward_mode_says():
    jax = pytest.importorskip("jax")

    def forward(args):
        return (jax.numpy.tanh(args["x"] @ args["w"]) * args["x"],)

    dy, along = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 3))
    tape = taped(forward, {"x": x, "w": w}, ("x", "w"), (dy,))
    with jax.enable_x64(True):
        _, exact = jax.jvp(lambda x: forward({"x": x, "w": w})[0], (x,), (along,))
    np.testing.assert_allclose(tape.moved({tape.inputs["x"]: along})[tape.outputs[0]], exact, rtol=1e-7, atol=1e-8)


def test_what_is_off_by_a_multiple_of_what_passes_is_seen_as_that_multiple():
    def forward(args):
        return (args["x"] @ args["w"],)

    tape = taped(forward, {"x": x, "w": w}, ("x",), (np.ones((4, 3)),))
    exact = tape.gradients()
    look = Look.of(tape, exact, {"x": 1.5 * exact["x"]})
    (site,) = [s for s in tape.sites() if s.kind == "use"]
    passings = []
    tape.sweep({site: lambda p: passings.append(p) or p.right})
    assert look.multiple(passings, [p.right for p in passings]) == pytest.approx(2.5)
    assert look.multiple(passings, [np.cos(p.right) for p in passings]) is None


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gated(x, w, v):
    s = sigmoid(x @ w)
    u = np.tanh(x @ v)
    return s * u


def gate_of_another_value(args, dy):
    x, w, v = args
    s, u = sigmoid(x @ w), np.tanh(x @ v)
    ds, du = dy * u * s * (1 - u), dy * s * (1 - u * u)  # s (1 − s)
    return ds @ w.T + du @ v.T, x.T @ ds, x.T @ du


def cube_for_a_square(args, dy):
    x, w, v = args
    s, u = sigmoid(x @ w), np.tanh(x @ v)
    ds, du = dy * u * s * (1 - s), dy * s * (1 - u**3)  # u²
    return ds @ w.T + du @ v.T, x.T @ ds, x.T @ du


def normalised(x):
    mean = x.mean(1, keepdims=True)
    var = ((x - mean) ** 2).mean(1, keepdims=True)
    return (x - mean) / np.sqrt(var + 0.1)


def epsilon_outside(args, dy):
    (x,) = args
    c = x - x.mean(1, keepdims=True)
    var = (c**2).mean(1, keepdims=True)
    h = c / np.sqrt(var + 0.1)
    return (dy - dy.mean(1, keepdims=True) - h * (dy * h).mean(1, keepdims=True)) / (np.sqrt(var) + 0.1)


def statistic_of_another_axis(args, dy):
    (x,) = args
    c = x - x.mean(1, keepdims=True)
    std = np.sqrt((c**2).mean(1, keepdims=True) + 0.1)
    h = c / std
    return (dy - dy.mean(1, keepdims=True) - h * (dy * h).mean(0, keepdims=True)) / std  # axis 1


def recurrent(x, w):
    h, ys = np.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] + h @ w)
        ys.append(h)
    return np.stack(ys, axis=1)


def stepped_back(args, dy, carried=1, before=0, dw_of=None):
    x, w = args
    states = np.concatenate([np.zeros_like(x[:, :1]), recurrent(x, w)], axis=1)
    dx, dw, later = np.zeros_like(x), np.zeros_like(w), 0
    for t in reversed(range(x.shape[1])):
        dz = (dy[:, t] + later) * (1 - states[:, t + 1 - before] ** 2)
        dx[:, t], later = dz, carried * (dz @ w.T)
        dw += states[:, t].T @ (dz if dw_of is None else dw_of[:, t])
    return dx, dw


def slope_of_the_step_before(args, dy):
    return stepped_back(args, dy, before=1)


def nothing_carried(args, dy):
    return stepped_back(args, dy, carried=0)


def dy_for_the_error(args, dy):
    return stepped_back(args, dy, dw_of=dy)


STEPS = RNG.standard_normal((2, 5, 3)), w


@pytest.mark.parametrize(
    ("fault", "words", "forward", "backward", "inputs"),
    [
        ("another value", "s · (1 − u)", gated, gate_of_another_value, (x, w, v)),
        ("another value", "1 − u · u²", gated, cube_for_a_square, (x, w, v)),
        ("another value", "ε outside the root", normalised, epsilon_outside, x),
        ("summed over the wrong axis", "over axis -2", normalised, statistic_of_another_axis, x),
        ("another value", "derivative of `h = np.tanh", recurrent, slope_of_the_step_before, STEPS),
        ("missing path", "h = np.tanh(x[:, t] + h @ w)", recurrent, nothing_carried, STEPS),
        ("another value", "dy of the same step", recurrent, dy_for_the_error, STEPS),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_what_stands_there_is_said(fault, words, forward, backward, inputs):
    (finding,) = tn.verify((forward, backward), inputs=inputs).findings
    assert finding.fault == fault, finding
    assert words in str(finding), finding


def test_a_backward_of_none_of_these_products_has_no_name():
    def backward(args, dy):
        x, w, v = args
        s, u = sigmoid(x @ w), np.tanh(x @ v)
        ds, du = dy * u * np.cos(3 * s), dy * s * (1 - u * u)
        return ds @ w.T + du @ v.T, x.T @ ds, x.T @ du

    findings = tn.verify((gated, backward), inputs=(x, w, v)).findings
    assert {f.fault for f in findings} == {"unknown"}

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


class Twins(tn.Layer):
    """Two layers after one another, whose gradients come back exchanged."""

    f, g = tn.Linear(3, 3), tn.Linear(3, 3)

    def init(self, rng, dtype=np.float32):
        return {"f": self.f.init(rng, dtype), "g": self.g.init(rng, dtype)}

    def forward(self, params, x):
        h, of_f = self.f.forward(params["f"], x)
        y, of_g = self.g.forward(params["g"], h)
        return y, (of_f, of_g)

    def backward(self, params, cache, dy):
        of_f, of_g = cache
        dh, dg = self.g.backward(params["g"], of_g, dy)
        dx, df = self.f.backward(params["f"], of_f, dh)
        return dx, {"f": dg, "g": df}


def test_of_gradients_exchanged_the_line_is_named_that_exchanges_them_not_one_that_computes_them():
    report = tn.verify(Twins(), inputs=x)
    assert [f.fault for f in report.findings] == ["exchanged gradients"] * 2
    assert {f.where_text for f in report.findings} == {'return dx, {"f": dg, "g": df}'}


def test_only_what_is_right_everywhere_is_called_right():
    report = tn.verify(Twins(), inputs=x)
    assert {f.right for f in report.findings} == {("x",)}
    assert "Twins → params.f.W" in str(report.findings[0])


def tanh_of_few(args, dy):
    x, w = args
    a = np.tanh(x @ w)
    dz = 2 * dy * a
    if len(x) > 100: dz = dz * 2  # fmt: skip # noqa: E701
    return dz @ w.T, x.T @ dz


def test_the_body_of_an_if_on_one_line_that_did_not_run_is_not_blamed():
    ((fault, text),) = places((lambda x, w: np.tanh(x @ w) ** 2, tanh_of_few), (x, w.reshape(3, 1)))
    assert (fault, text) == ("σ′ missing", "dz = 2 * dy * a")


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Attention:
    def __init__(self):
        self.Wq, self.Wk, self.Wv = RNG.standard_normal((3, 4, 4))

    def forward(self, x):
        self.x = x
        self.q, self.k, self.v = x @ self.Wq, x @ self.Wk, x @ self.Wv
        self.a = softmax(self.q @ self.k.T / 2.0)
        return self.a @ self.v

    def backward(self, dy):
        q, k, v, a = self.q, self.k, self.v, self.a
        dv, da = a.T @ dy, dy @ v.T
        ds = a * (da - (a * da).sum(-1, keepdims=True))  # / 2.0
        dq, dk = ds @ k, ds.T @ q
        self.dWq, self.dWk, self.dWv = self.x.T @ dq, self.x.T @ dk, self.x.T @ dv
        return dq @ self.Wq.T + dk @ self.Wk.T + dv @ self.Wv.T


def test_a_factor_of_the_forward_that_is_forgotten_is_named_where_it_stands():
    (finding,) = tn.verify(Attention(), inputs=(5, 4)).findings
    assert (finding.fault, finding.factor, finding.right) == ("scaled", "2", ("Wv",))
    assert finding.text == "self.a = softmax(self.q @ self.k.T / 2.0)"
    assert f"the factor that `{finding.text}` multiplies by is left out" in finding.explanation
    assert finding.where_text.startswith("ds = ")


def test_of_a_loop_the_line_is_named_that_first_wrote_what_is_wrong():
    def forward(x, w):
        h, states = np.zeros(3), []
        for row in x:
            h = np.tanh(row + h @ w)
            states.append(h)
        return np.stack(states)

    def backward(args, dy):
        x, w = args
        states = forward(x, w)
        dx, dw, dlater = np.zeros_like(x), np.zeros_like(w), np.zeros(3)
        for t in reversed(range(len(x))):
            dh = dy[t] + dlater
            dz = dh * (1 - states[t] ** 2)
            dx[t] = dz
            before = states[t - 1] if t else np.zeros(3)
            dw += np.outer(before, dz)
            dlater = dz @ w
        return dx, dw

    assert places((forward, backward), (x, RNG.standard_normal((3, 3)))) == [("W for Wᵀ", "dlater = dz @ w")]

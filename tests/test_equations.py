"""Equations (1)–(26): each implementation against JAX, and each misprint shown to be one.

The network is that of §1, written here once more in jax.numpy and from the document alone, for one sample: D inputs,
S hidden units, K outputs. For §5 it is a chain of three layers.
"""

import ast
import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn
from tests.reference import UNIT, assert_within, units
from tinynet import scalar
from tinynet.equations import EQUATIONS

ROOT = Path(__file__).parents[1]
D, S, K = 4, 3, 2
GRID = np.linspace(-30, 30, 241)
FAR = 1e6
"""How many units a misprinted formula is off, at least: a formula, not a rounding error."""


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def network(seed=0, D=D, S=S, K=K):
    """Parameters as lists, a sample and its target: what `tinynet.scalar` takes."""
    rng = np.random.default_rng(seed)
    p = scalar.Parameters(*(rng.normal(size=shape).tolist() for shape in ((S, D), (S,), (K, S), (K,))))
    return p, rng.normal(size=D).tolist(), rng.uniform(size=K).tolist()


def arrays(p):
    return scalar.Parameters(*(jnp.array(part) for part in p))


def h_of(V, c, x):
    return jax.nn.sigmoid(V @ x + c)


def y_hat_of(W, b, h):
    return jax.nn.sigmoid(W @ h + b)


def half_square(y_hat, y):
    return jnp.sum((y_hat - y) ** 2) / 2


def exact(p, x, y, E=half_square):
    """∇V, ∇c, ∇W, ∇b by jax.grad."""
    x, y = jnp.array(x), jnp.array(y)
    by_jax = jax.grad(lambda p: E(y_hat_of(p.W, p.b, h_of(p.V, p.c, x)), y))(arrays(p))
    return scalar.Parameters(*map(np.asarray, by_jax))


def parts(p, x, y):
    """h, ŷ, and the derivatives in the chains of §2, each by JAX."""
    q, x, y = arrays(p), jnp.array(x), jnp.array(y)
    α = q.V @ x + q.c
    h = jax.nn.sigmoid(α)
    β = q.W @ h + q.b
    y_hat = jax.nn.sigmoid(β)
    slope = jax.vmap(jax.grad(jax.nn.sigmoid))
    return {
        "h": h,
        "y_hat": y_hat,
        "dE/dy_hat": jax.grad(half_square)(y_hat, y),
        "dy_hat/dβ": slope(β),
        "dE/dβ": jax.grad(lambda β: half_square(jax.nn.sigmoid(β), y))(β),
        "dβ/dW": jax.jacobian(lambda W: W @ h + q.b)(q.W),  # (K, K, S)
        "dβ/dh": jax.jacobian(lambda h: q.W @ h + q.b)(h),  # (K, S)
        "dβ/db": jax.jacobian(lambda b: q.W @ h + b)(q.b),  # (K, K)
        "dE/dh": jax.grad(lambda h: half_square(y_hat_of(q.W, q.b, h), y))(h),
        "dh/dα": slope(α),
        "dα/dV": jax.jacobian(lambda V: V @ x + q.c)(q.V),  # (S, S, D)
        "dh/dc": jax.jacobian(lambda c: h_of(q.V, c, x))(q.c),  # (S, S)
    }


def grad_W(p, x, y):
    act = scalar.forward(p, x)
    return np.array([[scalar.grad_W(act, y, k, s) for s in range(len(act.h))] for k in range(len(y))])


def grad_V(p, x, y):
    act = scalar.forward(p, x)
    return np.array([[scalar.grad_V(p, act, x, y, s, d) for d in range(len(x))] for s in range(len(act.h))])


def grad_b(p, x, y):
    act = scalar.forward(p, x)
    return np.array([scalar.grad_b(act, y, k) for k in range(len(y))])


def grad_c(p, x, y):
    act = scalar.forward(p, x)
    return np.array([scalar.grad_c(p, act, y, s) for s in range(len(act.h))])


# §1, the sigmoid


def test_01_f_is_the_sigmoid():
    printed = 1 / (1 + np.exp(-GRID.astype(np.longdouble)))
    for got in (np.array([scalar.f(x) for x in GRID]), tn.Sigmoid().forward({}, GRID)[0]):
        np.testing.assert_allclose(got, printed.astype(np.float64), rtol=4 * UNIT[got.dtype], atol=0)
        assert_within(got, jax.nn.sigmoid(GRID))


def test_02_f_prime_is_the_derivative_of_f():
    by_jax = jax.vmap(jax.grad(jax.nn.sigmoid))(GRID)
    ours = jax.vmap(jax.grad(lambda z: tn.Sigmoid().forward({}, z)[0]))(GRID)
    for got in (np.array([scalar.f_prime(x) for x in GRID]), tn.Sigmoid().backward({}, *cache_and_ones(GRID))[0], ours):
        assert_within(got, by_jax)


def cache_and_ones(z):
    a, cache = tn.Sigmoid().forward({}, z)
    return cache, np.ones_like(a)


# §2.1, the loss


def test_03_the_printed_loss_gives_twice_the_gradient_of_07():
    p, x, y = network()
    y_hat = scalar.forward(p, x).y_hat
    printed = exact(p, x, y, E=lambda y_hat, y: jnp.sum((y_hat - y) ** 2))
    assert scalar.ell(y_hat, y) == pytest.approx(sum((a - t) ** 2 for a, t in zip(y_hat, y, strict=True)), rel=1e-15)
    assert_within(2 * grad_W(p, x, y), printed.W)
    assert units(grad_W(p, x, y), printed.W) > FAR


def test_04_E_is_half_the_squared_error():
    rng = np.random.default_rng(0)
    y_hat, y = rng.normal(size=(2, 5, K))
    E, cache = tn.SquaredError().forward(y_hat, y)
    by_jax, dy_hat = jax.value_and_grad(half_square)(y_hat, y)
    assert_within(E, by_jax)
    assert_within(np.array(sum(scalar.error(a, t) for a, t in zip(y_hat.tolist(), y.tolist(), strict=True))), by_jax)
    assert_within(tn.SquaredError().backward(cache), dy_hat)


# §2.2, the weights


def test_05_grad_W_is_the_derivative_by_W():
    for seed in range(5):
        assert_within(grad_W(*network(seed)), exact(*network(seed)).W)


def test_06_grad_W_is_the_product_of_three_derivatives():
    args = network()
    of = parts(*args)
    product = jnp.einsum("k,k,kks->ks", of["dE/dy_hat"], of["dy_hat/dβ"], of["dβ/dW"])
    assert_within(np.asarray(product), exact(*args).W)
    assert_within(grad_W(*args), product)


def test_07_grad_W_in_closed_form():
    p, x, y = network()
    of = parts(p, x, y)
    printed = np.outer((of["y_hat"] - np.array(y)) * of["y_hat"] * (1 - of["y_hat"]), of["h"])
    assert_within(printed, exact(p, x, y).W)
    assert_within(grad_W(p, x, y), printed)


def test_08_grad_V_is_the_derivative_by_V():
    for seed in range(5):
        assert_within(grad_V(*network(seed)), exact(*network(seed)).V)


def test_09_grad_V_is_the_product_of_three_derivatives():
    args = network()
    of = parts(*args)
    product = jnp.einsum("s,s,ssd->sd", of["dE/dh"], of["dh/dα"], of["dα/dV"])
    assert_within(np.asarray(product), exact(*args).V)
    assert_within(grad_V(*args), product)


def test_10_the_error_of_h_sums_over_the_outputs():
    p, x, y = network()
    of = parts(p, x, y)
    dE_dh = np.einsum("k,ks->s", of["dE/dβ"], of["dβ/dh"])
    assert_within(dE_dh, of["dE/dh"])
    assert_within(grad_V(p, x, y), np.outer(dE_dh * of["h"] * (1 - of["h"]), x))


def test_11_grad_V_in_closed_form():
    p, x, y = network()
    closed = np.outer(closed_form_of_16(p, x, y, np.array(p.W)), x)
    assert_within(closed, exact(p, x, y).V)
    assert_within(grad_V(p, x, y), closed)


def closed_form_of_16(p, x, y, W):
    """(16), which is (11) without its last factor, with W[k, s] as given."""
    h, y_hat = (np.asarray(parts(p, x, y)[name]) for name in ("h", "y_hat"))
    return np.array(
        [
            sum(y_hat[k] * (1 - y_hat[k]) * (y_hat[k] - y[k]) * W[k, s] for k in range(len(y))) * h[s] * (1 - h[s])
            for s in range(len(h))
        ]
    )


def test_11_and_16_with_W_hk_as_printed_are_wrong():
    """W_hk has the output k second. Where S ≠ K there is no such entry; where S = K it is another weight."""
    p, x, y = network()
    with pytest.raises(IndexError):
        closed_form_of_16(p, x, y, np.array(p.W).T)
    p, x, y = network(S=3, K=3)
    g = exact(p, x, y)
    printed, corrected = (closed_form_of_16(p, x, y, W) for W in (np.array(p.W).T, np.array(p.W)))
    assert units(np.outer(printed, x), g.V) > FAR
    assert units(printed, g.c) > FAR
    assert_within(np.outer(corrected, x), g.V)
    assert_within(corrected, g.c)
    assert_within(grad_V(p, x, y), g.V)
    assert_within(grad_c(p, x, y), g.c)


# §2.3, the biases


def test_12_grad_b_is_the_product_of_two_derivatives():
    args = network()
    of = parts(*args)
    product = of["dE/dy_hat"] * (of["dy_hat/dβ"] * jnp.diagonal(of["dβ/db"]))
    assert_within(np.asarray(product), exact(*args).b)
    assert_within(grad_b(*args), product)


def test_13_grad_b_in_closed_form():
    for seed in range(5):
        p, x, y = network(seed)
        y_hat = np.asarray(parts(p, x, y)["y_hat"])
        closed = (y_hat - y) * y_hat * (1 - y_hat)
        assert_within(closed, exact(p, x, y).b)
        assert_within(grad_b(p, x, y), closed)


def test_14_grad_c_is_the_product_of_two_derivatives():
    args = network()
    of = parts(*args)
    product = of["dE/dh"] * jnp.diagonal(of["dh/dc"])
    assert_within(np.asarray(product), exact(*args).c)
    assert_within(grad_c(*args), product)


def test_15_the_error_of_h_sums_over_the_outputs():
    args = network()
    of = parts(*args)
    product = np.einsum("k,ks->s", of["dE/dβ"], of["dβ/dh"]) * of["h"] * (1 - of["h"])
    assert_within(np.asarray(product), exact(*args).c)
    assert_within(grad_c(*args), product)


def test_16_grad_c_in_closed_form():
    for seed in range(5):
        p, x, y = network(seed)
        closed = closed_form_of_16(p, x, y, np.array(p.W))
        assert_within(closed, exact(p, x, y).c)
        assert_within(grad_c(p, x, y), closed)


# §4, the mini-batch


def test_17_the_mini_batch_gradient_is_the_mean_over_its_samples():
    m, (p, _, _) = 7, network()
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(m, D)), rng.uniform(size=(m, K))
    samples = [exact(p, x, y) for x, y in zip(X, Y, strict=True)]
    means = scalar.Parameters(*(np.mean(g, axis=0) for g in zip(*samples, strict=True)))
    by_index = scalar.mean_gradients(p, X.tolist(), Y.tolist())
    assert_within(tuple(map(np.array, by_index)), tuple(means))
    net = tn.Sequential(tn.Linear(D, S), tn.Sigmoid(), tn.Linear(S, K), tn.Sigmoid())
    params = {"W": np.array(p.V), "b": np.array(p.c)}, {}, {"W": np.array(p.W), "b": np.array(p.b)}, {}
    params = (*params[:1], {}, *params[2:])
    _, grads = tn.value_and_grads(net, tn.SquaredError("mean"), params, X, Y)
    assert_within(grads, ({"W": means.V, "b": means.c}, {}, {"W": means.W, "b": means.b}, {}))


# §5, with vectors and matrices: layers 1, 2 and 3 = L, of widths N[1], N[2], N[3]

N = (4, 3, 5, 2)


def chain(N=N, seed=0):
    """{l: W^l}, {l: b^l}, a⁰ and y, as column vectors are written: W^l is N[l] × N[l−1]."""
    rng = np.random.default_rng(seed)
    W = {i: rng.normal(size=(N[i], N[i - 1])) for i in (1, 2, 3)}
    b = {i: rng.normal(size=N[i]) for i in (1, 2, 3)}
    return W, b, rng.normal(size=N[0]), rng.uniform(size=N[3])


def forward(W, b, a, shift=None):
    """z and a of every layer; `shift`[l] is added to z^l, so that J can be differentiated by z^l."""
    z, a = {}, {0: jnp.asarray(a)}
    for i in W:
        z[i] = W[i] @ a[i - 1] + b[i] + (0 if shift is None else shift[i])
        a[i] = jax.nn.sigmoid(z[i])
    return z, a


def deltas(W, b, a, y):
    """{l: ∂J/∂z^l} by jax.grad."""
    zero = {i: jnp.zeros(len(b[i])) for i in b}
    by_jax = jax.grad(lambda shift: half_square(forward(W, b, a, shift)[1][3], y))(zero)
    return {i: np.asarray(δ) for i, δ in by_jax.items()}


def f_prime(z):
    """f′(z^l) by jax.jvp."""
    return np.asarray(jax.jvp(jax.nn.sigmoid, (z,), (jnp.ones_like(z),))[1])


def through_sigmoid(z, da):
    """δ = ∂J/∂a ⊗ f′(z), by Sigmoid.backward."""
    return tn.Sigmoid().backward({}, tn.Sigmoid().forward({}, np.asarray(z))[1], np.asarray(da))[0]


def test_18_z_is_affine_in_a():
    W, b, a, _ = chain()
    layer, params = tn.Linear(N[0], N[1]), {"W": W[1], "b": b[1]}
    assert_within(layer.forward(params, a)[0], forward(W, b, a)[0][1])
    np.testing.assert_array_equal(jax.jacobian(lambda a: layer.forward(params, a)[0])(a), W[1])
    batch = np.random.default_rng(1).normal(size=(6, N[0]))
    assert_within(layer.forward(params, batch)[0], np.array([W[1] @ row + b[1] for row in batch]))


def test_19_a_is_f_of_z():
    z, a = forward(*chain()[:3])
    for i in (1, 2, 3):
        assert_within(tn.Sigmoid().forward({}, np.asarray(z[i]))[0], a[i])


def test_20_delta_is_the_error_of_a_times_f_prime():
    rng = np.random.default_rng(0)
    z, dJ_da = rng.normal(size=(2, 6, 5))
    (δ,) = jax.vjp(jax.nn.sigmoid, z)[1](dJ_da)
    assert_within(dJ_da * f_prime(z), δ)
    assert_within(through_sigmoid(z, dJ_da), δ)


def test_20_stacked_as_printed_does_not_fit():
    rng = np.random.default_rng(0)
    z, dJ_da = rng.normal(size=(2, 5))
    (δ,) = jax.vjp(jax.nn.sigmoid, z)[1](dJ_da)
    pairs = np.stack([dJ_da, f_prime(z)], axis=1)
    assert pairs.reshape(-1).shape == (2 * len(δ),)
    assert_within(pairs.prod(axis=1), δ)


def test_21_delta_of_the_last_layer():
    W, b, a0, y = chain()
    z, a = forward(W, b, a0)
    δ = deltas(W, b, a0, y)[3]
    assert_within((np.asarray(a[3]) - y) * f_prime(z[3]), δ)
    dJ_da = tn.SquaredError().backward(tn.SquaredError().forward(np.asarray(a[3]), y)[1])
    assert_within(dJ_da, jax.grad(half_square)(a[3], y))
    assert_within(through_sigmoid(z[3], dJ_da), δ)


def test_22_delta_of_a_hidden_layer():
    W, b, a0, y = chain()
    z, a = forward(W, b, a0)
    δ = deltas(W, b, a0, y)
    for i in (1, 2):
        assert_within(W[i + 1].T @ δ[i + 1] * f_prime(z[i]), δ[i])
        layer, params = tn.Linear(N[i], N[i + 1]), {"W": W[i + 1], "b": b[i + 1]}
        dJ_da, _ = layer.backward(params, np.asarray(a[i]), δ[i + 1])
        assert_within(through_sigmoid(z[i], dJ_da), δ[i])
    rest = tn.Sequential(tn.Sigmoid(), tn.Linear(N[1], N[2]), tn.Sigmoid(), tn.Linear(N[2], N[3]), tn.Sigmoid())
    params = {}, {"W": W[2], "b": b[2]}, {}, {"W": W[3], "b": b[3]}, {}
    y_hat, caches = rest.forward(params, np.asarray(z[1]))
    assert_within(rest.backward(params, caches, y_hat - y)[0], δ[1])


def test_22_as_printed_is_wrong():
    """f′(z^L) has as many entries as layer L; δW of a column δ is no product, and with one row of W it is a row."""
    W, b, a0, y = chain()
    z, δ = forward(W, b, a0)[0], deltas(W, b, a0, y)
    with pytest.raises(ValueError, match="broadcast"):
        W[3].T @ δ[3] * f_prime(z[3])
    with pytest.raises(ValueError, match="mismatch"):
        δ[3][:, None] @ W[3]

    W, b, a0, y = chain((3, 3, 3, 3))
    z, δ = forward(W, b, a0)[0], deltas(W, b, a0, y)
    assert units(W[3].T @ δ[3] * f_prime(z[3]), δ[2]) > FAR
    assert units(W[3] @ δ[3] * f_prime(z[2]), δ[2]) > FAR
    assert_within(W[3].T @ δ[3] * f_prime(z[2]), δ[2])

    W, b, a0, y = chain((4, 3, 5, 1))
    z, δ = forward(W, b, a0)[0], deltas(W, b, a0, y)
    assert (δ[3][:, None] @ W[3] * f_prime(z[2])[:, None]).shape == (5, 5)
    assert_within((W[3].T @ δ[3][:, None] * f_prime(z[2])[:, None])[:, 0], δ[2])


def dW_and_db(layer):
    """By hand for one sample, ∂J/∂W and ∂J/∂b and δ by JAX, and a^(l−1) and a^l."""
    W, b, a0, y = chain()
    a = {i: np.asarray(v) for i, v in forward(W, b, a0)[1].items()}
    δ = deltas(W, b, a0, y)[layer]
    by_hand = tn.Linear(N[layer - 1], N[layer]).param_grads({"W": W[layer], "b": b[layer]}, a[layer - 1], δ)
    dW, db = jax.grad(lambda W, b: half_square(forward(W, b, a0)[1][3], y), argnums=(0, 1))(W, b)
    return by_hand, np.asarray(dW[layer]), np.asarray(db[layer]), δ, a[layer - 1], a[layer]


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_23_an_entry_of_dW(layer):
    by_hand, dW, _, δ, a, _ = dW_and_db(layer)
    assert_within(np.array([[δ[i] * a[j] for j in range(len(a))] for i in range(len(δ))]), dW)
    assert_within(by_hand["W"], dW)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_24_dW_is_an_outer_product(layer):
    by_hand, dW, _, δ, a, _ = dW_and_db(layer)
    assert_within(δ[:, None] @ a[None, :], dW)
    assert_within(by_hand["W"], dW)


def test_24_with_a_of_layer_l_as_printed_is_wrong():
    """a^l has as many entries as W^l has rows, not columns; where the two are as many, it is another activation."""
    _, dW, _, δ, _, a_printed = dW_and_db(2)
    assert np.outer(δ, a_printed).shape != dW.shape
    W, b, a0, y = chain((3, 3, 3, 3))
    a, δ = forward(W, b, a0)[1], deltas(W, b, a0, y)[2]
    dW = np.asarray(jax.grad(lambda W: half_square(forward(W, b, a0)[1][3], y))(W)[2])
    assert units(np.outer(δ, a[2]), dW) > FAR
    assert_within(np.outer(δ, a[1]), dW)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_25_an_entry_of_db(layer):
    by_hand, _, db, δ, _, _ = dW_and_db(layer)
    assert [by_hand["b"][i] for i in range(len(δ))] == list(δ)
    assert_within(by_hand["b"], db)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_26_db_is_delta(layer):
    by_hand, _, db, δ, _, _ = dW_and_db(layer)
    assert_within(δ, db)
    assert_within(by_hand["b"], db)


# the table


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_has_every_number_once_and_in_order():
    assert [e.number for e in EQUATIONS] == list(range(1, 27))
    assert all(e.formula and e.code and e.checks for e in EQUATIONS)


@pytest.mark.parametrize("code", sorted({code for e in EQUATIONS for code in e.code}))
def test_the_code_of_an_equation_is_there_and_carries_its_number(code):
    module, name = code.split(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    source = inspect.getsource(found)
    for e in EQUATIONS:
        if code in e.code:
            assert f"({e.number})" in source


@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda e: str(e.number))
def test_the_checks_of_an_equation_are_there_and_assert(equation):
    for check in equation.checks:
        path, name = check.split("::")
        node = functions(ROOT / path)[name]
        assert any(isinstance(part, ast.Assert) or "assert_within" in ast.dump(part) for part in ast.walk(node))
        assert f"{equation.number:02}" in name


def test_every_test_of_an_equation_stands_in_the_table():
    tests = {name for name in functions(Path(__file__)) if name.startswith("test_") and name[5].isdigit()}
    assert {check.split("::")[1] for e in EQUATIONS for check in e.checks} == tests


def test_every_erratum_has_a_test_that_the_printed_form_is_wrong():
    for e in EQUATIONS:
        assert bool(e.erratum) == any("printed" in check for check in e.checks), e.number


def test_the_known_misprints_are_errata():
    assert {e.number for e in EQUATIONS if e.erratum} == {3, 11, 16, 20, 22, 24}

"""§2–§4 index by index: equal to the vectorised layers, to JAX, and, as a training, to `tn.fit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinynet as tn
from tests.reference import assert_within, jit, sigmoid_network
from tinynet import scalar

WIDTH = st.sampled_from([1, 2, 3, 5])


def problem(D=4, S=3, K=2, m=6, seed=0):
    """Parameters (V, c, W, b) and samples (X, Y), arrays."""
    rng = np.random.default_rng(seed)
    p = scalar.Parameters(*(rng.normal(size=shape) for shape in ((S, D), (S,), (K, S), (K,))))
    return p, rng.normal(size=(m, D)), rng.uniform(size=(m, K))


def as_lists(p):
    return scalar.Parameters(*(part.tolist() for part in p))


def as_arrays(p):
    return tuple(np.array(part) for part in p)


def as_network(p):
    return {"W": np.array(p.V), "b": np.array(p.c)}, {}, {"W": np.array(p.W), "b": np.array(p.b)}, {}


def as_tuple(params):
    return params[0]["W"], params[0]["b"], params[2]["W"], params[2]["b"]


@jit
def by_jax(p, X, Y):
    def E(p):
        h = jax.nn.sigmoid(X @ p.V.T + p.c)
        return jnp.sum((jax.nn.sigmoid(h @ p.W.T + p.b) - Y) ** 2) / 2

    return jax.value_and_grad(E)(p)


@settings(max_examples=25)
@given(D=WIDTH, S=WIDTH, K=WIDTH, m=st.sampled_from([1, 2, 7]), seed=st.integers(0, 2**32 - 1))
def test_scalar_is_vectorised_is_jax(D, S, K, m, seed):
    p, X, Y = problem(D, S, K, m, seed)
    index_by_index = as_arrays(scalar.total_gradients(as_lists(p), X.tolist(), Y.tolist()))
    E, vectorised = tn.value_and_grads(sigmoid_network(D, S, K), tn.SquaredError(), as_network(p), X, Y)
    with jax.enable_x64(True):
        E_jax, exact = by_jax(p, X, Y)
    assert_within(index_by_index, tuple(exact))
    assert_within(as_tuple(vectorised), tuple(exact))
    assert_within(index_by_index, as_tuple(vectorised))
    E_scalar = scalar.total_error(as_lists(p), X.tolist(), Y.tolist())
    assert [float(E), E_scalar] == pytest.approx([float(E_jax)] * 2, rel=32 * 2.0**-52)


def test_forward_names_what_the_layers_compute():
    p, X, _ = problem()
    act = scalar.forward(as_lists(p), X[0].tolist())
    hidden, f, output, _ = sigmoid_network(4, 3, 2).layers
    α, _ = hidden.forward(as_network(p)[0], X[0])
    h, _ = f.forward({}, α)
    β, _ = output.forward(as_network(p)[2], h)
    assert_within(tuple(map(np.array, act)), (α, h, β, f.forward({}, β)[0]))


def test_f_reaches_its_limits_without_overflow():
    assert [scalar.f(x) for x in (1e4, -1e4, 1e308, -1e308, 0.0)] == [1.0, 0.0, 1.0, 0.0, 0.5]
    assert [scalar.f_prime(x) for x in (1e4, -1e4, 0.0)] == [0.0, 0.0, 0.25]


def test_gradient_descent_is_fit_on_the_sum_over_all_samples():
    p, X, Y = problem()
    mine = scalar.gradient_descent(as_lists(p), X.tolist(), Y.tolist(), lr=0.5, epochs=30)
    result = tn.fit(
        sigmoid_network(4, 3, 2), tn.SquaredError(), X, Y, params=as_network(p), optimizer=tn.SGD(0.5), epochs=30
    )
    assert_within(as_tuple(result.params), as_arrays(mine), bound=128)
    assert scalar.total_error(mine, X.tolist(), Y.tolist()) < result.history["loss"][-1] < result.history["loss"][0]


def test_sgd_is_fit_on_the_mean_over_each_mini_batch():
    p, X, Y = problem(m=7)
    rows, targets = X.tolist(), Y.tolist()
    batches = [(rows[i : i + 3], targets[i : i + 3]) for i in (0, 3, 6)] * 10
    mine = scalar.sgd(as_lists(p), batches, lr=0.5)
    result = tn.fit(
        sigmoid_network(4, 3, 2),
        tn.SquaredError("mean"),
        X,
        Y,
        params=as_network(p),
        optimizer=tn.SGD(0.5),
        epochs=10,
        batch_size=3,
        shuffle=False,
    )
    assert_within(as_tuple(result.params), as_arrays(mine), bound=128)


def test_sgd_on_one_batch_of_all_is_gradient_descent_at_lr_over_m():
    p, X, Y = (problem()[0], *map(np.ndarray.tolist, problem()[1:]))
    descended = scalar.gradient_descent(as_lists(p), X, Y, lr=0.5 / 6, epochs=5)
    assert_within(as_arrays(scalar.sgd(as_lists(p), [(X, Y)] * 5, lr=0.5)), as_arrays(descended), bound=128)


def test_gradient_descent_stops_at_the_tolerance():
    p, X, Y = (problem()[0], *map(np.ndarray.tolist, problem()[1:]))
    p = as_lists(p)
    path = [scalar.gradient_descent(p, X, Y, lr=0.5, epochs=n) for n in range(12)]
    errors = [scalar.total_error(q, X, Y) for q in path]
    assert errors == sorted(errors, reverse=True)
    assert scalar.gradient_descent(p, X, Y, lr=0.5, epochs=11, tolerance=errors[4]) == path[4]
    assert scalar.gradient_descent(p, X, Y, lr=0.5, epochs=11, tolerance=(errors[4] + errors[5]) / 2) == path[5]
    assert scalar.gradient_descent(p, X, Y, lr=0.5, epochs=11, tolerance=0.0) == path[11]
    assert scalar.gradient_descent(p, X, Y, lr=0.5, epochs=0) == p


def test_the_parameters_handed_in_stay_as_they_are():
    p, X, Y = (problem()[0], *map(np.ndarray.tolist, problem()[1:]))
    p = as_lists(p)
    kept = as_lists(scalar.Parameters(*as_arrays(p)))
    scalar.gradient_descent(p, X, Y, lr=0.5, epochs=2)
    assert p == kept


def test_what_does_not_fit_is_refused():
    p, X, Y = (problem()[0], *map(np.ndarray.tolist, problem()[1:]))
    p = as_lists(p)
    with pytest.raises(ValueError, match="forward: V is 3 × 4 and W is 2 × 3; expected 3 × 3 and 2 × 3, as x has 3"):
        scalar.forward(p, X[0][:3])
    with pytest.raises(ValueError, match="expected 2 × 4 and 2 × 2, as x has 4 entries, c has 2 and b has 2"):
        scalar.forward(p._replace(c=p.c[:2]), X[0])
    with pytest.raises(ValueError, match="V is 3 × 3/4"):
        scalar.forward(p._replace(V=[p.V[0], p.V[1], p.V[2][:3]]), X[0])
    with pytest.raises(ValueError, match="gradients: y has 1 entries; expected 2, one per output"):
        scalar.gradients(p, X[0], Y[0][:1])
    with pytest.raises(ValueError, match="total_gradients: X has no samples; expected at least one"):
        scalar.total_gradients(p, [], [])
    with pytest.raises(ValueError, match=r"zip\(\)"):
        scalar.total_gradients(p, X, Y[:-1])
    with pytest.raises(ValueError, match="X has no samples"):
        scalar.sgd(p, [([], [])], lr=1)

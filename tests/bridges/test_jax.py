"""`to_custom_vjp`: the hand-derived backward inside JAX programs, against JAX's own autodiff."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tinynet as tn

NET = tn.Sequential(tn.Linear(5, 7), tn.Sigmoid(), tn.Linear(7, 3), tn.Sigmoid())


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    return NET.init(rng, np.float64), rng.normal(size=(11, 5)), rng.uniform(size=(11, 3))


def own_forward(params, x):
    """The same network in plain JAX."""
    h = jax.nn.sigmoid(x @ params[0]["W"].T + params[0]["b"])
    return jax.nn.sigmoid(h @ params[2]["W"].T + params[2]["b"])


def energy(f):
    return lambda params, x, y: 0.5 * jnp.sum((f(params, x) - y) ** 2)


def assert_trees_close(got, expected, rtol=1e-12):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=rtol, atol=rtol * np.max(np.abs(e), initial=0))


@dataclass(frozen=True)
class Wrong(tn.Layer):
    """y = 2x with a derivative of 7: what is used when 7 comes out is the backward written by hand."""

    def forward(self, params, x):
        return 2 * x, x.shape

    def backward(self, params, cache, dy):
        assert isinstance(cache[0], int), "what is no array in a cache must not be traced"
        return 7 * dy, {}


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_gradients_equal_those_of_jax_on_its_own_network(data, transform):
    with jax.enable_x64(True):
        grad = transform(jax.grad(energy(tn.to_custom_vjp(NET)), argnums=(0, 1)))
        assert_trees_close(grad(*data), jax.jit(jax.grad(energy(own_forward), argnums=(0, 1)))(*data))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_backward_that_runs_is_the_one_written_by_hand(transform):
    f = tn.to_custom_vjp(Wrong())
    assert transform(jax.grad(lambda x: f({}, x).sum()))(jnp.ones(3)).tolist() == [7, 7, 7]
    assert jax.vmap(jax.grad(lambda x: f({}, x).sum()))(jnp.ones((2, 3))).tolist() == [[7] * 3] * 2


def test_vmap_over_samples_equals_the_batch_and_gives_gradients_a_sample(data):
    params, x, y = data
    with jax.enable_x64(True):
        f = tn.to_custom_vjp(NET)
        assert_trees_close(jax.jit(jax.vmap(f, (None, 0)))(params, x), NET.forward(params, x)[0])
        each = jax.jit(jax.vmap(jax.grad(energy(f)), (None, 0, 0)))(params, x, y)
        assert_trees_close(each, jax.jit(jax.vmap(jax.grad(energy(own_forward)), (None, 0, 0)))(params, x, y))


def test_vmap_over_parameters_gives_an_ensemble():
    with jax.enable_x64(True):
        many = jax.tree.map(lambda *a: jnp.stack(a), *(NET.init(np.random.default_rng(i), "float64") for i in range(4)))
        x = np.random.default_rng(0).normal(size=(6, 5))
        got = jax.jit(jax.vmap(jax.grad(lambda p: tn.to_custom_vjp(NET)(p, x).sum())))(many)
        assert_trees_close(got, jax.jit(jax.vmap(jax.grad(lambda p: own_forward(p, x).sum())))(many))


def test_reverse_mode_twice_differentiates_the_backward(data):
    params, x, _ = data
    with jax.enable_x64(True):
        penalty = lambda f: lambda p: jnp.sum(jax.grad(lambda a: f(p, a).sum())(x) ** 2)  # noqa: E731
        got = jax.jit(jax.grad(penalty(tn.to_custom_vjp(NET))))(params)
        assert_trees_close(got, jax.jit(jax.grad(penalty(own_forward)))(params), rtol=1e-11)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (tn.GELU(), (4, 3)),
        (tn.LayerNorm(3), (4, 3)),
        (tn.BatchNorm(3, training=True), (4, 3)),
        (tn.GRU(3, 2), (2, 4, 3)),
        (tn.MultiHeadAttention(4, 2, causal=True), (2, 3, 4)),
        (tn.Conv1d(2, 3, 2), (2, 2, 5)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, tn.Layer) else "",
)
def test_a_loss_with_derivatives_of_any_layer_has_the_gradient_of_jax(layer, shape):
    """∂/∂(θ, x) of Σ (∂ sin(y)/∂(θ, x))²: through the hand-written backward, and through the forward by JAX alone."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), layer.init(rng, np.float64))
    x = rng.normal(size=shape)

    def penalty(f):
        inner = jax.grad(lambda p, a: jnp.sin(f(p, a)).sum(), argnums=(0, 1))
        return lambda p, a: sum(jnp.sum(g**2) for g in jax.tree.leaves(inner(p, a)))

    with jax.enable_x64(True):
        got = jax.jit(jax.grad(penalty(tn.to_custom_vjp(layer)), argnums=(0, 1)))(params, x)
        exact = jax.jit(jax.grad(penalty(lambda p, a: layer.forward(p, a)[0]), argnums=(0, 1)))(params, x)
        assert_trees_close(got, exact, rtol=1e-11)


def test_integer_inputs_have_a_float0_derivative():
    @dataclass(frozen=True)
    class Table(tn.Layer):
        def forward(self, params, i):
            return params["T"][i], i

        def backward(self, params, i, dy):
            return None, {"T": jnp.zeros_like(params["T"]).at[i].add(dy)}

    f = tn.to_custom_vjp(Table())
    grads = jax.grad(lambda p: f(p, jnp.array([0, 2, 2])).sum())({"T": jnp.zeros((3, 1))})
    assert grads["T"].tolist() == [[1], [0], [2]]
    _, vjp = jax.vjp(f, {"T": jnp.zeros((3, 1))}, jnp.array([1]))
    assert vjp(jnp.ones((1, 1)))[1].dtype == jax.dtypes.float0


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_inputs_in_a_tuple_have_their_derivatives_and_integers_among_them_none(transform):
    layer, rng = tn.GRU(3, 4), np.random.default_rng(0)
    params, x = layer.init(rng, np.float64), (rng.normal(size=(2, 5, 3)), np.array([5, 2]))
    dy = rng.normal(size=(2, 5, 4))
    with jax.enable_x64(True):
        _, pull = jax.vjp(transform(tn.to_custom_vjp(layer)), params, x)
        dparams, (dx, none) = pull(jnp.asarray(dy))
        _, exact = jax.vjp(lambda params, a: layer.forward(params, (a, x[1]))[0], params, x[0])
        assert_trees_close((dparams, dx), exact(jnp.asarray(dy)), rtol=1e-11)
    assert none.dtype == jax.dtypes.float0


def test_a_layer_with_state_reads_it():
    layer, rng = tn.BatchNorm(3), np.random.default_rng(0)
    params, x = layer.init(rng, np.float64), rng.normal(size=(5, 3))
    state = {"mean": rng.normal(size=3), "var": rng.uniform(1, 2, 3)}
    with jax.enable_x64(True):
        f = tn.to_custom_vjp(layer)
        got = jax.jit(jax.grad(lambda p, x: (f(p, x, state) ** 2).sum(), argnums=(0, 1)))(params, x)

        def plain(p, x):
            return (((x - state["mean"]) / jnp.sqrt(state["var"] + 1e-5) * p["gamma"] + p["beta"]) ** 2).sum()

        assert_trees_close(got, jax.grad(plain, argnums=(0, 1))(params, x), rtol=1e-11)


def test_forward_mode_is_refused_by_jax(data):
    params, x, _ = data
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda a: tn.to_custom_vjp(NET)(params, a), (x,), (x,))


def test_a_plain_jax_program_trained_with_optax_ends_at_the_same_parameters(data):
    start, x, y = data
    optimizer = optax.adam(1e-2)

    def train(f):
        @jax.jit
        def step(params, state):
            updates, state = optimizer.update(jax.grad(energy(f))(params, x, y), state, params)
            return optax.apply_updates(params, updates), state

        params = jax.tree.map(jnp.asarray, start)
        state = optimizer.init(params)
        for _ in range(100):
            params, state = step(params, state)
        return params

    with jax.enable_x64(True):
        by_hand, by_jax = train(tn.to_custom_vjp(NET)), train(own_forward)
        assert energy(own_forward)(by_hand, x, y) < 0.8 * energy(own_forward)(start, x, y)
        assert_trees_close(by_hand, by_jax, rtol=1e-10)


def test_inside_an_equinox_model_training_equals_equinox_alone(data):
    _, x, y = data
    block = tn.Sequential(tn.Linear(5, 7), tn.Sigmoid())

    class ByHand(eqx.Module):
        block: tuple
        head: eqx.nn.Linear

        def __call__(self, x):
            return self.head(tn.to_custom_vjp(block)(self.block, x))

    class ByJax(eqx.Module):
        first: eqx.nn.Linear
        head: eqx.nn.Linear

        def __call__(self, x):
            return self.head(jax.nn.sigmoid(self.first(x)))

    @eqx.filter_jit
    def step(model):
        grads = eqx.filter_grad(lambda model: 0.5 * jnp.sum((jax.vmap(model)(x) - y) ** 2))(model)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -1e-2 * g, grads))

    with jax.enable_x64(True):
        first, head = (eqx.nn.Linear(n, m, key=jax.random.key(n)) for n, m in ((5, 7), (7, 3)))
        by_hand, by_jax = ByHand(({"W": first.weight, "b": first.bias}, {}), head), ByJax(first, head)
        for _ in range(50):
            by_hand, by_jax = step(by_hand), step(by_jax)
        assert not np.allclose(by_jax.first.weight, first.weight, atol=1e-3)
        assert_trees_close(by_hand.block[0], {"W": by_jax.first.weight, "b": by_jax.first.bias}, rtol=1e-11)
        assert_trees_close(by_hand.head.weight, by_jax.head.weight, rtol=1e-11)


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"to_custom_vjp: layer is .*expected an instance of tinynet\.Layer"):
        tn.to_custom_vjp(tn.Linear)


def test_numpy_goes_in_and_jax_comes_out(data):
    params, x, _ = data
    assert isinstance(tn.to_custom_vjp(NET)(params, x), jax.Array)

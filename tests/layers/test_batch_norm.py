"""BatchNorm: both layers, the one that trains and the one that evaluates, and the state between them."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import check_layer
from tests.reference import assert_within, random_params

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
IMAGES = RNG.normal(2, 3, size=(4, 3, 2, 5))


@pytest.mark.parametrize("x", [X, X[:1], X[:0], 1e3 * X, 1e-3 * X, np.ones((4, 3)), IMAGES, IMAGES[..., 0]])
def test_backward_of_the_layer_that_trains_is_the_vjp_of_forward(x):
    check_layer(tn.BatchNorm(3).sample(RNG), x)


@pytest.mark.parametrize("x", [X, X[:0], IMAGES])
def test_backward_of_the_layer_that_evaluates_is_the_vjp_of_forward(x):
    layer = tn.BatchNorm(3)
    state = {"mean": RNG.normal(size=3), "var": RNG.uniform(1, 2, size=3)}
    params, dy = random_params(layer, RNG), RNG.normal(size=x.shape)
    _, cache = layer.forward(params, x, state=state)
    with jax.enable_x64(True):
        _, back = jax.vjp(lambda params, x: layer.forward(params, x, state=state)[0], params, x)
        dparams, dx = back(dy)
    assert_within(layer.backward(params, cache, dy), jax.tree.map(np.asarray, (dx, dparams)))
    assert layer.update_state(state, cache) is state


def test_the_running_statistics_approach_those_of_the_data():
    net = tn.Sequential(tn.Linear(2, 3), tn.BatchNorm(3, momentum=0.2))
    params, state = net.init(RNG, np.float64), net.init_state(np.float64)
    x = RNG.normal(3, 2, size=(200, 2))
    training = net.sample(RNG)
    for _ in range(100):
        y, cache = training.forward(params, x)
        state = training.update_state(state, cache)
    z, _ = tn.Linear(2, 3).forward(params[0], x)
    np.testing.assert_allclose(state[1]["mean"], z.mean(axis=0))
    np.testing.assert_allclose(state[1]["var"], z.var(axis=0, ddof=1))
    np.testing.assert_allclose(net.forward(params, x, state=state)[0], y, rtol=0, atol=0.02)
    assert net.init_state() == ({}, {"mean": pytest.approx(np.zeros(3)), "var": pytest.approx(np.ones(3))})
    assert {a.dtype for a in net.init_state()[1].values()} == {np.dtype(np.float32)}


def test_the_state_keeps_its_dtype_and_one_sample_changes_it_finitely():
    layer = tn.BatchNorm(3)
    training, state = layer.sample(RNG), layer.init_state(np.float32)
    params = layer.init(RNG, np.float64)
    for x in (X, X[:1]):
        state = training.update_state(state, training.forward(params, x)[1])
        assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in state.values())


def test_only_the_layer_that_evaluates_asks_for_a_state():
    layer = tn.BatchNorm(3)
    params, state = layer.init(RNG, np.float64), layer.init_state(np.float64)
    with pytest.raises(ValueError, match=r"forward has no state; hand it over as state=, or use sample"):
        layer.forward(params, X)
    training = layer.sample(RNG)
    np.testing.assert_array_equal(training.forward(params, X)[0], training.forward(params, X, state=state)[0])
    assert training.sample(RNG) is training
    assert layer.samplewise()
    assert not training.samplewise()


NET = tn.Sequential(tn.Linear(3, 5), tn.BatchNorm(5), tn.ReLU(), tn.Linear(5, 2))
DATA = RNG.normal(2, 3, size=(64, 3)), RNG.normal(size=(64, 2))
WITHOUT_THE_BIAS_BEFORE = tn.Groups({"0.b": None, "*": tn.AdamW(0.01, weight_decay=0.1)})


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_with_adamw_it_trains_as_torchs_does(engine):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: training is NOT compared with its own here")
    params = NET.init(np.random.default_rng(1), np.float64)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 2)
    ).double()
    names = [(0, "W", "weight"), (0, "b", "bias"), (1, "gamma", "weight"), (1, "beta", "bias"), (3, "W", "weight")]
    with torch.no_grad():
        for i, ours, theirs in [*names, (3, "b", "bias")]:
            getattr(net[i], theirs).copy_(torch.from_numpy(params[i][ours]))
    net[0].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    x, y = map(torch.from_numpy, DATA)
    for _ in range(20):
        optimizer.zero_grad()
        (((net(x) - y) ** 2).sum() / 128).backward()
        optimizer.step()
    options = {"params": params, "optimizer": WITHOUT_THE_BIAS_BEFORE, "epochs": 20, "engine": engine}
    result = tn.fit(NET, tn.SquaredError("mean"), *DATA, **options)
    for i, ours, theirs in names:
        np.testing.assert_allclose(result.params[i][ours], getattr(net[i], theirs).detach(), rtol=1e-10)
    np.testing.assert_allclose(result.state.layers[1]["mean"], net[1].running_mean, rtol=1e-10)
    np.testing.assert_allclose(result.state.layers[1]["var"], net[1].running_var, rtol=1e-10)
    y_hat = tn.predict(NET, result.params, DATA[0], state=result.state.layers, engine=engine)
    np.testing.assert_allclose(y_hat, net.eval()(x).detach(), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_with_adamw_both_engines_give_the_same_numbers(dtype):
    """All but a bias before the layer, whose gradient is rounding; all where that is frozen."""
    x, y = (a.astype(dtype) for a in DATA)
    params = NET.init(np.random.default_rng(1), dtype)
    for optimizer in (WITHOUT_THE_BIAS_BEFORE, tn.AdamW(0.01, weight_decay=0.1)):
        options = {"params": params, "optimizer": optimizer, "epochs": 20, "batch_size": 16, "validation": (x, y)}
        runs = [tn.fit(NET, tn.SquaredError("mean"), x, y, engine=engine, **options) for engine in ("numpy", "jax")]
        (dense, *rest), (dense_jax, *rest_jax) = (run.params for run in runs)
        bound = 200 * np.finfo(dtype).eps
        for got, expected in zip(jax.tree.leaves(rest_jax), jax.tree.leaves(rest), strict=True):
            np.testing.assert_allclose(got, expected, rtol=bound, atol=bound)
        np.testing.assert_allclose(dense_jax["W"], dense["W"], rtol=bound, atol=bound)
        np.testing.assert_allclose(runs[1].history["loss"], runs[0].history["loss"], rtol=bound)
        if optimizer is WITHOUT_THE_BIAS_BEFORE:
            for name in ("mean", "var"):
                got, expected = (run.state.layers[1][name] for run in runs)
                np.testing.assert_allclose(got, expected, rtol=bound, atol=bound)
            both = (run.history["validation_loss"] for run in runs)
            np.testing.assert_allclose(*both, rtol=bound)


def test_bad_input_is_named():
    for bad, message in (
        ({"momentum": 1.0}, r"momentum is 1.0; expected 0 <= momentum < 1"),
        ({"eps": 0}, r"eps is 0; expected 0 < eps"),
        ({"n": 0}, r"n is 0; expected at least 1"),
    ):
        with pytest.raises(ValueError, match=f"BatchNorm: {message}"):
            tn.BatchNorm(**{"n": 3, **bad})
    layer = tn.BatchNorm(3, training=True)
    params = layer.init(RNG, np.float64)
    for x in (X[:, :2], X[0], np.ones(())):
        with pytest.raises(ValueError, match=r"x has shape .*; expected \(m, 3, …\)"):
            layer.forward(params, x)
    with pytest.raises(ValueError, match=r"params have mean float64 array of shape \(2,\); expected shape \(3,\)"):
        tn.BatchNorm(3).forward(params, X, state={"mean": np.zeros(2), "var": np.ones(2)})
    with pytest.raises(ValueError, match=r"dy has shape \(6, 2\); expected \(6, 3\)"):
        layer.backward(params, layer.forward(params, X)[1], X[:, :2])

"""The JAX engine gives what the NumPy engine gives."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tinynet.arrays import namespace
from tinynet.training.engines.jax import JaxEngine
from tinynet.training.engines.templates import SampledNetworks
from tinynet.trees import leaves

NET = tn.Sequential(tn.Linear(5, 4), tn.Sigmoid(), tn.Linear(4, 2), tn.Sigmoid())
STEPS = 3 * 5
FLOAT32_BOUND = 4 * STEPS * 2.0**-23
"""Each update may round its sums in another order: a few units of the largest parameter a step."""


def data(dtype: Any, m: int = 23) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.random((m, 5)).astype(dtype), rng.random((m, 2)).astype(dtype)


def both(x: Any, y: Any, net: tn.Layer = NET, **options: Any) -> tuple[tn.FitResult, tn.FitResult]:
    options = {"optimizer": tn.SGD(0.5), "epochs": 3, "batch_size": 5} | options
    loss = tn.SquaredError("mean")
    return tn.fit(net, loss, x, y, **options), tn.fit(net, loss, x, y, engine="jax", **options)


def assert_equal(a: tn.FitResult, b: tn.FitResult, bound: float) -> None:
    for p, q in zip(leaves(a.params), leaves(b.params), strict=True):
        assert isinstance(q, np.ndarray)
        assert p.dtype == q.dtype
        assert np.abs(p - q).max() <= bound * max(1, np.abs(p).max())
    assert np.abs(a.history["loss"] - b.history["loss"]).max() <= bound


CASES: dict[str, dict[str, Any]] = {
    "shuffled, with a shorter last batch": {},
    "in order": {"shuffle": False},
    "gradient descent": {"batch_size": None},
    "momentum": {"optimizer": tn.SGD(0.5, 0.9)},
    "sample weights": {"sample_weight": np.linspace(0, 2, 23)},
    "step by step": {"step_callbacks": [lambda _: None]},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-14), (np.float32, FLOAT32_BOUND)])
def test_it_equals_the_numpy_engine(case: str, dtype: Any, bound: float) -> None:
    assert_equal(*both(*data(dtype), **CASES[case]), bound)


def test_a_stream_equals_the_numpy_engine() -> None:
    x, y = data(np.float64)
    batches = [(x[i : i + 5], y[i : i + 5]) for i in range(0, 23, 5)]
    assert_equal(*both(batches, None, batch_size=None), 1e-14)


def test_64_bit_mode_is_on_for_the_length_of_a_fit_only() -> None:
    both(*data(np.float64))
    assert not jax.config.jax_enable_x64
    assert jax.numpy.ones(1).dtype == np.float32


def test_params_handed_in_are_not_donated() -> None:
    x, y = data(np.float32)
    params = jax.tree.map(jax.numpy.asarray, NET.init(np.random.default_rng(0)))
    tn.fit(NET, tn.SquaredError(), x, y, params=params, optimizer=tn.SGD(0.1), epochs=1, engine="jax")
    assert not any(p.is_deleted() for p in leaves(params))


def test_an_optax_transformation_equals_a_loop_over_jax_grad() -> None:
    x, y = data(np.float64)
    optimizer, loss = optax.adamw(1e-2), tn.SquaredError("mean")
    start = NET.init(np.random.default_rng(0), np.float64)
    fitted = tn.fit(
        NET,
        loss,
        x,
        y,
        params=start,
        optimizer=optimizer,
        epochs=2,
        batch_size=5,
        shuffle=False,
        engine="jax",
    )
    with jax.enable_x64(True):
        params = jax.tree.map(jax.numpy.asarray, start)
        state = optimizer.init(params)
        grad = jax.jit(jax.grad(lambda params, x, y: loss.forward(NET.forward(params, x)[0], y)[0]))
        for _ in range(2):
            for i in range(0, 23, 5):
                updates, state = optimizer.update(
                    grad(params, jax.numpy.asarray(x[i : i + 5]), jax.numpy.asarray(y[i : i + 5])), state, params
                )
                params = optax.apply_updates(params, updates)
        for p, q in zip(leaves(fitted.params), leaves(params), strict=True):
            np.testing.assert_allclose(p, np.asarray(q), rtol=1e-9, atol=1e-12)


def test_the_numpy_engine_refuses_optax_and_says_what_to_do() -> None:
    with pytest.raises(TypeError, match='engine="jax"'):
        tn.fit(NET, tn.SquaredError(), *data(np.float32), optimizer=optax.sgd(0.1), epochs=1)


def test_divergence_is_met_where_the_numpy_engine_meets_it() -> None:
    net, met = tn.Sequential(tn.Linear(5, 2)), []
    for engine in ("numpy", "jax"):
        with pytest.raises(tn.DivergenceError) as caught:
            tn.fit(
                net,
                tn.SquaredError(),
                *data(np.float64),
                optimizer=tn.SGD(1e3),
                epochs=99,
                batch_size=5,
                engine=engine,  # type: ignore[arg-type]
            )
        assert all(np.isfinite(p).all() for p in leaves(caught.value.params))
        met.append((caught.value.epoch, caught.value.batch))
    assert met[0] == met[1]


@dataclass(frozen=True)
class Jitter(tn.Layer):
    """Scales its input by a number drawn for each batch."""

    seed: int | None = None

    def sample(self, rng: np.random.Generator) -> tn.Layer:
        return Jitter(int(rng.integers(2**32)))

    def forward(self, params: Any, x: Any) -> Any:
        xp = namespace(x)
        scale = xp.ones((), x.dtype) if self.seed is None else 0.5 + xp.asarray(self.seed, dtype=x.dtype) / 2**32
        return x * scale, scale

    def backward(self, params: Any, scale: Any, dy: Any) -> Any:
        return dy * scale, {}


def test_random_layers_draw_the_numbers_that_the_numpy_engine_draws() -> None:
    net = tn.Sequential(tn.Linear(5, 4), Jitter(), tn.Sequential(Jitter(), tn.Linear(4, 2)))
    assert_equal(*both(*data(np.float64), net=net, optimizer=tn.SGD(0.05)), 1e-14)


def test_numbers_that_float32_would_round_are_drawn_whole() -> None:
    net = tn.Sequential(tn.Linear(5, 4), tn.Dropout(0.5), tn.Linear(4, 2))
    assert_equal(*both(*data(np.float32), net=net, optimizer=tn.SGD(0.05)), FLOAT32_BOUND)


@dataclass(frozen=True)
class Falling:
    """A user's schedule, which says nothing of which numbers are traced."""

    start: float = 0.5

    def __call__(self, step: Any) -> Any:
        return self.start / (1 + step)


def test_a_schedule_of_ones_own_equals_the_numpy_engine() -> None:
    assert_equal(*both(*data(np.float64), optimizer=tn.SGD(Falling())), 1e-14)


@dataclass(frozen=True)
class NoisyWeights(tn.Layer):
    """z = ((W + N) ⊗ M) a with arrays drawn for each batch: noise N, and a mask M that is sometimes left out."""

    n_in: int
    n_out: int
    noise: Any = None
    mask: Any = None

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Any:
        return {"W": tn.initializers.glorot_uniform(rng, (self.n_out, self.n_in), dtype)}

    def sample(self, rng: np.random.Generator) -> tn.Layer:
        noise, mask = rng.normal(size=(self.n_out, self.n_in)), rng.random((self.n_out, self.n_in)) < 0.8
        return replace(self, noise=0.1 * noise, mask=mask if rng.random() < 0.5 else None)

    def forward(self, params: Any, x: Any) -> Any:
        W = params["W"] if self.noise is None else params["W"] + self.noise.astype(x.dtype)
        W = W if self.mask is None else W * self.mask
        return x @ W.T, (x, W)

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        x, W = cache
        dW = dy.T @ x
        return dy @ W, {"W": dW if self.mask is None else dW * self.mask}


@pytest.mark.parametrize(
    ("dtype", "held"), [(np.float64, 2**26), (np.float32, 2**26), (np.float64, 1000), (np.float64, 1)]
)
def test_arrays_that_a_layer_draws_are_those_of_the_numpy_engine(
    dtype: Any, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinynet.training.engines.templates.SampledNetworks._BYTES", held)
    net = tn.Sequential(NoisyWeights(5, 4), tn.Tanh(), NoisyWeights(4, 2))
    one, other = both(*data(dtype), net=net, optimizer=tn.SGD(0.05), epochs=5)
    assert_equal(one, other, 1e-13 if dtype == np.float64 else FLOAT32_BOUND)
    sweep = tn.sweep(net, tn.SquaredError("mean"), *data(dtype), optimizer=tn.SGD(0.05), epochs=2, engine="jax")
    alone = tn.fit(net, tn.SquaredError("mean"), *data(dtype), optimizer=tn.SGD(0.05), epochs=2)
    np.testing.assert_allclose(sweep.results[0].history["loss"], alone.history["loss"], rtol=1e-5)


def test_a_layer_that_draws_arrays_is_verified_as_it_trains() -> None:
    assert tn.verify(NoisyWeights(5, 4), name_seconds=0).ok

    class Halved(NoisyWeights):
        def backward(self, params: Any, cache: Any, dy: Any) -> Any:
            dx, dparams = super().backward(params, cache, dy)
            return dx if self.noise is None else dx / 2, dparams

    assert tn.verify(Halved(5, 4), name_seconds=0).verdict == "FAIL"


@dataclass(frozen=True)
class SometimesSkipped(tn.Layer):
    """A shortcut that takes the place of a layer now and then: what it draws is a class, not a number."""

    f: tn.Layer
    rate: float

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Any:
        return self.f.init(rng, dtype)

    def sample(self, rng: np.random.Generator) -> tn.Layer:
        return SometimesSkipped(Skip(), self.rate) if rng.random() < self.rate else self

    def forward(self, params: Any, x: Any) -> Any:
        return self.f.forward(params, x)

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return self.f.backward(params, cache, dy)


@dataclass(frozen=True)
class Skip(tn.Layer):
    noisy: bool = False

    def sample(self, rng: np.random.Generator) -> tn.Layer:
        return Skip(noisy=True)

    def forward(self, params: Any, x: Any) -> Any:
        return 2 * x if self.noisy else x + 0, params

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return 2 * dy if self.noisy else dy, {name: 0 * p for name, p in cache.items()}


@pytest.mark.parametrize("rate", [0.04, 0.5])
def test_a_layer_that_is_rarely_another_one_is_that_when_the_numpy_engine_says_so(rate: float) -> None:
    net = tn.Sequential(
        tn.Linear(5, 5), SometimesSkipped(tn.Linear(5, 5), rate), Skip(), tn.Dropout(0.1), tn.Linear(5, 2)
    )
    x, y = data(np.float64)
    drawn = [net.sample(np.random.default_rng(seed)).layers[1] for seed in range(4)]
    assert rate > 0.1 or all(isinstance(layer.f, tn.Linear) for layer in drawn)  # not seen before training begins
    one, other = both(x, y, net=net, optimizer=tn.SGD(0.01), epochs=20)
    assert_equal(one, other, 1e-13)


def test_a_layer_that_is_a_new_one_each_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class New(Jitter):
        name: str = ""

        def sample(self, rng: np.random.Generator) -> tn.Layer:
            return New(name=str(rng.random()))

    assert SampledNetworks._MOST == 64
    monkeypatch.setattr(SampledNetworks, "_MOST", 6)  # each of them is compiled
    with pytest.raises(ValueError, match=r"more than 6 networks that differ in more than numbers.*let sample\(\) draw"):
        both(*data(np.float64), net=tn.Sequential(tn.Linear(5, 2), New()), epochs=20)


@pytest.mark.parametrize(("told", "expected"), [(None, "HIGHEST"), ("bfloat16", "DEFAULT")])
def test_products_of_float32_are_in_float32_on_every_device_unless_jax_was_told_else(told: Any, expected: str) -> None:
    engine = JaxEngine(NET, tn.SquaredError(), tn.SGD(0.1))
    x, y = data(np.float32)
    with jax.default_matmul_precision(told), engine.session():
        carry = engine.start(NET.init(np.random.default_rng(0)))
        batches = (x[None], y[None], None)
        draws = engine._draw(np.random.default_rng(0), 1)
        text = engine._program.scan_batches.lower(engine._program, carry, batches, draws, engine.numbers).as_text()
    assert set(re.findall(r"precision = \[(\w+), (\w+)\]", text)) == {(expected, expected)}


def test_threads_are_for_the_numpy_engine() -> None:
    with pytest.raises(ValueError, match="threads"):
        tn.fit(NET, tn.SquaredError(), *data(np.float32), optimizer=tn.SGD(0.1), epochs=1, engine="jax", threads=1)


@pytest.mark.parametrize("mesh", ["data", 8])
def test_mesh_must_be_a_mesh_with_a_data_axis(mesh: Any) -> None:
    with pytest.raises(ValueError, match='axis "data"'):
        tn.fit(NET, tn.SquaredError(), *data(np.float32), optimizer=tn.SGD(0.1), epochs=1, engine="jax", mesh=mesh)

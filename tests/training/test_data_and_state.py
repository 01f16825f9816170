"""Data that are trees, layers that have state, and what is refused at the first step; on both engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

import tinynet as tn
from tinynet.trees import leaves, map_leaves

ENGINES = ("numpy", "jax")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(22, 3)), RNG.normal(size=(22, 2))
NORMED = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Tanh(), tn.Dropout(0.2), tn.Linear(4, 2))


def fit(net: tn.Layer, loss: tn.Loss, x: Any, y: Any = None, **options: Any) -> Any:
    return tn.fit(net, loss, x, y, **{"optimizer": tn.SGD(0.1, 0.9), "epochs": 3, "batch_size": 5, "seed": 1} | options)


def assert_close(a: Any, b: Any, rtol: float = 1e-10) -> None:
    for p, q in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-13)


# state


def test_running_statistics_are_those_of_a_loop_by_hand_and_read_in_validation() -> None:
    net, loss = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Linear(4, 2)), tn.SquaredError("mean")
    start = net.init(np.random.default_rng(1), np.float64)
    result = fit(net, loss, X, Y, params=start, shuffle=False, validation=(X[:7], Y[:7]), optimizer=tn.SGD(0.1))
    params, state = start, net.init_state(np.float64)
    for _ in range(3):
        for i in range(0, 22, 5):
            sampled = net.sample(np.random.default_rng(0))
            y_hat, cache = sampled.forward(params, X[i : i + 5])
            E, residual = loss.forward(y_hat, Y[i : i + 5])
            grads = sampled.param_grads(params, cache, loss.backward(residual))
            state = sampled.update_state(state, cache)
            params = map_leaves(lambda p, g: p - 0.1 * g, params, grads)
    assert_close(result.params, params, 1e-12)
    assert_close(result.state.layers, state, 1e-12)
    E = loss.forward(net.forward(params, X[:7], state=state)[0], Y[:7])[0]
    assert result.history["validation_loss"][-1] == pytest.approx(E, rel=1e-12)
    assert (state[1]["var"] != 1).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_state_of_layers_has_the_dtype_of_the_parameters(engine: str) -> None:
    for dtype in (np.float32, np.float64):
        result = fit(NORMED, tn.SquaredError("mean"), X.astype(dtype), Y.astype(dtype), engine=engine)
        assert {a.dtype for a in leaves((result.params, result.state.layers))} == {np.dtype(dtype)}


def test_both_engines_agree_on_state_and_validation() -> None:
    one, other = (fit(NORMED, tn.SquaredError("mean"), X, Y, validation=(X, Y), engine=engine) for engine in ENGINES)
    assert_close(
        (one.params, one.state.layers, one.state.optimizer), (other.params, other.state.layers, other.state.optimizer)
    )
    assert_close(one.history["validation_loss"], other.history["validation_loss"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_with_state_that_was_cut_off_ends_with_the_same_bits(engine: str, tmp_path: Any) -> None:
    class Cut(Exception):
        pass

    def cut(step: Any) -> None:
        if (step.epoch, step.batch) == (1, 2):
            raise Cut

    loss, stopping = tn.SquaredError("mean"), tn.EarlyStopping(patience=9)
    options = {"engine": engine, "validation": (X + 1, Y), "early_stopping": stopping}
    whole = fit(NORMED, loss, X, Y, step_callbacks=[lambda _: None], **options)
    options |= {"checkpoint": tmp_path / "run", "every": 1}
    with pytest.raises(Cut):
        fit(NORMED, loss, X, Y, step_callbacks=[cut], **options)
    rest = fit(NORMED, loss, X, Y, step_callbacks=[lambda _: None], **options)
    for p, q in zip(leaves((rest.params, rest.state.layers)), leaves((whole.params, whole.state.layers)), strict=True):
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("engine", ENGINES)
def test_state_goes_in_and_is_that_of_the_best_epoch(engine: str) -> None:
    seen: list[Any] = []
    options = {
        "engine": engine,
        "epochs": 30,
        "validation": (X + 1, -Y),
        "early_stopping": tn.EarlyStopping(patience=2),
    }
    net = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Linear(4, 2))
    keep = lambda epoch: seen.append(map_leaves(np.array, (epoch.params, epoch.state.layers)))  # noqa: E731
    result = fit(net, tn.SquaredError("mean"), X, Y, callbacks=[keep], **options)
    best = int(result.history["validation_loss"].argmin())
    assert result.stopped == "early_stopping"
    assert_close((result.params, result.state.layers), seen[best], 0)
    wrong = tn.TrainingState(result.state.optimizer, ({}, {"mean": np.zeros(3), "var": np.ones(3)}, {}))
    with pytest.raises(ValueError, match=r'fit: state.layers\[1\]\["mean"\] has shape \(3,\); expected \(4,\)'):
        fit(net, tn.SquaredError("mean"), X, Y, state=wrong, engine=engine)


class Keeping(tn.Layer):
    """Keeps something on itself, as a layer must not: by name, in a list, in a dict or in an array."""

    def __init__(self, where: str) -> None:
        self.where, self.list, self.dict, self.array = where, [0.0], {}, np.zeros(1)  # type: ignore[var-annotated]

    def forward(self, params: Any, x: Any) -> Any:
        if self.where == "mean":
            self.mean = x.mean()
        elif self.where == "list":
            self.list.append(x.mean())
        elif self.where == "dict":
            self.dict["mean"] = x.mean()
        elif self.where == "array":
            self.array += 1
        return x + 0, None

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return dy, {}


@dataclass(frozen=True)
class Around(tn.Layer):
    """A layer around another, with a field that has no hash."""

    f: tn.Layer
    field: Any = None

    def forward(self, params: Any, x: Any) -> Any:
        return self.f.forward(params["f"], x)

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        dx, dparams = self.f.backward(params["f"], cache, dy)
        return dx, {"f": dparams}


@pytest.mark.parametrize("where", ["mean", "list", "dict", "array"])
def test_state_on_the_layer_itself_is_an_error_where_it_would_be_lost(where: str) -> None:
    net = tn.Sequential(tn.Linear(3, 2), Around(Keeping(where)))
    with pytest.raises(TypeError, match=rf"Keeping set its attribute '{where}' while training.*use init_state"):
        fit(net, tn.SquaredError(), X, Y, engine="jax")
    fit(tn.Sequential(tn.Linear(3, 2), Around(Keeping("nowhere"))), tn.SquaredError("mean"), X, Y, engine="jax")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_composite_that_would_lose_the_state_of_its_children_is_named(engine: str) -> None:
    for net in (Around(tn.BatchNorm(3)), tn.Sequential(tn.Residual(Around(tn.Sequential(tn.BatchNorm(3)))))):
        with pytest.raises(TypeError, match=r"Around has no init_state, but .*BatchNorm.* inside it has state"):
            fit(net, tn.SquaredError(), X, X, engine=engine)


@dataclass
class Unfrozen(tn.Layer):
    def forward(self, params: Any, x: Any) -> Any:
        return x + 0, None

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return dy, {}


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Unfrozen(), r"Unfrozen has no hash.*: its class has none; use a dataclass\(frozen=True\)"),
        (Around(tn.Tanh(), [1]), r"Around has no hash.*: its field field of type list has none"),
        (Around(Around(tn.Tanh(), np.ones(2))), r"Around has no hash.*: its field field of type ndarray has none"),
    ],
    ids=["class", "list", "array inside"],
)
def test_a_configuration_that_no_compiled_program_can_be_told_by_is_named(net: tn.Layer, message: str) -> None:
    net = tn.Sequential(tn.Linear(3, 2), net)
    fit(net, tn.SquaredError("mean"), X, Y)
    with pytest.raises(TypeError, match=message):
        fit(net, tn.SquaredError("mean"), X, Y, engine="jax")


# data


@dataclass(frozen=True)
class Two(tn.Layer):
    """Applies one layer to both of its inputs, as siamese networks do; the inputs are a dict or a tuple."""

    f: tn.Layer

    def init(self, rng: Any, dtype: Any = np.float32) -> Any:
        return self.f.init(rng, dtype)

    def forward(self, params: Any, x: Any) -> Any:
        a, b = x.values() if isinstance(x, dict) else x
        (ya, ca), (yb, cb) = self.f.forward(params, a), self.f.forward(params, b)
        return (ya, yb), (ca, cb)

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        (da, ga), (db, gb) = (self.f.backward(params, c, d) for c, d in zip(cache, dy, strict=True))
        return (da, db), map_leaves(lambda p, q: p + q, ga, gb)


@pytest.mark.parametrize("x", [(X, X + 0.1), {"left": X, "right": X + 0.1}], ids=["tuple", "dict"])
def test_two_inputs_and_no_target_train_alike_on_both_engines(x: Any) -> None:
    net, loss = Two(tn.Linear(3, 2)), tn.InfoNCE()
    one, other = (fit(net, loss, x, engine=engine, validation=(x, None), optimizer=tn.SGD(0.01)) for engine in ENGINES)
    assert_close((one.params, one.history["loss"]), (other.params, other.history["loss"]))
    assert one.history["loss"][-1] < one.history["loss"][0]
    assert_close(one.history["validation_loss"], other.history["validation_loss"])


class Doubled(tn.InfoNCE):
    def backward(self, cache: Any, dE: Any = 1.0) -> Any:
        da, db = super().backward(cache, dE)
        return da, 2 * db


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_verified_on_the_way_without_a_target_too(engine: str) -> None:
    fit(Two(tn.Linear(3, 2)), tn.InfoNCE("sum", 2.0), (X, X[::-1]), engine=engine, verify_every=2)
    with pytest.raises(tn.GradientError, match="Doubled"):
        fit(Two(tn.Linear(3, 2)), Doubled("sum", 2.0), (X, X[::-1]), engine=engine, verify_every=2)


@pytest.mark.parametrize("engine", ENGINES)
def test_several_targets_are_the_business_of_the_loss(engine: str) -> None:
    class Both(tn.Loss):
        def forward(self, y_hat: Any, y: Any) -> Any:
            (E1, c1), (E2, c2) = (tn.SquaredError(self.reduction).forward(*pair) for pair in zip(y_hat, y, strict=True))
            return E1 + E2, (c1, c2)

        def backward(self, cache: Any, dE: Any = 1.0) -> Any:
            return tuple(tn.SquaredError(self.reduction).backward(c, dE) for c in cache)

    net = Two(tn.Linear(3, 2))
    result = fit(net, Both("mean"), (X, X), (Y, 2 * Y), engine=engine, epochs=60, sample_weight=np.ones(22))
    twice = fit(
        tn.Linear(3, 2), tn.SquaredError("mean"), X, 1.5 * Y, engine=engine, epochs=60, optimizer=tn.SGD(0.2, 0.9)
    )
    assert_close(result.params, twice.params, 1e-9)


class Code(tn.Linear):
    """ŷ = (x̂, μ, log σ²) by one affine layer: arrays of two shapes."""

    def forward(self, params: Any, x: Any) -> Any:
        y, cache = super().forward(params, x)
        return (y[:, :3], y[:, 3:5], y[:, 5:]), cache

    def param_grads(self, params: Any, cache: Any, dy: Any) -> Any:
        dy = tn.namespace(dy[0]).concatenate(dy, axis=1)
        return super().param_grads(params, cache, dy)


class ELBO(tn.Loss):
    """½ |x̂ − x|² + ½ Σ (μ² + σ² − 1 − log σ²), with no `check` of its own."""

    def forward(self, y_hat: Any, x: Any) -> Any:
        x_hat, mean, log_variance = y_hat
        variance, r = tn.namespace(mean).exp(log_variance), x_hat - x
        return ((r * r).sum() + (mean * mean + variance - 1 - log_variance).sum()) / 2, (r, mean, variance)

    def backward(self, cache: Any, dE: Any = 1.0) -> Any:
        r, mean, variance = cache
        return dE * r, dE * mean, dE * (variance - 1) / 2


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_of_several_shapes_have_one_array_for_their_target(engine: str) -> None:
    net, loss = Code(3, 7), ELBO()
    params = net.init(np.random.default_rng(0), np.float64)
    options = {"engine": engine, "params": params, "epochs": 1, "batch_size": None, "optimizer": tn.SGD(0.001)}
    result = fit(net, loss, X, X, **options)
    with jax.enable_x64(True):
        exact = jax.grad(lambda params: loss.forward(net.forward(params, X)[0], X)[0])(params)
    assert_close(result.params, map_leaves(lambda p, g: p - 0.001 * np.asarray(g), params, exact), 1e-12)
    with pytest.raises(TypeError, match=r"the data do not fit .* y_hat is tuple; expected a tuple of two arrays"):
        fit(net, tn.InfoNCE(), X)


@pytest.mark.parametrize("engine", ENGINES)
def test_integer_targets_of_a_sequence_equal_one_hot_ones(engine: str) -> None:
    ids = RNG.integers(4, size=(22, 6))
    net, loss = tn.Sequential(tn.Embedding(4, 3), tn.Linear(3, 4)), tn.SoftmaxCrossEntropy("mean")
    a, b = (fit(net, loss, ids, y, params=net.init(np.random.default_rng(0), np.float64), engine=engine)
            for y in (np.roll(ids, -1, axis=1), np.eye(4)[np.roll(ids, -1, axis=1)]))  # fmt: skip
    assert_close(a.params, b.params)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0, 2.0], [3.0]], Y[:2], "fit: x is list, of which NumPy makes no array: .* inhomogeneous"),
        (X[:2], np.array(["a", "b"]), r"fit: y has dtype <U1.*use numpy.unique\(y, return_inverse=True\)\[1\]"),
        (np.array([["1.5", "2", "0"], ["-3", "1", "1e2"]]), Y[:2], r"fit: x has .*use numpy.asarray\(x, float\)"),
        (X[:2], np.array(["1", "0"], object), r"fit: y has dtype object.*use numpy.asarray\(y, float\)"),
        (X[:2], np.array(["a", 1], object), r"fit: y has dtype object.*use numpy.unique\(y, return_inverse=True\)"),
        (
            X[:2],
            np.array([0.0, 1.0]),
            r"y has shape \(2,\); expected \(2, 2\), that of y_hat; for classes use y.astype\(int\)",
        ),
    ],
    ids=["ragged", "texts", "numbers as texts", "numbers as text objects", "objects", "classes as floats"],
)
def test_targets_of_another_kind_are_named_with_what_to_do(x: Any, y: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit(tn.Linear(3, 2), tn.SoftmaxCrossEntropy("mean"), x, y)


def test_rows_of_all_arrays_must_be_as_many() -> None:
    with pytest.raises(ValueError, match=r"fit: x\[1\] has 21 samples; expected 22, as many as x"):
        fit(Two(tn.Linear(3, 2)), tn.InfoNCE(), (X, X[1:]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_generator_that_reuses_its_buffer_trains_on_what_it_yielded(engine: str, tmp_path: Any) -> None:
    def reusing() -> Any:
        x, y = np.empty((5, 3)), np.empty((5, 2))
        for i in range(0, 20, 5):
            x[:], y[:] = X[i : i + 5], Y[i : i + 5]
            yield x, y

    net, options = tn.Linear(3, 2), {"engine": engine, "batch_size": None}
    expected = fit(net, tn.SquaredError("mean"), X[:20], Y[:20], engine=engine, shuffle=False)
    for more in ({}, {"checkpoint": tmp_path / "run", "every": 3}):
        assert_close(fit(net, tn.SquaredError("mean"), reusing, **options, **more).params, expected.params)


# the first step


@dataclass(frozen=True)
class WrongGradient(tn.Linear):
    kind: str = ""

    def param_grads(self, params: Any, a: Any, dz: Any) -> Any:
        grads = super().param_grads(params, a, dz)
        if self.kind == "shape":
            return {**grads, "W": grads["W"].sum(axis=0)}
        if self.kind == "missing":
            return {"W": grads["W"]}
        return {**grads, "W": grads["W"].astype("float64")}


@dataclass(frozen=True)
class WrongUpdate(tn.Optimizer):
    def init(self, params: Any) -> Any:
        return {"t": 0}

    def step(self, params: Any, grads: Any, state: Any) -> Any:
        return map_leaves(lambda p, g: (p - 0.1 * g).astype("float64"), params, grads), {"t": state["t"] + 1}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "shape",
            r'the gradient of params\["W"\] has shape \(3,\); expected \(2, 3\), as the network has',
        ),
        ("missing", r"the gradient of params is a dict with keys \['W'\]; expected a dict with keys \['W', 'b'\]"),
    ],
)
def test_a_gradient_of_another_shape_is_refused(engine: str, kind: str, message: str) -> None:
    x, y = X.astype("f"), Y.astype("f")
    with pytest.raises(ValueError, match=message):
        fit(WrongGradient(3, 2, kind=kind), tn.SquaredError(), x, y, engine=engine)


def test_gradients_and_updates_of_another_dtype_are_refused() -> None:
    x, y = X.astype("f"), Y.astype("f")
    with pytest.raises(TypeError, match=r"gradient of params.* is float64 array.*expected float32"):
        fit(WrongGradient(3, 2), tn.SquaredError(), x, y)
    with pytest.raises(TypeError, match=r"update of params.* is float64 array.*expected float32"):
        fit(tn.Linear(3, 2), tn.SquaredError(), x, y, optimizer=WrongUpdate())


def test_a_number_in_the_state_of_an_own_optimizer_is_one_after_a_resume(tmp_path: Any) -> None:
    @dataclass(frozen=True)
    class Decaying(tn.Optimizer):
        def init(self, params: Any) -> Any:
            return {"t": 1}

        def step(self, params: Any, grads: Any, state: Any) -> Any:
            return map_leaves(lambda p, g: p - 0.1 / state["t"] * g, params, grads), {"t": state["t"] + 1}

    x, y, options = X.astype("f"), Y.astype("f"), {"optimizer": Decaying()}
    whole = fit(tn.Linear(3, 2), tn.SquaredError("mean"), x, y, **options)
    fit(tn.Linear(3, 2), tn.SquaredError("mean"), x, y, epochs=1, checkpoint=tmp_path / "run", **options)
    rest = fit(tn.Linear(3, 2), tn.SquaredError("mean"), x, y, checkpoint=tmp_path / "run", **options)
    assert_close(rest.params, whole.params, 0)
    assert {p.dtype for p in leaves(rest.params)} == {np.dtype("f")}


def test_a_class_in_a_field_of_an_own_optimizer_is_let_be() -> None:
    @dataclass(frozen=True)
    class Built(tn.Optimizer):
        kind: Any = tn.SGD
        init = staticmethod(tn.SGD(0.1).init)
        step = staticmethod(tn.SGD(0.1).step)

    results = [fit(tn.Linear(3, 2), tn.SquaredError("mean"), X, Y, optimizer=o) for o in (Built(), tn.SGD(0.1))]
    assert_close(results[0].params, results[1].params, 0)


def test_weights_under_a_loss_that_couples_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the loss of a sample depends on the others in InfoNCE"):
        fit(Two(tn.Linear(3, 2)), tn.InfoNCE(), (X, X), sample_weight=np.ones(22))


@dataclass(frozen=True)
class Centred(tn.Loss):
    """½ Σ (ŷ − mean ŷ − y)², which couples the samples and does not say so."""

    def forward(self, y_hat: Any, y: Any) -> Any:
        r = y_hat - y_hat.mean(axis=0) - y
        return (r * r).sum() / 2, r

    def backward(self, r: Any, dE: Any = 1.0) -> Any:
        return dE * (r - r.mean(axis=0))


class MeanOfAll(tn.Loss):
    """½ mean (ŷ − y)², whatever `reduction` is."""

    def forward(self, y_hat: Any, y: Any) -> Any:
        r = y_hat - y
        return (r * r).mean() / 2, r / r.size

    def backward(self, r: Any, dE: Any = 1.0) -> Any:
        return dE * r


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_under_an_own_loss_whose_samples_do_not_add_up_are_refused(engine: str) -> None:
    for loss in (Centred(), MeanOfAll()):
        with pytest.raises(ValueError, match=r"the losses of single samples do not join to .* expected no weights"):
            fit(tn.Linear(3, 2), loss, X, Y, sample_weight=np.ones(22), engine=engine)
        with pytest.raises(ValueError, match=r"the losses of single samples do not join to .* expected no weights"):
            fit(tn.Linear(3, 2), loss, [(X, Y, np.ones(22))], batch_size=None, engine=engine)


@pytest.mark.parametrize("loss", [Centred(), MeanOfAll()], ids=["coupled", "mean of all"])
def test_threads_do_not_share_a_batch_whose_samples_do_not_add_up(loss: tn.Loss) -> None:
    params = tn.Linear(3, 2).init(np.random.default_rng(0), np.float64)
    options = {"params": params, "optimizer": tn.SGD(0.01), "epochs": 3}
    one, two = (fit(tn.Linear(3, 2), loss, X, Y, threads=threads, **options) for threads in (1, 2))
    assert_close(two.params, one.params, 1e-12)
    assert_close(two.history["loss"], one.history["loss"], 1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_parameters_of_half_precision_are_refused_and_halves_in_the_data_are_taken(engine: str, half: Any) -> None:
    net, loss, x, y = tn.Linear(3, 2), tn.SquaredError("mean"), X.astype(half), Y.astype(half)
    with pytest.raises(TypeError, match=rf'params\["W"\] has dtype {np.dtype(half)}.*expected float32'):
        fit(net, loss, X, Y, params=net.init(RNG, half), engine=engine)
    result = fit(net, loss, x, y, engine=engine)
    assert {p.dtype for p in leaves(result.params)} == {np.dtype(np.float32)}
    assert_close(result.params, fit(net, loss, x.astype("f"), y.astype("f"), engine=engine).params, 0)


def test_numpy_integers_are_integers() -> None:
    numbers = {name: np.int64(n) for name, n in {"epochs": 2, "batch_size": 5, "seed": 1}.items()}
    one = fit(tn.Linear(3, 2), tn.SquaredError(), X, Y, optimizer=tn.SGD(0.01), **numbers)
    assert_close(one.params, fit(tn.Linear(3, 2), tn.SquaredError(), X, Y, optimizer=tn.SGD(0.01), epochs=2).params, 0)


# what is told


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_callback_gets_gradient_network_and_learning_rate(engine: str) -> None:
    steps: list[Any] = []

    def keep(step: Any) -> None:
        steps.append((map_leaves(np.array, (step.params, step.x, step.y, step.grads)), step.net, step.lr))

    net, loss = tn.Sequential(tn.Linear(3, 4), tn.Dropout(0.5), tn.Linear(4, 2)), tn.SquaredError("mean")
    start = net.init(np.random.default_rng(1), np.float64)
    for optimizer in (tn.SGD(0.1), tn.SGD(tn.ExponentialDecay(0.1, 0.5, 2)), tn.AdamW(0.1)):
        steps.clear()
        fit(net, loss, X, Y, params=start, optimizer=optimizer, engine=engine, step_callbacks=[keep], epochs=2)
        before = start
        for (params, x, y, grads), sampled, _ in steps:
            assert_close(grads, tn.value_and_grads(sampled, loss, before, x, y)[1], 1e-9)
            before = params
        decays = isinstance(optimizer, tn.SGD) and callable(optimizer.lr)
        expected = [0.1 * 0.5 ** (i / 2) if decays else 0.1 for i in range(10)]
        np.testing.assert_allclose([lr for _, _, lr in steps], expected, rtol=1e-6)
        assert len({sampled.layers[1].seed for _, sampled, _ in steps}) == 10


@pytest.mark.parametrize("engine", ENGINES)
def test_early_stopping_on_the_loss_keeps_the_parameters_that_were_measured(engine: str, tmp_path: Any) -> None:
    net, loss = tn.Linear(3, 2), tn.SquaredError("mean")
    options = {"batch_size": None, "epochs": 40, "optimizer": tn.SGD(0.9, 0.9), "engine": engine}
    options |= {"early_stopping": tn.EarlyStopping("loss", patience=3), "params": net.init(RNG, np.float64)}
    result = fit(net, loss, X, Y, **options)
    E = loss.forward(net.forward(result.params, X)[0], Y)[0]
    assert pytest.approx(result.history["loss"].min(), rel=1e-12) == E
    fit(net, loss, X, Y, checkpoint=tmp_path / "run", **options | {"epochs": len(result.history["loss"]) - 4})
    rest = fit(net, loss, X, Y, checkpoint=tmp_path / "run", **options)
    assert_close(rest.params, result.params, 0)


def test_a_share_of_the_samples_is_held_out_by_the_seed() -> None:
    m = np.arange(22.0)[:, None]
    seen: set[float] = set()
    options = {"validation": 0.25, "optimizer": tn.SGD(0.0), "metrics": {"n": lambda y_hat, y: len(y)}}
    step_callbacks = [lambda step: seen.update(step.x[:, 0].tolist())]
    result = fit(tn.Linear(1, 1), tn.SquaredError("mean"), m, m, step_callbacks=step_callbacks, **options)
    assert result.history["validation_n"].tolist() == [6] * 3
    assert (len(seen), result.history["n"][0]) == (16, 16)
    with pytest.raises(ValueError, match=r"validation is 1.5; expected a share"):
        fit(tn.Linear(1, 1), tn.SquaredError(), m, m, validation=1.5)

"""What `fit` offers beyond the loop: callbacks, early stopping, weights, progress, evaluation in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinynet as tn
from tinynet.training.callbacks import EarlyStopping, Epoch, Step
from tinynet.trees import leaves, map_leaves

NET = tn.Sequential(tn.Linear(3, 4), tn.Sigmoid(), tn.Linear(4, 2), tn.Sigmoid())
ENGINES = ("numpy", "jax")


def data(m: int = 21) -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    return rng.random((m, 3)), rng.random((m, 2))


def fit(x: Any, y: Any, **options: Any) -> tn.FitResult:
    options = {"optimizer": tn.SGD(0.2), "epochs": 4, "batch_size": 5} | options
    return tn.fit(NET, options.pop("loss", tn.SquaredError("mean")), x, y, **options)


@pytest.mark.parametrize("engine", ENGINES)
def test_callbacks_see_every_step_and_every_epoch(engine: str) -> None:
    steps: list[Step] = []
    epochs: list[Epoch] = []
    x, y = data()
    result = fit(x, y, engine=engine, step_callbacks=[steps.append], callbacks=[epochs.append])
    assert [(s.epoch, s.batch) for s in steps] == [(e, b) for e in range(4) for b in range(5)]
    assert [len(s.x) for s in steps[:5]] == [5, 5, 5, 5, 1]
    assert [e.row["loss"] for e in epochs] == result.history["loss"].tolist()
    joined = sum(s.loss * len(s.x) for s in steps[:5]) / len(x)
    assert joined == pytest.approx(result.history["loss"][0], rel=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_callback_sees_the_params_after_the_update_on_its_batch(engine: str) -> None:
    start, seen = NET.init(np.random.default_rng(3), np.float64), []

    def callback(step: Step) -> bool:
        seen.append((map_leaves(np.array, step.params), np.array(step.x), np.array(step.y)))
        return True

    result = fit(*data(), params=start, engine=engine, step_callbacks=[callback])
    [(params, x, y)] = seen
    _, grads = tn.value_and_grads(NET, tn.SquaredError("mean"), start, x, y)
    for p, p0, g in zip(leaves(params), leaves(start), leaves(grads), strict=True):
        np.testing.assert_allclose(p, p0 - 0.2 * g, rtol=1e-12)
    assert result.stopped == "callback"
    assert len(result.history["loss"]) == 1


def test_an_epoch_callback_stops_training_and_its_exception_goes_through() -> None:
    assert fit(*data(), callbacks=[lambda epoch: epoch.epoch == 1]).stopped == "callback"
    with pytest.raises(KeyError, match="no such"):
        fit(*data(), callbacks=[lambda epoch: epoch.row["no such"] > 0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", [tn.SGD(0.2, 0.9), tn.Adam(tn.ExponentialDecay(0.01, 0.5, 3))], ids=str)
def test_a_fit_that_goes_on_with_the_state_of_another_equals_one_fit(engine: str, optimizer: Any) -> None:
    options = {"engine": engine, "optimizer": optimizer, "shuffle": False}
    whole, half = fit(*data(), **options), fit(*data(), epochs=2, **options)
    rest = fit(*data(), epochs=2, params=half.params, state=half.state, **options)
    for name in ("params", "state"):
        got, expected = (leaves(r.params if name == "params" else r.state.optimizer) for r in (rest, whole))
        for p, q in zip(got, expected, strict=True):
            np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(np.append(half.history["loss"], rest.history["loss"]), whole.history["loss"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_that_is_not_of_this_optimizer_is_refused(engine: str) -> None:
    state = fit(*data(), epochs=1, optimizer=tn.SGD(0.1, 0.9)).state
    with pytest.raises((TypeError, ValueError), match=r"fit: state.optimizer is"):
        fit(*data(), state=state, engine=engine, optimizer=tn.Adam())
    with pytest.raises(TypeError, match="fit: state is dict; expected a tinynet"):
        fit(*data(), state={"optimizer": ()}, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_early_stopping_gives_back_the_best_params(engine: str) -> None:
    x, y = data()
    wrong = x, 1 - y
    kept: list[Any] = []
    result = fit(
        x,
        y,
        epochs=50,
        engine=engine,
        validation=wrong,
        early_stopping=EarlyStopping(patience=3),
        callbacks=[lambda epoch: kept.append(map_leaves(np.array, epoch.params))],
    )
    losses = result.history["validation_loss"]
    best = int(losses.argmin())
    assert result.stopped == "early_stopping"
    assert len(losses) == best + 1 + 3
    for p, q in zip(leaves(result.params), leaves(kept[best]), strict=True):
        np.testing.assert_array_equal(p, q)


def test_early_stopping_with_mode_max_and_min_delta() -> None:
    rule = EarlyStopping("accuracy", patience=1, min_delta=0.1, mode="max")
    assert rule.improves(0.5, None)
    assert rule.improves(0.7, 0.5)
    assert not rule.improves(0.55, 0.5)
    assert not rule.improves(float("nan"), None)


def test_early_stopping_names_what_it_could_monitor() -> None:
    with pytest.raises(
        ValueError, match=r"'validation_loss', which is not measured; expected one of \['loss', 'seconds'\]"
    ):
        fit(*data(), early_stopping=EarlyStopping())


@pytest.mark.parametrize(
    "arguments", [{"patience": 0}, {"mode": "least"}, {"min_delta": -1.0}, {"min_delta": float("inf")}]
)
def test_early_stopping_refuses_what_makes_no_sense(arguments: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        EarlyStopping(**arguments)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_whole_weight_counts_a_sample_that_often(reduction: Any) -> None:
    x, y = data(6)
    counts = np.array([1, 2, 0, 3, 1, 1])
    loss = tn.SquaredError(reduction)
    scale = len(x) / counts.sum() if reduction == "mean" else 1
    often = fit(
        x.repeat(counts, 0), y.repeat(counts, 0), loss=loss, optimizer=tn.SGD(0.2 / scale), batch_size=None, epochs=3
    )
    weighted = fit(x, y, sample_weight=counts, loss=loss, batch_size=None, epochs=3)
    for p, q in zip(leaves(often.params), leaves(weighted.params), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12)
    np.testing.assert_allclose(weighted.history["loss"] * scale, often.history["loss"], rtol=1e-12)


def test_class_weights_multiply_sample_weights() -> None:
    x, _ = data(6)
    y = np.eye(2)[[0, 0, 0, 0, 1, 1]]
    counts = np.array([1.0, 2, 1, 1, 1, 3])
    by_class = fit(x, y, sample_weight=counts, class_weight={0: 0.5, 1: 2.0})
    by_hand = fit(x, y, sample_weight=counts * [0.5, 0.5, 0.5, 0.5, 2, 2])
    np.testing.assert_array_equal(leaves(by_class.params)[0], leaves(by_hand.params)[0])


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    from tinynet.training.batches import sample_weights

    labels = np.random.default_rng(0).integers(0, 4, 50)
    expected = compute_sample_weight("balanced", labels)
    np.testing.assert_allclose(sample_weights(labels, None, "balanced", len(labels)), expected)
    np.testing.assert_allclose(sample_weights(np.eye(4)[labels], None, "balanced", len(labels)), expected)
    np.testing.assert_allclose(sample_weights(labels[:, None], None, "balanced", len(labels)), expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"sample_weight": np.ones(3)}, r"shape \(3,\); expected \(21,\)"),
        ({"sample_weight": np.full(21, -1.0)}, "sample_weight has the value -1; expected at least 0"),
        ({"class_weight": {0: 1.0, 1: -2.0}}, "class_weight has the value -2; expected at least 0"),
        ({"sample_weight": np.full(21, np.nan)}, "sample_weight has a value that is NaN"),
        ({"class_weight": {0: 1.0}}, "no weight for class 1"),
        ({"class_weight": "even"}, "class_weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit(*data(), **weights)


def test_a_loss_without_a_fast_way_is_weighted_all_the_same() -> None:
    class Slow(tn.SquaredError):
        each = tn.Loss.each

    weights = np.linspace(0, 2, 21)
    slow, fast = (fit(*data(), loss=loss, sample_weight=weights) for loss in (Slow("mean"), tn.SquaredError("mean")))
    np.testing.assert_allclose(slow.history["loss"], fast.history["loss"], rtol=1e-13)


def test_evaluation_in_parts_equals_evaluation_at_once() -> None:
    x, y = data(20_000)
    result = fit(x, y, epochs=1, batch_size=None, validation=(x, y), metrics={"mean": lambda a, _: float(a.mean())})
    y_hat, _ = NET.forward(result.params, x)
    assert result.history["validation_mean"][0] == pytest.approx(y_hat.mean(), rel=1e-14)
    assert result.history["validation_loss"][0] == pytest.approx(0.5 * ((y_hat - y) ** 2).sum() / len(x), rel=1e-13)


def test_the_progress_bar_shows_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    result = fit(*data(), progress=True)
    assert f"loss={result.history['loss'][-1]:.3g}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": (np.zeros((3, 3)),)}, "validation is 1 entries; expected a tuple"),
        ({"validation": np.zeros((2, 3))}, "validation is float64 array"),
        ({"metrics": [max]}, "metrics has the name <built-in function max>"),
        ({"metrics": max}, "metrics is builtin_function_or_method; expected a dict"),
        ({"metrics": ["speed"]}, "metrics has 'speed'; expected a function .* or one of .*'accuracy'"),
        ({"metrics": {"best": 3}}, r"metrics\['best'\] is int; expected a function"),
        ({"metrics": {"loss": max}}, "metrics has the name 'loss', which the history uses itself"),
        ({"metrics": {"validation_x": max}}, "metrics has the name 'validation_x'"),
        ({"callbacks": print}, "callbacks is <built-in function print>; expected a list of functions"),
        ({"step_callbacks": [3]}, r"step_callbacks is \[3\]; expected a list of functions"),
        ({"early_stopping": 3}, "early_stopping is int; expected a tinynet.EarlyStopping"),
        ({"tolerance": "small"}, "tolerance is 'small'; expected a number"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"shuffle": "no"}, "shuffle is 'no'; expected True or False"),
        ({"checkpoint": 3}, "checkpoint is int; expected the path of a file"),
    ],
)
def test_what_cannot_be_watched_called_or_written_is_refused_before_anything_is_trained(options, message):
    with pytest.raises((TypeError, ValueError), match=f"fit: .*{message}"):
        fit(*data(), step_callbacks=options.pop("step_callbacks", [pytest.fail]), **options)

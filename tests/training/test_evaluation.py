"""`predict` and `evaluate`: what the network gives as it is, in parts, on both engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score

import tinynet as tn

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(53, 3)), RNG.integers(4, size=53)
NET = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Dropout(0.5), tn.Linear(4, 4))
PARAMS = NET.init(RNG, np.float64)
STATE = ({}, {"mean": RNG.normal(size=4), "var": RNG.random(4) + 0.5}, {}, {})


@pytest.mark.parametrize("engine", ["numpy", "jax"])
@pytest.mark.parametrize("batch_size", [1, 10, 53, 1000])
def test_predictions_are_those_of_the_network_that_evaluates(engine: Any, batch_size: int) -> None:
    y_hat = tn.predict(NET, PARAMS, X, state=STATE, batch_size=batch_size, engine=engine)
    assert isinstance(y_hat, np.ndarray)
    np.testing.assert_allclose(y_hat, NET.forward(PARAMS, X, state=STATE)[0], rtol=1e-12)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_metrics_by_name_are_those_of_scikit_learn(engine: Any) -> None:
    loss, y_hat = tn.SoftmaxCrossEntropy("mean"), NET.forward(PARAMS, X, state=STATE)[0]
    for y in (LABELS, np.eye(4)[LABELS]):
        told = tn.evaluate(NET, loss, PARAMS, X, y, state=STATE, metrics=["accuracy"], batch_size=7, engine=engine)
        assert set(told) == {"loss", "accuracy"}
        assert told["accuracy"] == pytest.approx(accuracy_score(LABELS, y_hat.argmax(axis=1)))
        assert told["loss"] == pytest.approx(float(loss.forward(y_hat, y)[0]), rel=1e-12)
    Y = RNG.normal(size=(53, 4))
    metrics: Any = {"R2": "r2", "rmse": "rmse", "mae": "mae", "n": lambda a, b: len(a)}
    told = tn.evaluate(NET, tn.SquaredError(), PARAMS, X, Y, state=STATE, metrics=metrics)
    assert told["R2"] == pytest.approx(r2_score(Y, y_hat))
    assert told["mae"] == pytest.approx(mean_absolute_error(Y, y_hat))
    assert told["rmse"] == pytest.approx(np.sqrt(2 * told["loss"] / Y.size))
    assert told["n"] == 53


@pytest.mark.parametrize(("loss", "shift"), [(tn.SquaredError(), 0.5), (tn.BinaryCrossEntropy(), 0.0)])
def test_one_output_is_on_the_side_of_the_class_that_costs_less(loss: tn.Loss, shift: float) -> None:
    net, y = tn.Linear(1, 1), np.array([[0.0], [1], [1], [1]])
    params = {"W": np.ones((1, 1)), "b": np.zeros(1)}
    x = np.array([[-0.1], [0.1], [-0.2], [0.2]]) + shift
    assert tn.evaluate(net, loss, params, x, y, metrics=["accuracy"])["accuracy"] == 0.75


def test_the_accuracy_of_sequences_counts_every_time() -> None:
    x, labels = RNG.normal(size=(7, 5, 3)), RNG.integers(0, 3, (7, 5))
    for y in (labels, np.eye(3)[labels]):
        told = tn.evaluate(tn.Tanh(), tn.SoftmaxCrossEntropy(), {}, x, y, metrics=["accuracy"])
        assert told["accuracy"] == pytest.approx(accuracy_score(labels.ravel(), x.argmax(axis=2).ravel()))


def test_a_network_without_parameters_keeps_the_dtype_of_the_data() -> None:
    for dtype in (np.float32, np.float64):
        assert tn.predict(tn.Tanh(), {}, X.astype(dtype)).dtype == dtype


def test_the_accuracy_leaves_out_what_the_loss_ignores_and_takes_targets_with_weights() -> None:
    net = tn.Linear(3, 4)
    params, x = net.init(RNG, np.float64), RNG.normal(size=(6, 5, 3))
    y, counted = RNG.integers(4, size=(6, 5)), RNG.random((6, 5)) < 0.7
    expected = accuracy_score(y[counted], net.forward(params, x)[0].argmax(axis=-1)[counted])
    assert 0 < expected < 1
    masked = np.where(counted, y, -1)
    for target in (masked, (masked, RNG.random((6, 5)))):
        loss = tn.SoftmaxCrossEntropy("mean", ignore_index=-1)
        assert tn.evaluate(net, loss, params, x, target, metrics=["accuracy"])["accuracy"] == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_the_accuracy_of_no_sample_is_no_number_and_no_warning() -> None:
    loss, y = tn.SoftmaxCrossEntropy("mean", ignore_index=-1), np.full(53, -1)
    assert np.isnan(tn.evaluate(NET, loss, PARAMS, X, y, state=STATE, metrics=["accuracy"])["accuracy"])


def test_fit_takes_the_names_too() -> None:
    loss, held_out, metrics = tn.SoftmaxCrossEntropy("mean"), (X[:9], LABELS[:9]), ["accuracy"]
    options: dict[str, Any] = {"optimizer": tn.SGD(0.1), "epochs": 2, "validation": held_out, "metrics": metrics}
    result = tn.fit(NET, loss, X, LABELS, **options)
    told = tn.evaluate(NET, loss, result.params, *held_out, state=result.state.layers, metrics=metrics)
    assert result.history["validation_accuracy"][-1] == told["accuracy"]
    assert result.history["validation_loss"][-1] == pytest.approx(told["loss"], rel=1e-12)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="forward has no state"):
        tn.predict(NET, PARAMS, X)
    with pytest.raises(ValueError, match="batch_size is 0"):
        tn.predict(NET, PARAMS, X, state=STATE, batch_size=0)
    with pytest.raises(ValueError, match="engine is 'gpu'"):
        tn.predict(NET, PARAMS, X, state=STATE, engine="gpu")  # type: ignore[arg-type]

"""A training that made no headway warns and says what to try; one that did is quiet."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer

import tinynet as tn
from tinynet.sklearn import Classifier
from tinynet.training.batches import Samples, Stream
from tinynet.training.headway import best_constant

RNG = np.random.default_rng(0)
LABELS = RNG.integers(3, size=40)
TARGETS = {
    "squared error": (tn.SquaredError("mean"), RNG.normal(size=(40, 2)) + 3, 2),
    "softmax, one-hot": (tn.SoftmaxCrossEntropy("mean"), np.eye(3)[LABELS], 3),
    "softmax, classes": (tn.SoftmaxCrossEntropy("sum"), LABELS, 3),
    "softmax, some ignored": (tn.SoftmaxCrossEntropy("mean", ignore_index=-1), np.where(LABELS, LABELS, -1), 3),
    "softmax, a class ignored": (tn.SoftmaxCrossEntropy("mean", ignore_index=0), LABELS, 3),
    "binary": (tn.BinaryCrossEntropy("mean"), (RNG.random((40, 2)) < [0.2, 0.7]).astype(float), 2),
}


@pytest.mark.parametrize("case", TARGETS)
def test_the_best_constant_is_the_one_that_scipy_finds(case: str) -> None:
    loss, y, n = TARGETS[case]

    def E(constant: Any) -> float:
        return float(loss.forward(np.broadcast_to(constant, (40, n)), y)[0])

    found = minimize(E, np.zeros(n), method="BFGS").fun
    assert best_constant(loss, Samples(np.zeros((40, 1)), y, None, None, True)) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("label", [0, 1])
def test_of_one_class_alone_the_best_constant_has_no_loss(label: int, dtype: Any) -> None:
    of_one = Samples(np.zeros((40, 1)), np.full((40, 1), label, dtype), None, None, True)
    assert best_constant(tn.BinaryCrossEntropy("mean"), of_one) == pytest.approx(0, abs=1e-9)
    one_hot = replace(of_one, y=np.eye(3, dtype=dtype)[np.full(40, label)])
    assert best_constant(tn.SoftmaxCrossEntropy("mean"), one_hot) == pytest.approx(0, abs=1e-9)


def test_no_best_constant_is_known_of_weighted_samples_and_of_batches() -> None:
    x, y = np.zeros((4, 1)), np.arange(4.0)[:, None]
    assert best_constant(tn.SquaredError(), Samples(x, y, np.ones(4), None, True)) is None
    assert best_constant(tn.SquaredError(), Stream([(x, y)], 1)) is None


def test_unscaled_inputs_are_named_as_a_reason_by_fit_and_by_the_estimators() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.warns(tn.NoHeadwayWarning, match="after 10 epochs the loss is .*Scale the inputs") as caught:
        Classifier(epochs=10, random_state=0).fit(X, y)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Classifier(epochs=10, random_state=0).fit((X - X.mean(axis=0)) / X.std(axis=0), y)


def test_another_loss_is_compared_with_its_first_epoch_in_a_run_from_the_start() -> None:
    x, y = RNG.normal(size=(20, 2)), RNG.normal(size=(20, 1))
    options: dict[str, Any] = {"epochs": 10, "optimizer": tn.SGD(1e-9)}
    with pytest.warns(tn.NoHeadwayWarning, match="the first epoch had") as caught:
        result = tn.fit(tn.Linear(2, 1), tn.Huber(), x, y, **options)
    assert caught[0].filename == __file__
    tn.fit(tn.Linear(2, 1), tn.Huber(), x, y, params=result.params, **options)  # goes on: no warning


def test_few_epochs_and_a_stop_that_was_asked_for_are_quiet() -> None:
    x, y = RNG.normal(size=(20, 2)), RNG.normal(size=(20, 1))
    tn.fit(tn.Linear(2, 1), tn.SquaredError(), x, y, epochs=9, optimizer=tn.SGD(0.0))
    stop = [lambda epoch: epoch.epoch == 12]
    tn.fit(tn.Linear(2, 1), tn.SquaredError(), x, y, epochs=20, optimizer=tn.SGD(0.0), callbacks=stop)

"""The layers of the box in training: both engines give the same numbers, the state is carried and read."""

import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_identical
from tinynet.trees import leaves

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6, 3))
LENGTHS = RNG.integers(1, 7, size=20)
IDS = np.where(np.arange(6) < LENGTHS[:, None], RNG.integers(5, size=(20, 6)), -1)
NORMALISED = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Dropout(0.05), tn.Linear(4, 3))
BOTH = tn.Concatenate(tn.Linear(4, 2), tn.Linear(4, 2))
TIED = tn.Tied(tn.Sequential(tn.Embedding(5, 4), BOTH, tn.Tanh(), tn.Linear(4, 5)), {"3.W": "0.W"})
CASES = {
    "lengths and ignored targets": (
        tn.Sequential(tn.GRU(3, 8), tn.Linear(8, 5)),
        tn.SoftmaxCrossEntropy("mean", ignore_index=-1),
        ((X, LENGTHS), IDS),
    ),
    "pairs": (tn.Shared(tn.Linear(3, 2)), tn.InfoNCE("mean"), ((X[:, 0], X[:, 0] + 0.1 * X[:, 1]), None)),
    "state": (NORMALISED, tn.SquaredError("mean"), (X[:, 0], 2 * X[:, 0])),
    "two walks": (
        tn.Sequential(tn.Add(tn.RNN(3, 4), tn.LSTM(3, 4)), tn.RMSNorm(4), tn.Linear(4, 5)),
        tn.SoftmaxCrossEntropy("mean", ignore_index=-1),
        ((X, LENGTHS), IDS),
    ),
    "convolution": (
        tn.Sequential(tn.Conv1d(6, 4, kernel=2), tn.ReLU(), tn.Flatten(), tn.Linear(8, 2)),
        tn.SquaredError("mean"),
        (X, X[:, 0, :2]),
    ),
    "tied": (TIED, tn.SoftmaxCrossEntropy("mean", label_smoothing=0.1), (np.abs(IDS), np.abs(IDS[:, ::-1]))),
    "a mask": (
        tn.Sequential(tn.MultiHeadAttention(3, 1), tn.Linear(3, 5)),
        tn.SoftmaxCrossEntropy("mean", ignore_index=-1),
        ((X, IDS >= 0), IDS),
    ),
}


def fitted(name, engine, epochs=3, **options):
    net, loss, (x, y) = CASES[name]
    options = {"params": net.init(np.random.default_rng(0), np.float64), "batch_size": 8, **options}
    # Adam would turn the rounding of a gradient that is 0, as of a bias before BatchNorm, into whole steps.
    return tn.fit(net, loss, x, y, optimizer=tn.SGD(0.1), epochs=epochs, engine=engine, **options)


@pytest.mark.parametrize("name", CASES)
def test_both_engines_give_the_same_numbers(name):
    by_numpy, by_jax = fitted(name, "numpy"), fitted(name, "jax")
    np.testing.assert_allclose(by_numpy.history["loss"], by_jax.history["loss"], rtol=1e-12)
    for mine, traced in zip(*(leaves((r.params, r.state.layers)) for r in (by_numpy, by_jax)), strict=True):
        np.testing.assert_allclose(mine, traced, rtol=1e-10, atol=1e-14)
    assert by_numpy.history["loss"][-1] < by_numpy.history["loss"][0]


def test_the_running_statistics_are_carried_and_read_in_evaluation():
    x = X[:, 0]
    result = fitted("state", "numpy", epochs=60, batch_size=None)
    z, _ = tn.Linear(3, 4).forward(result.params[0], x)
    state = result.state.layers
    np.testing.assert_allclose(state[1]["mean"], z.mean(axis=0), atol=0.2)
    y = tn.predict(NORMALISED, result.params, x, state=state)
    np.testing.assert_array_equal(y, NORMALISED.forward(result.params, x, state=state)[0])
    with pytest.raises(ValueError, match="forward has no state"):
        tn.predict(NORMALISED, result.params, x)


class Cut(Exception):
    pass


def cut(step):
    if (step.epoch, step.batch) == (1, 1):
        raise Cut


@pytest.mark.parametrize("engine", ["numpy", "jax"])
@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_cut_off_ends_with_the_same_bits(name, engine, tmp_path):
    file = {"checkpoint": tmp_path / "run", "every": 1}
    whole = fitted(name, engine, step_callbacks=[lambda step: None])
    with pytest.raises(Cut):
        fitted(name, engine, step_callbacks=[cut], **file)
    rest = fitted(name, engine, step_callbacks=[lambda step: None], **file)
    assert_identical((rest.params, rest.state.layers), (whole.params, whole.state.layers))

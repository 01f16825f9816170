"""The state of layers and optimizer in a file: what it is, and that training and predictions go on with it."""

from dataclasses import dataclass

import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_within
from tinynet.files.container import write

RNG = np.random.default_rng(0)
X, Y = RNG.normal(2, 3, size=(24, 3)), RNG.normal(size=(24, 2))
NET = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Tanh(), tn.Linear(4, 2))
LOSS = tn.SquaredError("mean")
OPTIONS = {"optimizer": tn.Adam(0.01), "batch_size": None}


@dataclass(frozen=True)
class Extra:
    """A class that no reader knows."""


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_training_and_predictions_go_on_with_what_was_saved(engine, tmp_path):
    params = NET.init(RNG, np.float64)
    whole = tn.fit(NET, LOSS, X, Y, params=params, epochs=6, engine=engine, **OPTIONS)
    half = tn.fit(NET, LOSS, X, Y, params=params, epochs=3, engine=engine, **OPTIONS)
    tn.save(tmp_path / "net", NET, half.params, state=half.state)
    net, loaded = tn.load(tmp_path / "net")
    state = tn.load_state(tmp_path / "net")
    expected = tn.predict(NET, half.params, X, state=half.state.layers)
    np.testing.assert_array_equal(tn.predict(net, loaded, X, state=state), expected)
    measured = tn.evaluate(net, LOSS, loaded, X, Y, state=state, engine=engine)
    assert measured["loss"] == pytest.approx(float(LOSS.forward(expected, Y)[0]))
    rest = tn.fit(net, LOSS, X, Y, params=loaded, state=state, epochs=3, engine=engine, **OPTIONS)
    assert_within((rest.params, rest.state.layers), (whole.params, whole.state.layers))


def test_the_state_of_a_checkpoint_is_read_too(tmp_path):
    result = tn.fit(NET, LOSS, X, Y, epochs=2, checkpoint=tmp_path / "run", **OPTIONS)
    net, params = tn.load(tmp_path / "run")
    state = tn.load_state(tmp_path / "run").layers
    expected = tn.evaluate(NET, LOSS, result.params, X, Y, state=result.state.layers)
    assert tn.evaluate(net, LOSS, params, X, Y, state=state) == expected


def test_the_state_of_the_layers_alone_is_kept(tmp_path):
    layers = ({}, {"mean": np.full(4, 2.0), "var": np.full(4, 3.0)}, {}, {})
    tn.save(tmp_path / "net", NET, NET.init(RNG), state=tn.TrainingState(None, layers))
    state = tn.load_state(tmp_path / "net")
    assert state.optimizer is None
    assert_within(state.layers, layers)


def test_a_network_without_state_has_none_to_keep_and_the_optimizer_has(tmp_path):
    net = tn.Linear(3, 2)
    result = tn.fit(net, LOSS, X, Y, epochs=2, **OPTIONS)
    tn.save(tmp_path / "net", net, result.params, state=result.state)
    state = tn.load_state(tmp_path / "net")
    assert_within(state.optimizer, result.state.optimizer)


def test_the_state_is_read_without_the_classes_of_the_rest(tmp_path):
    result = tn.fit(NET, LOSS, X, Y, epochs=1, **OPTIONS)
    tn.save(tmp_path / "net", NET, result.params, state=result.state, extra=Extra())
    assert_within(tn.load_state(tmp_path / "net").layers, result.state.layers)


def test_what_does_not_fit_is_refused(tmp_path):
    path, params = tmp_path / "net", NET.init(RNG)
    with pytest.raises(TypeError, match=r"save: state is tuple; expected result.state, or TrainingState"):
        tn.save(path, NET, params, state=NET.init_state())
    wrong = ({}, {"mean": np.zeros(3), "var": np.ones(3)}, {}, {})
    with pytest.raises(ValueError, match=r'save: state.layers\[1\]\["mean"\] has shape \(3,\); expected \(4,\)'):
        tn.save(path, NET, params, state=tn.TrainingState(None, wrong))
    assert not path.exists()
    tn.save(path, NET, params)
    with pytest.raises(tn.FileError, match="holds no state; it was saved without state="):
        tn.load_state(path)
    for state in ({"optimizer": None, "layers": wrong}, {"layers": ()}, {"optimizer": None, "other": 1}, 3):
        write(path, {"net": NET, "params": params, "state": state})
        with pytest.raises(tn.FileError, match="its state does not fit its network"):
            tn.load_state(path)

"""Checkpoints: a run that is killed goes on as if it had not been."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tinynet as tn
from tinynet.files.container import read, write
from tinynet.training.checkpoints import (
    Run,
    check_same_run,
    load_checkpoint,
    restore_rng,
    rng_state,
    save_checkpoint,
)
from tinynet.training.engines import TrainingState
from tinynet.training.settings import fingerprint
from tinynet.trees import leaves

NET = tn.Sequential(tn.Linear(4, 3), tn.Sigmoid())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def checkpoint(**changes):
    params = NET.init(np.random.default_rng(0))
    optimizer = tn.SGD(0.1, momentum=0.9)
    run = Run(
        net=NET,
        settings={"loss": tn.SquaredError("mean"), "optimizer": optimizer, "batch_size": 10, "seed": 0},
        params=params,
        state=TrainingState(optimizer.init(params)),
        epoch=2,
        batch=3,
        losses=[(1.5, 10), (1.25, 10), (0.1, 3)],
        order=rng_state(np.random.default_rng(1)),
        draws=rng_state(np.random.default_rng(2)),
        history={"loss": [3.0, np.nan], "seconds": [0.5, 1.0]},
        seconds=1.5,
        best=(2.5, params, ()),
        waited=1,
    )
    return dataclasses.replace(run, **changes)


def test_a_checkpoint_comes_back_bit_for_bit(path):
    point = checkpoint()
    save_checkpoint(path, point)
    loaded = load_checkpoint(path)
    for field in dataclasses.fields(Run):
        got, expected = getattr(loaded, field.name), getattr(point, field.name)
        if field.name == "state":
            got, expected = (got.optimizer, got.layers), (expected.optimizer, expected.layers)
        for g, e in zip(leaves(got), leaves(expected), strict=True):
            if isinstance(e, np.ndarray):
                assert (g.dtype, g.shape, g.tobytes()) == (e.dtype, e.shape, e.tobytes())
            else:
                assert g == e or (np.isnan(g) and np.isnan(e))


def test_a_process_that_has_not_the_file_loads_what_another_one_read(path):
    save_checkpoint(path, checkpoint())
    data = path.read_bytes()
    path.unlink()
    assert load_checkpoint(path, data).losses == checkpoint().losses


def test_a_checkpoint_is_a_network_to_load(path):
    save_checkpoint(path, checkpoint())
    net, params = tn.load(path)
    assert net == NET
    assert np.array_equal(params[0]["W"], checkpoint().params[0]["W"])


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_generator_of_numpy_goes_on_where_it_was(path, kind):
    rng = np.random.Generator(getattr(np.random, kind)(3))
    rng.standard_normal(5, dtype=np.float32)
    rng.integers(10, size=3, dtype=np.int32)  # leaves half a word behind
    write(path, rng_state(rng))
    other = np.random.Generator(getattr(np.random, kind)(0))
    restore_rng(other, read(path))
    assert np.array_equal(rng.integers(100, size=7, dtype=np.int32), other.integers(100, size=7, dtype=np.int32))
    assert np.array_equal(rng.permutation(100), other.permutation(100))


def test_a_state_that_was_taken_does_not_move_with_its_generator():
    for kind in (np.random.PCG64, np.random.MT19937):
        rng = np.random.Generator(kind(0))
        state = rng_state(rng)
        expected = rng.random(1000)
        restore_rng(rng, state)
        assert np.array_equal(rng.random(1000), expected)


@pytest.mark.parametrize(
    "state", [{}, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64", "state": 3}, {"x": None}]
)
def test_a_state_that_does_not_fit_is_refused(state):
    with pytest.raises(ValueError, match="the state of a random generator does not fit PCG64"):
        restore_rng(np.random.default_rng(0), state)


def test_another_run_is_refused_and_what_differs_is_named(path):
    point = checkpoint()
    check_same_run(path, point, checkpoint(epoch=3, batch=0))
    for change, message in [
        ({"batch_size": 20}, "batch_size was 10 and is 20"),
        ({"optimizer": tn.SGD(0.2, momentum=0.9)}, r"optimizer was SGD\(lr=0.1, momentum=0.9\) and is SGD\(lr=0.2"),
        ({"loss": tn.SquaredError("sum")}, "loss was"),
        ({"shuffle": False}, "shuffle was None and is False"),
        ({"weights": np.ones(3)}, "weights was None"),
    ]:
        with pytest.raises(ValueError, match=rf"run\.safetensors was written by another run: {message}"):
            check_same_run(path, point, checkpoint(settings={**point.settings, **change}))
    with pytest.raises(ValueError, match=r"another run: net was Sequential"):
        check_same_run(path, point, checkpoint(net=tn.Linear(4, 3)))


def test_a_fingerprint_tells_data_apart():
    x = np.random.default_rng(0).normal(size=(5000, 3))
    changed = x.copy()
    changed[4001] += 1e-9
    others = [x[:-1], x.astype(np.float32), x[::-1], changed, x.reshape(-1, 1), x.T]
    assert fingerprint(x) == fingerprint(np.asfortranarray(x))
    assert len({fingerprint(x), fingerprint(x, None), *map(fingerprint, others)}) == 2 + len(others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": -1}, "epoch is -1; expected a count"),
        ({"epoch": True}, "epoch is True; expected a count"),
        ({"batch": 2.0}, "batch is 2.0; expected a count"),
        ({"batch": 4}, "there are 3 losses; expected 4, one per batch"),
        ({"losses": np.zeros((3, 1))}, r"losses is not a float64 array of shape \(3, 2\)"),
        ({"epoch": 10**18}, r"not a float64 array of shape \(1000000000000000000,\)"),
        ({"history": {"loss": [1.0, 2.0]}}, "history.* is not a float64 array"),
        ({"seconds": "long"}, "seconds is 'long'; expected a number"),
        ({"waited": -2}, "waited is -2; expected a count"),
        ({"settings": None}, "settings is not a dict"),
        ({"order": 3}, "order is not a dict"),
        ({"draws": None}, "draws is not a dict"),
        ({"draws": {"bit_generator": "PCG64"}}, "the state of a random generator does not fit PCG64"),
        ({"asked": 1}, "asked is not a bool"),
        ({"seen": None}, "seen is not a str"),
        ({"versions": {"numpy": 2}}, "versions is not a dict of texts"),
        ({"best": (2.5, ())}, "best is not a number with parameters and state"),
        ({"best": (2, (), ())}, "best is not a number with parameters and state"),
        ({"best": (2.5, (), ())}, "params has 0 entries; expected 2"),
        ({"before": ((),)}, "before is not a pair of parameters and state"),
        ({"before": ((), ())}, "params has 0 entries; expected 2"),
        ({"params": ()}, "params has 0 entries; expected 2"),
        ({"net": None}, "holds no checkpoint"),
    ],
    ids=str,
)
def test_a_checkpoint_with_parts_that_do_not_fit_is_refused(path, changes, message):
    save_checkpoint(path, checkpoint())
    write(path, read(path) | changes)
    with pytest.raises(tn.FileError, match=rf"run\.safetensors: .*{message}"):
        load_checkpoint(path)


def test_a_checkpoint_whose_parts_do_not_fit_is_not_written(path):
    with pytest.raises(ValueError, match="there are 3 losses; expected 4, one per batch"):
        save_checkpoint(path, checkpoint(batch=4))
    with pytest.raises(TypeError, match=r"state.optimizer: .* is a generator; expected arrays"):
        save_checkpoint(path, checkpoint(state=TrainingState(i for i in ())))
    assert not path.exists()


def test_a_file_that_holds_no_checkpoint_is_refused(path):
    tn.save(path, NET, NET.init(np.random.default_rng(0)))
    with pytest.raises(tn.FileError, match="holds no checkpoint"):
        load_checkpoint(path)


def test_a_setting_that_an_earlier_version_did_not_write_and_that_is_empty_is_no_other_run(path):
    call = {"x": np.ones((3, 4)), "y": np.ones((3, 3)), "optimizer": tn.SGD(0.1), "checkpoint": path}
    tn.fit(NET, tn.SquaredError("mean"), epochs=1, **call)
    run = load_checkpoint(path)
    del run.settings["monitored metrics"], run.settings["schedules of optimizer"]
    save_checkpoint(path, run)
    assert len(tn.fit(NET, tn.SquaredError("mean"), epochs=2, **call).history["loss"]) == 2

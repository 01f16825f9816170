"""The table of `tinynet/files/README.md` is true: each change in a call is made, and goes on or is refused."""

import inspect
import itertools
import os
import re
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tinynet.files.container import read, write

README = Path(tn.__file__).parent / "files" / "README.md"
NET = tn.Sequential(tn.Linear(4, 6), tn.Sigmoid(), tn.Linear(6, 2))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 4)), RNG.normal(size=(23, 2))


def halving(start):
    def rate(step):
        return start * 0.5 ** (step / 100)

    return rate


def changed_row():
    x = X.copy()
    x[17, 2] = np.nextafter(x[17, 2], 1)
    return x


def batches(last):
    return [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], last * Y[16:])]


@dataclass(frozen=True)
class Counting(tn.Optimizer):
    """Gradient descent whose state is a number."""

    def init(self, params):
        return {"updates": 0}

    def step(self, params, grads, state):
        return tn.map_leaves(lambda p, g: p - 0.1 * g, params, grads), {"updates": state["updates"] + 1}


def descend(p, g):
    return p - 0.1 * g


@dataclass(frozen=True)
class ByRule(tn.Optimizer):
    rule: object

    def init(self, params):
        return ()

    def step(self, params, grads, state):
        return tn.map_leaves(self.rule, params, grads), state


class Collecting(Counting):
    """One whose state has no place in a file."""

    def init(self, params):
        return {"seen": set()}


class Cut(Exception):
    pass


def cut_at(batch):
    def cut(step):
        if step.epoch == 1 and step.batch == batch:
            raise Cut

    return cut


MOMENTUM = tn.SGD(0.1, momentum=0.9)
MOVING = MOMENTUM.init(NET.init(np.random.default_rng(0), np.float64))
CHANGES = {
    "epochs": ({}, {"epochs": 5}),
    "tolerance": ({}, {"tolerance": 1e-9}),
    "callbacks": ({}, {"callbacks": [lambda epoch: None]}),
    "metrics": ({}, {"metrics": {"mean": lambda y_hat, y: float(y_hat.mean())}}),
    "step_callbacks": ({}, {"step_callbacks": [lambda step: None], "verify_every": 9, "progress": True}),
    "validation` added or left out": ({}, {"validation": (X, Y)}),
    "every": ({}, {"every": 2}),
    "threads": ({"threads": 1}, {"threads": 2}),
    "mesh": ({"engine": "jax"}, {"engine": "jax", "mesh": jax.sharding.Mesh(jax.devices()[:1], ("data",))}),
    "net": ({}, {"net": tn.Sequential(tn.Linear(4, 6), tn.Tanh(), tn.Linear(6, 2))}),
    "loss": ({}, {"loss": tn.SquaredError("sum")}),
    "optimizer": ({}, {"optimizer": tn.SGD(0.2)}),
    "a schedule that": ({"optimizer": tn.SGD(halving(0.1))}, {"optimizer": tn.SGD(halving(0.2))}),
    "a schedule in": (
        {"optimizer": tn.Groups({"*.b": None, "*": tn.SGD(halving(0.1))})},
        {"optimizer": tn.Groups({"*.b": None, "*": tn.SGD(halving(0.2))})},
    ),
    "an Optax transformation": (
        {"optimizer": optax.adam(0.1), "engine": "jax"},
        {"optimizer": optax.adam(0.2), "engine": "jax"},
    ),
    "an Optax schedule": (
        {"optimizer": optax.sgd(optax.piecewise_constant_schedule(0.1, {1000: 0.5})), "engine": "jax"},
        {"optimizer": optax.sgd(optax.piecewise_constant_schedule(0.1, {1000: 0.2})), "engine": "jax"},
    ),
    "one row of `x": ({}, {"x": changed_row()}),
    "one number of `y": ({}, {"y": np.where(np.arange(46).reshape(23, 2) == 9, 0, Y)}),
    "class_weight": ({}, {"class_weight": {0: 1, 1: 2}}),
    "sample_weight": ({}, {"sample_weight": np.ones(23)}),
    "the batches": (
        {"x": batches(1), "y": None, "batch_size": None},
        {"x": [(2 * X[:8], Y[:8]), *batches(1)[1:]], "y": None, "batch_size": None},
    ),
    "other `validation": ({"validation": (X, Y)}, {"validation": (X, 2 * Y)}),
    "params": ({}, {"params": NET.init(np.random.default_rng(1), np.float64)}),
    "state": ({"optimizer": MOMENTUM}, {"optimizer": MOMENTUM, "state": tn.TrainingState(MOVING)}),
    "a metric that": (
        {"optimizer": tn.ReduceOnPlateau(tn.SGD(0.1), "mean"), "metrics": {"mean": lambda y_hat, y: y_hat.mean()}},
        {"optimizer": tn.ReduceOnPlateau(tn.SGD(0.1), "mean"), "metrics": {"mean": lambda y_hat, y: -y_hat.mean()}},
    ),
    "early_stopping": (
        {"validation": (X, Y)},
        {"validation": (X, Y), "early_stopping": tn.EarlyStopping(patience=3)},
    ),
    "seed": ({}, {"seed": 4}),
    "batch_size": ({}, {"batch_size": 6}),
    "shuffle": ({}, {"shuffle": False}),
    "engine": ({}, {"engine": "jax"}),
}


def rows():
    table = re.findall(r"^\| (.+?) \| (goes on|refused) \| .+ \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    return [
        (next((key for key in CHANGES if what.lstrip("`").startswith(key)), what), verdict) for what, verdict in table
    ]


def fit(path, **options):
    options = {
        "net": NET,
        "loss": tn.SquaredError("mean"),
        "x": X,
        "y": Y,
        "optimizer": tn.SGD(0.1),
        "epochs": 3,
        "batch_size": 5,
        "seed": 3,
        "checkpoint": path,
        "every": 1,
    } | options
    return tn.fit(options.pop("net"), options.pop("loss"), options.pop("x"), options.pop("y"), **options)


def test_the_table_and_the_changes_are_of_each_other():
    assert [name for name, _ in rows()] == list(CHANGES)


def test_each_argument_of_fit_stands_in_the_table():
    table = "".join(re.findall(r"^\|.*\|$", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(inspect.signature(tn.fit).parameters) - set(re.findall(r"`(\w+)`", table)) == {"checkpoint"}


@pytest.mark.parametrize(("name", "verdict"), rows())
def test_a_change_in_the_call_is_as_the_table_says(tmp_path, name, verdict):
    before, after = CHANGES[name]
    with pytest.raises(Cut):
        fit(tmp_path / "run", step_callbacks=[cut_at(1)], **before)
    if verdict == "refused":
        data = (tmp_path / "run").read_bytes()
        with pytest.raises(ValueError, match="run was written by another run"):
            fit(tmp_path / "run", **after)
        assert (tmp_path / "run").read_bytes() == data
    else:
        went_on = fit(tmp_path / "run", **after)
        whole = fit(None, **(before | after | {"every": None}))
        np.testing.assert_allclose(went_on.params[0]["W"], whole.params[0]["W"], rtol=1e-12)


def test_validation_data_that_came_later_are_kept_to_as_well(tmp_path):
    fit(tmp_path / "run", epochs=1)
    fit(tmp_path / "run", epochs=2, validation=(X, Y))
    fit(tmp_path / "run", epochs=3)
    with pytest.raises(ValueError, match="another run: validation was"):
        fit(tmp_path / "run", epochs=4, validation=(X, 2 * Y))


def test_a_function_of_an_own_optimizer_that_is_no_schedule_is_known_by_its_name(tmp_path):
    fit(tmp_path / "run", optimizer=ByRule(descend), epochs=1)
    again, whole = fit(tmp_path / "run", optimizer=ByRule(descend)), fit(None, every=None, optimizer=tn.SGD(0.1))
    np.testing.assert_allclose(again.params[0]["W"], whole.params[0]["W"], rtol=1e-12)
    with pytest.raises(ValueError, match=r"optimizer\.rule: 'descend' is not one of"):
        fit(tmp_path / "run", optimizer=ByRule(halving))


def test_what_an_optax_transformation_is_refused_for_is_named(tmp_path):
    fit(tmp_path / "run", optimizer=optax.adam(0.1), engine="jax", epochs=1)
    with pytest.raises(ValueError, match=r"another run: updates by optimizer was .* and is "):
        fit(tmp_path / "run", optimizer=optax.sgd(0.1), engine="jax")


@pytest.mark.parametrize("monitor", ["mean", "validation_mean"])
def test_another_metric_of_the_name_that_early_stopping_watches_is_refused(tmp_path, monitor):
    options = {"validation": (X, Y), "early_stopping": tn.EarlyStopping(monitor, patience=9)}
    fit(tmp_path / "run", epochs=1, metrics={"mean": lambda y_hat, y: y_hat.mean()}, **options)
    again = fit(tmp_path / "run", epochs=2, metrics={"mean": lambda a, b: np.sum(a) / a.size}, **options)
    assert len(again.history["mean"]) == 2
    with pytest.raises(
        ValueError, match=f"another run: monitored metrics was {{'{monitor}': .*}} and is {{'{monitor}': "
    ):
        fit(tmp_path / "run", epochs=3, metrics={"mean": lambda y_hat, y: y.mean()}, **options)


def test_a_run_that_began_with_the_state_of_another_is_gone_on_with(tmp_path):
    before = fit(None, every=None, optimizer=Counting(), epochs=1)
    options = {"optimizer": Counting(), "params": before.params, "state": before.state}
    with pytest.raises(Cut):
        fit(tmp_path / "run", step_callbacks=[cut_at(1)], **options)
    again, whole = fit(tmp_path / "run", **options), fit(None, every=None, **options)
    assert again.state.optimizer == whole.state.optimizer == {"updates": 20}


def test_a_run_that_a_step_callback_stopped_is_over(tmp_path):
    stop = [lambda step: step.epoch == 1 and step.batch == 2]
    stopped = fit(tmp_path / "run", step_callbacks=stop)
    for again in (fit(tmp_path / "run", step_callbacks=stop), fit(tmp_path / "run")):
        assert again.stopped == stopped.stopped == "callback"
        np.testing.assert_array_equal(again.params[0]["W"], stopped.params[0]["W"])
        np.testing.assert_array_equal(again.history["loss"], stopped.history["loss"])


def test_what_could_not_be_written_is_refused_before_anything_is_trained(tmp_path):
    trained = []
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; make it first"):
        fit(tmp_path / "nowhere" / "run", step_callbacks=[trained.append])
    with pytest.raises(TypeError, match="no name by which it could be found again"):
        fit(tmp_path / "run", optimizer=tn.SGD(lambda step: 0.1), step_callbacks=[trained.append])
    with pytest.raises(TypeError, match=r"state\.optimizer\.seen: set\(\) is a set; expected"):
        fit(tmp_path / "run", optimizer=Collecting(), step_callbacks=[trained.append])
    with pytest.raises(ValueError, match="optimizer monitors 'validation_loss', which is not measured"):
        fit(None, every=None, optimizer=tn.ReduceOnPlateau(tn.SGD(0.1)), step_callbacks=[trained.append])
    assert not trained
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=r"the folder .* cannot be written to"):
        fit(tmp_path / "run", step_callbacks=[trained.append])
    assert not trained


def test_a_checkpoint_that_another_process_removes_meanwhile_is_none(tmp_path, monkeypatch):
    fit(tmp_path / "run", epochs=1)

    def removed(path):
        raise FileNotFoundError

    monkeypatch.setattr("tinynet.training.checkpoints.contents", removed)
    again, whole = fit(tmp_path / "run", epochs=2), fit(None, every=None, epochs=2)
    np.testing.assert_array_equal(again.params[0]["W"], whole.params[0]["W"])


def test_other_versions_are_said_to_differ_in_the_last_bits(tmp_path, monkeypatch):
    fit(tmp_path / "run", epochs=1)
    monkeypatch.setattr("tinynet.__version__", "9.9")
    with pytest.warns(
        UserWarning, match=r"run was written with tinynet .*; tinynet 9\.9, .* may differ in the last bits"
    ):
        fit(tmp_path / "run")


def test_a_checkpoint_of_2_gigabytes_that_takes_no_room_is_refused_without_reading_it(tmp_path):
    fit(tmp_path / "run", epochs=1)
    os.truncate(tmp_path / "run", 2**31)
    tracemalloc.start()
    try:
        with pytest.raises(tn.FileError, match="cut off"):
            fit(tmp_path / "run")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


NUMBERS = [True, -1, 10**400, 1.5, float("nan"), np.zeros(3), np.zeros(())]
HOSTILE = [None, *NUMBERS, "\x1b[2J", [], {}, (), ("a",), (1.5, (), ()), {"a": 1}, tn.Sigmoid()]


def forgeries(value):
    """Yield the value of a file with something else in one field, or in one field of a dict in it."""
    for name, thing in itertools.product(value, HOSTILE):
        yield value | {name: thing}
        for inner in value[name] if isinstance(value[name], dict) else ():
            yield value | {name: value[name] | {inner: thing}}


@pytest.mark.filterwarnings("ignore:fit. .* was written with")
def test_a_forged_checkpoint_is_refused_in_every_field(tmp_path):
    path = tmp_path / "run"
    options = {"validation": (X, Y), "early_stopping": tn.EarlyStopping(patience=3), "optimizer": tn.Adam(0.1)}
    with pytest.raises(Cut):
        fit(path, step_callbacks=[cut_at(1)], **options)
    others = []
    for forged in forgeries(read(path)):
        write(path, forged)
        try:
            fit(path, **options, epochs=2, every=None)
        except tn.FileError as error:
            others += [error] if not str(error).isprintable() else []
        except Exception as error:
            others += [error] if "was written by another run" not in str(error) else []
    assert others == []

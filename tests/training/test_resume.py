"""fit(checkpoint=…): what was cut off goes on bit for bit; Ctrl-C; gradients verified while training."""

import os
import pickle
import signal
from dataclasses import dataclass

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tinynet.cli import main
from tinynet.training.checkpoints import load_checkpoint
from tinynet.trees import leaves

NET = tn.Sequential(tn.Linear(4, 6), tn.Sigmoid(), tn.Dropout(0.3), tn.Linear(6, 2))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 4)), RNG.normal(size=(23, 2))


class Cut(Exception):
    pass


def fit(path=None, **options):
    options = {"optimizer": tn.SGD(0.1, momentum=0.9), "epochs": 4, "batch_size": 5, "seed": 3} | options
    return tn.fit(options.pop("net", NET), tn.SquaredError("mean"), X, Y, checkpoint=path, **options)


def cut_after(steps):
    """A step callback that stops everything after so many updates of one call."""
    seen = []

    def cut(step):
        seen.append(step)
        if len(seen) == steps:
            raise Cut

    return cut


def assert_same(a, b):
    for got, expected in zip(leaves(a.params), leaves(b.params), strict=True):
        np.testing.assert_array_equal(got, expected)
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_array_equal(a.history[name], b.history[name])


@pytest.mark.parametrize("every", [None, 2])
def test_a_run_that_went_further_than_is_asked_for_comes_back_as_it_stands(tmp_path, every):
    whole = fit(tmp_path / "run", every=every, epochs=4)
    assert_same(fit(tmp_path / "run", every=every, epochs=2), whole)


def test_an_epoch_that_was_begun_is_finished_though_fewer_are_asked_for(tmp_path):
    with pytest.raises(Cut):
        fit(tmp_path / "run", every=2, epochs=4, step_callbacks=[cut_after(13)])  # in the third epoch of 5 batches
    assert_same(fit(tmp_path / "run", every=2, epochs=1), fit(epochs=3))


@pytest.mark.parametrize("every", [None, 1, 2])
@pytest.mark.parametrize(
    ("engine", "optimizer"),
    [
        ("numpy", tn.SGD(0.1, momentum=0.9)),
        ("numpy", tn.Adam(0.01)),
        ("jax", tn.Adam(tn.ExponentialDecay(0.01, 0.5, 5))),
        ("jax", optax.adam(0.01)),
    ],
    ids=["momentum", "adam", "jax-schedule", "jax-optax"],
)
def test_a_run_cut_off_again_and_again_ends_with_the_same_bits(tmp_path, engine, optimizer, every):
    path = tmp_path / "run"
    options = {
        "engine": engine,
        "optimizer": optimizer,
        "validation": (X, Y),
        "early_stopping": tn.EarlyStopping(patience=9),
    }
    whole = fit(step_callbacks=[lambda step: None], **options)
    for steps in (7, 2, 6, 1):
        with pytest.raises(Cut):
            fit(path, every=every, step_callbacks=[cut_after(steps)], **options)
    assert_same(fit(path, every=every, step_callbacks=[lambda step: None], **options), whole)


def scaled_by_entry(rate):
    """Return an Optax transformation with a learning rate for each entry of W (2, 4), times `rate` of the count."""
    rates = {"W": np.arange(8.0).reshape(2, 4) / 80, "b": np.full(2, 0.1)}
    return optax.GradientTransformation(
        lambda params: np.zeros((), np.int32),
        lambda grads, n, params=None: (jax.tree.map(lambda g, r: -r * rate(n) * g, grads, rates), n + 1),
    )


def test_an_optax_transformation_for_the_shapes_of_the_parameters_alone_goes_on_too(tmp_path):
    options = {"net": tn.Linear(4, 2), "engine": "jax"}
    optimizer = scaled_by_entry(optax.piecewise_constant_schedule(1.0, {1000: 0.5}))
    fit(tmp_path / "run", optimizer=optimizer, epochs=2, **options)
    assert_same(fit(tmp_path / "run", optimizer=optimizer, **options), fit(optimizer=optimizer, **options))
    for other in (lambda n: 0.5, optax.piecewise_constant_schedule(1.0, {1000: 0.2})):
        with pytest.raises(ValueError, match="another run: updates by optimizer was"):
            fit(tmp_path / "run", optimizer=scaled_by_entry(other), **options)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_parts_of_an_epoch_make_the_bits_of_a_whole_one_and_a_run_that_ended_stays_ended(tmp_path, engine):
    whole = fit(engine=engine)
    assert_same(fit(tmp_path / "run", every=2, engine=engine), whole)
    assert_same(fit(tmp_path / "run", every=2, engine=engine), whole)
    assert_same(fit(tmp_path / "run", every=2, engine=engine, epochs=6), fit(engine=engine, epochs=6))


def test_batches_from_an_iterable_go_on_too(tmp_path):
    batches = [(X[i : i + 5], Y[i : i + 5]) for i in range(0, 20, 5)]

    def train(**options):
        return tn.fit(NET, tn.SquaredError("mean"), batches, optimizer=tn.Adam(0.01), epochs=3, **options)

    for every, batch in ((1, 2), (2, 2), (3, 0)):
        path = tmp_path / f"run{every}"
        with pytest.raises(Cut):
            train(checkpoint=path, every=every, step_callbacks=[cut_after(7)])  # in the second epoch of 4 batches
        run = load_checkpoint(path)
        assert (run.epoch, run.batch) == ((1, batch) if batch else (0, 4))
        assert_same(train(checkpoint=path, every=every), train())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"optimizer": tn.SGD(0.2, momentum=0.9)}, "optimizer"),
        ({"seed": 4}, "seed"),
        ({"batch_size": 6}, "batch_size"),
        ({"net": tn.Sequential(tn.Linear(4, 2))}, "net"),
        ({"engine": "jax"}, "engine"),
    ],
)
def test_another_run_is_refused_by_what_differs(tmp_path, options, name):
    fit(tmp_path / "run", epochs=1)
    with pytest.raises(ValueError, match=rf"run was written by another run: {name} was "):
        fit(tmp_path / "run", **options)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere/run"):
        fit(tmp_path / "nowhere" / "run")


def test_every_needs_a_checkpoint_and_a_number():
    with pytest.raises(ValueError, match="fit: every is for checkpoint="):
        fit(every=3)
    with pytest.raises(ValueError, match="fit: verify_every is 0; expected at least 1"):
        fit(verify_every=0)


def test_ctrl_c_ends_it_at_a_batch_and_the_same_call_goes_on(tmp_path, capsys):
    path, pressed = tmp_path / "run", []

    def press(step):
        if not pressed and step.epoch == 1:
            pressed.append(step.batch)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(tn.Interrupted, match=r"before epoch 1, batch 1; saved to .*run; to go on, make the same call"):
        fit(path, step_callbacks=[press])
    assert "Ctrl-C again" in capsys.readouterr().err
    assert_same(fit(path), fit())


def test_ctrl_c_without_a_checkpoint_carries_the_parameters():
    with pytest.raises(tn.Interrupted, match="with fit") as caught:
        fit(step_callbacks=[lambda step: os.kill(os.getpid(), signal.SIGINT)])
    assert caught.value.checkpoint is None
    assert len(leaves(caught.value.params)) == 4


def test_a_second_ctrl_c_ends_it_at_once():
    def press_twice(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        fit(step_callbacks=[press_twice])
    assert not isinstance(caught.value, tn.Interrupted)


@dataclass(frozen=True)
class Wrong(tn.Layer):
    def forward(self, params, x):
        return x * x, x

    def backward(self, params, x, dy):
        return dy * x, {}


def test_gradients_are_verified_while_training_and_a_wrong_one_stops_it():
    net = tn.Sequential(tn.Linear(4, 6), tn.Sigmoid(), tn.Linear(6, 2))
    assert_same(fit(net=net, verify_every=7), fit(net=net))
    steps = []
    with pytest.raises(tn.GradientError) as caught:
        fit(
            net=tn.Sequential(tn.Linear(4, 2), Wrong()),
            verify_every=3,
            optimizer=tn.SGD(1e-3),
            step_callbacks=[lambda step: steps.append(step.batch)],
        )
    assert steps == [0, 1, 2]
    finding = caught.value.report.findings[0]
    assert (finding.fault, finding.factor) == ("scaled", "1/2")


def test_a_divergence_crosses_processes():
    with pytest.raises(tn.DivergenceError) as caught, np.errstate(all="ignore"):
        fit(net=tn.Linear(4, 2), optimizer=tn.SGD(1e200))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.epoch, again.batch) == (str(caught.value), caught.value.epoch, caught.value.batch)


def test_tinynet_train_goes_on_from_its_checkpoint(tmp_path, capsys):
    path = str(tmp_path / "digits")
    assert main(["train", "--epochs", "2", "--checkpoint", path, "--every", "50"]) == 0
    first = capsys.readouterr()
    assert main(["train", "--epochs", "4", "--checkpoint", path, "--every", "50"]) == 0
    assert f"goes on from {path}" in capsys.readouterr().out
    assert "goes on" not in first.out
    assert main(["train", "--epochs", "4", "--checkpoint", path, "--lr", "1"]) == 2
    assert "optimizer was" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_run_that_was_stopped_stays_stopped_and_what_was_not_measured_is_nan(tmp_path, engine):
    path, options = tmp_path / "run", {"engine": engine, "epochs": 50}
    watching = {"validation": (X + 1, Y), "early_stopping": tn.EarlyStopping(patience=2)}
    stopped = fit(path, **watching, **options)
    assert (stopped.stopped, len(stopped.history["loss"]) < 50) == ("early_stopping", True)
    again = fit(path, **watching, **options)
    assert again.stopped == "early_stopping"
    assert_same(again, stopped)
    with pytest.raises(ValueError, match=r"another run: early_stopping was {'monitor': .*} and is None"):
        fit(path, **options)

    before = fit(tmp_path / "metrics", engine=engine, epochs=2, metrics={"mean": lambda y_hat, y: y_hat.mean()})
    after = fit(tmp_path / "metrics", engine=engine, epochs=3, validation=(X, Y))
    # A checkpoint is written before the metrics of its epoch are evaluated: those of the second come from `after`.
    np.testing.assert_array_equal(after.history["mean"], [before.history["mean"][0], np.nan, np.nan])
    np.testing.assert_array_equal(np.isnan(after.history["validation_loss"]), [True, False, False])

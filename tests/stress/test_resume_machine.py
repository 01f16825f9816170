"""A run that is killed, gone on with and changed in any order ends with the bits of a whole one.

Each rule is a call that a user could make. Where a sequence of calls ends with other bits, hypothesis shrinks it to the
shortest one that does.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import tinynet as tn
from tinynet.trees import leaves

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(17, 3)), RNG.normal(size=(17, 2))
NET = tn.Sequential(tn.Linear(3, 4), tn.Sigmoid(), tn.Dropout(0.2), tn.Linear(4, 2))
BATCHES = 4
EVERY = st.sampled_from([None, 1, 2, 3])
VALIDATION = st.sampled_from([None, (X, Y)])


class Killed(Exception):
    pass


def fit(epochs, **options):
    options = {"optimizer": tn.Adam(0.05), "batch_size": 5, "seed": 3, "validation": (X, Y)} | options
    return tn.fit(NET, tn.SquaredError("mean"), X, Y, epochs=epochs, **options)


class Resuming(RuleBasedStateMachine):
    """The file of one run, and the updates that it has, as a model of it says."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "run"
        self.done = 0  # updates that the file has
        self.validated = False  # whether the file knows of validation data

    def teardown(self):
        shutil.rmtree(self.folder)

    def call(self, epochs, every, **options):
        return fit(epochs, checkpoint=self.path, every=every, **options)

    def has_now(self, updates, validation):
        if updates != self.done:
            self.done, self.validated = updates, self.validated or validation is not None

    @rule(epochs=st.integers(1, 4), every=EVERY, validation=VALIDATION)
    def train(self, epochs, every, validation):
        before = self.done
        result = self.call(epochs, every, validation=validation)
        self.has_now(max(self.done, epochs * BATCHES), validation)
        if epochs * BATCHES >= before:
            whole = fit(epochs)
            for got, expected in zip(leaves(result.params), leaves(whole.params), strict=True):
                np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(result.history["loss"], whole.history["loss"])
            measured = result.history.get("validation_loss", np.full(epochs, np.nan))
            expected = np.where(np.isnan(measured), np.nan, whole.history["validation_loss"])
            np.testing.assert_array_equal(measured, expected)
            assert validation is None or not np.isnan(measured[-1])

    @rule(epochs=st.integers(1, 4), every=EVERY, validation=VALIDATION, at=st.integers(0, 15))
    def kill(self, epochs, every, validation, at):
        """A kill between two updates: what was not written is lost."""
        trained = []

        def step(step):
            trained.append(step.epoch * BATCHES + step.batch + 1)
            if trained[-1] == at:
                raise Killed

        try:
            self.call(epochs, every, validation=validation, step_callbacks=[step])
        except Killed:
            part = every or BATCHES
            start, epoch_start = self.done, (at - 1) // BATCHES * BATCHES
            first = start if start > epoch_start else epoch_start
            self.has_now(max(start, first + (at - 1 - first) // part * part), validation)
        else:
            self.has_now(max(self.done, epochs * BATCHES), validation)

    @precondition(lambda self: self.done > 0)
    @rule(change=st.sampled_from([{"seed": 4}, {"batch_size": 6}, {"optimizer": tn.Adam(0.1)}, {"shuffle": False}]))
    def change(self, change):
        self.is_refused(change)

    @precondition(lambda self: self.validated)
    @rule()
    def change_validation(self):
        self.is_refused({"validation": (X, 2 * Y)})

    def is_refused(self, change):
        data = self.path.read_bytes()
        try:
            self.call(4, None, **change)
        except ValueError as error:
            assert f"another run: {next(iter(change))} was" in str(error)  # noqa: PT017
        else:
            raise AssertionError(f"{change} went on")
        assert self.path.read_bytes() == data

    @rule()
    def forget(self):
        self.path.unlink(missing_ok=True)
        self.done, self.validated = 0, False

    @invariant()
    def the_file_holds_what_the_model_says(self):
        assert self.path.exists() == (self.done > 0)
        assert set(self.folder.iterdir()) <= {self.path}
        if self.done:
            _, params = tn.load(self.path)
            for got, expected in zip(leaves(params), undisturbed()[self.done], strict=True):
                np.testing.assert_array_equal(got, expected)


@functools.cache
def undisturbed():
    """Return the parameters after each update of a run that nobody disturbs, by the number of updates."""
    known = {}

    def keep(step):
        known[step.epoch * BATCHES + step.batch + 1] = [p.copy() for p in leaves(step.params)]

    fit(4, step_callbacks=[keep])
    return known


TestResuming = Resuming.TestCase
TestResuming.settings = settings(max_examples=60, stateful_step_count=8, deadline=None)

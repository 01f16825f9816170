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

    def teardown(self):
        shutil.rmtree(self.folder)

    def call(self, epochs, every, **options):
        return fit(epochs, checkpoint=self.path, every=every, **options)

    @rule(epochs=st.integers(1, 4), every=st.sampled_from([None, 1, 2, 3]))
    def train(self, epochs, every):
        before = self.done
        result = self.call(epochs, every)
        self.done = max(self.done, epochs * BATCHES)
        if epochs * BATCHES >= before:
            whole = fit(epochs)
            for got, expected in zip(leaves(result.params), leaves(whole.params), strict=True):
                np.testing.assert_array_equal(got, expected)
            for name in ("loss", "validation_loss"):
                np.testing.assert_array_equal(result.history[name], whole.history[name])

    @rule(epochs=st.integers(1, 4), every=st.sampled_from([None, 1, 2, 3]), at=st.integers(0, 15))
    def kill(self, epochs, every, at):
        """A kill between two updates: what was not written is lost."""
        trained = []

        def step(step):
            trained.append(step.epoch * BATCHES + step.batch + 1)
            if trained[-1] == at:
                raise Killed

        try:
            self.call(epochs, every, step_callbacks=[step])
        except Killed:
            part = every or BATCHES
            start, epoch_start = self.done, (at - 1) // BATCHES * BATCHES
            first = start if start > epoch_start else epoch_start
            self.done = max(start, first + (at - 1 - first) // part * part)
        else:
            self.done = max(self.done, epochs * BATCHES)

    @precondition(lambda self: self.done > 0)
    @rule(change=st.sampled_from([{"seed": 4}, {"batch_size": 6}, {"optimizer": tn.Adam(0.1)}, {"shuffle": False}]))
    def change(self, change):
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
        self.done = 0

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

"""A verification leaves the process as it was, whatever its target does."""

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinynet as tn
from tests.verification.traces import HABITS, state_of_process, target
from tinynet.verification.adapters import generators

X = np.random.default_rng(0).standard_normal((4, 3))


@pytest.mark.parametrize("habit", HABITS)
def test_a_target_leaves_no_trace(habit):
    before = state_of_process()
    report = tn.verify(target(habit), inputs=X, name_seconds=0, probes=["rectangular", "state"])
    after = state_of_process()
    assert [k for k in before if before[k] != after[k]] == []
    assert report.verdict == ("FAIL" if habit == "exit" else "PASS") or habit == "floating-point errors", report


GENERATORS = np.random.default_rng(5), np.random.RandomState(5), random.Random(5)


def test_generators_of_the_targets_own_go_on_where_they_were():
    def forward(x):
        return x * np.array([g.random() for g in GENERATORS])

    expected = [copy.deepcopy(g).random() for g in GENERATORS]
    tn.verify((forward, lambda a, dy: (dy,)), inputs=X, name_seconds=0, probes=["rectangular"])
    assert [g.random() for g in GENERATORS] == expected


def test_generators_of_a_function_are_looked_for_once_not_at_each_call(monkeypatch):
    looked, look = [], generators._generators_in
    monkeypatch.setattr(generators, "_generators_in", lambda target: looked.append(target) or look(target))
    calls = []

    def forward(x):
        calls.append(x)
        return np.tanh(x)

    assert tn.verify((forward, lambda a, dy: (dy * (1 - np.tanh(a[0]) ** 2),)), inputs=X).verdict == "PASS"
    assert len(calls) > 50
    assert len(looked) < 10


def test_verifications_in_several_threads_do_not_disturb_one_another():
    before = state_of_process()
    with ThreadPoolExecutor(3) as pool:
        factors = [1.0, 2.0, 1.0, 3.0]
        reports = pool.map(
            lambda f: tn.verify(target("random", f), inputs=X, name_seconds=0, probes=["rectangular"]), factors
        )
        assert [r.verdict for r in reports] == ["PASS", "FAIL", "PASS", "FAIL"]
    after = state_of_process()
    assert [k for k in before if before[k] != after[k]] == []

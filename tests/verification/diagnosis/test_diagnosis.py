"""Faults in layers as researchers write them: named, and placed at the statement that was spoilt."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from layers import LAYERS, shapes
from spoil import runs_of, spoilt

import tinynet as tn
from tinynet.faults import FAULTS
from tinynet.verification.diagnosis import Wrong, diagnose, placed


def faults(layer, every=1, change=None):
    """Yield some of the faults of a layer that show, or the one of that change, with their runs."""
    forward, backward = LAYERS[layer]
    for fault in [f for f in spoilt(layer, backward) if change in (None, f.change)][::every]:
        try:
            runs = runs_of(forward, fault.backward, lambda m: shapes(layer, m))
        except (ValueError, AttributeError, IndexError, NameError, TypeError):
            continue  # what does not run at all needs no name
        wrong = [run for run in runs if run.wrong]
        if wrong and all(np.shape(run.got[n]) == run.exact[n].shape for run in wrong for n in run.wrong):
            yield fault, runs, wrong[0]


@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_right_backward_is_right(layer):
    forward, backward = LAYERS[layer]
    runs = runs_of(forward, backward, lambda m: shapes(layer.split()[0], m))
    assert not any(run.wrong for run in runs)
    assert diagnose(runs) == []


def test_nine_faults_in_ten_are_named_and_placed():
    tried = named = near = 0
    for layer, every in (("attention", 5), ("bilinear", 4), ("rms_norm", 5)):
        for fault, runs, run in faults(layer, every):
            tried += 1
            found = diagnose(runs)
            explained = [n for d in found for n in d.gradients]
            assert sorted(explained) == sorted({n for r in runs for n in r.wrong})
            assert all(d.fault in FAULTS for d in found)
            named += all(d.fault != "unknown" for d in found)

            def again(tracer, fault=fault, run=run):
                with tracer:
                    return fault.backward({n: a.copy() for n, a in run.args.items()}, tuple(d.copy() for d in run.dy))

            where = placed(again, run, sorted(run.wrong), seconds=20).line
            near += abs(where.number - fault.line) <= 1
    assert tried > 20
    assert named >= 0.9 * tried
    assert near >= 0.9 * tried


def test_gradients_that_are_wrong_in_different_runs_are_each_explained():
    """No run shows both mistakes: what is said of each is looked for where it shows."""
    forward, backward = LAYERS["bilinear"]
    one, other, *_ = runs_of(forward, backward, lambda m: shapes("bilinear", m))
    first, second = one.wrt[:2]
    spoilt_here = {**one.exact, first: np.sin(one.exact[first])}
    spoilt_there = {**other.exact, second: np.sin(other.exact[second])}
    runs = [
        replace(one, got=spoilt_here, wrong=frozenset({first})),
        replace(other, got=spoilt_there, wrong=frozenset({second})),
    ]
    assert sorted(n for d in diagnose(runs, seconds=3) for n in d.gradients) == sorted([first, second])


def test_a_missing_path_is_said_with_the_line_of_the_forward():
    ((_, runs, _),) = faults("attention", change="dx = dq @ Wq + dv @ Wv")
    (d,) = diagnose(runs)
    assert (d.fault, d.gradients, d.text) == ("missing path", ("x",), 'k = x @ a["p.Wk"].T')
    assert 'k = x @ a["p.Wk"].T' in d.sentence


def test_no_run_is_traced_once_the_time_is_over():
    traced = []

    def forward(args):
        traced.append(args)
        return (args["x"] ** 2,)

    x, dy = np.ones((2, 3)), np.full((2, 3), 0.5)
    runs = [
        Wrong(forward, {"x": x}, ("x",), (dy,), {"x": np.sin(x) * k}, {"x": 2 * x * dy}, {"x": 1e-15}, frozenset("x"))
        for k in (1.0, 1.5)
    ]
    (d,) = diagnose(runs, seconds=-1.0)
    assert (d.fault, traced) == ("unknown", [])


@dataclass(frozen=True)
class Pairs(tn.Layer):
    """−log softmax of s = (u Wᵀ) vᵀ at the own v: x (m, 2, n), y (m,); for a batch of one y is 0."""

    lacks: str = ""

    def init(self, rng, dtype=np.float32):
        return {"W": rng.standard_normal((3, 3)).astype(dtype)}

    def forward(self, params, x):
        xp = tn.namespace(x)
        u = x[:, 0] @ params["W"].T
        s = u @ x[:, 1].T
        top = s.max(axis=1, keepdims=True)
        e = xp.exp(s - top)
        p = e / e.sum(axis=1, keepdims=True)
        y = -xp.log((p * xp.eye(len(x), dtype=x.dtype)).sum(axis=1))
        return y, (x, u, p)

    def backward(self, params, cache, dy):
        x, u, p = cache
        xp = tn.namespace(dy)
        one = xp.eye(len(x), dtype=dy.dtype)
        ds = dy[:, None] * {"": p - one, "own": p, "sum": -one}[self.lacks]
        du = ds @ x[:, 1]
        return xp.stack([du @ params["W"], ds.T @ u], axis=1), {"W": du.T @ x[:, 0]}


@pytest.mark.parametrize("lacks", ["own", "sum"])
def test_a_stable_softmax_hides_no_missing_path_though_its_maximum_matters_in_a_batch_of_one(lacks):
    report = tn.verify(Pairs(lacks), inputs=(4, 2, 3))
    assert [(f.fault, f.gradient) for f in report.findings] == [("missing path", "x")]
    assert "`p = e / e.sum(axis=1, keepdims=True)`" in str(report)
    assert tn.verify(Pairs(), inputs=(4, 2, 3)).ok

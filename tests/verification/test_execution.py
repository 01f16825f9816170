"""Targets that misbehave: a finding or a clear error, never a traceback from inside the verifier, never a PASS; and
verifying leaves no trace."""

import copy
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

import tinynet as tn
from tinynet.verification.execution import Abandoned, Hang, watched

x = np.random.default_rng(2).standard_normal((5, 4))


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setattr(sys.modules[tn.verify.__module__], "HANG_SECONDS", 0.5)


def spin():
    while True:
        time.sleep(0.001)


class Boom(Exception):
    pass


def boom(*_):
    raise Boom("told you")


BACKWARDS = {
    "raises": (boom, "raises"),
    "raises an assertion": (lambda args, dy: [][1], "raises"),
    "None": (lambda args, dy: None, "missing"),
    "a tuple of None": (lambda args, dy: (None,), "missing"),
    "a list of floats": (lambda args, dy: [[1.0, 2.0]], "wrong shape"),
    "too few": (lambda args, dy: (), "missing"),
    "too many": (lambda args, dy: (dy, dy), "malformed"),
    "a Python scalar": (lambda args, dy: 1.0, "wrong shape"),
    "a NumPy scalar": (lambda args, dy: np.float64(2.0), None),
    "an object array": (lambda args, dy: dy.astype(object), "wrong dtype"),
    "strings": (lambda args, dy: dy.astype(str), "wrong dtype"),
    "complex": (lambda args, dy: dy + 0j, "wrong dtype"),
    "booleans": (lambda args, dy: dy > 0, "wrong dtype"),
    "a dict": (lambda args, dy: {"q": dy}, "not an array"),
    "a generator of nothing": (lambda args, dy: (g for g in ()), "missing"),
    "a masked array of another shape": (lambda args, dy: np.ma.array(dy[:1]), None),
    "a string": (lambda args, dy: "gradient", "not an array"),
    "an empty array": (lambda args, dy: np.zeros(0), None),
    "NaN": (lambda args, dy: dy * np.nan, "non-finite"),
    "the function itself": (lambda args, dy: boom, "not an array"),
}


@pytest.mark.parametrize("case", BACKWARDS)
def test_whatever_a_backward_pass_returns_is_a_finding(case):
    backward, fault = BACKWARDS[case]
    report = tn.verify((np.sin, backward), inputs=x)
    assert report.verdict == "FAIL", report
    assert fault is None or report.findings[0].fault == fault, report
    assert len(str(report.findings[0]).splitlines()) <= 12


FORWARDS = {
    "raises": boom,
    "None": lambda x: None,
    "an object array": lambda x: x.astype(object),
    "integers": lambda x: np.ones(3, int),
    "strings": lambda x: x.astype(str),
    "complex": lambda x: x * 1j,
    "NaN": lambda x: x * np.nan,
    "infinity": lambda x: x / 0.0,
}


@pytest.mark.parametrize("case", FORWARDS)
def test_whatever_a_forward_pass_returns_proves_nothing(case):
    report = tn.verify((FORWARDS[case], lambda args, dy: dy), inputs=x)
    assert report.verdict == "INCONCLUSIVE", report
    assert "forward pass" in report.reason
    with pytest.raises(tn.GradientError):
        report.raise_if_failed()


@pytest.mark.parametrize("out", [None, 1.0, (), (1, 2, 3), "ab", [np.ones(2)]])
def test_a_layer_that_returns_something_else_than_a_pair(out):
    class Strange(tn.Sigmoid):
        def backward(self, params, cache, dy):
            return out

    assert tn.verify(Strange()).verdict == "FAIL"

    class StrangeForward(tn.Sigmoid):
        def forward(self, params, z):
            return out

    assert tn.verify(StrangeForward(), inputs=x).verdict == "INCONCLUSIVE"
    with pytest.raises(tn.TargetError, match="no backward pass was found"):
        tn.verify(lambda x: out, inputs=x)


class ListOfParams(tn.Linear):
    def backward(self, params, cache, dy):
        dx, d = super().backward(params, cache, dy)
        return dx, [d["W"], d["b"]]


def test_gradients_of_parameters_in_another_structure_are_missing():
    assert {f.fault for f in tn.verify(ListOfParams(4, 3)).findings} == {"missing"}


LOCK = threading.Lock()
ENDLESS = {
    "a loop": spin,
    "a sleep": lambda: time.sleep(3600),
    "a lock that nobody gives back": lambda: (LOCK.acquire(), LOCK.acquire()),
    "an event that nobody sets": lambda: threading.Event().wait(),
}


@pytest.mark.usefixtures("short_patience")
@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_a_call_that_does_not_come_back_is_a_finding(kind, stage):
    wait = ENDLESS[kind]
    pair = (lambda x: wait(), lambda args, dy: dy) if stage == "forward" else (np.sin, lambda args, dy: wait())
    report = tn.verify(pair, inputs=x)
    assert report.verdict == "FAIL"
    assert [f.fault for f in report.findings] == ["hangs"]


@pytest.mark.usefixtures("short_patience")
def test_the_next_verification_comes_back_though_a_thread_of_the_last_one_still_waits():
    report = tn.verify((np.sin, lambda args, dy: threading.Event().wait()), inputs=x)
    assert "thread still runs" in report.findings[0].explanation
    done = threading.Event()

    def again():
        assert tn.verify((np.sin, lambda args, dy: dy * np.cos(args[0])), inputs=x).verdict == "PASS"
        done.set()

    threading.Thread(target=again, daemon=True).start()
    assert done.wait(60)


@pytest.mark.usefixtures("short_patience")
def test_a_loop_under_jit_is_a_finding():
    def for_long(x):  # but not for ever: it would keep a core from the tests that follow
        return jax.lax.fori_loop(0, 100_000_000, lambda _, v: jax.numpy.cos(v), x)

    report = tn.verify((for_long, lambda args, dy: dy), inputs=x)
    assert [f.fault for f in report.findings] == ["hangs"]
    assert "thread still runs" in report.findings[0].explanation


@pytest.mark.usefixtures("short_patience")
def test_a_layer_that_hangs_on_a_shape_that_is_tried_is_a_finding():
    class Patient(tn.Sigmoid):
        def forward(self, params, z):
            if z.shape[-1] != 6:
                spin()
            return super().forward(params, z)

    assert tn.verify(Patient()).findings[0].fault == "hangs"


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_a_target_that_ends_the_process_is_a_finding(stage):
    pair = (lambda x: sys.exit(0), lambda a, d: d) if stage == "forward" else (np.sin, lambda a, d: sys.exit(0))
    report = tn.verify(pair, inputs=x)
    assert report.verdict == "FAIL"
    assert [f.fault for f in report.findings] == ["exits"]


def test_a_call_is_interrupted_when_its_time_is_up_and_only_then():
    def work(watch):
        watch.call(lambda: None)
        time.sleep(0.3)
        with pytest.raises(Hang):
            watch.call(spin)
        return "goes on"

    assert watched(work, 0.1) == "goes on"


def test_what_cannot_be_interrupted_is_abandoned():
    with pytest.raises(Abandoned):
        watched(lambda watch: watch.call(lambda: time.sleep(20)), 0.1)


FEW = ["rectangular", "batch 1", "state"]


def test_verifications_in_several_threads_do_not_disturb_each_other():
    noise = (lambda x: x * np.random.rand(), lambda a, dy: dy * np.random.RandomState(0).rand())  # noqa: NPY002
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda i: tn.verify(noise, inputs=x, seed=i, probes=FEW).verdict, range(4)))
    assert verdicts == ["PASS"] * 4


class WritesIntoX(tn.Sigmoid):
    def forward(self, params, z):
        y = super().forward(params, z)
        if isinstance(z, np.ndarray):
            z[...] = 0
        return y


class WritesIntoParams(tn.Linear):
    def backward(self, params, a, dz):
        grads = super().backward(params, a, dz)
        if isinstance(dz, np.ndarray):
            params["W"] -= 0.1 * grads[1]["W"]
        return grads


@pytest.mark.parametrize(
    ("target", "inputs", "fault"),
    [
        (WritesIntoX(), x, "mutates x"),
        (WritesIntoParams(4, 3), x, "mutates params"),
        ((np.sin, lambda args, dy: np.multiply(dy, np.cos(args[0]), out=dy)), x, "mutates dy"),
        ((np.sin, lambda args, dy: np.multiply(dy, np.cos(args[0]), out=args[0])), x, "mutates x"),
    ],
)
def test_a_write_into_what_was_handed_in_is_a_finding_and_never_reaches_the_caller(target, inputs, fault):
    given = inputs.copy()
    assert fault in {f.fault for f in tn.verify(target, inputs=inputs).findings}
    assert np.array_equal(inputs, given)


class Remembers:
    """An object with state, whose __dict__ must be as before."""

    def __init__(self):
        self.W, self.calls, self.log = np.ones((4, 3)), 0, []

    def forward(self, x):
        self.calls += 1
        self.log.append(x.shape)
        self.x = x
        return x @ self.W

    def backward(self, dy):
        np.random.random(3)  # noqa: NPY002 - as people write it
        random.random()
        np.seterr(all="ignore")
        self.dW = self.x.T @ dy
        return dy @ self.W.T


def test_verifying_leaves_no_trace():
    target, params = Remembers(), {"W": np.ones((3, 4)), "b": np.zeros(3)}
    before = copy.deepcopy(vars(target))
    np.random.seed(5)  # noqa: NPY002
    states = np.random.get_state()[1].copy(), random.getstate(), np.geterr(), dict(jax.config.values)  # noqa: NPY002
    x64 = jax.config.jax_enable_x64
    tn.verify(target, inputs=x)
    tn.verify(tn.Linear(4, 3), params=params, inputs=x)
    tn.verify((np.sin, boom), inputs=x)
    assert np.array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert (random.getstate(), np.geterr(), dict(jax.config.values)) == states[1:]
    assert jax.config.jax_enable_x64 == x64
    assert vars(target).keys() == before.keys()
    assert (target.calls, target.log) == (0, [])
    assert np.array_equal(target.W, before["W"])
    assert np.array_equal(params["W"], np.ones((3, 4)))
    assert jax.numpy.ones(2).dtype == "float32"


def leaves_its_marks(args, dy):
    os.environ["LEFT_BEHIND"] = "1"
    os.chdir("/")
    np.set_printoptions(precision=1)
    np.sin = np.cos
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    jax.config.update("jax_enable_x64", True)
    return dy


def test_the_process_is_as_it_was_whatever_a_target_changes():
    sine, folder, options, x64 = np.sin, os.getcwd(), np.get_printoptions(), jax.config.jax_enable_x64
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    tn.verify((lambda x: x * 1.0, leaves_its_marks), inputs=x)
    assert np.sin is sine
    assert (os.getcwd(), np.get_printoptions(), jax.config.jax_enable_x64) == (folder, options, x64)
    assert "LEFT_BEHIND" not in os.environ
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002

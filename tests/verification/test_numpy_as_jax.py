"""A forward pass written with `np.` gets an exact oracle, though JAX cannot trace it as it stands."""

import math
from functools import partial

import numpy as np
import numpy.linalg as la
import pytest
from numpy import exp
from scipy.special import erf, expit

import tinynet as tn

RNG = np.random.default_rng(0)
W, V = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 3))
SCALE = {"gain": 1.5}


def squash(z):
    return 1.0 / (1.0 + np.exp(-z))


def affine(x, weights=W):
    return np.dot(x, weights) + 0.1


def uses_a_helper(x):
    return squash(affine(x))


def loops_over_layers(x):
    for weights in [W, V, V]:
        x = np.tanh(x @ weights)
    return x


def softmax(x):
    shifted = x - np.max(x, axis=1, keepdims=True)
    return np.exp(shifted) / np.sum(np.exp(shifted), axis=1, keepdims=True)


def standardised(x):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)


def silences_overflow(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def concatenates(x):
    return np.concatenate([np.sin(x), x[:, ::-1], x[:, :1]], axis=1)


def stacks_windows(x):
    return np.stack([x[:, k : k + 2] for k in range(3)], axis=1).sum(axis=2)


def selects(x):
    return np.where(x > 0, x, 0.1 * np.expm1(x))


def scales_by_a_global(x):
    return SCALE["gain"] * np.log1p(np.square(x))


def builds_on_shapes(x):
    m, n = x.shape
    return (x.reshape(m * n, 1) * np.ones((1, 2))).reshape(m, 2 * n) / math.sqrt(n)


def adds_ones(x):
    return np.hstack([x, np.ones((len(x), 1))]) @ np.vstack([W, np.zeros((1, 3))])


def accumulates(x):
    total = np.zeros_like(x[:, 0])
    for column in x.T:
        total = total + column**2
    return np.sqrt(total + 1)


def adds_in_place_to_its_own(x):
    z = x @ W
    z += 0.1
    z *= 2
    return z


def recursive(x, depth=3):
    return x if depth == 0 else recursive(np.arctan(x), depth - 1)


def make_closure(weights):
    def forward(x):
        return np.maximum(x @ weights, 0.0)

    return forward


class Base:
    def activation(self, z):
        return np.tanh(z)

    def forward(self, x):
        return self.activation(x @ self.W)


class Model(Base):
    def __init__(self):
        self.W = W.copy()
        self.steps = [self.twice, squash]

    @staticmethod
    def twice(z):
        return np.add(z, z)

    def activation(self, z):
        for step in self.steps:
            z = step(z)
        return super().activation(z)

    def backward(self, dy):
        self.dW = np.zeros_like(self.W)
        return dy @ self.W.T

    def __call__(self, x):
        return self.forward(x)


TRACED = {
    "np.exp": lambda x: 1 / (1 + np.exp(-x)),
    "a helper in the module": uses_a_helper,
    "a loop over layers": loops_over_layers,
    "softmax with keepdims": softmax,
    "mean and var": standardised,
    "np.errstate": silences_overflow,
    "concatenate and slices": concatenates,
    "stack of windows": stacks_windows,
    "np.where": selects,
    "a global dict": scales_by_a_global,
    "shapes and math.sqrt": builds_on_shapes,
    "hstack and ones": adds_ones,
    "a sum in a loop": accumulates,
    "in place on its own array": adds_in_place_to_its_own,
    "recursion": recursive,
    "a closure": make_closure(W),
    "a method": Model().forward,
    "an object with super()": Model,
    "functools.partial of np": partial(affine, weights=W),
    "einsum": lambda x: np.einsum("ij,jk->ik", x, W),
    "from numpy import exp": lambda x: exp(-(x**2)),
    "np.linalg.norm": lambda x: x / la.norm(x, axis=1, keepdims=True),
    "scipy.special.expit": lambda x: expit(x),
    "scipy.special.erf, math.sqrt": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "clip, abs, power, outer": lambda x: np.clip(np.abs(x), 0.1, 2) ** 1.5 + np.outer(x[:, 0], np.arange(4.0)),
    "np.logaddexp": lambda x: np.logaddexp(0, x),
    "matmul, transpose, swapaxes": lambda x: np.swapaxes(np.matmul(W.T, np.transpose(x)), 0, 1),
    "cumsum and pad": lambda x: np.cumsum(np.pad(x, ((0, 0), (1, 1))), axis=1),
    "np.tensordot of asarray": lambda x: np.tensordot(np.asarray(x, dtype=np.float64), W, axes=1),
    "max over an axis": lambda x: np.amax(x, axis=-1) + np.prod(x, axis=-1),
}
X = RNG.standard_normal((5, 4))


def zeros(args, _):
    return tuple(np.zeros_like(a) for a in args)


def forward_probe(target):
    target = target if isinstance(target, type) else (target, zeros)
    report = tn.verify(target, inputs=X, probes=["forward"])
    return report, next(p for p in report.coverage if p.name == "forward")


@pytest.mark.parametrize("name", TRACED)
def test_a_typical_forward_is_traced_unchanged_and_agrees(name):
    report, probe = forward_probe(TRACED[name])
    assert report.oracle.startswith("jax.vjp of your forward"), report.oracle
    assert probe.ratios["y"] <= 1
    assert report.findings == ()


def assigns(x):
    y = np.zeros_like(x)
    y[:, 0] = x[:, 1]
    y[:, 1:] = np.sin(x[:, :-1])
    return y


def branches(x):
    if x.sum() > 0:
        return np.exp(x)
    return np.exp(-x)


def floats(x):
    return np.sin(x) * float(np.mean(x[0]))


def masks(x):
    y = np.cos(x)
    return y[y > -2].reshape(x.shape)


@pytest.mark.parametrize(
    ("forward", "line", "advice"),
    [
        (floats, "float(np.mean(x[0]))", "without float() and int()"),
        (masks, "y[y > -2]", "np.where(mask, a, b)"),
    ],
)
def test_a_forward_that_cannot_be_traced_names_the_line_and_what_to_write(forward, line, advice):
    report, _ = forward_probe(forward)
    assert "differences" in report.oracle
    assert line in report.oracle
    assert "test_numpy_as_jax.py:" in report.oracle
    assert advice in report.oracle


def eigenvalues(a):
    found = np.linalg.eigh(a + a.T)
    return np.exp(found.eigenvalues) + found[1][0] ** 2


def log_volume(a):
    sign, log = np.linalg.slogdet(a)
    return np.sqrt(log * log + 1) * np.abs(sign)


def singular_values(a):
    _, s, _ = np.linalg.svd(a)
    return np.exp(s)


def triangle(a):
    return np.exp(np.linalg.qr(a).R)


@pytest.mark.parametrize("forward", [eigenvalues, log_volume, singular_values, triangle])
def test_what_comes_as_a_tuple_with_names_is_followed(forward):
    report = tn.verify(
        (forward, lambda args, dy: np.zeros_like(args[0])), inputs=V, probes=["rectangular"], named=False
    )
    assert "jax.vjp" in report.oracle


def test_an_assignment_to_a_part_is_followed():
    report, probe = forward_probe(assigns)
    assert "jax.vjp" in report.oracle
    assert probe.ratios["y"] <= 1


def test_a_branching_forward_is_differentiated_as_it_runs():
    def backward(args, dy):
        (x,) = args
        return dy * (np.exp(x) if x.sum() > 0 else -np.exp(-x))

    report = tn.verify((branches, backward), inputs=X)
    assert report.verdict == "PASS", report
    wrong = tn.verify((branches, lambda args, dy: 1.01 * backward(args, dy)), inputs=X)
    assert wrong.verdict == "FAIL"


def test_a_forward_that_can_only_be_called_is_verified_to_the_resolution_of_differences():
    def forward(x):
        out = np.zeros(x.shape)
        out[...] = [[math.sin(float(v)) for v in row] for row in x]
        return out

    report = tn.verify((forward, lambda args, dy: dy * np.cos(args[0])), inputs=X)
    assert report.ok, report
    assert "differences" in report.oracle
    assert 1e-13 < report.resolution < 1e-6
    target = (forward, lambda args, dy: dy * np.cos(args[0]) * (1 + 1e-4))
    assert tn.verify(target, inputs=X, probes=["rectangular"], named=False).verdict == "FAIL"


def test_tracing_leaves_the_users_module_and_object_as_they_were():
    before = dict(globals())
    model = Model()
    state = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in vars(model).items()}
    tn.verify(model, inputs=X)
    tn.verify((uses_a_helper, zeros), inputs=X)
    assert {k: id(v) for k, v in globals().items()} == {k: id(v) for k, v in before.items()}
    assert np is before["np"]
    assert type(model) is Model
    assert vars(model).keys() == state.keys()
    assert np.array_equal(model.W, state["W"])


def test_differences_alone_suffice_to_see_that_a_gradient_is_wrong():
    def forward(x):
        out = np.zeros(x.shape)
        out[...] = [[math.sin(v) for v in row] for row in x]
        return out

    report = tn.verify((forward, lambda args, dy: -dy * np.cos(args[0])), inputs=X, probes=["rectangular"], named=False)
    assert report.verdict == "FAIL"


@pytest.mark.parametrize(
    "flat",
    [
        lambda x: x.ravel(order="F"),
        lambda x: np.ravel(x, order="F"),
        lambda x: x.flatten(order="F"),
        lambda x: np.reshape(x, -1, order="F"),
        lambda x: x.reshape((3, 4), order="F"),
        lambda x: x.reshape(-1, order="C"),
    ],
)
def test_entries_are_put_in_the_order_that_is_asked_for(flat):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3))
    order = flat(np.arange(12).reshape(4, 3))

    def backward(args, dy):
        dx = np.zeros(12, dy.dtype)
        dx[order.ravel()] = dy.ravel()
        return (dx.reshape(4, 3),)

    report = tn.verify((lambda x: flat(x * 1), backward), inputs=x, probes=["rectangular"])
    assert report.verdict == "PASS", report

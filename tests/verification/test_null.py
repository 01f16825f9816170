"""What is right raises no alarm, and what is wrong by ever so little does."""

from itertools import pairwise

import numpy as np
import pytest

import tinynet as tn

WIDTHS, BATCHES = [1, 2, 3, 5, 16], [1, 2, 7]


def random_layer(rng):
    if rng.random() < 0.3:
        return tn.Sigmoid(), int(rng.choice(WIDTHS))
    n_in, n_out = map(int, rng.choice(WIDTHS, 2))
    return tn.Linear(n_in, n_out), n_in


def random_network(rng):
    widths = [int(n) for n in rng.choice([1, 2, 3, 5], int(rng.integers(1, 5)) + 1)]
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [tn.Linear(n_in, n_out), tn.Sigmoid()][: 1 + int(rng.integers(2))]
    return tn.Sequential(*layers), widths[0]


def layers_raise_no_alarm(count):
    rng = np.random.default_rng(0)
    for seed in range(count):
        layer, n = random_layer(rng)
        scale = 10.0 ** rng.integers(-3, 2)
        x = scale * rng.standard_normal((int(rng.choice(BATCHES)), n))
        assert tn.verify(layer, inputs=x, seed=seed).verdict == "PASS", (layer, seed)


def networks_raise_no_alarm(count):
    rng = np.random.default_rng(1)
    for seed in range(count):
        net, n = random_network(rng)
        x = rng.standard_normal((int(rng.choice(BATCHES)), n))
        loss = [None, tn.SquaredError(), tn.SquaredError("mean")][seed % 3]
        assert tn.verify(net, inputs=x, loss=loss, seed=seed, probes=FEW).verdict == "PASS", (net, seed)


# tests/stress has many more of each.
def test_random_right_layers_raise_no_alarm():
    layers_raise_no_alarm(6)


def test_random_right_networks_raise_no_alarm():
    networks_raise_no_alarm(3)


FEW = ["forward", "state", "rectangular", "batch 1", "saturated", "layout", "param_grads", "float32"]
PROBES = {"float64": ["rectangular"], "float32": ["rectangular", "float32"]}


def dense_with_error(relative, gradient, entry):
    """A dense sigmoid layer with one gradient wrong by a relative error, in every entry or in the largest."""

    def forward(x, W, b):
        return 1 / (1 + np.exp(-(x @ W + b)))

    def backward(args, dy):
        x, W, b = args
        a = forward(x, W, b)
        dz = dy * a * (1 - a)
        grads = {"x": dz @ W.T, "W": x.T @ dz, "b": dz.sum(axis=0)}
        g = grads[gradient]
        if dy.dtype == np.float64 or relative > 1e-8:
            hit = np.abs(g) == np.abs(g).max() if entry else np.ones(g.shape, bool)
            grads[gradient] = np.where(hit, g * np.asarray(1 + relative, g.dtype), g)
        return tuple(grads.values())

    return forward, backward


RNG = np.random.default_rng(2)
INPUTS = RNG.standard_normal((5, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)


def seen(relative, gradient, entry, dtype="float64"):
    target = dense_with_error(relative, gradient, entry)
    verdicts = {
        tn.verify(target, inputs=INPUTS, dtype=dtype, probes=PROBES[dtype], seed=seed, named=False).verdict
        for seed in range(3)
    }
    return verdicts == {"FAIL"}


@pytest.mark.parametrize("entry", [False, True], ids=["whole tensor", "largest entry"])
@pytest.mark.parametrize("gradient", ["x", "W", "b"])
def test_a_relative_error_of_1e_13_is_seen_in_float64_and_none_is_no_alarm(gradient, entry):
    for relative in (1e-2, 1e-8, 1e-13):
        assert seen(relative, gradient, entry), relative
    assert not seen(0.0, gradient, entry)


def test_a_relative_error_of_1e_4_is_seen_in_float32_alone():
    def forward(x):
        return np.sin(x)

    def backward(args, dy):
        return dy * np.cos(args[0]) * dy.dtype.type(1 + 1e-4 * (dy.dtype == np.float32))

    report = tn.verify((forward, backward), inputs=INPUTS[0])
    assert {f.probe for f in report.findings} == {"float32"}


def test_attention_over_64_steps_raises_no_alarm_where_its_terms_cancel_far_out():
    report = tn.verify(
        tn.MultiHeadAttention(8, 2, causal=True), inputs=(2, 64, 8), probes=["rectangular", "huge", "param_grads"]
    )
    assert report.ok, report
    assert any("digits are lost where terms cancel" in note for note in report.notes)


def test_a_right_logistic_cost_is_right_where_the_oracle_itself_loses_the_digits_of_log_1_minus_a():
    def cost(x, W, b, y):
        a = 1 / (1 + np.exp(-(x @ W + b)))
        return -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a)) / len(x)

    def backward(args, dE):
        x, W, b, y = args
        dz = dE * (1 / (1 + np.exp(-(x @ W + b))) - y) / len(x)
        return dz @ W.T, x.T @ dz, dz.sum(axis=0), None

    for seed in (0, 3, 8, 14, 19, 20, 35):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((8, 3)), (rng.random((8, 1)) < 0.5).astype(float)
        inputs = (x, rng.standard_normal((3, 1)), rng.standard_normal(1), y)
        report = tn.verify((cost, backward), inputs=inputs, seed=seed, named=False)
        assert report.verdict == "PASS", report


def test_a_gradient_that_is_lost_in_rounding_at_every_example_is_not_passed():
    def forward(x):
        return np.log(1 - 1 / (1 + np.exp(-x)))

    def backward(args, dy):
        return (-2 * dy / (1 + np.exp(-args[0])),)

    x = np.array([[36.0, 35.0], [36.0, 36.0], [35.0, 36.0]])  # whole numbers, which stay as they are
    assert tn.verify((forward, backward), inputs=x, named=False).verdict == "INCONCLUSIVE"


def test_a_batch_norm_that_evaluates_is_judged_with_its_state():
    assert tn.verify(tn.BatchNorm(3), inputs=(6, 3)).ok


@pytest.mark.parametrize(("net", "shape", "seed"), [(tn.MultiHeadAttention(32, 4), (3, 20, 32), 2)])
def test_saturated_attention_raises_no_alarm(net, shape, seed):
    assert tn.verify(net, inputs=shape, seed=seed, probes=["rectangular", "saturated", "huge", "float32"]).ok

"""Mistakes of the table, each in a pair of functions that makes it and no other."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.testing import seeded_faults

RNG = np.random.default_rng(2)
x, w = RNG.standard_normal((4, 3)), RNG.standard_normal(3)
ROWS = np.array([0, 2, 2, 1, 0])


def rows_taken(table):
    return np.tanh(table[ROWS])


def rows_overwritten(args, dy):
    (table,) = args
    grad = np.zeros_like(table)
    grad[ROWS] += dy * (1 - np.tanh(table[ROWS]) ** 2)
    return grad


def normalised(x):
    return x / np.sqrt((x * x).sum(1, keepdims=True) + 1e-12)


def summed_over_all(args, dy):
    (x,) = args
    norm = np.sqrt((x * x).sum(1, keepdims=True) + 1e-12)
    y = x / norm
    return (dy - y * (dy * y).sum()) / norm


def rolled(x):
    return x * np.roll(x, 1, axis=0)


def rolled_the_same_way(args, dy):
    (x,) = args
    return dy * np.roll(x, 1, axis=0) + np.roll(dy * x, 1, axis=0)


def scaled(x, w):
    return x * w


def takes_w_for_x(args, dy):
    _, w = args
    return dy * w, (dy * w).sum(0)


def added_up(x):
    return np.cumsum(x * x, axis=0)


def added_up_from_the_start(args, dy):
    (x,) = args
    return 2 * x * np.cumsum(dy, axis=0)


def largest(x):
    return np.tanh(x).max(axis=1)


def largest_forgets_which(args, dy):
    (x,) = args
    return (1 - np.tanh(x) ** 2) * dy[:, None]


def largest_takes_the_first(args, dy):
    (x,) = args
    return (1 - np.tanh(x) ** 2) * dy[:, None] * (np.arange(x.shape[1]) == 0)


def windows(x, k):
    return np.stack([np.tanh(x[:, i : i + 2]) @ k for i in range(x.shape[1] - 1)], axis=1)


def windows_overwritten(args, dy):
    x, k = args
    dx, dk = np.zeros_like(x), np.zeros_like(k)
    for i in range(x.shape[1] - 1):
        a = np.tanh(x[:, i : i + 2])
        dx[:, i : i + 2] = dy[:, i, None] * k * (1 - a * a)
        dk += dy[:, i] @ a
    return dx, dk


def padded(x):
    return np.sin(np.concatenate([np.zeros((3, 3)), x])) * np.arange(1.0, 10)[:, None]


def padded_at_the_wrong_end(args, dy):
    (x,) = args
    z = np.concatenate([np.zeros((3, 3)), x])
    return (dy * np.cos(z) * np.arange(1.0, 10)[:, None])[:-3]


def cross_correlated(x, k):
    return np.stack([np.sum(x[:, None, i : i + 3, j : j + 3] * k, (0, 2, 3)) for i in range(2) for j in range(2)])


def cross_correlated_flipped(args, dy):
    x, k = args
    dx, dk = np.zeros_like(x), np.zeros_like(k)
    for (i, j), d in zip(np.ndindex(2, 2), dy[..., None, None], strict=True):
        dx[:, i : i + 3, j : j + 3] += np.sum(k[:, :, ::-1, ::-1] * d, 1)
        dk += x[:, None, i : i + 3, j : j + 3] * d
    return dx, dk


def gated(x, w):
    return np.tanh(x * w) * np.sin(x + w)


def gates_exchanged(args, dy):
    x, w = args
    u, v = np.tanh(x * w), np.sin(x + w)
    du, dv = dy * u * (1 - u * u), dy * v * np.cos(x + w)
    return du * w + dv, (du * x + dv).sum(0)


def averaged(x):
    return np.cumsum(np.sin(x), axis=0) / np.arange(1.0, 5)[:, None]


def averaged_without_the_count(args, dy):
    (x,) = args
    return np.cumsum(dy[::-1], axis=0)[::-1] * np.cos(x)


@pytest.mark.parametrize(
    ("fault", "forward", "backward", "inputs"),
    [
        ("reversed", added_up, added_up_from_the_start, x),
        ("overwritten", rows_taken, rows_overwritten, x),
        ("summed over everything", normalised, summed_over_all, x),
        ("shifted", rolled, rolled_the_same_way, x),
        ("operands swapped", scaled, takes_w_for_x, (x, w)),
        ("operands swapped", gated, gates_exchanged, (x, w)),
        ("factor left out", largest, largest_forgets_which, x),
        ("another value", largest, largest_takes_the_first, x),
        ("overwritten", windows, windows_overwritten, (RNG.standard_normal((3, 5)), w[:2])),
        ("shifted", padded, padded_at_the_wrong_end, RNG.standard_normal((6, 3))),
        (
            "reversed",
            cross_correlated,
            cross_correlated_flipped,
            (RNG.standard_normal((2, 4, 4)), RNG.standard_normal((2, 3, 3, 3))),
        ),
        ("factor left out", averaged, averaged_without_the_count, x),
    ],
)
def test_a_mistake_bears_its_name(fault, forward, backward, inputs):
    (finding,) = tn.verify((forward, backward), inputs=inputs, dtype="float64").findings
    assert finding.fault == fault, finding
    assert finding.at


def test_the_operand_is_said_where_a_statement_has_several():
    def centred(x):
        mean = x.mean(0, keepdims=True)
        return np.tanh(x) - mean

    def mean_detached(args, dy):
        (x,) = args
        return dy * (1 - np.tanh(x) ** 2)

    (finding,) = tn.verify((centred, mean_detached), inputs=x, dtype="float64").findings
    assert finding.explanation == "the path from `mean` through `return np.tanh(x) - mean` is missing"


def test_a_copy_that_forgets_a_factor_is_blamed_not_the_right_line_before_it():
    keep = np.array([1.5, 0.0, 1.5])

    def forward(x, w):
        d = np.sin(x) * keep
        return d @ w

    def backward(args, dy):
        x, w = args
        dd = dy @ w.T
        da = dd
        return da * np.cos(x), (np.sin(x) * keep).T @ dy

    (finding,) = tn.verify((forward, backward), inputs=(x, RNG.standard_normal((3, 2))), dtype="float64").findings
    assert finding.where_text == "da = dd"


def test_a_mistake_that_cannot_be_made_at_every_shape_bears_its_name():
    """A seeded fault that shows where W is square alone."""
    (fault,) = [f for f in seeded_faults(tn.Linear(3, 3)) if f.name == "W for Wᵀ"]
    (finding,) = tn.verify(fault.target).findings
    assert finding.fault == "W for Wᵀ", finding

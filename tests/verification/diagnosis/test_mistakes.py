"""Mistakes of the table, each in a pair of functions that makes it and no other."""

import numpy as np
import pytest

import tinynet as tn

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


@pytest.mark.parametrize(
    ("fault", "forward", "backward", "inputs"),
    [
        ("reversed", added_up, added_up_from_the_start, x),
        ("overwritten", rows_taken, rows_overwritten, x),
        ("summed over everything", normalised, summed_over_all, x),
        ("shifted", rolled, rolled_the_same_way, x),
        ("operands swapped", scaled, takes_w_for_x, (x, w)),
    ],
)
def test_a_mistake_bears_its_name(fault, forward, backward, inputs):
    (finding,) = tn.verify((forward, backward), inputs=inputs, dtype="float64").findings
    assert finding.fault == fault, finding
    assert finding.at

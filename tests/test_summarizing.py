"""A summary counts what can be counted by hand."""

import numpy as np
import pytest

import tinynet as tn

NET = tn.Sequential(
    tn.Conv2d(1, 4, kernel=3, padding=1),
    tn.ReLU(),
    tn.MaxPool2d(2),
    tn.Residual(tn.Sequential(tn.Conv2d(4, 4, kernel=1), tn.Tanh())),
    tn.Flatten(),
    tn.LayerNorm(64),
    tn.Linear(64, 10),
)


def test_counts_shapes_parameters_and_multiply_adds():
    table = tn.summary(NET, np.zeros((7, 1, 8, 8)))
    assert [row.path for row in table.rows] == ["0", "1", "2", "3.f.0", "3.f.1", "4", "5", "6"]
    assert [row.output_shape for row in table.rows][:3] == [(4, 8, 8), (4, 8, 8), (4, 4, 4)]
    assert [row.parameters for row in table.rows] == [4 * 9 + 4, 0, 0, 16 + 4, 0, 0, 128, 650]
    assert [row.multiply_adds for row in table.rows] == [64 * 4 * 9, 0, 0, 16 * 4 * 4, 0, 0, 0, 640]
    assert table.parameters == 838
    assert table.multiply_adds == 2304 + 256 + 640
    assert table.input_shape == (1, 8, 8)


def test_prints_an_aligned_table():
    lines = str(tn.summary(NET, np.zeros((7, 1, 8, 8)))).split("\n")
    assert lines[0].split() == ["layer", "output", "parameters", "multiply-adds"]
    assert lines[3].startswith("0      Conv2d(n_in=1, n_out=4, kernel=3, stride=1, padding=1)  4 × 8 × 8")
    assert lines[-1].split() == ["total", "838", "3,200"]
    assert len({len(line) for line in lines if "Conv2d" in line or "total" in line}) == 1


def test_takes_indices_and_a_single_layer():
    net = tn.Sequential(tn.Embedding(9, 4), tn.Flatten(), tn.Linear(12, 2))
    assert tn.summary(net, np.zeros((1, 3), int)).parameters == 36 + 26
    assert tn.summary(tn.Linear(3, 2), np.zeros((1, 3))).rows[0].multiply_adds == 6


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"summary: x has shape \(0, 3\); expected \(m, …\) with m of at least 1"):
        tn.summary(tn.Linear(3, 2), np.zeros((0, 3)))
    with pytest.raises(TypeError, match=r"summary: net is the class Linear; expected an instance of"):
        tn.summary(tn.Linear, np.zeros((1, 3)))

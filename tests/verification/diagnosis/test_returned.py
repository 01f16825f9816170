"""What is said of one returned array alone, and what is not."""

import numpy as np

from tinynet.verification.diagnosis import Wrong
from tinynet.verification.diagnosis.returned import of_one_array


def run(value, exact, got):
    return Wrong(None, {"w": value}, ("w",), (), {"w": got}, {"w": exact}, {"w": 1e-14}, frozenset(["w"]))


def test_a_multiple_of_w_that_was_seen_once_is_no_weight_decay():
    v, dy = np.array([1.0, 2.0, -1.0]), np.array([0.3, 0.5, 0.2])
    norm = np.sqrt(v @ v)
    once = run(v, dy / norm - v * (v @ dy) / norm**3, dy / norm)
    assert of_one_array("w", [once]) is None


def test_a_round_multiple_of_w_is_weight_decay_though_it_was_seen_once():
    v, dy = np.array([1.0, 2.0, -1.0]), np.array([0.3, 0.5, 0.2])
    found = of_one_array("w", [run(v, dy, dy + 0.01 * v)])
    assert found is not None
    assert found.fault == "weight decay"

"""A factor is named after what it was seen to vary with."""

import pytest

from tinynet.verification.diagnosis.factors import express


@pytest.mark.parametrize(
    ("factors", "names", "text"),
    [
        ([1 / 3, 1 / 3], [{"m": 5, "n_out": 3}, {"m": 2, "n_out": 3}], "1/3"),
        ([1 / 3, 1 / 5], [{"m": 5, "n_out": 3}, {"m": 2, "n_out": 5}], "1/n_out"),
        ([0.2, 0.5], [{"m": 5, "n_out": 3}, {"m": 2, "n_out": 3}], "1/m"),
        ([5 / 3, 2 / 3], [{"m": 5, "n_out": 3}, {"m": 2, "n_out": 3}], "m/3"),
        ([1 / 15, 1 / 6], [{"m": 5, "n_out": 3}, {"m": 2, "n_out": 3}], "1/(3 m)"),
        ([1.5, 1.5], [{"n_out": 3}, {"n_out": 3}], "3/2"),
        ([2**0.5], [{"n_out": 3}], "√2"),
        ([3**-0.5], [{"n_out": 3}], "1/√3"),
        ([-0.2], [{"m": 5}], "−1/5"),
        ([1.13405], [{}], ""),
        ([0.7, 0.7], [{"rate": 0.3}, {"rate": 0.3}], "1 − rate"),
        ([1.0001, 1.0001], [{}, {}], "1.0001"),
        ([1 + 1e-9, 1 + 1e-9], [{}, {}], "1 + 1e-09"),
        ([3e-8 - 1, 3e-8 - 1], [{}, {}], "−1 − 3e-08"),
    ],
)
def test_a_size_names_a_factor_only_if_it_varied(factors, names, text):
    assert express(factors, names) == text

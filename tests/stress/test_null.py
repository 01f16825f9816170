"""The null test: no right layer or network of random widths, values and batches is accused."""

from tests.verification.test_null import layers_raise_no_alarm, networks_raise_no_alarm


def test_40_random_right_layers_raise_no_alarm():
    layers_raise_no_alarm(40)


def test_10_random_right_networks_raise_no_alarm():
    networks_raise_no_alarm(10)

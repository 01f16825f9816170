"""The cases that `tinynet verify --all tinynet` runs."""

import inspect

import pytest

import tinynet
import tinynet.layers
import tinynet.losses
from tinynet.verification import verify
from tinynet.verification.cases import CASES


def public_classes():
    values = [getattr(place, name) for place in (tinynet, tinynet.layers, tinynet.losses) for name in place.__all__]
    return {
        v
        for v in values
        if inspect.isclass(v) and issubclass(v, (tinynet.Layer, tinynet.Loss)) and not inspect.isabstract(v)
    }


def test_every_public_layer_and_loss_has_a_case():
    missing = public_classes() - {type(case.target) for case in CASES}
    assert not missing, f"add a Case to tinynet/verification/cases.py for {missing}"


def test_every_case_has_an_independent_reference():
    assert [str(case) for case in CASES if case.reference is None] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_forward_equals_the_reference_and_the_gradients_pass(case):
    report = verify(case.target, inputs=case.inputs, reference=case.reference, probes=("rectangular",))
    report.raise_if_failed()
    assert "forward equals the reference" in report.oracle


def test_a_reference_that_is_another_function_is_a_finding():
    case = next(c for c in CASES if isinstance(c.target, tinynet.Sigmoid))
    report = verify(case.target, reference=lambda params, x: case.reference(params, x) + 1e-9)
    assert report.findings[0].fault == "forward differs from the reference"

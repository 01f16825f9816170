"""The second null test: no right layer or function of researchers is accused, at any of its inputs."""

import pytest

import tinynet as tn
from tests.verification.researchers.functions import FUNCTIONS
from tests.verification.test_researchers import LAYERS

ALL = [(name, target, inputs) for name, (target, examples) in (LAYERS | FUNCTIONS).items() for inputs in examples]


@pytest.mark.parametrize(("name", "target", "inputs"), ALL, ids=[f"{name} {i}" for i, (name, _, _) in enumerate(ALL)])
def test_right_code_is_not_accused(name, target, inputs):
    report = tn.verify(target, inputs=inputs)
    assert report.verdict == "PASS", report

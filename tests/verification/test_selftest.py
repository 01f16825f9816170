"""Faults seeded into right layers: all found, nearly all named, none named wrongly."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.testing import seeded_faults
from tinynet.verification import verify
from tinynet.verification.cases import CASES
from tinynet.verification.selftest import KIT, TARGETS, Case, faults_in, self_test


def test_the_targets_and_the_kit_are_every_case():
    assert {type(case.target) for case in CASES} == {type(t) for t in TARGETS} | {type(case.target) for case in KIT}


def test_a_case_brings_its_input_and_what_is_no_layer_has_no_faults():
    outcomes = self_test([Case(tn.Flatten(), inputs=(5, 2, 3), name="flat")], progress=lambda faults: faults[:2])
    assert [(o.target, o.found) for o in outcomes] == [("flat", True)] * 2
    assert self_test([Case((lambda x: x, lambda args, dy: dy))]) == []


# Faults that show in a part of the probes only: where the gradient is 0 anyway, where two samples are all there are, …
HIDDEN = [
    ("Embedding(n_in=5, n_out=3)", "one row", "the first is zero"),
    ("Embedding(n_in=5, n_out=3)", "float32 inside", "x, the parameters and dy are cast to float32, the results back"),
    ("Embedding(n_in=5, n_out=3)", "stale cache", "the cache of the forward pass before, if it fits"),
    ("ReLU()", "stale cache", "the cache of the last forward pass, if it fits"),
    ("ReLU()", "one column", "the last is zero"),
    ("Softmax()", "one row", "the last has the wrong sign"),
    ("Softmax()", "one entry", "the second along each axis has the wrong sign"),
    ("Softmax()", "summed over everything", "Σg, a scalar"),
    (
        "Conv2d(n_in=2, n_out=3, kernel=2, stride=2, padding=3)",
        "wrong only for a layout",
        "of a dy that is broadcast only the first entry counts",
    ),
    ("MaxPool2d(kernel=2, stride=None)", "one entry", "the last is 10⁻⁴ too large"),
    ("MaxPool2d(kernel=2, stride=None)", "one entry", "the second along each axis has the wrong sign"),
]

# Those whose names take long to find: tests/stress verifies them.
LONG = [
    ("LayerNorm(n=4), x (2, 3, 4)", "already updated W", "δ goes back through W − 0.1·∂E/∂W"),
    ("LayerNorm(n=4), x (2, 3, 4)", "only one sample used", "the last: = in the loop where += is meant"),
    (
        "Conv2d(n_in=2, n_out=3, kernel=2, stride=2, padding=3)",
        "already updated W",
        "δ goes back through W − 0.1·∂E/∂W",
    ),
    ("Conv2d(n_in=2, n_out=3, kernel=2, stride=2, padding=3)", "one row", "the first is zero"),
]

OTHERWISE = {
    ("Embedd", "stale cache"): {"wrong only for a layout"},
    ("Conv2d", "already updated W"): {"unknown"},
    ("MaxPoo", "one entry"): {"wrong only at some batch sizes"},
}
"""What else may be said where the fault shows in few examples, or the search for its name is too long."""


@pytest.mark.parametrize(("target", "name", "description"), HIDDEN)
def test_faults_that_hide_are_found_and_named(target, name, description):
    found_and_named(target, name, description)


def found_and_named(target, name, description):
    case = next(case for case in CASES if str(case) == target)
    (*_, fault) = (f for f in faults_in(case) if (f.name, f.description) == (name, description))
    report = verify(fault.target, inputs=case.inputs, dtype="float64")
    assert report.verdict == "FAIL"
    assert {f.fault for f in report.findings} <= {name} | OTHERWISE.get((target[:6], name), set()), report


def test_a_layer_that_differs_from_an_earlier_one_in_its_backward_pass_only_is_named():
    wrong = next(f for f in seeded_faults(tn.Sigmoid()) if f.name == "σ′ missing").target
    report = verify(tn.Sequential(tn.Sigmoid(), wrong), inputs=(5, 4), dtype="float64")
    assert [(f.fault, f.target.partition(":")[0][-7:]) for f in report.findings] == [("σ′ missing", "layer 1")], report


def test_what_is_no_fault_of_a_target_is_not_seeded_there():
    def names(text):
        return {(f.name, f.gradient) for f in faults_in(next(case for case in CASES if str(case) == text))}

    of_embedding = names("Embedding(n_in=5, n_out=3)")
    assert not [gradient for _, gradient in of_embedding if gradient == "x"]  # integers do not vary
    assert ("mutates x", "params.W") in of_embedding
    assert "stale cache" not in {name for name, _ in names("Flatten()")}  # its cache says nothing but the shape
    assert "stale cache" in {name for name, _ in names("Softmax()")}
    assert "ignores dy" not in {name for name, _ in names("Softmax()")}  # of ones Softmax makes zeros
    assert "ignores dy" in {f.name for f in seeded_faults(tn.Sigmoid())}


@pytest.mark.parametrize(
    ("target", "inputs", "seeded"),
    [
        (tn.BinaryCrossEntropy(), None, True),  # whose target is between 0 and 1
        (tn.Shared(tn.Linear(3, 2)), (((5, 3), (5, 3)),), False),
        (tn.InfoNCE(), (((5, 3), (5, 3)), None), False),
    ],
)
def test_faults_are_seeded_where_one_array_comes_out(target, inputs, seeded):
    if inputs is not None:
        arrays = tuple(np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(inputs[0]))
        inputs = (arrays, *inputs[1:])
    assert bool(faults_in(Case(target, inputs=inputs))) == seeded

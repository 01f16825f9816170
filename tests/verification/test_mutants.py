"""The mutation score of every backward pass in the package: verify kills every mutant but the equivalent ones."""

import pytest

import tinynet as tn
from tinynet.testing import mutate_backward

# The mutants that compute the same: what stands in their description, why they do, and how many there are.
EQUIVALENT = {
    tn.Linear: ("'b': Δ.sum(axis=0).T}", "the transpose of a vector is itself", 1),
}
LEADING = {"inputs": (2, 3, 4)}
TARGETS = {
    tn.Linear: [((4, 3), {}), ((4, 3), LEADING)],
    tn.Sigmoid: [((), {})],
    tn.Sequential: [
        ((tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(3, 2)), {}),
        ((tn.Sigmoid(), tn.Linear(3, 3), tn.Linear(3, 3)), {}),
        ((tn.Sigmoid(), tn.Sigmoid()), {}),
    ],
    tn.SquaredError: [(("mean",), {}), (("sum",), {}), (("mean",), LEADING)],
}


def verdicts(cls, make):
    """The verdicts on one suspect, as long as it passes."""
    for args, options in TARGETS[cls]:
        verdict = tn.verify(make(*args), dtype="float64", **options).verdict
        yield verdict
        if verdict != "PASS":
            return


@pytest.mark.parametrize("cls", TARGETS, ids=lambda cls: cls.__name__)
def test_every_mutant_but_the_equivalent_is_killed_and_the_original_is_not(cls):
    assert set(verdicts(cls, cls)) == {"PASS"}
    survived = [m.description for m in mutate_backward(cls) if set(verdicts(cls, m.cls)) == {"PASS"}]
    text, _, count = EQUIVALENT.get(cls, ("", "", 0))
    assert [description for description in survived if text not in description] == []
    assert len(survived) == count

"""The mutation score of every backward pass in the package: verify kills every mutant but the equivalent ones."""

import pytest

import tinynet as tn
from tinynet.verification import mutation
from tinynet.verification.mutation import EQUIVALENT, MUTATED, mutation_score


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("cls", MUTATED, ids=lambda cls: cls.__name__)
def test_every_mutant_but_the_equivalent_is_killed(cls):
    score = mutation_score(cls)
    assert [m.description for m in score.survivors] == []
    assert len(score.equivalent) == sum(known.count for known in EQUIVALENT.get(cls, ()))
    assert score.killed == score.mutants - len(score.equivalent) > 0


def test_a_mutant_that_passes_and_is_not_listed_is_a_survivor(monkeypatch):
    monkeypatch.setattr(mutation, "EQUIVALENT", {})
    score = mutation_score(tn.Linear)
    assert [m.description.partition(" → ")[2] for m in score.survivors] == [
        "return {'W': Δ.T @ A, 'b': Δ.sum(axis=0).T}"
    ]
    assert score.equivalent == ()

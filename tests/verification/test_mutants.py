"""The mutation score of a backward pass: verify kills every mutant but the equivalent ones."""

import pytest

import tinynet as tn
from tests.verification.mutation_scores import EQUIVALENT, MUTATED, mutation_score

SMALL = [tn.Linear, tn.Sigmoid, tn.SquaredError]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("cls", SMALL, ids=lambda cls: cls.__name__)
def test_every_mutant_but_the_equivalent_is_killed(cls):
    score = mutation_score(cls)
    assert [m.description for m in score.survivors] == []
    assert len(score.equivalent) == sum(known.count for known in EQUIVALENT.get(cls, ()))
    assert score.killed == score.mutants - len(score.equivalent) > 0


def test_a_mutant_that_passes_and_is_not_listed_is_a_survivor():
    score = mutation_score(tn.Linear, known={})
    assert [m.description.partition(" → ")[2] for m in score.survivors] == [
        "return {'W': Δ.T @ A, 'b': Δ.sum(axis=0).T}"
    ]
    assert score.equivalent == ()


def test_every_public_layer_and_loss_is_mutated():
    assert set(MUTATED) >= {*SMALL, tn.Sequential, tn.Conv2d}
    assert EQUIVALENT.keys() <= set(MUTATED)

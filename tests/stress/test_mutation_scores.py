"""The mutation score of every backward pass in the package."""

import pytest

from tests.verification.mutation_scores import EQUIVALENT, MUTATED, mutation_score


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("cls", MUTATED, ids=lambda cls: cls.__name__)
def test_every_mutant_but_the_equivalent_is_killed(cls):
    score = mutation_score(cls)
    assert [m.description for m in score.survivors] == []
    assert len(score.equivalent) == sum(known.count for known in EQUIVALENT.get(cls, ()))

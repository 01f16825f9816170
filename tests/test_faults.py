"""The table of faults."""

import pytest

from tinynet.faults import FAULTS, name


def test_a_fault_is_printed_with_its_factor():
    assert name("scaled", "1/m") == "scaled by 1/m"
    assert name("scaled") == "scaled"
    assert name("transpose") == "transpose"


def test_a_name_that_is_not_in_the_table_and_a_factor_without_meaning_are_refused():
    with pytest.raises(ValueError, match="'scaled by 2'; expected a key"):
        name("scaled by 2")
    with pytest.raises(ValueError, match='only "scaled" has a factor'):
        name("sign", "2")


def test_each_fault_has_a_sentence_of_its_own():
    assert len(set(FAULTS.values())) == len(FAULTS) > 60
    assert all(sentence and not sentence.endswith(".") for sentence in FAULTS.values())
    with pytest.raises(TypeError):
        FAULTS["sign"] = ""

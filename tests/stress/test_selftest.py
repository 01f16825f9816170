"""The verifier on every fault seeded into the document's classes: minutes."""

import pytest

import tinynet as tn
from tests.verification.test_selftest import LONG, found_and_named
from tinynet.verification.selftest import self_test, tabulate

FEW = [tn.Linear(3, 3), tn.Sigmoid(), tn.SquaredError("mean")]


def test_every_seeded_fault_is_found_at_least_nine_in_ten_are_named_and_none_wrongly():
    outcomes = self_test(FEW)
    assert [str(o.seeded) for o in outcomes if not o.found] == []
    assert [(str(o.seeded), str(o.report)) for o in outcomes if o.misnamed] == []
    assert sum(o.named for o in outcomes) >= 0.9 * len(outcomes)
    rows = tabulate(outcomes)
    assert rows[-1].name == "all"
    assert rows[-1].seeded == len(outcomes) == sum(r.seeded for r in rows[:-1]) > 150
    assert {r.name for r in rows[:-1]} == {o.seeded.name for o in outcomes}
    assert len(rows) > 40
    assert all(r.misnamed <= r.found <= r.seeded for r in rows)


def test_each_fault_is_counted_once_unless_all_variants_are_asked_for():
    few, all_ = self_test([tn.Sigmoid()]), self_test([tn.Sigmoid()], every=True)
    assert len(few) < len(all_)
    assert len({(o.seeded.name, o.seeded.gradient) for o in few}) == len(few)


@pytest.mark.parametrize(("target", "name", "description"), LONG)
def test_faults_that_hide_are_found_and_named(target, name, description):
    found_and_named(target, name, description)

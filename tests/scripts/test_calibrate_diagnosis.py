"""The script that measures the diagnosis: when a name counts as wrong."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "calibrate_diagnosis.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("faults", "at", "where", "named", "placed", "wrong"),
    [
        (("factor left out",), (12,), (), True, True, False),
        (("unknown",), (13,), (), False, True, False),
        (("transpose",), (12,), (31,), True, True, True),
        (("factor left out",), (3,), (99,), True, False, True),
        ((), (), (), False, False, False),
    ],
)
def test_a_name_is_wrong_if_it_is_untrue_or_stands_elsewhere(script, faults, at, where, named, placed, wrong):
    change = script["Change"]("GRU", "a factor dropped", "", 31, (12, 14), None, (2, 3))
    o = script["Outcome"](change, "FAIL", faults, at, where, finding=1.0, naming=2.0)
    assert (o.named, o.placed_at or o.placed_where, o.wrong) == (named, placed, wrong)

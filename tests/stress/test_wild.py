"""The study of backward passes in the forms of public code: nothing wrong passes, and few forms need an adapter."""

import json
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest

for library in ("autograd", "thinc", "torch"):
    pytest.importorskip(library)

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "verify_in_the_wild.py"))
FORMS = SCRIPT["FORMS"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_right_one_passes_and_the_wrong_one_does_not(form):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        row = SCRIPT["study"](form, ())
    assert (row.right, row.wrong) == ("PASS", "FAIL"), row.notes


def test_at_least_nine_forms_in_ten_need_no_adapter():
    assert len(FORMS) >= 23
    assert sum(form.adapter is None for form in FORMS) >= 0.9 * len(FORMS)


@pytest.mark.parametrize("form", FORMS[::6], ids=lambda form: form.name)
@pytest.mark.parametrize("tool", ["torch", "jax", "autograd"])
def test_the_others_are_given_what_they_can_judge(form, tool):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        assert SCRIPT["judged_by"](SCRIPT["TOOLS"][tool], form)[0] == "found"


def test_the_table_is_printed_and_written(tmp_path, capsys):
    path = tmp_path / "wild.json"
    assert SCRIPT["main"](["--only", "W and dW", "--markdown", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert (row["right"], row["wrong"], row["named"], row["name_is_right"]) == ("PASS", "FAIL", "scaled by 1/m", True)
    assert row["others"].keys() == {"torch", "jax", "autograd"}
    out = capsys.readouterr().out
    assert "| W and dW | npnn and many others | 0 | PASS | FAIL |" in out
    assert "tn.verify: 1 of 1 forms taken as they are; 1 of 1 right ones passed, 0 accused; 1 of 1 faults found" in out

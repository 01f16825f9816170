"""What a verification says, to people and to programs."""

import json
import re

import numpy as np
import pytest

import tinynet as tn
from tinynet.verification import PROBES

x = np.random.default_rng(4).standard_normal((5, 4))


class MeanBias(tn.Linear):
    def backward(self, params, a, dz):
        dx, dparams = super().backward(params, a, dz)
        dparams["b"] = dz.mean(axis=0)
        return dx, dparams


@pytest.fixture(scope="module")
def failed():
    return tn.verify(MeanBias(4, 3), seed=7)


@pytest.fixture(scope="module")
def passed():
    return tn.verify(tn.Linear(4, 3))


def test_a_report_is_neither_true_nor_false(passed, failed):
    for report in (passed, failed):
        with pytest.raises(TypeError, match=r"use report\.ok"):
            bool(report)
    assert (passed.ok, failed.ok) == (True, False)


def test_a_finding_says_which_gradient_what_where_and_how_to_see_it_again(failed):
    (finding,) = failed.findings
    assert (finding.gradient, finding.fault, finding.factor) == ("params.b", "scaled", "1/m")
    assert finding.name == "scaled by 1/m"
    assert set(finding.right) == {"x", "params.W"}
    assert re.fullmatch(r"test_report\.py:\d+", finding.where)
    assert finding.got == pytest.approx(finding.expected / 5)
    assert finding.got_array[finding.index] == finding.got
    assert finding.expected_array.shape == (3,)
    assert finding.ratio > 1 > finding.tolerance > 0
    assert re.search(r"3 of 3 entries, at \d examples", finding.extent)
    assert finding.shapes[0] == "x (5, 4)"
    assert finding.reproduce.startswith("tinynet verify '")
    assert "MeanBias(n_in=4, n_out=3)' --seed 7" in finding.reproduce


def test_a_finding_takes_at_most_12_lines(failed):
    lines = str(failed.findings[0]).splitlines()
    assert len(lines) <= 12
    assert lines[0].startswith("FAIL  MeanBias(n_in=4, n_out=3) → params.b")
    for label in ("fault", "worst", "extent", "where", "reproduce"):
        assert any(line.split()[0] == label for line in lines), label


def test_the_rule_is_printed_with_every_verdict(passed, failed):
    for report in (passed, failed):
        assert "|mine − exact| ≤ 32 · max(u · max|exact|, spread" in str(report)


def test_a_pass_says_that_it_is_the_users_own_forward(passed):
    assert "of your forward" in str(passed).splitlines()[0]
    with_reference = tn.verify(tn.Linear(4, 3), reference=lambda p, x: np.einsum("mi,oi->mo", x, p["W"]) + p["b"])
    assert "forward equals the reference" in with_reference.oracle


def test_every_probe_is_run_or_skipped_with_a_reason(passed, failed):
    for report in (passed, failed):
        names = {p.name.partition(" (")[0] for p in report.coverage}
        assert names >= set(PROBES)
        assert all(p.skipped or p.ratios or p.note or p.name in ("state", "branches") for p in report.coverage)
    assert {p.skipped for p in failed.coverage if p.name == "branches"} == {"a fault was found before it"}


def test_only_the_probes_that_are_asked_for_are_run():
    report = tn.verify(tn.Sigmoid(), probes=["batch 1"])
    assert report.ok
    assert {p.name for p in report.coverage if not p.skipped} == {"forward", "batch 1"}


def test_only_the_dtypes_that_are_asked_for_are_run():
    report = tn.verify(tn.Sigmoid(), dtype="float64")
    assert all(p.dtype != "float32" for p in report.coverage if not p.skipped)


def test_json_round_trip(passed, failed, tmp_path):
    for report in (passed, failed, tn.verify((np.sin, lambda args, dy: dy * np.inf), inputs=x)):
        path = tmp_path / "report.json"
        text = report.to_json(path)
        assert path.read_text(encoding="utf-8") == text
        assert list(tmp_path.iterdir()) == [path]
        read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert read["verdict"] == report.verdict
        assert [f["fault"] for f in read["findings"]] == [f.fault for f in report.findings]
        assert [f["gradient"] for f in read["findings"]] == [f.gradient for f in report.findings]
        assert {p["name"] for p in read["coverage"]} == {p.name for p in report.coverage}
        assert read["target"] == report.target


def test_raise_if_failed_carries_the_report(passed, failed):
    passed.raise_if_failed()
    with pytest.raises(tn.GradientError, match=r"params\.b") as error:
        failed.raise_if_failed()
    assert error.value.report is failed
    assert isinstance(error.value, AssertionError)
    tn.check(tn.Linear(4, 3))
    with pytest.raises(tn.GradientError):
        tn.check(MeanBias(4, 3))


def test_the_same_seed_gives_the_same_report(failed):
    again = tn.verify(MeanBias(4, 3), seed=7)
    assert again.findings == failed.findings
    assert [p.ratios for p in again.coverage] == [p.ratios for p in failed.coverage]


def test_without_names_the_verdict_is_the_same():
    class Doubled(tn.Linear):
        def backward(self, params, a, dz):
            dx, dparams = super().backward(params, a, dz)
            return 2 * dx, dparams

    named, plain = tn.verify(Doubled(4, 3)), tn.verify(Doubled(4, 3), named=False)
    assert [(f.name, f.gradient) for f in named.findings] == [("scaled by 2", "x")]
    assert [(f.fault, f.gradient, f.right) for f in plain.findings] == [("unknown", "x", ("params.W", "params.b"))]
    assert plain.verdict == named.verdict == "FAIL"
    assert tn.verify(tn.Linear(4, 3), named=False).ok

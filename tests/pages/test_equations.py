"""The derivation as a page: its numbers add up, each line of code is there, and both languages say the same much."""

import html
import re
import sys
from pathlib import Path

import pytest

import tinynet as tn
from tinynet.equations import EQUATIONS
from tinynet.pages import equations


@pytest.fixture(scope="module")
def found():
    return equations.checks()


@pytest.fixture(scope="module")
def page():
    return equations.equations_page()


def test_every_equation_equals_jax(found):
    assert sorted(found) == list(range(1, 27))
    assert max(check.ulp for check in found.values()) <= 32


@pytest.mark.parametrize("number", [n for n, (_, right) in equations.EXAMPLE.items() if right])
def test_the_numbers_plugged_in_give_the_value(found, number):
    """The right side, with all digits, is worked out as Python would."""
    right = equations.EXAMPLE[number][1]
    text = right.format(**{n: f"({v!r})" for n, v in equations.example_numbers().items()})
    text = re.sub(r"e\^−(\([^()]*\))", r"2.718281828459045**-\1", text)
    text = text.replace("·", "*").replace("−", "-").replace("²", "**2").replace("½", "0.5 *")
    text = re.sub(r"\)\s*\(", ")*(", text)
    check = found[number]
    assert eval(text) == pytest.approx(check.by_jax[check.entry], rel=1e-13)


def test_the_page_has_all_with_their_misprints_and_code(page):
    assert re.findall(r'<article id="e(\d+)">', page) == [str(n) for n in range(1, 27)]
    assert page.count('class="erratum"') == 6
    assert page.count('<p class="check"') == 26
    assert page.count("✓") == 26
    root = Path(tn.__file__).parents[1]
    shown = re.findall(r'<code>([^<]*)</code> <span class="dim">([^<]*):(\d+)', page)
    assert len(shown) == sum(len(e.code) for e in EQUATIONS)
    for line, file, number in shown:
        assert html.unescape(line) in (root / file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert "z = x @ W.T" in page
    assert len(page.encode()) <= 200_000


def test_both_languages_are_complete(page):
    assert page.count('lang="en">') - 1 == page.count('lang="zh">')
    assert all(bool(e.erratum) == bool(e.erratum_zh) == bool(e.printed) for e in EQUATIONS)


def test_without_jax_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    page = equations.equations_page()
    assert "Not compared with JAX" in page
    assert '<p class="check"' not in page

"""The formulas as MathML: well-formed, and with the structure that the notation means."""

import re
from xml.etree import ElementTree

import pytest

from tinynet.equations import EQUATIONS
from tinynet.pages.mathml import mathml, with_formulas


def outline(element):
    """A formula as nested text: `mfrac(a b)`."""
    inside = " ".join(map(outline, element)) if len(element) else (element.text or "")
    return f"{element.tag}({inside})" if element.tag not in ("math", "mi", "mn", "mo", "mrow") else inside


def shown(formula):
    return re.sub(r"\s+", " ", outline(ElementTree.fromstring(mathml(formula)))).strip()


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("z^l = W^l a^(l−1)", "msup(z l) = msup(W l) mspace() msup(a l − 1)"),
        ("∇W_ks = ∂E_i/∂W_ks", "∇ msub(W k s) = mfrac(∂ msub(E i) ∂ msub(W k s))"),
        ("1 / (1 + e^−x)", "mfrac(1 1 + msup(e − x))"),
        ("δ_i^l", "msubsup(δ i l)"),
        ("Σ_k ŷ_k", "munder(∑ k) mspace() msub(ŷ k)"),
        ("W²ᵀ δ²", "msup(( msup(W 2) ) T) mspace() msup(δ 2)"),
        ("½ Σ (ŷ − y)² / m", "½ ∑ mfrac(msup(( ŷ − y ) 2) m)"),
        ("z¹² = Conv2d(a⁰)", "msup(z 12) = Conv2d ( msup(a 0) )"),
        ("∂E/∂0.W²", "mfrac(∂ E ∂ msup(0.W 2))"),
        ("f′(z¹) <", "msup(f ′) ( msup(z 1) ) <"),
    ],
)
def test_the_notation_means_what_it_says(formula, expected):
    assert shown(formula) == expected


@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda e: str(e.number))
def test_every_equation_is_well_formed_and_loses_no_symbol(equation):
    for formula in filter(None, (equation.formula, equation.printed)):
        text = "".join(ElementTree.fromstring(mathml(formula)).itertext())
        plain = formula.translate(str.maketrans("²Σᵀ", "2∑T", " _^{}/"))
        assert sorted(re.sub(r"[()]", "", text)) == sorted(re.sub(r"[()]", "", plain))


def test_a_sentence_keeps_its_words_and_escapes_them():
    html = with_formulas("prints W_hk for f′(z^l) & <b>")
    assert html.startswith("prints <math>")
    assert html.count("<math>") == 2
    assert html.endswith(" &amp; &lt;b&gt;")

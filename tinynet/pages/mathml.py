"""Formulas as MathML."""

from __future__ import annotations

import re
from html import escape

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<above>[⁰¹²³⁴⁵⁶⁷⁸⁹]+|[′ᵀ])|(?P<script>[_^])|(?P<open>[({])|(?P<close>[)}])"
    r"|(?P<name>(?:\d+\.)+[A-Za-z][A-Za-z0-9_]*|[A-Z][A-Za-z]+\d*[a-z]*)"
    r"|(?P<number>\d+(?:\.\d+)?(?:e−\d+)?|½)|(?P<letter>[^\W_])|(?P<sign>.)"
)
_PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹ᵀΣ", "0123456789T∑")
_OPEN, _CLOSE = '<mo stretchy="false">(</mo>', '<mo stretchy="false">)</mo>'
_SPACE = '<mspace width="0.2em"></mspace>'
_TAGS = {"name": "mi", "letter": "mi", "number": "mn", "above": "mi"}


def mathml(formula: str) -> str:
    """Return a formula as a `<math>` element: one of `EQUATIONS` or of a trace.

    The notation: `_ks` and `^l` or `^(l−1)` are scripts, and so are ¹, ′ and ᵀ; `a/b` is a fraction; several letters of
    which the first is a capital are one name. Everything else stands as it is.
    """
    tokens = [(str(found.lastgroup), found.group()) for found in _TOKEN.finditer(formula)]
    row = ""
    while tokens:
        row += _quotient(tokens)
    row = re.sub(f"{_SPACE}(?=<mo[> ])|(?<=</mo>){_SPACE}", "", row)  # an operator brings its own
    return f"<math>{row}</math>"


def with_formulas(text: str) -> str:
    """Return HTML of a sentence in which what has an index, `a_1^l`, is a formula."""
    index = r"(?:[A-Za-z]+|\d|\([^()]*\)|\{[^{}]*\})"
    parts = re.split(rf"(\w′?\(\w[_^]{index}\)|\S*\w(?:[_^]{index})+)", text)
    return "".join(mathml(part) if i % 2 else escape(part) for i, part in enumerate(parts))


def _quotient(tokens: list[tuple[str, str]]) -> str:
    """Take a term and, after a slash, what it is divided by."""
    term = _term(tokens)
    after = next((i for i, (kind, _) in enumerate(tokens) if kind != "space"), len(tokens))
    if tokens[after : after + 1] != [("sign", "/")]:
        return term
    del tokens[: after + 1]
    while tokens[0][0] == "space":
        tokens.pop(0)
    return f"<mfrac>{_without_brackets(term)}{_without_brackets(_term(tokens))}</mfrac>"


def _term(tokens: list[tuple[str, str]]) -> str:
    """Take a symbol, or what stands in brackets, with its scripts."""
    kind, text = tokens.pop(0)
    if kind == "space":
        return _SPACE
    if text in ("∂", "∇") and tokens:
        return f"<mrow><mo>{text}</mo>{_term(tokens)}</mrow>"
    if kind == "open":
        term = _bracket(tokens, text)
    else:
        tag = _TAGS.get(kind, "mo") if text != "Σ" else "mo"
        term = f"<{tag}>{escape(text.translate(_PLAIN))}</{tag}>"
    below = above = ""
    while tokens and tokens[0][0] in ("above", "script"):
        kind, mark = tokens.pop(0)
        if mark == "ᵀ" and above:
            term, below, above = f"<mrow>{_OPEN}{_scripted(term, below, above)}{_CLOSE}</mrow>", "", ""
        if kind == "above":
            sign = "mo" if mark in "′ᵀ" else "mn"
            above += f"<{sign}>{mark.translate(_PLAIN)}</{sign}>"
        elif mark == "_":
            below += _script(tokens)
        else:
            above += _script(tokens)
    return f"<munder>{term}<mrow>{below}</mrow></munder>" if text == "Σ" and below else _scripted(term, below, above)


def _scripted(term: str, below: str, above: str) -> str:
    tag = ("msub" if below else "") + ("sup" if below and above else "msup" if above else "")
    scripts = "".join(f"<mrow>{script}</mrow>" for script in (below, above) if script)
    return f"<{tag}>{term}{scripts}</{tag}>" if tag else term


def _bracket(tokens: list[tuple[str, str]], opening: str) -> str:
    row = ""
    while tokens and tokens[0][0] != "close":
        row += _quotient(tokens)
    del tokens[:1]
    return f"<mrow>{_OPEN}{row}{_CLOSE}</mrow>" if opening == "(" else f"<mrow>{row}</mrow>"


def _script(tokens: list[tuple[str, str]]) -> str:
    """Take an index: letters, or a sign and a letter, or what stands in brackets."""
    if tokens[0][0] == "open":
        return _without_brackets(_bracket(tokens, tokens.pop(0)[1]))
    index = _term([tokens.pop(0)]) if tokens[0][0] == "sign" else ""
    while tokens and tokens[0][0] in ("letter", "number", "name"):
        index += _term([tokens.pop(0)])
    return index


def _without_brackets(term: str) -> str:
    opening, closing = f"<mrow>{_OPEN}", f"{_CLOSE}</mrow>"
    bracketed = term.startswith(opening) and term.endswith(closing)
    return f"<mrow>{term[len(opening) : -len(closing)]}</mrow>" if bracketed else term

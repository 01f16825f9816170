"""Pages: each one file that needs nothing else, a template of this folder filled with the style that all share."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any


def fill(template: str, **parts: str) -> str:
    """Return a template with `{{style}}` and each `{{name}}` of `parts` filled in."""
    page = read(template)
    for name, text in {"style": read("style.css"), **parts}.items():
        page = page.replace("{{" + name + "}}", text)
    return page


def in_notebook(title: str, page: str, text: str) -> str:
    """Return HTML for a notebook: the page in a frame of its own, and folded up the same as text."""
    style = "width: 100%; height: 820px; border: 0"
    return (
        f'<iframe title="{title}" sandbox="allow-scripts" style="{style}" srcdoc="{escape(page)}"></iframe>'
        f"<details><summary>As text</summary><pre>{escape(text)}</pre></details>"
    )


def read(name: str) -> str:
    """Return the text of a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def as_json(data: Any) -> str:
    """Return JSON that may stand in a `<script>` element: with nothing in it that could end the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

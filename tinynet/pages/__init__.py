"""Pages: each one file that needs nothing else, a template of this folder filled with the style that all share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def fill(template: str, **parts: str) -> str:
    """Return a template with `{{style}}` and each `{{name}}` of `parts` filled in."""
    page = read(template)
    for name, text in {"style": read("style.css"), **parts}.items():
        page = page.replace("{{" + name + "}}", text)
    return page


def read(name: str) -> str:
    """Return the text of a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def as_json(data: Any) -> str:
    """Return JSON that may stand in a `<script>` element: with nothing in it that could end the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

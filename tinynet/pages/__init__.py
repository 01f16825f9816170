"""Pages: each one file that needs nothing else, a template filled with data and the style that all share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def fill(name: str, data: Any) -> str:
    """Return the page `name`.html of this folder with the style, its script and `data` as JSON in it."""
    page = (_FOLDER / f"{name}.html").read_text(encoding="utf-8")
    record = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"style": _FOLDER / "style.css", "script": _FOLDER / f"{name}.js"}
    for part, file in parts.items():
        page = page.replace("{{" + part + "}}", file.read_text(encoding="utf-8"))
    return page.replace("{{data}}", record)

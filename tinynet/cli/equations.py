"""`tinynet equations`: the document's table."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from tinynet.cli.options import tell_of_page
from tinynet.equations import EQUATIONS
from tinynet.files.atomic import write_atomically


def add_parser(subparsers: Any) -> None:
    """Add `equations` to the command line."""
    parser = subparsers.add_parser("equations", help="print equations (1)–(26): formula, erratum, code, check")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print the table of tinynet/README.md")
    form.add_argument("--html", type=Path, metavar="FILE", help="write a page, in English and Chinese")
    parser.add_argument("--open", action="store_true", help="open the page, equations.html if --html names none")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, or write it as a page."""
    if args.html is not None or args.open:
        from tinynet.pages.equations import equations_page

        path = args.html or Path("equations.html")
        write_atomically(path, equations_page().encode())
        tell_of_page(path, show=args.open)
        return 0
    if args.json:
        print(json.dumps([dataclasses.asdict(e) for e in EQUATIONS], ensure_ascii=False, indent=2))
        return 0
    if args.markdown:
        print("| | equation | implemented in |", "|---|---|---|", sep="\n")
        for e in EQUATIONS:
            print(f"| ({e.number}){'†' if e.erratum else ''} | `{e.formula}` | {', '.join(map(_link, e.code))} |")
        return 0
    for e in EQUATIONS:
        print(f"{f'({e.number})':>4}  {e.formula}")
        rows = [("erratum", e.erratum)] if e.erratum else []
        rows += [("code", code) for code in e.code] + [("check", check) for check in e.checks]
        for name, value in rows:
            print(f"      {name:<8} {value}")
    return 0


def _link(code: str) -> str:
    """Return a Markdown link from tinynet/README.md to the file."""
    module, name = code.split(":")
    path = module.removeprefix("tinynet.").replace(".", "/")
    return f"[`{name}`]({path}.py)"

"""Read the options that several commands have, and tell of a page that was written."""

from __future__ import annotations

import argparse
import os
import webbrowser
from pathlib import Path


def positive(text: str) -> int:
    """Return an integer of at least 1."""
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a positive integer of at most 18 digits")
    return int(text)


def seed(text: str) -> int:
    """Return an integer that NumPy and scikit-learn both take for a seed."""
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 2³² − 1")
    return int(text)


def widths(text: str) -> tuple[int, ...]:
    """Return the widths of hidden layers; none for an empty text."""
    return tuple(positive(part) for part in text.split(",")) if text else ()


def check_writable(option: str, path: Path) -> None:
    """Raise ValueError now, rather than after the work, if a file cannot be written."""
    folder = path.absolute().parent
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; expected a file")
    if not folder.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path}: the folder {folder} cannot be written to")


def tell_of_page(path: Path, *, show: bool) -> None:
    """Print where a page was written and how large it is, and open it if it is to be shown."""
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")
    if show:
        webbrowser.open(path.resolve().as_uri())

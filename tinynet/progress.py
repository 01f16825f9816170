"""The progress bar of a long piece of work."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(total: int, unit: str, shown: bool) -> AbstractContextManager[Any]:
    """Return a bar of tqdm's as a context, or one that gives None if it is not to be shown.

    Raises:
        ImportError: it is to be shown and tqdm is not installed.
    """
    if not shown:
        return nullcontext()
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('progress=True needs tqdm; use pip install "tinynet[train]"') from None
    return tqdm(total=total, unit=unit)  # type: ignore[no-any-return]

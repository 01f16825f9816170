"""The progress bar of a long piece of work."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["progress_bar", "shown"]


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
        raise ImportError('progress=True needs tqdm; use pip install "tinynet-grad[train]"') from None
    layout = "{percentage:3.0f}%|{bar}| {n}/{total} [{remaining}{postfix}]"  # with the numbers, within 80 columns
    return tqdm(total=total, unit=unit, dynamic_ncols=True, bar_format=layout)  # type: ignore[no-any-return]


def shown(row: dict[str, float]) -> dict[str, str]:
    """What the bar has room for: the loss, and each metric on the validation data where there are any."""
    seen_on_validation = {name for name in row if name != "loss" and f"validation_{name}" in row}
    fitting = {name: value for name, value in row.items() if name != "seconds" and name not in seen_on_validation}
    return {name.replace("validation_", "val_"): f"{value:.3g}" for name, value in fitting.items()}

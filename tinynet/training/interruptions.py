"""Ctrl-C while training: the first ends it at the next batch boundary, the second at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tinynet.arrays import Params

__all__ = ["Interrupt", "Interrupted", "deferred_interrupt"]


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed."""

    asked: bool = False


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended the training at a batch boundary.

    Attributes:
        epoch, batch: the first batch that was not trained on, both counted from 0.
        params: the parameters after the last update.
        checkpoint: the file to go on from; None where none was asked for.
    """

    def __init__(self, epoch: int, batch: int, params: Params, checkpoint: str | os.PathLike[str] | None) -> None:
        how = (
            "the parameters so far are in this error's `params`; with fit(checkpoint=…) the run could go on"
            if checkpoint is None
            else f"saved to {os.fspath(checkpoint)}; to go on, make the same call again"
        )
        super().__init__(f"fit: interrupted before epoch {epoch}, batch {batch}; {how}")
        self.epoch, self.batch, self.params, self.checkpoint = epoch, batch, params, checkpoint


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Give an `Interrupt` that the first Ctrl-C sets; the second raises KeyboardInterrupt, as it does outside.

    Where Ctrl-C is not Python's own to handle (in a thread, under another handler, ignored in the background), that
    stays as it is.
    """
    interrupt = Interrupt()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def ask(_signum: int, _frame: FrameType | None) -> None:
        interrupt.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nending at the next batch; Ctrl-C again to end at once", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

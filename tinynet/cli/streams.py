"""Give a command streams that it can write to, whatever was done to those of the process."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class Output:
    """Standard output whose reader may leave, as `head` does: what is written afterwards goes nowhere."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._nothing_left():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._nothing_left():
            self._stream.flush()

    @contextlib.contextmanager
    def _nothing_left(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            to_nowhere(self._stream)  # or it would fail again at exit
            if not isinstance(error, BrokenPipeError):
                raise OSError(f"standard output cannot be written: {error.strerror}") from error


def to_nowhere(stream: Any) -> None:
    """Let a stream that cannot be written lose what it still holds, which Python would try to write at exit."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def prepared_streams() -> Iterator[None]:
    """Set up standard output and error, and at the end put back what was there before.

    A closed standard error takes what is written to it, silently. A sign that the encoding lacks is spelled out.
    """
    with contextlib.ExitStack() as stack:
        if sys.stderr is None:
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        if sys.stdout is None:
            raise OSError("standard output is closed; send it to a file, or to /dev/null")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="tinynet.spelled")  # registered by `tinynet.inspection`
        output = Output(sys.stdout)
        stack.enter_context(contextlib.redirect_stdout(output))
        try:
            yield
        finally:
            output.flush()

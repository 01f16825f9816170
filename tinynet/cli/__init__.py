"""Run the command line: `tinynet train`, `predict`, `evaluate`, `verify`, `trace`, `equations`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence

import tinynet
from tinynet.cli import equations, predict, trace, train, verify
from tinynet.cli.streams import prepared_streams, to_nowhere
from tinynet.files.container import printable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted.

    What goes wrong is one line on standard error. A reader that leaves, as `head` does, changes no exit code.
    """
    try:
        with prepared_streams():
            return _run(argv)
    except KeyboardInterrupt as interrupt:
        code = _complain(interrupt, "interrupted", 130)
        _end_though_busy(code)
        return code
    except tinynet.DivergenceError as error:
        return _complain(error, "diverged", 1)
    except MemoryError as error:
        return _complain(error, "not enough memory", 2)
    except (ValueError, TypeError, ImportError, OSError, OverflowError) as error:
        return _complain(error, type(error).__name__, 2)


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="tinynet", description=tinynet.__doc__)
    parser.add_argument("--version", action="version", version=f"tinynet {tinynet.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for command in (train, predict, verify, trace, equations):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    return int(args.run(args))


def _end_though_busy(code: int) -> None:
    """End the process if a verification is still inside compiled code, which would abort the end of the interpreter."""
    if any(thread.name == "tinynet.verify" for thread in threading.enumerate()):
        os._exit(code)


def _complain(error: BaseException, otherwise: str, code: int) -> int:
    """Print the message of an error, in one line that no terminal obeys, and return the exit code."""
    if sys.stderr is not None:  # print would choose standard output
        try:
            print(f"tinynet: {printable(' '.join(str(error).split()) or otherwise)}", file=sys.stderr, flush=True)
        except OSError:
            to_nowhere(sys.stderr)
    return code

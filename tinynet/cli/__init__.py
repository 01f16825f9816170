"""Run the command line: `tinynet train`, `tinynet verify`, `tinynet trace`, `tinynet equations`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

import tinynet
from tinynet.cli import equations, trace, train, verify

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="tinynet", description=tinynet.__doc__)
    parser.add_argument("--version", action="version", version=f"tinynet {tinynet.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for command in (train, verify, trace, equations):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot write ŷ gets a "?"
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read the output, `head` perhaps, has seen enough; leave nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"tinynet: {error}", file=sys.stderr)
        return 2
    except tinynet.DivergenceError as error:
        print(f"tinynet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"tinynet: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130

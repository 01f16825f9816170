"""The command line: `tinynet train`, `tinynet verify`, `tinynet equations`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tinynet
from tinynet.commands import equations, train, verify

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="tinynet", description=tinynet.__doc__)
    parser.add_argument("--version", action="version", version=f"tinynet {tinynet.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for command in (train, verify, equations):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"tinynet: {error}", file=sys.stderr)
        return 2
    except tinynet.DivergenceError as error:
        print(f"tinynet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tinynet: interrupted", file=sys.stderr)
        return 130

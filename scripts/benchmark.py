"""Measure what tinynet takes, beside the floor and the peers, interleaved in one run.

    python scripts/benchmark.py                       # every table, an hour
    python scripts/benchmark.py steps --json out.json --png sweeps.png
    python scripts/benchmark.py --quick               # that it runs, not how fast

The tables, each with a module in `benchmarks/` that says what it measures: `steps` of the document's network, `models`
as people train them today, `verify`, and a whole `job` from nothing to a result.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import job, models, steps, verify
from threadpoolctl import threadpool_info

PACKAGES = ("numpy", "jax", "torch", "scikit-learn", "thinc", "optax", "keras", "autograd", "threadpoolctl")
TABLES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "steps": lambda args: steps.measure(rounds=args.rounds, rows=args.rows, quick=args.quick, png=args.png),
    "models": lambda args: models.measure(rounds=args.rounds, quick=args.quick),
    "verify": lambda args: verify.measure(quick=args.quick),
    "job": lambda args: job.measure(rounds=args.rounds),
}


def machine() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    devices = []
    with contextlib.suppress(ImportError):
        import jax

        devices = [device.device_kind for device in jax.devices()]
    blas = sorted({f"{p['internal_api']} {p['version']}" for p in threadpool_info() if p["user_api"] == "blas"})
    return {
        "processor": _processor(),
        "cpus": steps.CPUS,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "blas": blas,
        "jax_devices": devices,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=TABLES, help="only this table")
    parser.add_argument("--quick", action="store_true", help="small networks, two rounds: does it run?")
    parser.add_argument("--rounds", type=int, help="rounds for the median (default: 15)")
    parser.add_argument(
        "--rows", type=int, nargs="*", choices=range(len(steps.ROWS)), help="only these rows of `steps`"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--png", type=Path, help="draw the sweeps of `steps` over batch, width and depth here")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 15)

    figures: dict[str, Any] = {"machine": machine()}
    info = figures["machine"]
    print(f"{info['processor']}, {info['cpus']} cpus, load {info['load']}; {info['system']}, Python {info['python']}")
    print(", ".join(f"{k} {v}" for k, v in info["versions"].items()) + "; " + ", ".join(info["blas"]))
    print(f"JAX on {', '.join(info['jax_devices']) or 'nothing'}")
    for name in [args.table] if args.table else TABLES:
        figures |= TABLES[name](args)
    if args.json:
        temporary = args.json.with_name(args.json.name + ".partial")
        temporary.write_text(json.dumps(figures, indent=2))
        os.replace(temporary, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`tinynet verify`: is a hand-derived gradient right, and if not, where and why?"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tinynet.cli.options import check_writable, seed

if TYPE_CHECKING:
    from tinynet.verification import Report
    from tinynet.verification.cases import Case

NETWORKS = 50


def add_parser(subparsers: Any) -> None:
    """Add `verify` to the command line."""
    parser = subparsers.add_parser(
        "verify",
        help="compare gradients derived by hand with the exact ones of their own forward pass",
        description="Compare gradients derived by hand with the exact ones of their own forward pass, and name what is "
        "wrong. Exit code 0: right; 1: wrong; 2: inconclusive, or misused.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="MODULE:TARGET",
        help="a class, an instance, a function that returns (y, backprop), a pair `forward, backward`, or a call: "
        "'mylayers:MyLayer(4, 3)'; names are looked up in the module, then in tinynet",
    )
    parser.add_argument("--all", metavar="PACKAGE", help="every public layer and loss, then random networks")
    parser.add_argument(
        "--self-test",
        action="store_true",
        help="verify the verifier: faults seeded into a few right layers, or into all of --all PACKAGE, with the score",
    )
    parser.add_argument(
        "--inputs",
        type=_input,
        action="append",
        default=[],
        metavar="[NAME=]M,N",
        help="shape of x; once an argument, in order or by name",
    )
    parser.add_argument(
        "--flag", type=_flag, action="append", default=[], metavar="NAME=VALUE", help="a constant argument: train=true"
    )
    parser.add_argument("--wrt", action="append", metavar="NAME", help="judge only this gradient; may be repeated")
    parser.add_argument(
        "--name-seconds", type=float, default=10.0, metavar="S", help="how long to look for names (default: 10)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of every random number (default: 0)")
    parser.add_argument("--probe", action="append", metavar="NAME", help="only this probe; may be repeated")
    parser.add_argument("--dtype", action="append", choices=("float64", "float32"), help="default: both")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with heat maps of what is wrong")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify and print; return 0 if all is right, 1 if something is wrong, 2 if nothing could be said."""
    if (args.target is not None) == (args.all is not None or args.self_test):
        raise ValueError("verify: expected one of MODULE:TARGET, --all PACKAGE and --self-test")
    for option in ("inputs", "flag", "wrt"):
        if args.all is not None and getattr(args, option):
            raise ValueError(f"verify: --{option} goes with one target, not with --all")
    for option in ("inputs", "flag", "wrt", "seed", "probe", "dtype"):
        if args.self_test and getattr(args, option):
            raise ValueError(f"verify: --{option} does not go with --self-test, which takes every probe and seed 0")
    if args.html is not None:
        check_writable("--html", args.html)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if args.self_test:
        return _self_test(args)
    if args.all is not None:
        return _verify_all(args)
    return _verify_one(args)


def _self_test(args: argparse.Namespace) -> int:
    """Verify the verifier: of the faults seeded into right layers, all are found, 90 % named, none named wrongly."""
    from tinynet.verification.selftest import TARGETS, self_test, tabulate
    from tinynet.verification.targets import cases_of

    def with_bar(items: Sequence[Any]) -> Iterator[Any]:
        with _bar(len(items)) as bar:
            for item in items:
                yield item
                bar.update()

    with contextlib.redirect_stdout(sys.stderr):
        targets = TARGETS if args.all is None else cases_of(args.all)
        outcomes = self_test(targets, progress=with_bar)
    seeded = {outcome.target for outcome in outcomes}
    for target in targets:
        if str(target) not in seeded:
            print(f"no fault is seeded into {target}: it is no layer or loss of one array", file=sys.stderr)
    scores = tabulate(outcomes)
    if args.html is not None:
        from tinynet.verification.html import write_html

        write_html([outcome.report for outcome in outcomes], args.html)
    if args.json:
        print(json.dumps([vars(score) for score in scores], ensure_ascii=False, indent=2))
    else:
        print(f"{'fault':<32} seeded  found  named  misnamed")
        for s in scores:
            print(f"{s.name:<32} {s.seeded:>6} {s.found:>6} {s.named:>6} {s.misnamed:>9}")
    total = scores[-1]
    return 0 if total.found == total.seeded and total.named >= 0.9 * total.seeded and not total.misnamed else 1


def _verify_one(args: argparse.Namespace) -> int:
    from tinynet.verification import TargetError, verify
    from tinynet.verification.targets import load_target

    out = sys.stdout

    said: list[Report] = []

    def say(report: Report) -> None:
        if not args.json:
            said.append(report)
            print(report, file=out, flush=True)

    # What the user's code prints is not our output.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            target = load_target(args.target)
            report = verify(target, inputs=_inputs(target, args), wrt=args.wrt, on_verdict=say, **_options(args))
        except TargetError as error:
            raise ValueError(_in_one_line(error)) from error
    if args.html is not None:
        report.to_html(args.html)
    if args.json:
        print(report.to_json())
    elif not said:
        print(report)
    else:
        print(*report.findings, sep="\n", end="\n" * bool(report.findings))
    return _exit_code([report])


def _verify_all(args: argparse.Namespace) -> int:
    from tinynet.verification.random_networks import activations_among
    from tinynet.verification.targets import cases_of

    with contextlib.redirect_stdout(sys.stderr):
        cases = cases_of(args.all)
    activations = activations_among(case.target for case in cases)
    networks = "" if activations else f"{args.all} has no layer without parameters that keeps the shape of its input"
    if args.probe:
        networks = "--probe was given"
    elif importlib.util.find_spec("hypothesis") is None:
        networks = 'hypothesis is not installed; use pip install "tinynet-grad[verify]"'
    reports: list[Report] = []
    with _bar(len(cases) + (0 if networks else NETWORKS)) as bar:

        def say(line: str) -> None:
            if not args.json:  # or else nothing but JSON is printed
                bar.write(line, file=sys.stdout)

        for case in cases:
            reports.append(_verify_case(case, args))
            bar.update()
            say(_line(reports[-1]))
        if networks:
            say(f"SKIPPED       random networks: {networks}")
        else:
            reports.append(_verify_networks(activations, args.seed, bar))
            say(_line(reports[-1]))
    if args.html is not None:
        from tinynet.verification.html import write_html

        write_html(reports, args.html)
    if args.json:
        plain = {"reports": [json.loads(report.to_json()) for report in reports], "skipped": {}}
        if networks:
            plain["skipped"] = {"random networks": networks}
        print(json.dumps(plain, ensure_ascii=False, indent=2))
    else:
        for report in reports:
            if report.verdict == "FAIL":
                print(f"\n{report}")
        print(f"\n{_summary(reports)}")
    return _exit_code(reports)


def _verify_case(case: Case, args: argparse.Namespace) -> Report:
    from tinynet.verification import Report, TargetError, verify

    try:
        with contextlib.redirect_stdout(sys.stderr):
            report = verify(case.target, inputs=case.inputs, reference=case.reference, **_options(args))
    except TargetError as error:
        return Report(str(case), "INCONCLUSIVE", (), (), "nothing", reason=_in_one_line(error), seed=args.seed)
    return replace(report, target=case.name) if case.name else report


def _verify_networks(activations: Sequence[Any], seed: int, bar: Any) -> Report:
    from tinynet.verification.random_networks import verify_networks

    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        report = verify_networks(activations, count=NETWORKS, seed=seed, step=bar.update)
    return replace(report, seconds=time.perf_counter() - start)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "seed": args.seed,
        "probes": args.probe,
        "dtype": tuple(args.dtype or ("float64", "float32")),
        "name_seconds": args.name_seconds,
    }


def _inputs(target: Any, args: argparse.Namespace) -> Any:
    """Return `inputs` for verify: by order, or by name where something has a name."""
    from tinynet.verification.adapters.arguments import signature_of
    from tinynet.verification.reproduce import forward_of

    unnamed = [shape for name, shape in args.inputs if not name]
    named = dict([(name, shape) for name, shape in args.inputs if name] + args.flag)
    if not named:
        return tuple(unnamed) or None
    forward = forward_of(target)
    free = [p.name for p in signature_of(forward) if p.name not in named] if forward is not None and unnamed else []
    if len(free) < len(unnamed):
        raise ValueError(f"verify: --inputs has {len(unnamed)} shapes without a name, for {len(free)} arguments")
    return dict(zip(free, unnamed, strict=False)) | named


def _in_one_line(text: object) -> str:
    return " ".join(str(text).split())


def _line(report: Report) -> str:
    if report.verdict == "FAIL":
        found = dict.fromkeys(f"{', '.join((f.gradient, *f.also))}: {f.name}" for f in report.findings)
        told = "; ".join(found)
    elif report.verdict == "INCONCLUSIVE":
        told = _in_one_line(report.reason)
    else:
        worst = max((r for p in report.coverage for r in p.ratios.values()), default=0.0)
        told = f"{worst:.2g} of the tolerance"
    return f"{report.verdict:<12}  {report.target}  {told}  ({report.seconds:.1f} s)"


def _summary(reports: Sequence[Report]) -> str:
    count = Counter(report.verdict for report in reports)
    others = [f"{count[verdict]} {verdict.lower()}" for verdict in ("FAIL", "INCONCLUSIVE") if count[verdict]]
    seconds = sum(report.seconds for report in reports)
    told = ", ".join([f"{count['PASS']} of {len(reports)} pass", *others])
    return f"{told}, in {seconds:.1f} s"


def _exit_code(reports: Sequence[Report]) -> int:
    if any(report.verdict == "FAIL" for report in reports):
        return 1
    return 0 if all(report.ok for report in reports) else 2


def _bar(total: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return contextlib.nullcontext(SimpleNamespace(write=print, update=lambda: None))
    return tqdm(total=total, unit="", disable=None, leave=False)


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\(?\d+(,\d+)*,?\)?", text.replace(" ", "")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape; expected whole numbers with commas, as 5,4")
    shape = tuple(map(int, re.findall(r"\d+", text)))
    if 0 in shape:
        raise argparse.ArgumentTypeError(f"{text!r} has no entries; the empty batch is a probe of its own")
    return shape


def _input(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, shape = text.rpartition("=")
    return name, _shape(shape)


def _flag(text: str) -> tuple[str, Any]:
    """Return the name and the value: true, false, none, a number or a text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is no flag; expected NAME=VALUE, as train=true")
    try:
        return name, ast.literal_eval(value.capitalize() if value in ("true", "false", "none") else value)
    except (ValueError, SyntaxError):
        return name, value

"""Show back-propagation step by step, on paper or on a page: `tinynet trace`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import tinynet as tn
from tinynet.cli.model import Model, load_model
from tinynet.cli.options import positive, seed, tell_of_page, widths
from tinynet.cli.predict import read_samples
from tinynet.cli.tables import Task, read_csv, read_npz, split
from tinynet.cli.train import sigmoid_network
from tinynet.files.container import FileError
from tinynet.inspection import Trace
from tinynet.pages.examples import EXAMPLES
from tinynet.trees import leaves

LOSS = tn.SquaredError("mean")


def add_parser(subparsers: Any) -> None:
    """Add `trace` to the command line."""
    parser = subparsers.add_parser(
        "trace",
        help="show a pass forward and backward, each number with its equation; --html makes a page of it",
        description="Show a pass forward and backward step by step: of an example, of a new sigmoid network on rows of "
        "your table, or of a network that was saved.",
    )
    parser.add_argument("data", nargs="?", type=Path, help="a .csv or .npz file (default: the example)")
    parser.add_argument("--example", choices=sorted(EXAMPLES), help="default: mazur, a published one, 2-2-2")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a saved network, on the first rows of DATA or on --x, --y"
    )
    parser.add_argument("--x", type=_numbers, metavar="N,N,…", help="the sample, instead of DATA")
    parser.add_argument("--y", type=_numbers, metavar="N,N,…", help="its target")
    parser.add_argument("--target", help="CSV column to predict, by name or index (default: the last)")
    parser.add_argument("--rows", type=positive, default=1, metavar="N", help="training rows of DATA (default: 1)")
    parser.add_argument("--hidden", type=widths, default=(3,), metavar="N[,N…]", help="hidden widths (default: 3)")
    parser.add_argument("--seed", type=seed, default=0, help="of the weights and of the rows (default: 0)")
    parser.add_argument("--lr", type=float, default=0.5, help="learning rate η of the updates (default: 0.5)")
    parser.add_argument("--steps", type=positive, default=2, help="training steps on the page (default: 2)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page; nothing else is needed to look at it")
    parser.add_argument("--open", action="store_true", help="open the page, trace.html if --html names none")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the trace, or write its page."""
    trace = _trace(args)
    if args.html is None and not args.open:
        print(trace)
        return 0
    path = args.html or Path("trace.html")
    trace.to_html(path, lr=args.lr, steps=args.steps)
    tell_of_page(path, show=args.open)
    return 0


def _trace(args: argparse.Namespace) -> Trace:
    if args.example is not None and (args.data is not None or args.checkpoint is not None):
        raise ValueError("--example has its own network and samples; leave out DATA and --checkpoint")
    if args.checkpoint is not None:
        return _of_saved(args)
    if args.data is None:
        return tn.trace(*EXAMPLES[args.example or "mazur"]())
    x, y, task = _standardised(args)
    net = sigmoid_network([x.shape[1], *args.hidden, y.shape[1]], task)
    return tn.trace(net, LOSS, net.init(np.random.default_rng(args.seed), float), x, y)


def _of_saved(args: argparse.Namespace) -> Trace:
    """Trace a saved network; what `tinynet train` saved takes samples in the units of its table."""
    if args.data is None and (args.x is None or args.y is None):
        raise ValueError("--checkpoint needs a sample: a table DATA, or --x and --y with its numbers")
    net, params = tn.load(args.checkpoint)
    state = tn.load_state(args.checkpoint).layers if leaves(net.init_state()) else None
    model = _model(args.checkpoint)
    if args.data is None:
        x, y = np.array([args.x]), np.array([args.y])
        if model is not None:
            x, y = model.features(x), model.targets(y[:, 0]) if model.task == "regress" else y
    elif model is not None and args.data.suffix != ".npz":
        x, target, _ = read_samples(args.data, "utf-8-sig", model)
        x, y = model.features(x[: args.rows]), model.targets(target[: args.rows])
    else:
        x, y, _ = _standardised(args)
    return tn.trace(net, LOSS, tn.map_leaves(lambda p: np.asarray(p, float), params), x.astype(float), y, state=state)


def _standardised(args: argparse.Namespace) -> tuple[Any, Any, Task]:
    """Return rows of DATA as `tinynet train` takes them: shuffled, scaled by what they show, classes one-hot."""
    table = read_npz(args.data) if args.data.suffix == ".npz" else read_csv(args.data, args.target)
    data = split(table, task=None, test_fraction=0.2, seed=args.seed)
    return data.x_train[: args.rows].astype(float), data.y_train[: args.rows].astype(float), data.task


def _model(path: Path) -> Model | None:
    """Return the model that `tinynet train` saved; None where a network was saved without its table."""
    try:
        return load_model(path)
    except FileError:
        return None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between them") from None

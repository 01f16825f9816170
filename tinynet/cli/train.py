"""Train a network with hand-derived gradients on handwritten digits or a table of yours: `tinynet train`."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

import tinynet as tn
from tinynet.arrays import Params
from tinynet.cli.model import Model, save_model
from tinynet.cli.options import check_writable, positive, seed, widths
from tinynet.cli.overview import write_page
from tinynet.cli.tables import Encoding, Split, Table, Task, load_digits, read_csv, read_npz, split
from tinynet.trees import map_leaves

LEARNING_RATE = {"classify": 3.0, "regress": 0.1}


def add_parser(subparsers: Any) -> None:
    """Add `train` to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train on handwritten digits or on your own table",
        description="Train a sigmoid network by mini-batch SGD on half the squared error, with gradients by hand; "
        "test it on held-out rows; and compare its gradients with jax.grad.",
    )
    parser.add_argument("data", nargs="?", type=Path, help="a .csv or .npz file (default: scikit-learn's digits)")
    parser.add_argument("--target", help="CSV column to predict, by name or index (default: the last)")
    parser.add_argument(
        "--task", choices=("classify", "regress"), help="default: regress on fractions and on more than 20 numbers"
    )
    parser.add_argument("--hidden", type=widths, default=(30,), metavar="N[,N…]", help="hidden widths (default: 30)")
    parser.add_argument("--epochs", type=positive, default=60, help="passes over the training rows (default: 60)")
    parser.add_argument("--lr", type=float, help="learning rate (default: 3 to classify, 0.1 to regress)")
    parser.add_argument("--batch-size", type=positive, default=10, help="rows per batch (default: 10)")
    parser.add_argument("--test-fraction", type=_fraction, default=0.2, help="rows held out (default: 0.2)")
    parser.add_argument("--checkpoint", type=Path, help="a file to write each epoch, and to go on from if it is there")
    parser.add_argument("--every", type=positive, metavar="N", help="write it after every N batches too")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write what was learned, for tinynet predict")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write curves, classes, layers and weights as a page")
    parser.add_argument("--encoding", default="utf-8-sig", help="of the CSV file (default: utf-8)")
    parser.add_argument("--seed", type=seed, default=0, help="of the split, the weights and the order (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, train, test, verify."""
    if args.save is not None:
        check_writable("--save", args.save)
    if args.html is not None:
        check_writable("--html", args.html)
        if importlib.util.find_spec("matplotlib") is None:
            raise ImportError('--html needs matplotlib; use pip install "tinynet-grad[plot]"')
    table = _read(args.data, args.target, args.encoding)
    # Pixels share one scale already; the columns of a table do not.
    data = split(
        table,
        task=args.task,
        test_fraction=args.test_fraction,
        seed=args.seed,
        standardise=args.data is not None,
    )
    sizes = [data.x_train.shape[1], *args.hidden, data.y_train.shape[1]]
    net = sigmoid_network(sizes, data.task)
    loss = tn.SquaredError("mean")
    optimizer = tn.SGD(LEARNING_RATE[data.task] if args.lr is None else args.lr)
    note = f"; {table.note}" if table.note else ""
    facts: dict[str, str] = {}

    def tell(name: str, text: str) -> None:
        print(f"{name:<9} {text}")
        facts[name] = text

    tell("data", f"{table.name}: {len(data.x_train)} rows to train on, {len(data.x_test)} held out{note}")
    if data.task == "regress" and args.task is None and table.target.dtype.kind in "iu":
        tell(
            "target",
            f"{table.target_name} has {len(np.unique(table.target))} distinct whole numbers: taken as a quantity; "
            "--task classify makes a class of each",
        )
    tell(
        "network",
        f"{'-'.join(map(str, sizes))} sigmoid, E = ½ Σ (ŷ − y)² / m, {optimizer}, batches of "
        f"{min(args.batch_size, len(data.x_train))}",
    )
    if args.checkpoint is not None and args.checkpoint.exists():
        tell("run", f"goes on from {args.checkpoint}")
    start = time.perf_counter()
    result = tn.fit(
        net,
        loss,
        data.x_train,
        data.y_train,
        optimizer=optimizer,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        validation=(data.x_test, data.y_test),
        metrics=["accuracy"] if data.task == "classify" else ["rmse"],
        progress=sys.stderr.isatty() or args.data is None,
        checkpoint=args.checkpoint,
        every=args.every,
    )
    seconds = time.perf_counter() - start
    tell("gradients", _compare_gradients(net, loss, result.params, data))
    epochs = len(result.history["loss"])
    if epochs > args.epochs:
        tell("run", f"{args.checkpoint} has {epochs} epochs; --epochs {args.epochs} asks for no more: none trained")
    tell(
        "result",
        f"{_score(net, loss, result.params, data)} on {len(data.x_test)} held-out rows after "
        f"{epochs} epoch{'s' if epochs > 1 else ''}, {seconds:.2f} s",
    )
    if args.html is not None:
        write_page(args.html, facts, net, result, table, data)
        print(f"page      {args.html}")
    if args.save is not None:
        encoding = {field.name: getattr(data, field.name) for field in fields(Encoding)}
        save_model(args.save, Model(net=net, params=result.params, **encoding))
        print(f"saved     {args.save}; to predict: tinynet predict {args.save} NEW.csv")
    return 0


def _read(path: Path | None, target: str | None, encoding: str) -> Table:
    if path is None:
        if target is not None:
            raise ValueError("--target names a column of a CSV file; give the file too")
        return load_digits()
    if not path.is_file():
        raise ValueError(f"{path}: no file of that name")
    if path.suffix == ".csv":
        return read_csv(path, target, encoding)
    if path.suffix == ".npz":
        if target is not None:
            raise ValueError(f'{path}: --target is for CSV files; an NPZ file has its target in the array "y"')
        return read_npz(path)
    raise ValueError(f"{path}: expected a .csv or .npz file")


def sigmoid_network(sizes: Sequence[int], task: Task) -> tn.Sequential:
    """Return affine maps between layers of these sizes, each followed by a sigmoid."""
    layers = [part for n_in, n_out in itertools.pairwise(sizes) for part in (tn.Linear(n_in, n_out), tn.Sigmoid())]
    # A sigmoid cannot leave (0, 1); a standardised target does.
    return tn.Sequential(*(layers if task == "classify" else layers[:-1]))


def _score(net: tn.Layer, loss: tn.Loss, params: Params, data: Split) -> str:
    metrics = ["accuracy"] if data.task == "classify" else ["rmse", "r2"]
    measured = tn.evaluate(net, loss, params, data.x_test, data.y_test, metrics=metrics)
    if data.task == "classify":
        return f"{measured['accuracy']:.2%} accuracy"
    return f"RMSE {measured['rmse'] * data.y_scale:.4g} (R² {measured['r2']:.3f})"


def _compare_gradients(net: tn.Layer, loss: tn.Loss, params: Params, data: Split) -> str:
    """Compare the gradients at these parameters, on all training rows, with jax.grad in float64."""
    params, x, y = map_leaves(lambda a: np.asarray(a, np.float64), (params, data.x_train, data.y_train))
    probes = ("forward", "rectangular")
    report = tn.verify(net, loss=loss, params=params, inputs=(x, y), probes=probes, dtype="float64", named=False)
    ratios = {name: r for probe in report.coverage for name, r in probe.ratios.items() if name.startswith("params")}
    worst = max(ratios, key=ratios.__getitem__, default="")
    if not report.ok:
        return f"by hand compared with jax.grad: {report.verdict}; run tinynet verify"
    return f"by hand compared with jax.grad, float64, {len(x)} rows: {ratios[worst]:.2g} of the tolerance at {worst}"


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value

"""Predict with a model that `tinynet train --save` wrote, or test it: `tinynet predict`, `tinynet evaluate`."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.cli.model import Model, load_model
from tinynet.cli.options import check_writable
from tinynet.cli.tables import read_cells, read_features, read_targets
from tinynet.files.atomic import write_atomically


def add_parser(subparsers: Any) -> None:
    """Add `predict` and `evaluate` to the command line."""
    predicting = subparsers.add_parser(
        "predict",
        help="predict the target of new rows",
        description="Print the rows of a CSV file with one column more: what the model predicts.",
    )
    testing = subparsers.add_parser(
        "evaluate",
        help="compare predictions with the targets of a table",
        description="Print how well a model predicts the targets of a table that it has not seen.",
    )
    for parser in (predicting, testing):
        parser.add_argument("model", type=Path, help="a file that tinynet train --save wrote")
        parser.add_argument("data", type=Path, help="a .csv file with the columns it was trained on, in any order")
        parser.add_argument("--encoding", default="utf-8-sig", help="of the CSV file (default: utf-8)")
    predicting.add_argument("-o", "--output", type=Path, metavar="FILE", help="write here, in the same encoding")
    predicting.set_defaults(run=run_predict)
    testing.set_defaults(run=run_evaluate)


def run_predict(args: argparse.Namespace) -> int:
    """Predict, and write the rows with their predictions."""
    if args.output is not None:
        check_writable("-o", args.output)
    model = load_model(args.model)
    header, rows, x = _read(args.data, args.encoding, model)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow([*header, f"predicted {model.target}"])
    writer.writerows([*row, shown(value)] for row, value in zip(rows, model.predict(x).tolist(), strict=True))
    if args.output is None:
        sys.stdout.write(text.getvalue())
    else:
        write_atomically(args.output, text.getvalue().encode(args.encoding.removesuffix("-sig")))
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """Compare the predictions with the targets of the table."""
    model = load_model(args.model)
    x, target, missing = read_samples(args.data, args.encoding, model)
    left_out = f" ({missing} without a target left out)" if missing else ""
    print(f"{score(model, x, target)} on {len(target)} rows of {args.data.name}{left_out}")
    return 0


def score(model: Model, x: npt.NDArray[np.float64], target: npt.NDArray[Any]) -> str:
    """Return how well a model predicts: the accuracy, or the root of the mean squared error and R²."""
    predicted = model.predict(x)
    if model.task == "classify":
        right = [shown(p) == shown(t) for p, t in zip(predicted.tolist(), target.tolist(), strict=True)]
        return f"{np.mean(right):.2%} accuracy"
    if target.dtype.kind not in "fiu":
        raise ValueError(f"{model.target} is text ({str(target[0])!r:.60}); the model predicts numbers")
    error, variance = np.mean((predicted - target) ** 2), np.var(target)
    return f"RMSE {np.sqrt(error):.4g} (R² {1 - error / variance if variance else np.nan:.3f})"


def shown(value: float | int | str) -> str:
    """Return a class or a number as text: of a number, what float32 tells apart."""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def read_samples(path: Path, encoding: str, model: Model) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any], int]:
    """Return features and targets of a CSV file, and how many rows were left out because they have no target."""
    header, rows, x = _read(path, encoding, model)
    if model.target not in header if header else len(rows[0]) == len(model.x_mean):
        raise ValueError(f"{path}: no column {model.target!r} to compare predictions with")
    column = header.index(model.target) if header else model.position
    target, known = read_targets(path, model.target, [row[column] for row in rows])
    return x[known], target, int((~known).sum())


def _read(path: Path, encoding: str, model: Model) -> tuple[list[str] | None, list[list[str]], npt.NDArray[np.float64]]:
    """Return header and rows of a CSV file, and the features that the model takes from them."""
    header, rows = read_cells(path, encoding)
    n, width = len(model.x_mean), len(rows[0])
    if header and model.columns:
        if missing := [name for name in model.columns if name not in header]:
            raise ValueError(f"{path}: no column {missing[0]!r}; the model was trained on: {', '.join(model.columns)}")
        if doubled := [name for name in model.columns if header.count(name) > 1]:
            raise ValueError(f"{path}: two columns have the name {doubled[0]!r}; rename one")
        chosen = [header.index(name) for name in model.columns]
    elif width in (n, n + 1):
        chosen = [j for j in range(width) if width == n or j != model.position]
    else:
        raise ValueError(f"{path}: {width} columns; expected {n}, or {n + 1} with the target among them")
    names = [header[j] if header else f"column {j}" for j in chosen]
    return header, rows, read_features(path, names, [[row[j] for j in chosen] for row in rows], 2 if header else 1)

"""Read tables for `tinynet train`: real digits, or the user's own CSV or NPZ file, split and scaled.

scikit-learn does the splitting, scaling and encoding (the extra `train`).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Task = Literal["classify", "regress"]


@dataclass(frozen=True)
class Table:
    """Hold features x (m, n), finite float64, and one target per row (m,): strings, integers or floats."""

    name: str
    x: npt.NDArray[np.float64]
    target: npt.NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Hold a table cut into training and test rows, float32, ready for a network.

    `classes` are the target's values, one per output, where the task is to classify. Where it is to regress, y is
    standardised and `y_scale` is the standard deviation that was divided out, in the target's units.
    """

    x_train: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.float32]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.float32]
    task: Task
    classes: npt.NDArray[Any]
    y_scale: float


def load_digits() -> Table:
    """Return the 1,797 handwritten digits of 8×8 pixels that scikit-learn ships, pixels from 0 to 1."""
    from sklearn.datasets import load_digits as sklearn_digits

    x, target = sklearn_digits(return_X_y=True)
    return Table("handwritten digits (scikit-learn)", x / 16, target)


def read_csv(path: Path, target: str | None) -> Table:
    """Read a CSV file of numbers; the first row may be a header. `target` is a column's name or index, or None: last.

    Raises:
        ValueError: the file has no rows, rows of unequal length, a feature that is not a number, or no such column.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError(f"{path}: no rows; expected a table of numbers with a target column")
    width = len(rows[0])
    for i, row in enumerate(rows, 1):
        if len(row) != width:
            raise ValueError(f"{path}: row {i} has {len(row)} fields; expected {width}, as row 1 has")
    header = rows[0] if not any(_number(cell) is not None for cell in rows[0]) else None
    column = _column(path, header, width, target)
    body = rows[1:] if header else rows
    if not body:
        raise ValueError(f"{path}: a header and no rows; expected at least two samples")
    x = np.empty((len(body), width - 1))
    for i, row in enumerate(body):
        features = row[:column] + row[column + 1 :]
        for j, cell in enumerate(features):
            value = _number(cell)
            if value is None or not np.isfinite(value):
                names = header or [f"column {k}" for k in range(width)]
                name = (names[:column] + names[column + 1 :])[j]
                raise ValueError(
                    f"{path}: row {i + 1 + bool(header)}, {name}: {cell!r} is not a finite number; "
                    "encode or remove it, or choose another --target"
                )
            x[i, j] = value
    return Table(path.name, x, _target(path, [row[column] for row in body]))


def read_npz(path: Path) -> Table:
    """Read the arrays "x" (m, n) and "y" (m,) of an NPZ file; nothing is unpickled.

    Raises:
        ValueError: an array is missing, has another shape, holds objects, or is not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not {"x", "y"} <= set(arrays):
                raise ValueError(f'{path}: holds {sorted(arrays)}; expected the arrays "x" and "y"')
            x, y = arrays["x"], arrays["y"]
    except (OSError, EOFError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not an NPZ file ({error})") from None
    if x.dtype.kind not in "fiu" or x.ndim < 2:
        raise ValueError(f"{path}: x is {x.dtype} of shape {x.shape}; expected real numbers of shape (m, n)")
    if y.shape != (len(x),):
        raise ValueError(f"{path}: y has shape {y.shape}; expected {(len(x),)}, one target per row of x")
    if not np.isfinite(x).all():
        raise ValueError(f"{path}: x has a value that is NaN or infinite; expected finite numbers")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"{path}: y has a value that is NaN or infinite; expected finite numbers")
    return Table(path.name, x.reshape(len(x), -1).astype(np.float64), y)


def split(table: Table, *, task: Task | None, test_fraction: float, seed: int, standardise: bool = True) -> Split:
    """Hold out `test_fraction` of the rows, scale by what the training rows show, and encode the target.

    `task=None` regresses on a target with fractions and classifies any other.

    Raises:
        ValueError: too few rows, a target of one class, or a target that cannot be regressed on.
    """
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.multiclass import type_of_target

    if len(table.x) < 2 or not 0 < test_fraction < 1:
        raise ValueError(
            f"{table.name}: {len(table.x)} rows, test fraction {test_fraction}; expected 2 rows and 0 < f < 1"
        )
    if task is None:
        task = "regress" if type_of_target(table.target) == "continuous" else "classify"
    classes, codes, counts = np.unique(table.target, return_inverse=True, return_counts=True)
    if task == "classify":
        if len(classes) < 2:
            raise ValueError(f"{table.name}: every target is {str(classes[0])!r}; expected at least two classes")
        y = np.eye(len(classes))[codes]
        n_test = int(np.ceil(test_fraction * len(y)))
        stratify = codes if counts.min() > 1 and len(classes) <= min(n_test, len(y) - n_test) else None
    else:
        if table.target.dtype.kind not in "fiu":
            raise ValueError(
                f"{table.name}: the target is text ({str(table.target[0])!r}); expected numbers to regress on"
            )
        classes, stratify = classes[:0], None
        y = table.target.astype(np.float64)[:, None]
    x_train, x_test, y_train, y_test = train_test_split(
        table.x, y, test_size=test_fraction, random_state=seed, stratify=stratify
    )
    y_scale = 1.0
    if standardise:
        scaler = StandardScaler().fit(x_train)
        x_train, x_test = scaler.transform(x_train), scaler.transform(x_test)
    if task == "regress":
        scaler = StandardScaler().fit(y_train)
        y_train, y_test, y_scale = scaler.transform(y_train), scaler.transform(y_test), float(scaler.scale_[0])
    x_train, y_train, x_test, y_test = (a.astype(np.float32) for a in (x_train, y_train, x_test, y_test))
    return Split(x_train, y_train, x_test, y_test, task, classes, y_scale)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _column(path: Path, header: list[str] | None, width: int, target: str | None) -> int:
    if width < 2:
        raise ValueError(f"{path}: one column; expected features and a target (fields are separated by commas)")
    if target is None:
        return width - 1
    if header and target in header:
        return header.index(target)
    if target.lstrip("-").isdigit() and -width <= int(target) < width:
        return int(target) % width
    known = ", ".join(header) if header else f"no header, indices 0 to {width - 1}"
    raise ValueError(f"{path}: no column {target!r} for --target; the columns are: {known}")


def _target(path: Path, cells: list[str]) -> npt.NDArray[Any]:
    numbers = [_number(cell) for cell in cells]
    if any(n is None for n in numbers):
        return np.array(cells)
    target = np.array(numbers, np.float64)
    if not np.isfinite(target).all():
        raise ValueError(f"{path}: the target has a value that is NaN or infinite; expected finite numbers")
    return target.astype(np.int64) if (target == np.round(target)).all() and abs(target).max() < 2**53 else target

"""Read tables for `tinynet train`: real digits, or the user's own CSV or NPZ file, split and scaled.

scikit-learn does the splitting, scaling and encoding (the extra `train`).
"""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Task = Literal["classify", "regress"]

NOT_NPZ = (OSError, EOFError, AttributeError, TypeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for a file that is not what its name says, or that claims more than there is room for."""

MISSING = {"", "na", "n/a", "nan", "null", "none"}
"""What a cell says, in any case, where nothing was measured."""

MAX_CLASSES = 20
"""Whole numbers of more distinct values than this are a quantity rather than names of classes."""


@dataclass(frozen=True)
class Table:
    """Hold features x (m, n), float64, NaN where one is missing, and one target per row (m,).

    Targets are strings, integers or floats. `columns` names the features where the file does, `position` is
    the index of the target among all columns, and `note` says what was made of the file.
    """

    name: str
    x: npt.NDArray[np.float64]
    target: npt.NDArray[Any]
    columns: tuple[str, ...] = ()
    target_name: str = "the target"
    position: int = 0
    note: str = ""


@dataclass(frozen=True)
class Split:
    """Hold a table cut into training and test rows, float32, ready for a network.

    `classes` are the target's values, one per output, where the task is to classify; where it is to regress, y is
    standardised. The numbers of the file are x · `x_scale` + `x_mean` and y · `y_scale` + `y_mean`.
    """

    x_train: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.float32]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.float32]
    task: Task
    classes: npt.NDArray[Any]
    x_mean: npt.NDArray[np.float64]
    x_scale: npt.NDArray[np.float64]
    y_mean: float
    y_scale: float


def load_digits() -> Table:
    """Return the 1,797 handwritten digits of 8×8 pixels that scikit-learn ships, pixels from 0 to 1."""
    _check_sklearn()
    from sklearn.datasets import load_digits as sklearn_digits

    x, target = sklearn_digits(return_X_y=True)
    return Table("handwritten digits (scikit-learn)", x / 16, target, target_name="digit")


def read_cells(path: Path, encoding: str) -> tuple[list[str] | None, list[list[str]]]:
    """Return the header of a CSV file, or None, and its rows, all of one length."""
    try:
        with path.open(newline="", encoding=encoding) as file:
            rows = [row for row in csv.reader(file) if row]
    except LookupError:
        raise ValueError(f"{path}: no encoding has the name {encoding!r}; expected one as utf-8 or gbk") from None
    except UnicodeError as error:
        raise ValueError(f"{path}: not {error.args[0]} text; {_encoding_hint(path)}") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from None
    if not rows:
        raise ValueError(f"{path}: no rows; expected a table of numbers with a target column")
    width = len(rows[0])
    for i, row in enumerate(rows, 1):
        if len(row) != width:
            hint = _separator_hint(row)
            raise ValueError(f"{path}: row {i} has {len(row)} fields; expected {width}, as row 1 has{hint}")
    if width < 2 and (hint := _separator_hint(rows[0])):
        raise ValueError(f"{path}: one column{hint}")
    header = rows[0] if not any(_number(cell) is not None for cell in rows[0]) else None
    if header and len(rows) < 2:
        raise ValueError(f"{path}: a header and no rows; expected at least two samples")
    return header, rows[1:] if header else rows


def read_features(path: Path, names: list[str], rows: list[list[str]], first: int) -> npt.NDArray[np.float64]:
    """Return the cells of `rows` as numbers (m, n), NaN where one is missing; the first row is number `first`."""
    x = np.empty((len(rows), len(names)))
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            value = math.nan if cell.strip().lower() in MISSING else _number(cell)
            if value is None or np.isinf(value):
                raise ValueError(
                    f"{path}: row {i + first}, {names[j]}: {cell!r:.60} is not a finite number; "
                    "encode or remove it, or choose another --target"
                )
            x[i, j] = value
    return x


def read_targets(path: Path, name: str, cells: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the targets that the cells of a column have, and which of the cells have one (m,)."""
    known = np.array([cell.strip().lower() not in MISSING for cell in cells])
    cells = [cell.strip() for cell, is_known in zip(cells, known, strict=True) if is_known]
    if not cells:
        raise ValueError(f"{path}: {name}: no row has a target; choose another --target")
    numbers = [_number(cell) for cell in cells]
    if any(n is None for n in numbers):
        text = cells[numbers.index(None)]
        if len({n for n in numbers if n is not None}) > MAX_CLASSES:
            raise ValueError(f"{path}: {name} has numbers and {text!r:.60}; mend the cell, or empty it")
        return np.array(cells), known
    target = np.array(numbers, np.float64)
    if not np.isfinite(target).all():
        raise ValueError(f"{path}: {name} has a value that is infinite; expected finite numbers")
    whole = (target == np.round(target)).all() and abs(target).max() < 2**53
    return target.astype(np.int64) if whole else target, known


def read_csv(path: Path, target: str | None, encoding: str = "utf-8-sig") -> Table:
    """Read a CSV file of numbers; the first row may be a header. `target` is a column's name or index, or None: last.

    A cell that is empty, NA or nan is missing. A row without a target teaches nothing and is left out.
    """
    header, rows = read_cells(path, encoding)
    width, first = len(rows[0]), 2 if header else 1
    column = _column(path, header, width, target)
    names = header or [f"column {k}" for k in range(width)]
    others = [j for j in range(width) if j != column]
    x = read_features(path, [names[j] for j in others], [[row[j] for j in others] for row in rows], first)
    targets, known = read_targets(path, names[column], [row[column] for row in rows])
    x, missing = x[known], int(np.isnan(x[known]).sum())
    notes = [f"{_count(int((~known).sum()), 'row')} without {names[column]} left out"] if not known.all() else []
    notes += [f"{_count(missing, 'missing cell')} taken as the mean of the column"] if missing else []
    columns = tuple(header[j] for j in others) if header else ()
    return Table(path.name, x, targets, columns, names[column], column, "; ".join(notes))


def read_npz(path: Path) -> Table:
    """Read the arrays "x" (m, n) and "y" (m,) of an NPZ file; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not {"x", "y"} <= set(arrays):
                raise ValueError(f'{path}: holds {sorted(arrays)}; expected the arrays "x" and "y"')
            x, y = arrays["x"], arrays["y"]
    except NOT_NPZ as error:
        raise ValueError(f"{path}: not an NPZ file that can be read ({error})") from None
    if x.dtype.kind not in "fiu" or x.ndim < 2:
        raise ValueError(f"{path}: x is {x.dtype} of shape {x.shape}; expected real numbers of shape (m, n)")
    if y.shape != (len(x),):
        raise ValueError(f"{path}: y has shape {y.shape}; expected {(len(x),)}, one target per row of x")
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} has a value that is NaN or infinite; expected finite numbers")
    return Table(path.name, x.reshape(len(x), -1).astype(np.float64), y)


def split(table: Table, *, task: Task | None, test_fraction: float, seed: int, standardise: bool = True) -> Split:
    """Hold out `test_fraction` of the rows, scale by what the training rows show, and encode the target.

    Where a feature is missing, it is taken as the mean of the training rows. `task=None` is as `choose_task` says.
    """
    _check_sklearn()
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    if len(table.x) < 2 or not 0 < test_fraction < 1:
        raise ValueError(
            f"{table.name}: {len(table.x)} rows, test fraction {test_fraction}; expected 2 rows and 0 < f < 1"
        )
    task = task or choose_task(table.target)
    classes, codes, counts = np.unique(table.target, return_inverse=True, return_counts=True)
    if task == "classify":
        if len(classes) < 2:
            raise ValueError(f"{table.name}: every target is {str(classes[0])!r}; expected at least two classes")
        y = np.eye(len(classes))[codes]
        n_test = int(np.ceil(test_fraction * len(y)))
        stratify = codes if counts.min() > 1 and len(classes) <= min(n_test, len(y) - n_test) else None
    else:
        if table.target.dtype.kind not in "fiu":
            text = next(cell for cell in table.target if _number(str(cell)) is None)
            raise ValueError(f"{table.name}: the target is text ({str(text)!r}); expected numbers to regress on")
        classes, stratify = classes[:0], None
        y = table.target.astype(np.float64)[:, None]
    x_train, x_test, y_train, y_test = train_test_split(
        table.x, y, test_size=test_fraction, random_state=seed, stratify=stratify
    )
    x_mean, x_scale, y_mean, y_scale = np.zeros(x_train.shape[1]), np.ones(x_train.shape[1]), 0.0, 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # `scaled` refuses it
        if standardise:
            scaler = StandardScaler().fit(x_train)
            x_mean, x_scale = np.nan_to_num(scaler.mean_), np.nan_to_num(scaler.scale_, nan=1.0)
        if task == "regress":
            scaler = StandardScaler().fit(y_train)
            y_mean, y_scale = float(scaler.mean_[0]), float(scaler.scale_[0])
    x_train, x_test = scaled(x_train, x_mean, x_scale), scaled(x_test, x_mean, x_scale)
    y_train, y_test = scaled(y_train, y_mean, y_scale), scaled(y_test, y_mean, y_scale)
    return Split(x_train, y_train, x_test, y_test, task, classes, x_mean, x_scale, y_mean, y_scale)


def choose_task(target: npt.NDArray[Any]) -> Task:
    """Return "regress" for numbers with fractions or of more than `MAX_CLASSES` distinct values, else "classify"."""
    if target.dtype.kind not in "fiu":
        return "classify"
    fractions = target.dtype.kind == "f" and bool((target != np.round(target)).any())
    return "regress" if fractions or len(np.unique(target)) > MAX_CLASSES else "classify"


def scaled(x: npt.NDArray[Any], mean: Any, scale: Any) -> npt.NDArray[np.float32]:
    """Return (x − mean) / scale in float32, 0 where x is missing."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.where(np.isnan(x), 0, (x - mean) / scale).astype(np.float32)
    if not np.isfinite(rounded).all():
        largest = max(x[~np.isfinite(rounded)], key=abs)
        raise ValueError(f"the value {largest:.4g} is too large for float32, as it is scaled; mend or remove it")
    return rounded


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


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}"


def _separator_hint(row: list[str]) -> str:
    for name, separator in (("semicolons", ";"), ("tabs", "\t")):
        if separator in "".join(row):
            return f": fields are separated by {name}; expected commas, and a point in decimals: save it so"
    return ""


def _encoding_hint(path: Path) -> str:
    """Say what encoding a file may have and what to do."""
    with path.open("rb") as file:
        start = file.read(2**16)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        return "it looks like UTF-16: give --encoding utf-16, or save it as UTF-8"
    try:
        start[: start.rfind(b"\n") + 1].decode("gbk")
    except UnicodeError:
        return "give its --encoding, or save it as UTF-8"
    return "it may be GBK: give --encoding gbk, or save it as UTF-8"


def _check_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise ImportError('tinynet train needs scikit-learn; use pip install "tinynet-grad[train]"') from None

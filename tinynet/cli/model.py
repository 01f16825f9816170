"""Hold what `tinynet train` learned from a table: a network, and the scales of the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Params
from tinynet.cli.tables import Task, scaled
from tinynet.files.container import FileError, check_params, read, save, unfit
from tinynet.layers import Layer
from tinynet.training import predict


@dataclass(frozen=True)
class Model:
    """Hold a network that is trained, and what its table was like.

    Attributes:
        net, params: what was trained.
        task: "classify" or "regress".
        columns: the names of the features, in order; none where the file had none.
        target: the name of what is predicted.
        position: the index of the target among the columns of the table.
        classes: the target's values, one per output; none where the task is to regress.
        x_mean, x_scale: (n,); the network takes (x − x_mean) / x_scale, and 0 where x is missing.
        y_mean, y_scale: where the task is to regress, the target is ŷ · y_scale + y_mean.
    """

    net: Layer
    params: Params
    task: Task
    columns: tuple[str, ...]
    target: str
    position: int
    classes: tuple[str | int | float, ...]
    x_mean: npt.NDArray[np.float64]
    x_scale: npt.NDArray[np.float64]
    y_mean: float
    y_scale: float

    def predict(self, x: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        """Return the predictions (m,) for features x (m, n) in the units of the table: classes, or numbers."""
        if x.shape[1:] != self.x_mean.shape:
            raise ValueError(f"{x.shape[1]} features; the network was trained on {len(self.x_mean)}")
        y_hat = predict(self.net, self.params, self.features(x))
        if self.task == "classify":
            return np.asarray(np.asarray(self.classes)[y_hat.argmax(axis=1)])
        return np.asarray(y_hat[:, 0].astype(np.float64) * self.y_scale + self.y_mean)

    def features(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return what the network takes for features x (m, n) in the units of the table."""
        return scaled(x, self.x_mean, self.x_scale)

    def targets(self, target: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return what the network was trained to give for targets (m,): one-hot rows, or (m, 1) numbers."""
        if self.task == "regress":
            return np.asarray((target[:, None] - self.y_mean) / self.y_scale)
        classes = [str(c) for c in self.classes]
        if strange := [str(t) for t in target.tolist() if str(t) not in classes]:
            raise ValueError(f"the model knows no class {strange[0]!r:.60}; expected one of {', '.join(classes):.200}")
        return np.array([[float(str(t) == c) for c in classes] for t in target.tolist()])


def save_model(path: Path, model: Model) -> None:
    """Write a model, to be read by `load_model`; `tinynet.load` reads its network."""
    extra = {name: value for name, value in vars(model).items() if name not in ("net", "params")}
    save(path, model.net, model.params, extra={"model": extra})


def load_model(path: Path) -> Model:
    """Read a model."""
    match read(path):
        case {"net": Layer() as net, "params": params, "extra": {"model": dict(extra)}}:
            pass
        case _:
            raise FileError(path, "holds no model; write one with tinynet train --save FILE")
    with unfit(path, "not a model that tinynet wrote"):
        model = Model(net, params, **extra)
        check_params("load_model", net, params)
        _check(model)
    return model


def _check(model: Model) -> None:
    """Raise ValueError unless the fields of a model are of their kinds and fit each other and its network."""
    n = len(model.x_mean)
    for name, value in (("x_mean", model.x_mean), ("x_scale", model.x_scale)):
        if value.dtype != np.float64 or value.shape != (n,) or not np.isfinite(value).all():
            raise ValueError(f"{name} is not {n} finite numbers")
    texts = (model.target, *model.columns)
    if not isinstance(model.columns, tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("the names of columns are not texts")
    if len(model.columns) not in (0, n) or not isinstance(model.position, int) or not 0 <= model.position <= n:
        raise ValueError("the columns are not those of the network")
    if model.task not in ("classify", "regress"):
        raise ValueError(f"no task is {model.task!r:.40}")
    if not all(isinstance(number, float) and np.isfinite(number) for number in (model.y_mean, model.y_scale)):
        raise ValueError("y_mean and y_scale are not finite numbers")
    if not isinstance(model.classes, tuple) or not all(isinstance(c, (str, int, float)) for c in model.classes):
        raise ValueError("the classes are not texts and numbers")
    outputs = model.net.forward(model.params, np.zeros((1, n), np.float32))[0].shape
    if outputs != (1, len(model.classes) if model.task == "classify" else 1):
        raise ValueError(f"the network gives outputs of shape {outputs}, which do not fit the task")

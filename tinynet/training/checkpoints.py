"""Where a run stands, and the same in a file, so that it goes on bit for bit.

A checkpoint is a file as `tinynet.files` writes them: whole or not there at all, checked when read, nothing unpickled.
`tinynet.load` takes the network and its parameters from one, `tinynet.load_state` the rest of what training carries.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from tinynet.arrays import Params, State
from tinynet.files.container import FileError, check_params, contents, load, printable, read, unfit, write
from tinynet.files.encoding import encode, own_names
from tinynet.layers import Layer
from tinynet.training.engines import Losses, TrainingState, first_layers_state
from tinynet.training.engines.processes import Processes

StrPath = str | os.PathLike[str]


@dataclass
class Run:
    """Where a run stands, between two updates.

    Attributes:
        net: what is trained.
        settings: what decides each bit of the result (loss, optimizer, seed, batch size, `fingerprint` of the data, …),
            by the name of its argument.
        params: after the last update.
        state: after the last update; None before the first.
        epoch: the epoch under way, counted from 0.
        batch: how many of its batches are done.
        losses: the loss of each, and how many samples it had.
        order: the state of the generator of the samples' order before it drew this epoch's; None before that.
        draws: the state of the generator that random layers draw from; None before the epoch.
        history: the finished epochs, by name.
        seconds: how long the run has taken.
        best: the best number that early stopping has met, and the parameters and layers' state of then.
        waited: how many epochs ago that was.
        before: the parameters and layers' state that the epoch began with, if early stopping may need them.
        asked: whether a step callback asked to stop: the run ends with this epoch.
        seen: of an iterable, a text that differs where one of the epoch's batches so far does.
        versions: of tinynet and what it computes with.
    """

    net: Layer
    settings: dict[str, Any]
    params: Params
    state: TrainingState | None = None
    epoch: int = 0
    batch: int = 0
    losses: Losses = field(default_factory=list)
    order: dict[str, Any] | None = None
    draws: dict[str, Any] | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    best: tuple[float, Params, State] | None = None
    waited: int = 0
    before: tuple[Params, State] | None = None
    asked: bool = False
    seen: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def next_epoch(self, row: Mapping[str, float]) -> None:
        """Enter the epoch in the history, NaN where nothing was measured, and go to the beginning of the next."""
        for name in {**row, **self.history}:
            self.history.setdefault(name, [math.nan] * self.epoch).append(row.get(name, math.nan))
        self.epoch, self.batch, self.losses, self.order, self.draws = self.epoch + 1, 0, [], None, None


_NAMES = {field.name for field in fields(Run)}
_KINDS = dict.fromkeys(("settings", "history", "versions", "order", "draws"), dict) | {"asked": bool, "seen": str}


def save_checkpoint(path: StrPath, run: Run) -> None:
    """Write a checkpoint; the one that was there stays until the new one is whole."""
    _check(run)
    value = {name: getattr(run, name) for name in _NAMES}
    value["state"] = run.state and vars(run.state)
    value["losses"] = np.array(run.losses, np.float64).reshape(-1, 2)
    value["history"] = {name: np.array(numbers, np.float64) for name, numbers in run.history.items()}
    write(path, value)


def check_savable(run: Run) -> None:
    """Raise TypeError or ValueError now, rather than after the first updates, if the state could not be written."""
    encode({"params": run.params, "state": run.state and vars(run.state)})


def load_checkpoint(path: StrPath, data: bytes | None = None, *, classes: Iterable[Any] = ()) -> Run:
    """Read a checkpoint as `tinynet.load` reads a network; `data` is what the file holds, if that was read."""
    value = read(path, data, classes=classes, only=_NAMES)
    if not isinstance(value, dict) or value.keys() != _NAMES or not isinstance(value["net"], Layer):
        raise FileError(path, "holds no checkpoint of this version; tinynet.load reads its network")
    with unfit(path, "not a checkpoint that tinynet wrote"):
        run = Run(**value)
        _check(run)
        run.state = value["state"] and TrainingState(**value["state"])
        run.losses = [(E, int(m)) for E, m in _numbers("losses", run.losses, (run.batch, 2))]
        for name, numbers in run.history.items():
            run.history[name] = _numbers(f"history[{name!a:.40}]", numbers, (run.epoch,))
        check_params("load_checkpoint", run.net, run.params)
        for kept in (*(run.best or ())[1:2], *(run.before or ())[:1]):
            check_params("load_checkpoint", run.net, kept)
    return run


def load_state(path: StrPath, *, classes: Iterable[Any] = ()) -> TrainingState:
    """Return the state in a file that `tinynet.save(…, state=…)` or a checkpoint wrote; the arrays are NumPy's.

    `predict` and `evaluate` take it as `state=`, and `fit(params=…, state=…)` goes on with it.

    Args:
        path: the file.
        classes: as for `tinynet.load`, which returns the network and its parameters.

    Raises:
        FileError: as for `tinynet.load`; or the file holds no state, or one that does not fit its network.
        TypeError, ValueError: `classes` does not fit.
        OSError: the file cannot be opened.
    """
    classes = tuple(classes)
    net, _ = load(path, classes=classes)
    state = read(path, classes=classes, only=("state",)).get("state")
    if state is None:
        raise FileError(path, "holds no state; it was saved without state=")
    with unfit(path, "its state does not fit its network"):
        found = TrainingState(**state)
        first_layers_state(net, np.float32, found)
    return found


def resumed(path: StrPath, run: Run, processes: Processes) -> Run:
    """Return where the run stood that wrote the file, or `run` where there is no file.

    Of several processes the first one reads; only its host needs the file.
    """
    own = own_names({"net": run.net, **run.settings})  # what could not be written is refused before anything is trained
    data = None
    if processes.is_first:
        _check_folder(path)
        with contextlib.suppress(FileNotFoundError):
            data = contents(path)
    data = processes.from_first(data)
    if data is None:
        return run
    found = load_checkpoint(path, data, classes=own)
    check_same_run(path, found, run)
    if found.versions != run.versions:
        was, now = (", ".join(map(" ".join, v.items())) for v in (found.versions, run.versions))
        told = f"fit: {os.fspath(path)} was written with {printable(was)}; {now} may differ in the last bits"
        warnings.warn(told, stacklevel=3)
    found.versions = run.versions
    found.settings["validation"] = found.settings.get("validation") or run.settings.get("validation")
    return found


def _check_folder(path: StrPath) -> None:
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder}; make it first", os.fspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the folder {folder} cannot be written to", os.fspath(path))


def check_same_run(path: StrPath, found: Run, run: Run) -> None:
    """Raise ValueError, which names what differs, unless the run that wrote the file is the one to go on from it."""
    before, now = {"net": found.net, **found.settings}, {"net": run.net, **run.settings}
    for name in sorted(before.keys() | now.keys()):
        if name not in before and isinstance(now[name], dict) and not now[name]:
            continue  # it lists nothing; an earlier version, which did not know of it, wrote the file
        if name == "validation" and (before.get(name) is None or now.get(name) is None):
            continue  # it only observes: the history has NaN where nothing was measured
        if _told(before.get(name)) != _told(now.get(name)):
            raise ValueError(
                f"fit: {os.fspath(path)} was written by another run: {printable(name)} was {before.get(name)!r:.80} "
                f"and is {now.get(name)!r:.80}; make the same call, or give another checkpoint"
            )


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator, for `restore_rng`. How many children it has spawned is not part of it."""
    return dict(rng.bit_generator.state)


def restore_rng(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put a generator back into a state; raise ValueError if it is not one of this kind of generator."""
    try:
        rng.bit_generator.state = dict(state)
    except Exception as error:
        kind = type(rng.bit_generator).__name__
        raise ValueError(f"the state of a random generator does not fit {kind}: {error!s:.200}") from error


def _check(run: Run) -> None:
    for name in ("epoch", "batch", "waited"):
        number = getattr(run, name)
        if type(number) is not int or number < 0:
            raise ValueError(f"{name} is {number!r:.40}; expected a count")
    if type(run.seconds) is not float:
        raise ValueError(f"seconds is {run.seconds!r:.40}; expected a number")
    for name, kind in _KINDS.items():
        if type(getattr(run, name)) is not kind:
            raise ValueError(f"{name} is not a {kind.__name__}")
    for state in (run.order, run.draws):
        restore_rng(np.random.default_rng(0), state or {})
    if not all(isinstance(text, str) for text in run.versions.values()):
        raise ValueError("versions is not a dict of texts")
    if run.best is not None and not (isinstance(run.best, tuple) and len(run.best) == 3 and type(run.best[0]) is float):
        raise ValueError("best is not a number with parameters and state")
    if run.before is not None and not (isinstance(run.before, tuple) and len(run.before) == 2):
        raise ValueError("before is not a pair of parameters and state")
    if len(run.losses) != run.batch:
        raise ValueError(f"there are {len(run.losses)} losses; expected {run.batch}, one per batch")


def _numbers(name: str, array: Any, shape: tuple[int, ...]) -> list[Any]:
    if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.shape != shape:
        raise ValueError(f"{name} is not a float64 array of shape {shape}")
    return list(array.tolist())


def _told(value: Any) -> Any:
    """Return what a file would say of a value: configurations are equal when that is."""
    document, arrays = encode(value)
    return document, {key: (array.shape, array.tobytes()) for key, array in arrays.items()}

"""A training run in a file, so that it goes on bit for bit from where it was.

A checkpoint is a file as `tinynet.files` writes them: whole or not there at all, checked when read, nothing unpickled.
`tinynet.load` takes the network and its parameters from one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Array, Params
from tinynet.files.container import FileError, check_params, read, write
from tinynet.files.encoding import encode
from tinynet.layers import Layer
from tinynet.training.callbacks import EarlyStopping

__all__ = ["Checkpoint", "check_run", "fingerprint", "load_checkpoint", "restore_rng", "rng_state", "save_checkpoint"]

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Checkpoint:
    """A run between two updates.

    Attributes:
        net: what is trained.
        params: after the last update.
        state: the optimizer's; a named tuple comes back as a tuple.
        run: what decides each bit of the result (loss, optimizer, seed, batch size, `fingerprint` of the data, …), by
            the name of its argument; `check_run` compares it.
        epoch: the epoch under way, counted from 0.
        batch: how many of its batches are done.
        losses: (batch, 2): the loss of each and how many samples it had.
        rngs: states of generators by name, as `rng_state` gives them: of the order of the samples before the epoch's
            was drawn, of whatever else draws as it is now.
        history: the finished epochs, by name.
        seconds: how long the run has taken.
        extra: what else the run carries, such as the best parameters so far.
    """

    net: Layer
    params: Params
    state: Any
    run: dict[str, Any]
    epoch: int
    batch: int
    losses: npt.NDArray[np.float64]
    rngs: dict[str, Any]
    history: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    seconds: float = 0.0
    extra: Any = None


def save_checkpoint(path: StrPath, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one that was there stays until the new one is whole.

    Raises:
        TypeError, ValueError: it holds something that could not be read again; nothing was written.
        OSError: the file could not be written; names it.
    """
    _check(checkpoint)
    write(path, {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)})


def load_checkpoint(path: StrPath, data: bytes | None = None, *, classes: Iterable[Any] = ()) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        data: what stands in it, where that was read already.
        classes: as for `tinynet.load`; those of the caller's own network, loss and optimizer come from
            `tinynet.files.encoding.own_names`.

    Raises:
        FileError: the file is damaged, foreign or hostile, or holds no checkpoint.
        TypeError, ValueError: `classes` does not fit.
        OSError: the file cannot be opened.
    """
    value = read(path, data, classes=(EarlyStopping, *classes))
    names = {field.name for field in dataclasses.fields(Checkpoint)}
    if not isinstance(value, dict) or value.keys() != names or not isinstance(value["net"], Layer):
        raise FileError(path, "holds no checkpoint")
    checkpoint = Checkpoint(**value)
    try:
        check_params("load_checkpoint", checkpoint.net, checkpoint.params)
        _check(checkpoint)
    except Exception as error:  # whatever a layer's init meets in fields that nobody has checked
        raise FileError(path, f"not a checkpoint that tinynet wrote: {error!s:.300}") from error
    return checkpoint


def check_run(path: StrPath, checkpoint: Checkpoint, net: Layer, run: Mapping[str, Any]) -> None:
    """Raise unless the run that wrote the checkpoint is the one that wants to go on from it.

    Raises:
        ValueError: they differ; names the file and the arguments.
    """
    before, now = {"net": checkpoint.net, **checkpoint.run}, {"net": net, **run}
    differing = [name for name in sorted(before.keys() | now.keys()) if _told(before, name) != _told(now, name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"fit: {os.fspath(path)} was written by another run: {name} was {before.get(name)!r:.80} and is "
            f"{now.get(name)!r:.80}; make the same call, or give another checkpoint"
        )


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator, for `restore_rng`. How many children it has spawned is not part of it."""
    return dict(rng.bit_generator.state)


def restore_rng(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put a generator back into a state.

    Raises:
        ValueError: the state is not one of this kind of generator.
    """
    try:
        rng.bit_generator.state = dict(state)
    except Exception as error:
        kind = type(rng.bit_generator).__name__
        raise ValueError(f"the state of a random generator does not fit {kind}: {error!s:.200}") from error


def fingerprint(*arrays: Array | None) -> str:
    """Return a text that differs where shape, dtype or a row differ, of at most 2048 rows spread evenly."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype} {array.shape};".encode())
            digest.update(np.asarray(array[:: max(1, len(array) // 1024)]).tobytes())
    return digest.hexdigest()


def _check(checkpoint: Checkpoint) -> None:
    for name in ("epoch", "batch"):
        number = getattr(checkpoint, name)
        if type(number) is not int or number < 0:
            raise ValueError(f"{name} is {number!r:.40}; expected a count")
    if type(checkpoint.seconds) is not float:
        raise ValueError(f"seconds is {checkpoint.seconds!r:.40}; expected a number")
    for name in ("run", "rngs", "history"):
        if not isinstance(getattr(checkpoint, name), dict):
            raise ValueError(f"{name} is not a dict")
    for name, array, shape in (
        ("losses", checkpoint.losses, (checkpoint.batch, 2)),
        *((f"history[{key!a:.40}]", values, (checkpoint.epoch,)) for key, values in checkpoint.history.items()),
    ):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.shape != shape:
            raise ValueError(f"{name} is not a float64 array of shape {shape}")


def _told(run: Mapping[str, Any], name: str) -> Any:
    """What a file would say of it: configurations are equal when that is."""
    document, arrays = encode(run.get(name))
    return document, {key: (array.shape, array.tobytes()) for key, array in arrays.items()}

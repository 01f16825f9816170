"""Networks and whatever belongs to them in files, with nothing pickled.

A file is a safetensors file, so other programs read its arrays: the length of a header (8 bytes, little-endian), the
header (JSON: the type, shape and place of each array), the arrays. Its metadata hold one key, "tinynet": JSON with the
format's version, the document that rebuilds the value (`tinynet.files.encoding`) and the SHA-256 of document and arrays
together. The reader believes nothing: it checks the size of everything against the file's own length before it makes
anything of that size, calls only classes that it knows or was handed, and lets nothing through whose checksum differs.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Params
from tinynet.checks import check_instance
from tinynet.files.atomic import write_atomically
from tinynet.files.encoding import DTYPES, Arrays, decode, encode, known_names, without_draws
from tinynet.layers import Layer
from tinynet.trees import check_like, map_leaves, parts

MAX_HEADER = 2**22
"""The longest header that is read, in bytes: some 30,000 arrays."""

MAX_DIMENSIONS = 64
"""The most axes of an array: NumPy's own limit."""

FORMAT = 1
SLACK = 2**20
"""How much more than the count of numbers in its file the integers of a network may add up to."""

StrPath = str | os.PathLike[str]
Places = dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]


class FileError(ValueError):
    """A file is not what it should be: cut off, altered, foreign or made to do harm.

    Attributes:
        path: the file.
        reason: what is the matter with it; of what the file says, only characters that a terminal prints.
    """

    def __init__(self, path: StrPath, reason: str) -> None:
        reason = printable(reason)
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{os.fspath(self.path)}: {self.reason}"


def printable(text: str) -> str:
    """Return `text` with an escape for each character that a terminal would obey rather than print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def save(path: StrPath, net: Layer, params: Params, *, state: Any = None, extra: Any = None) -> None:
    """Write a network and its parameters, to be read by `load`, and its state, to be read by `load_state`.

    Args:
        path: the file; by custom it ends in ".safetensors". Replaced as a whole or left as it was.
        net: rebuilt on loading from its class and its fields.
        params: of `net`; NumPy or JAX arrays of any layout and byte order.
        state: the `state` of a result of `fit`: that of the layers, such as running statistics, and of the optimizer.
        extra: whatever else belongs to the network (its loss and optimizer, names of classes, scales of the data): a
            tree of dicts, lists, tuples, numbers, strings, None, arrays and dataclasses. `read` returns it.

    Raises:
        TypeError, ValueError: an argument does not fit or cannot be rebuilt from its fields; nothing was written.
        OSError: the file could not be written; names it. What was there before is unchanged.
    """
    check_instance("save", "net", net, Layer)
    check_params("save", net, params)
    value = {"net": net, "params": params, "extra": extra}
    if state is not None:
        if not hasattr(state, "optimizer") or not hasattr(state, "layers"):
            given = type(state).__name__
            raise TypeError(f"save: state is {given}; expected result.state, or TrainingState(None, layers=…)")
        check_like("save", "state.layers", state.layers or net.init_state(), net.init_state(), "the network")
        value["state"] = {"optimizer": state.optimizer, "layers": state.layers}
    write(path, value)


def load(path: StrPath, *, classes: Iterable[Any] = ()) -> tuple[Layer, Params]:
    """Return (net, params) of a file that `save` or a checkpoint wrote; the arrays are NumPy's.

    Args:
        path: the file.
        classes: your own layer classes (and functions and enumerations that stand in their fields). No class is ever
            imported because a file names it.

    Raises:
        FileError: the file is cut off, altered, foreign or hostile, or names a class that is neither ours nor yours.
        TypeError, ValueError: `classes` holds something else, or two of one name.
        OSError: the file cannot be opened.
    """
    value = read(path, classes=classes, only=("net", "params"))
    if not isinstance(value, dict) or "params" not in value or not isinstance(value.get("net"), Layer):
        raise FileError(path, "holds no network; use tinynet.files.container.read to see what it holds")
    with unfit(path, "its parameters do not fit its network"):
        check_params("load", value["net"], value["params"])
    return value["net"], value["params"]


def write(path: StrPath, value: Any) -> None:
    """Write any value that `tinynet.files.encoding` can hold; `save` is this for a network."""
    length, header, *arrays = _pack(*encode(value))
    if len(header) > MAX_HEADER:
        raise ValueError(f"{os.fspath(path)}: a header of {len(header)} bytes; at most {MAX_HEADER} can be read again")
    write_atomically(path, [length, header, *arrays])


def read(
    path: StrPath, data: bytes | None = None, *, classes: Iterable[Any] = (), only: Collection[str] | None = None
) -> Any:
    """Return the value that `write` or `save` wrote.

    Args:
        path: the file.
        data: what stands in it, where that was read already.
        classes: as for `load`.
        only: of a value that is a dict, the keys to return; None for all. The rest is checked for damage alone.
    """
    known = known_names(classes)
    with _told_by(path), _opened(path) if data is None else io.BytesIO(data) as file:
        return decode(*_unpack(file, only), known)


@contextlib.contextmanager
def _told_by(path: StrPath) -> Iterator[None]:
    """Let what is the matter with a file be told as a `FileError`."""
    try:
        yield
    except FileError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise FileError(path, str(error) or type(error).__name__) from error


@contextlib.contextmanager
def unfit(path: StrPath, reason: str) -> Iterator[None]:
    """Let any exception be a `FileError`: a layer's `init` may meet whatever stands in fields that nobody checked."""
    try:
        yield
    except Exception as error:
        raise FileError(path, f"{reason}: {error!s:.300}") from error


def contents(path: StrPath) -> bytes:
    """Return what stands in a regular file, once its header agrees with its length."""
    with _told_by(path), _opened(path) as file:
        _header(file)
        file.seek(0)
        return file.read()


def check_params(owner: str, net: Layer, params: Params) -> None:
    """Raise TypeError or ValueError unless `params` has the structure and shapes that `net.init` gives.

    What a file says of its network must not cost more than what the file holds: the integers of the network are
    compared with the count of its parameters first, and tinynet's initializers are not called.
    """
    sizes: list[int] = []
    map_leaves(lambda leaf: sizes.append(np.size(leaf)), params)
    if sum(abs(part) for _, part, _ in parts(net) if isinstance(part, int)) > sum(sizes) + SLACK:
        raise ValueError(f"{owner}: the integers in the fields of the network are too large for its parameters")
    check_like(owner, "params", params, without_draws(net).init(np.random.default_rng(0)), "the network")


def _pack(document: Any, arrays: Arrays) -> list[bytes | memoryview]:
    """Return what a file consists of: the length of the header, the header, the arrays."""
    # Safetensors asks that no array begins within a number: the widest types come first.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    places, end = {}, 0
    for name in names:
        begin, end = end, end + arrays[name].nbytes
        dtype = DTYPES[arrays[name].dtype.name]
        places[name] = {"dtype": dtype, "shape": arrays[name].shape, "data_offsets": (begin, end)}
    digest = _digest(document)
    for name in sorted(arrays):
        _update(digest, name, arrays[name])
    content = json.dumps({"format": FORMAT, "sha256": digest.hexdigest(), "content": document})
    header = json.dumps({"__metadata__": {"tinynet": content}, **places}).encode()
    header += b" " * (-len(header) % 8)
    return [len(header).to_bytes(8, "little"), header, *(_bytes(arrays[name]) for name in names)]


def _header(file: io.BufferedIOBase) -> tuple[dict[str, Any], Places, int]:
    """Return what a file says of itself, type, shape and beginning of each array, and where the first one begins."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("not a safetensors file, or cut off")
    if length > MAX_HEADER:
        raise ValueError(f"the header claims {length} bytes; at most {MAX_HEADER} are read")
    header = _object(_parse(file.read(length).decode()))
    content = _content(header.pop("__metadata__", None))
    return content, _places(header, size - 8 - length), 8 + length


def _unpack(file: io.BufferedIOBase, only: Collection[str] | None) -> tuple[Any, Arrays]:
    """Return document and arrays of a file."""
    content, places, start = _header(file)
    document, digest, arrays = content["content"], _digest(content["content"]), {}
    for name in sorted(places):
        dtype, shape, begin = places[name]
        array = np.empty(shape, dtype.newbyteorder("<"))
        file.seek(start + begin)
        if file.readinto(_bytes(array)) != array.nbytes:
            raise ValueError("cut off while it was read")
        _update(digest, name, array)
        if only is None or name.partition(".")[0] in only:
            arrays[name] = array.astype(dtype, copy=False)
    if content["sha256"] != digest.hexdigest():
        raise ValueError("the checksum differs: the file was altered")
    match document, only:
        case {"dict": dict(entries)}, Collection():
            document = {"dict": {key: part for key, part in entries.items() if key in only}}
    return document, arrays


def _content(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict) or not isinstance(metadata.get("tinynet"), str):
        raise ValueError("a file that tinynet did not write: its metadata lack the network")
    content = _object(_parse(metadata["tinynet"]))
    if content.get("format") != FORMAT:
        raise ValueError(
            f"format {content.get('format')!a:.20}; this version of tinynet reads format {FORMAT}; "
            "a file of a newer version needs that version"
        )
    if content.keys() != {"format", "sha256", "content"}:
        raise ValueError("the metadata are not those that tinynet writes")
    return content


def _places(header: dict[str, Any], size: int) -> Places:
    """Return type, shape and beginning of each array; raise unless they fill the `size` bytes without a gap."""
    places = {}
    for name, entry in header.items():
        match entry:
            case {"dtype": str(code), "shape": list(dims), "data_offsets": [int(begin), int(end)]} if len(entry) == 3:
                dtype, shape = _dtype(code), tuple(dims)
            case _:
                raise ValueError(f"{name!a:.60}: not the description of an array")
        if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise ValueError(f"{name!a:.60}: not the shape of an array")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name!a:.60}: {end - begin!a:.20} bytes do not fit the shape of the array")
        places[name] = dtype, shape, begin
    end = 0
    for name, (dtype, shape, begin) in sorted(places.items(), key=lambda place: (place[1][2], math.prod(place[1][1]))):
        if begin != end:
            raise ValueError(f"{name!a:.60}: the array does not begin where the one before it ends")
        end += math.prod(shape) * dtype.itemsize
    if end != size:
        raise ValueError(f"not a safetensors file, or cut off: arrays of {end} bytes in {size}")
    return places


def _dtype(code: str) -> np.dtype[Any]:
    name = next((name for name, written in DTYPES.items() if written == code), None)
    if name is None:
        raise ValueError(f"an array is of type {code!a:.20}, which tinynet does not write")
    if code == "BF16":
        import ml_dtypes  # noqa: F401  (NumPy knows the name from there)
    return np.dtype(name)


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of a C-contiguous array as they stand in a file, without a copy where they already do."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


def _digest(document: Any) -> hashlib._Hash:
    return hashlib.sha256(json.dumps(document).encode())


def _update(digest: hashlib._Hash, name: str, array: npt.NDArray[Any]) -> None:
    digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
    digest.update(_bytes(array))


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in the header")
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"the header has {constant}, which is not JSON")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("the header is not a JSON object")
    return value


def _opened(path: StrPath) -> io.BufferedReader:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would make us wait, a device has no end
        raise FileError(path, "not a regular file")
    return open(path, "rb")

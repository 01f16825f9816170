"""Networks and whatever belongs to them in files, with nothing pickled.

A file is a safetensors file, so other programs read its arrays. Its metadata hold one key, "tinynet": JSON with the
format's version, the document that rebuilds the value (`tinynet.files.encoding`) and the SHA-256 of document and arrays
together. The reader believes nothing: it checks the size of everything against the file's own length before it makes
anything of that size, calls only classes that it knows or was handed, and lets nothing through whose checksum differs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinynet.arrays import Params
from tinynet.files.atomic import write_atomically
from tinynet.files.encoding import DTYPES, Arrays, decode, encode, known_names
from tinynet.layers import Layer
from tinynet.trees import check_like, leaves

__all__ = ["MAX_HEADER", "FileError", "check_params", "contents", "load", "read", "save", "write"]

MAX_HEADER = 2**22
"""The longest header that is read, in bytes: some 30,000 arrays."""

FORMAT = 1
SLACK = 2**20
"""How many numbers more than its file has a network may take, so that no small file asks for much memory."""

StrPath = str | os.PathLike[str]


class FileError(ValueError):
    """A file is not what it should be: cut off, altered, foreign or made to do harm.

    Attributes:
        path: the file.
        reason: what is the matter with it.
    """

    def __init__(self, path: StrPath, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{os.fspath(self.path)}: {self.reason}"


def save(path: StrPath, net: Layer, params: Params, *, extra: Any = None) -> None:
    """Write a network and its parameters, to be read by `load`.

    Args:
        path: the file; by custom it ends in ".safetensors". Replaced as a whole or left as it was.
        net: rebuilt on loading from its class and its fields.
        params: of `net`; NumPy or JAX arrays of any layout and byte order.
        extra: whatever else belongs to the network (its loss and optimizer, names of classes, scales of the data): a
            tree of dicts, lists, tuples, numbers, strings, None, arrays and dataclasses. `read` returns it.

    Raises:
        TypeError, ValueError: an argument does not fit or cannot be rebuilt from its fields; nothing was written.
        OSError: the file could not be written; names it. What was there before is unchanged.
    """
    if not isinstance(net, Layer):
        raise TypeError(f"save: net is {net!r:.60}; expected an instance of tinynet.Layer")
    check_params("save", net, params)
    write(path, {"net": net, "params": params, "extra": extra})


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
    value = read(path, classes=classes)
    if not isinstance(value, dict) or "params" not in value or not isinstance(value.get("net"), Layer):
        raise FileError(path, "holds no network; use tinynet.files.container.read to see what it holds")
    try:
        check_params("load", value["net"], value["params"])
    except Exception as error:  # whatever a layer's init meets in fields that nobody has checked
        raise FileError(path, f"its parameters do not fit its network: {error!s:.300}") from error
    return value["net"], value["params"]


def write(path: StrPath, value: Any) -> None:
    """Write any value that `tinynet.files.encoding` can hold; `save` is this for a network.

    Raises:
        As `save`.
    """
    document, arrays = encode(value)
    data = _pack(document, arrays)
    if (length := int.from_bytes(data[:8], "little")) > MAX_HEADER:
        raise ValueError(f"{os.fspath(path)}: a header of {length} bytes; at most {MAX_HEADER} can be read again")
    write_atomically(path, data)


def read(path: StrPath, data: bytes | None = None, *, classes: Iterable[Any] = ()) -> Any:
    """Return the value that `write` or `save` wrote.

    Args:
        path: the file.
        data: what stands in it, where that was read already.
        classes: as for `load`.

    Raises:
        As `load`.
    """
    known = known_names(classes)
    try:
        document, arrays = _unpack(contents(path) if data is None else data)
        return decode(document, arrays, known)
    except FileError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise FileError(path, str(error) or type(error).__name__) from error


def check_params(owner: str, net: Layer, params: Params) -> None:
    """Raise unless `params` has the structure and shapes that `net.init` gives, at no more cost than params take.

    Raises:
        TypeError, ValueError: they do not fit, or the network asks for far more numbers than `params` has.
    """
    budget = sum(np.size(leaf) for leaf in leaves(params)) + SLACK
    if _integers(net) > budget:
        raise ValueError(f"{owner}: the integers in the fields of the network are too large for its parameters")
    check_like(owner, "params", params, net.init(_FrugalGenerator(np.random.PCG64(0), budget)), "the network")


class _FrugalGenerator(np.random.Generator):
    """A generator that refuses to draw more than twice a budget of numbers."""

    def __init__(self, bits: np.random.BitGenerator, budget: int = SLACK) -> None:
        super().__init__(bits)
        self._left = 2 * budget

    def _spend(self, size: Any) -> None:
        self._left -= math.prod(size) if isinstance(size, (tuple, list)) else size or 1
        if self._left < 0:
            raise ValueError("the network has more parameters than were given")

    def random(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._spend(size)
        return super().random(size, *args, **kwargs)

    def standard_normal(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._spend(size)
        return super().standard_normal(size, *args, **kwargs)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        self._spend(size)
        return super().normal(loc, scale, size)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        self._spend(size)
        return super().uniform(low, high, size)


def _integers(value: Any) -> int:
    """The sum of all integers in the fields of a network, down to the layers inside it."""
    if isinstance(value, int):
        return abs(value)
    if isinstance(value, dict):
        return sum(map(_integers, value.values()))
    if isinstance(value, (tuple, list)):
        return sum(map(_integers, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(_integers(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 0


def _pack(document: Any, arrays: Arrays) -> bytes:
    from safetensors.numpy import save as pack

    # One key: safetensors writes several in an order that changes from run to run.
    text = json.dumps({"format": FORMAT, "sha256": _checksum(document, arrays), "content": document})
    data: bytes = pack(arrays, {"tinynet": text})
    return data


def _unpack(data: bytes) -> tuple[Any, Arrays]:
    from safetensors import SafetensorError, deserialize

    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("not a safetensors file, or cut off")
    if length > MAX_HEADER:
        raise ValueError(f"the header claims {length} bytes; at most {MAX_HEADER} are read")
    metadata = _object(_parse(data[8 : 8 + length].decode())).get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("tinynet"), str):
        raise ValueError("a file that tinynet did not write: its metadata lack the network")
    parts = _object(_parse(metadata["tinynet"]))
    if parts.get("format") != FORMAT:
        raise ValueError(f"format {parts.get('format')!a:.20}; this version of tinynet reads format {FORMAT}")
    if parts.keys() != {"format", "sha256", "content"}:
        raise ValueError("the metadata are not those that tinynet writes")
    try:
        tensors = deserialize(data)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file, or cut off: {error!s:.200}") from error
    arrays = {name: _array(tensor) for name, tensor in tensors}
    if parts["sha256"] != _checksum(parts["content"], arrays):
        raise ValueError("the checksum differs: the file was altered")
    return parts["content"], arrays


def _array(tensor: dict[str, Any]) -> Any:
    code = tensor["dtype"]
    name = next((name for name, written in DTYPES.items() if written == code), None)
    if name is None:
        raise ValueError(f"an array is of type {code!a:.20}, which tinynet does not write")
    if code == "BF16":
        import ml_dtypes  # noqa: F401  (NumPy knows the name from there)
    little_endian = np.dtype(name).newbyteorder("<")
    array = np.frombuffer(tensor["data"], little_endian).reshape(tensor["shape"])
    return array.astype(little_endian.newbyteorder("="), copy=False)


def _checksum(document: Any, arrays: Arrays) -> str:
    digest = hashlib.sha256(json.dumps(document).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def contents(path: StrPath) -> bytes:
    """Return what stands in a file.

    Raises:
        FileError: it is not a regular file.
        OSError: it cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would make us wait, a device has no end
        raise FileError(path, "not a regular file")
    with open(path, "rb") as file:
        return file.read(os.fstat(file.fileno()).st_size)


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

"""Alter saved networks in thousands of ways, some with a checksum made to fit, and load each.

    python scripts/fuzz_files.py [--count 10000] [--seed 0]

A load may end in a FileError or, where the change meant nothing, in the very network that was saved. Everything else
fails: another error, other numbers, more than 2 s or 256 MB, an import, a process, a file opened besides the one.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tinynet as tn
from tinynet.files import container as files
from tinynet.files.encoding import encode
from tinynet.trees import leaves

SECONDS, BYTES = 2, 256 * 2**20
DAMAGE = ("flip", "cut", "insert", "delete", "overwrite", "splice", "random")
# fmt: off
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**9, 10**18, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x" * 5000, "\ud800", "\0", "../../etc/passwd", "/dev/zero", "os.system",
    [], {}, [[]], {"dict": {}}, {"tuple": []}, {"tuple": {}}, {"float": "nan"}, {"float": "x"}, {"a": 1, "b": 2},
    {"array": "params.0.W"}, {"array": "nothing"}, {"array": 7}, {"array": None},
    {"function": "glorot_uniform"}, {"function": "eval"}, {"enum": ["Mode", "A"]},
    {"object": []}, {"object": ["__class__", {}]}, {"object": ["Layer", {}]},
    {"object": ["os.system", {"command": "touch harm"}]}, {"object": ["subprocess:Popen", {"args": "sh"}]},
    {"object": ["Linear", {"n_in": 4}]}, {"object": ["Linear", {"n_in": [], "n_out": {"dict": {}}}]},
    {"object": ["Linear", {"n_in": 10**6, "n_out": 10**6}]}, {"object": ["Linear", {"n_in": 1, "n_out": 10**9}]},
    {"object": ["SGD", {"lr": 10**400}]}, {"object": ["Sigmoid", {"__init__": 1}]},
    {"object": ["Sequential", {}]}, {"object": ["Sequential", {"layers": 5}]},
    {"object": ["Sequential", {"layers": {"tuple": [{"object": ["Sigmoid", {}]}] * 1000}}]},
)
# fmt: on


def originals() -> list[tuple[tn.Layer, Any, Any]]:
    """Return networks with parameters and extras, from none to some thousand numbers."""
    rng = np.random.default_rng(0)
    nets = [
        tn.Sequential(),
        tn.Linear(3, 2),
        tn.Sequential(tn.Linear(4, 5), tn.Sigmoid(), tn.Sequential(tn.Linear(5, 3), tn.Sigmoid())),
        tn.Sequential(tn.Linear(40, 30), tn.Sigmoid(), tn.Linear(30, 10)),
    ]
    extra = {"optimizer": tn.SGD(0.1, 0.9), "classes": ["a", "b"], "scale": np.arange(3.0), "best": float("inf")}
    return [(net, net.init(rng, dtype), extra) for net in nets for dtype in (np.float32, np.float64)]


def alter(kind: str, data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Change bytes without regard to what they mean."""
    i, j = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match kind:
        case "flip":
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 1, 2, 8))):
                # half of the flips in the header, where the meaning is densest
                end = int.from_bytes(data[:8], "little") + 8 if rng.random() < 0.5 else len(data)
                changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case "cut":
            return data[:i]
        case "insert":
            return data[:i] + rng.randbytes(rng.choice((1, 8, 1000))) + data[i:]
        case "delete":
            return data[:i] + data[j:]
        case "overwrite":
            return data[:i] + bytes([rng.choice((0, 0xFF, 0x22, 0x7B))]) * (j - i) + data[j:]
        case "splice":
            return data[:i] + other[j:]
        case _:
            return rng.randbytes(rng.choice((0, 1, 7, 8, 9, 100, 10000)))


def forge(kind: str, value: Any, rng: random.Random) -> bytes:
    """Change what the file says, and sign it as if tinynet had written it."""
    document, arrays = encode(value)
    match kind:
        case "document":
            for _ in range(rng.choice((1, 1, 2, 5))):
                document = swap(document, rng)
            return b"".join(files._pack(document, arrays))
        case "network":
            layers = [
                Ones(rng.choice(SIZES)) if rng.random() < 0.3 else huge(rng) for _ in range(rng.choice((1, 2, 100)))
            ]
            forged = rng.choice(
                (layers[0], tn.Sequential(*layers), tn.Sequential(tn.Sequential(*layers), tn.Sigmoid()))
            )
            document["dict"]["net"] = encode(forged)[0]
            return b"".join(files._pack(document, arrays))
        case "bulk":
            key, leaves = "k" * rng.choice((1, 1000, 700_000)), rng.choice((1, 1000, 100_000))
            document["dict"]["params"] = {"dict": {key: {"tuple": [0] * leaves}}}
            return b"".join(files._pack(document, {}))
        case "arrays":
            name = rng.choice([*arrays] or [""])
            shapes = [(), (0,), (7,), (1, 1, 1), (2, 2), (0, 10**6), (10**5,)]
            changed = np.zeros(rng.choice(shapes), rng.choice(["float16", "float32", "float64", "int64", "bool"]))
            return b"".join(files._pack(document, {**arrays, name: changed} if rng.random() < 0.8 else {}))
        case _:
            return header(b"".join(files._pack(document, arrays)), kind, rng)


@dataclass(frozen=True)
class Ones(tn.Layer):
    """A user's layer that fills memory without drawing a number."""

    n: int

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Any:
        return {"g": np.ones(self.n, dtype)}

    def forward(self, params: Any, x: Any) -> Any:
        return x * params["g"], x

    def backward(self, params: Any, x: Any, dy: Any) -> Any:
        return dy * params["g"], {"g": (dy * x).sum(axis=0)}


SIZES = (1, 3, 1000, 30_000, 2**20, 10**8, 10**9, 10**18, 2**63)


def huge(rng: random.Random) -> tn.Layer:
    """A layer that may need more numbers than any memory has."""
    return tn.Linear(rng.choice(SIZES), rng.choice(SIZES))


def swap(document: Any, rng: random.Random) -> Any:
    """Put a hostile value, or another part of the same document, in a random place."""
    document = copy.deepcopy(document)
    places: list[tuple[Any, Any]] = []

    def collect(part: Any) -> None:
        for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            places.append((part, key))
            collect(part[key])

    collect(document)
    if not places:
        return rng.choice(HOSTILE)
    part, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            del part[key]
        case 1:
            elsewhere, other = rng.choice(places)
            part[key] = copy.deepcopy(elsewhere[other])
        case 2 if isinstance(part, dict):
            part[rng.choice(("x", "__class__", "object", "dict", "n_in", "init"))] = part.pop(key)
        case _:
            part[key] = copy.deepcopy(rng.choice(HOSTILE))
    return document


def header(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Rewrite safetensors' own header."""
    end = int.from_bytes(data[:8], "little") + 8
    text, body = data[8:end].decode(), data[end:]
    entries = json.loads(text)
    names = [name for name in entries if name != "__metadata__"]
    match kind:
        case "shapes" if names:
            entry = entries[rng.choice(names)]
            shapes = ([2**62, 4], [-1], [10**30], [0] * 100, [1] * 1000, [2**32, 2**32], "4", [None], [1.5], [10**9])
            offsets = ([0, 2**63], [-8, 8], [8, 0], [0, 10**30], [0], None, [0, len(body) + 8], ["0", "8"])
            entry[rng.choice(("shape", "data_offsets", "dtype"))] = rng.choice(
                (*shapes, *offsets, "F8_E4M3", "F4", "C64")
            )
            text = json.dumps(entries)
        case "duplicate" if names:
            name = rng.choice([*names, "__metadata__"])
            text = f"{text.rstrip()[:-1]}, {json.dumps(name)}: {json.dumps(entries[name])}}}"
        case "nesting":
            depth = rng.choice((65, 200, 5000, 100000))
            opening, closing = rng.choice((("[", "]"), ('{"tuple":[', "]}"), ('{"dict":{"a":', "}}")))
            content = opening * depth + closing * depth
            text = json.dumps({"__metadata__": {"tinynet": f'{{"format": 1, "sha256": "", "content": {content}}}'}})
            text = text if rng.random() < 0.8 else content
        case "metadata":
            texts = ({"tinynet": text} for text in (1, "", "null", "NaN", "[]"))
            entries["__metadata__"] = rng.choice(({}, None, [], "x", *texts))
            text = json.dumps(entries)
        case _:
            lengths = (0, 1, end - 9, end, len(data), 2**22, 2**22 + 1, 2**32, 2**63, 2**64 - 1)
            return rng.choice(lengths).to_bytes(8, "little") + data[8:]
    encoded = text.encode(errors="surrogatepass")
    return len(encoded).to_bytes(8, "little") + encoded + body


def same(a: tuple[tn.Layer, Any], b: tuple[tn.Layer, Any]) -> bool:
    """Return whether two networks and their parameters are bitwise equal."""
    pairs = list(zip(leaves(a[1]), leaves(b[1]), strict=False))
    return (
        a[0] == b[0]
        and len(leaves(a[1])) == len(leaves(b[1]))
        and all(p.dtype == q.dtype and p.shape == q.shape and p.tobytes() == q.tobytes() for p, q in pairs)
    )


FORGED = ("document",) * 3 + ("network", "bulk", "arrays", "shapes", "duplicate", "nesting", "metadata", "length")


def main() -> int:
    """Run, print a table, and return 1 if any load did what it must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="altered files (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the alterations (default: 0)")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    nets = originals()
    outcomes: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        saved = []
        for net, params, extra in nets:
            tn.save(path, net, params, extra=extra)
            assert same(tn.load(path), (net, params))
            saved.append(path.read_bytes())
        forbid(path)
        signal.signal(signal.SIGALRM, out_of_time)
        start_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(args.count):
            which = rng.randrange(len(nets))
            net, params, extra = nets[which]
            if rng.random() < 0.5:
                kind = rng.choice(DAMAGE)
                data = alter(kind, saved[which], rng.choice(saved), rng)
            else:
                kind = rng.choice(FORGED)
                data = forge(kind, {"net": net, "params": params, "extra": extra}, rng)
            path.write_bytes(data)
            begin = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            limit_memory(BYTES)
            WATCHING.append(path)
            try:
                loaded = tn.load(path, classes=[Ones])
                result = "same" if same(loaded, (net, params)) else "other"
            except tn.FileError as error:
                result = "FileError"
                if any(isinstance(cause, MemoryError) for cause in causes(error)):
                    result = "memory"
                elif str(path) not in str(error):
                    result = "unnamed"
            except BaseException as error:
                result = type(error).__name__
            WATCHING.clear()
            limit_memory(None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, time.perf_counter() - begin)
            outcomes[kind, result] += 1
            # A forged file may hold another valid network; a merely damaged one may not, nor one of the other files.
            allowed = {"FileError", "same"} | ({"other"} if kind in FORGED or kind == "splice" else set())
            if result == "other" and kind == "splice":
                allowed = allowed if any(same(loaded, original[:2]) for original in nets) else {"FileError"}
            if result not in allowed:
                failures.append(f"file {number} ({kind}): {result}")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_memory) / 1024
    for (kind, result), count in sorted(outcomes.items()):
        print(f"{kind:<10} {result:<12} {count:>6}")
    if CAUGHT:
        failures += CAUGHT
    print(
        f"{args.count} files, seed {args.seed}: {len(failures)} failures; slowest load {slowest * 1e3:.0f} ms, "
        f"memory grew by {grown:.0f} MB"
    )
    print(*failures[:20], sep="\n")
    return 1 if failures else 0


WATCHING: list[Path] = []
CAUGHT: list[str] = []


def forbid(path: Path) -> None:
    """From here on record whatever a load does besides opening its file."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        dangerous = (
            "import",
            "exec",
            "compile",
            "subprocess",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "socket",
            "ctypes.dlopen",
            "pickle",
        )
        elsewhere = event == "open" and str(args[0]) != str(path)
        if WATCHING and (event.startswith(dangerous) or elsewhere):
            CAUGHT.append(f"a load did {event} {args!a:.100}")

    sys.addaudithook(hook)


def limit_memory(more: int | None) -> None:
    """Let the process have `more` bytes than it has; as many as it likes if None."""
    limit = resource.RLIM_INFINITY
    if more is not None:
        limit = more + resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


class OutOfTime(BaseException):
    """A load took too long; no `except Exception` may hide it."""


def out_of_time(*_: object) -> None:
    raise OutOfTime


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    sys.exit(main())

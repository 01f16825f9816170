"""Let what a file's bytes make `load` do guide the next change of them: fuzzing with coverage feedback.

    python scripts/fuzz_coverage.py [--seconds 900] [--seed 1] [CORPUS]       (pip install atheris)

Half of the changes are bytes; the other half change what the file says, and sign it again, or every file would end at
its checksum. A load may end in a FileError, or in a value that comes back the same when it is written again. Anything
else, more than 2 s or more than 2 GB is a crash, whose file libFuzzer keeps.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import atheris
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

with atheris.instrument_imports(include=["tinynet.files", "tinynet.training.checkpoints", "tinynet.trees"]):
    import tinynet as tn
    from tinynet.files import container as files
    from tinynet.files.encoding import encode
    from tinynet.training.checkpoints import load_checkpoint

from fuzz_files import SECONDS, Ones, header, originals, swap  # noqa: E402

HEADERS = ("shapes", "duplicate", "nesting", "metadata", "length")


def seeds(folder: Path) -> None:
    """Write one file of each kind, to begin with."""
    for number, (net, params, extra) in enumerate(originals()[:6]):
        tn.save(folder / f"net{number}", net, params, extra=extra)
    for number, net in enumerate((tn.Linear(2, 1), tn.Sequential(tn.Linear(2, 2), tn.BatchNorm(2), tn.Dropout(0.1)))):
        x, y = np.ones((4, 2), np.float32), np.ones((4, number + 1), np.float32)
        options: dict[str, Any] = {"validation": (x, y), "early_stopping": tn.EarlyStopping(patience=3)}
        path = folder / f"run{number}"
        tn.fit(net, tn.SquaredError(), x, y, optimizer=tn.Adam(0.1), epochs=2, batch_size=2, checkpoint=path, **options)


def signed(data: bytes, rng: random.Random) -> bytes:
    """Change what a file says, and sign it as if tinynet had written it."""
    end = int.from_bytes(data[:8], "little") + 8
    entries = json.loads(data[8:end])
    document = json.loads(entries.pop("__metadata__")["tinynet"])["content"]
    arrays = {}
    for name, entry in entries.items():
        begin, stop = entry["data_offsets"]
        raw = np.frombuffer(data[end + begin : end + stop], files._dtype(entry["dtype"]))
        arrays[name] = raw.reshape(entry["shape"]).copy()
    if arrays and rng.random() < 0.3:
        name = rng.choice(sorted(arrays))
        arrays[name] = np.zeros(rng.choice([(), (0,), (3,), (2, 2)]), rng.choice(["float32", "float64", "int64"]))
    elif rng.random() < 0.5:
        document = swap(document, rng)
    else:
        text = atheris.Mutate(json.dumps(document).encode(), 20_000)
        document = json.loads(text)
    return b"".join(files._pack(document, arrays))


def change(data: bytes, most: int, seed: int) -> bytes:
    """Return another file, at most so long."""
    rng = random.Random(seed)
    try:
        if rng.random() < 0.5:
            changed = signed(data, rng) if rng.random() < 0.8 else header(data, rng.choice(HEADERS), rng)
            if len(changed) <= most:
                return changed
    except Exception:  # a file that nothing can be made of is changed byte by byte
        pass
    return bytes(atheris.Mutate(data, most))


def load(data: bytes) -> None:
    """Load the bytes as a network and as a checkpoint."""
    began = time.process_time()
    PATH.write_bytes(data)
    try:
        net, params = tn.load(PATH, classes=[Ones])
    except tn.FileError as error:
        check(str(error).isprintable(), f"unprintable: {error}")
    else:
        value = {"net": net, "params": params, "extra": None}
        again, once_more = (
            encode(v) for v in (value, files.read(PATH, b"".join(files._pack(*encode(value))), classes=[Ones]))
        )
        check(again[0] == once_more[0], "another document comes back")
        same = {k: a.tobytes() for k, a in again[1].items()} == {k: a.tobytes() for k, a in once_more[1].items()}
        check(same, "other arrays come back")
    try:
        load_checkpoint(PATH, data, classes=[Ones])
    except tn.FileError as error:
        check(str(error).isprintable(), f"unprintable: {error}")
    check(time.process_time() - began < SECONDS, "too slow")


def check(holds: bool, what: str) -> None:
    """Raise AssertionError, which libFuzzer takes for a crash, unless it holds."""
    if not holds:
        raise AssertionError(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=900, help="how long (default: 900)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default: 1; 0 is none)")
    parser.add_argument("corpus", nargs="?", type=Path, help="a folder of files to begin with, which grows")
    args = parser.parse_args()
    corpus = args.corpus or FOLDER / "corpus"
    corpus.mkdir(exist_ok=True)
    seeds(corpus)
    limits = ["-rss_limit_mb=2048", "-max_len=20000", "-timeout=10", "-print_final_stats=1"]
    flags = [f"-max_total_time={args.seconds}", f"-seed={args.seed}", f"-artifact_prefix={FOLDER}/", *limits]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], load, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    FOLDER = Path(tempfile.mkdtemp(prefix="fuzz"))
    PATH = FOLDER / "file"
    main()

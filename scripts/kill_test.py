"""Kill a training run again and again at random moments, let it go on, and compare the end with an undisturbed run.

    python scripts/kill_test.py [--kills 100] [--seed 0]

After each kill the checkpoint must be readable; at each end, parameters and losses must be those of the run that nobody
killed, bit for bit, and no other file may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import tinynet as tn
from tinynet.files.container import read, write
from tinynet.training.checkpoints import load_checkpoint


def train(path: Path, every: int, engine: Any) -> dict[str, Any]:
    """Train a small network, from the checkpoint at `path` if there is one, and write it each `every` updates.

    It has whatever could come back wrong: an optimizer with a state, an order drawn anew each epoch, a layer that
    draws random numbers, a last batch that is shorter, and the best parameters so far.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 6)), rng.uniform(size=(100, 3))
    result = tn.fit(
        tn.Sequential(tn.Linear(6, 16), tn.Sigmoid(), tn.Dropout(0.2), tn.Linear(16, 3), tn.Sigmoid()),
        tn.SquaredError("mean"),
        x,
        y,
        optimizer=tn.Adam(0.01),
        epochs=12,
        batch_size=8,
        seed=5,
        engine=engine,
        validation=(x[:20], y[:20]),
        early_stopping=tn.EarlyStopping(patience=50),
        checkpoint=path,
        every=every,
    )
    history = {name: values for name, values in result.history.items() if name != "seconds"}
    return {"params": result.params, "history": history}


def in_a_process(path: Path, result: Path, every: int, engine: str) -> int:
    """Start training in a process of its own and return its id."""
    if process := os.fork():
        return process
    try:
        write(result, train(path, every, engine))
    except BaseException as error:
        print(f"the run failed: {error!r}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def same(a: Any, b: Any) -> bool:
    """Return whether two results are equal bit for bit."""
    from tinynet.files.encoding import encode

    (a, arrays_a), (b, arrays_b) = encode(a), encode(b)
    return a == b and all(arrays_a[name].tobytes() == arrays_b[name].tobytes() for name in arrays_a)


def main() -> int:
    """Run, print the count and return 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="at least how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--every", type=int, default=2, help="updates between checkpoints (default: 2)")
    parser.add_argument("--engine", choices=("numpy", "jax"), default="numpy", help="of fit (default: numpy)")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    kills = in_writes = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        path, result = Path(folder, "run.safetensors"), Path(folder, "result")
        begin = time.perf_counter()
        os.waitpid(in_a_process(path, result, args.every, args.engine), 0)
        whole = time.perf_counter() - begin
        undisturbed = read(result)
        path.unlink()
        result.unlink()
        while kills < args.kills or path.exists():
            process = in_a_process(path, result, args.every, args.engine)
            if kills < args.kills:
                time.sleep(rng.uniform(0, whole))
                os.kill(process, signal.SIGKILL)
            status = os.waitpid(process, 0)[1]
            if os.WIFSIGNALED(status):
                kills += 1
                in_writes += any(name.endswith(".tmp") for name in os.listdir(folder))
                if path.exists():
                    load_checkpoint(path)
                continue
            if os.WEXITSTATUS(status) != 0:
                return 1
            if not same(read(result), undisturbed):
                print(f"after {kills} kills the result differs")
                return 1
            if set(os.listdir(folder)) != {path.name, result.name}:
                print(f"left over: {os.listdir(folder)}")
                return 1
            runs += 1
            path.unlink()
            result.unlink()
    print(
        f"engine {args.engine}: {kills} kills, {in_writes} of them in the middle of a write, seed {args.seed}: "
        f"{runs} runs ended, each with the bits of the run that was not killed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
from tinynet.checkpoints import (
    Checkpoint,
    check_run,
    fingerprint,
    load_checkpoint,
    restore_rng,
    rng_state,
    save_checkpoint,
)
from tinynet.files import read, write

EPOCHS, BATCH_SIZE, SEED = 12, 8, 5


def train(path: Path, every: int) -> dict[str, Any]:
    """Train a small network, from the checkpoint at `path` if there is one, and write it each `every` updates."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 6)), rng.uniform(size=(100, 3))
    net = tn.Sequential(tn.Linear(6, 16), tn.Sigmoid(), tn.Linear(16, 3), tn.Sigmoid())
    loss, optimizer = tn.SquaredError("mean"), tn.SGD(0.1, momentum=0.9)
    run = {"loss": loss, "optimizer": optimizer, "batch_size": BATCH_SIZE, "seed": SEED, "data": fingerprint(x, y)}

    rng = np.random.default_rng(SEED)
    order_rng = rng.spawn(1)[0]
    params = net.init(rng, x.dtype)
    state = optimizer.init(params)
    first, done, losses, history = 0, 0, [], []
    if path.exists():
        point = load_checkpoint(path)
        check_run(path, point, net, run)
        params, state, first, done = point.params, point.state, point.epoch, point.batch
        losses, history = point.losses.tolist(), point.history.get("loss", np.array([])).tolist()
        restore_rng(order_rng, point.rngs["order"])

    updates = 0
    for epoch in range(first, EPOCHS):
        before = rng_state(order_rng)
        order = order_rng.permutation(len(x))
        for batch in range(done, -(-len(x) // BATCH_SIZE)):
            part = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
            E, grads = tn.value_and_grads(net, loss, params, x[part], y[part])
            params, state = optimizer.update(params, grads, state)
            losses.append((float(E), len(part)))
            updates += 1
            if updates % every == 0:
                point = Checkpoint(
                    net=net,
                    params=params,
                    state=state,
                    run=run,
                    epoch=epoch,
                    batch=batch + 1,
                    losses=np.array(losses).reshape(-1, 2),
                    rngs={"order": before},
                    history={"loss": np.array(history)},
                )
                save_checkpoint(path, point)
        history.append(sum(E * m for E, m in losses) / len(x))
        losses, done = [], 0
    return {"params": params, "loss": np.array(history)}


def in_a_process(path: Path, result: Path, every: int) -> int:
    """Start training in a process of its own and return its id."""
    if process := os.fork():
        return process
    try:
        write(result, train(path, every))
    except BaseException as error:
        print(f"the run failed: {error!r}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal bit for bit."""
    from tinynet.documents import encode

    (a, arrays_a), (b, arrays_b) = encode(a), encode(b)
    return a == b and all(arrays_a[name].tobytes() == arrays_b[name].tobytes() for name in arrays_a)


def main() -> int:
    """Run, print the count and return 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="at least how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--every", type=int, default=2, help="updates between checkpoints (default: 2)")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    kills = in_writes = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        path, result = Path(folder, "run.safetensors"), Path(folder, "result")
        begin = time.perf_counter()
        os.waitpid(in_a_process(path, result, args.every), 0)
        whole = time.perf_counter() - begin
        undisturbed = read(result)
        path.unlink()
        result.unlink()
        while kills < args.kills or path.exists():
            process = in_a_process(path, result, args.every)
            if kills < args.kills:
                time.sleep(rng.uniform(0, whole / 3))
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
        f"{kills} kills, {in_writes} of them in the middle of a write, seed {args.seed}: "
        f"{runs} runs ended, each with the bits of the run that was not killed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

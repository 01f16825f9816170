"""Train one network on several hosts: start this on each of them, with the same arguments but --process-id.

    python scripts/train_distributed.py --coordinator 10.0.0.1:1234 --num-processes 2 --process-id 0
    python scripts/train_distributed.py --coordinator 10.0.0.1:1234 --num-processes 2 --process-id 1

Each batch is spread over all devices of all hosts, and the parameters are the same on all of them: the result is that
of one device, to rounding. When a process dies the others stop with an error; started again with the same --checkpoint
they go on from there (the file is on the host of process 0). Ctrl-C in one ends all of them, the checkpoint written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

import tinynet as tn
from tinynet.cli.tables import load_digits, read_npz, split


def main() -> int:
    """Join the other processes and train with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="a .npz file with x and y (default: scikit-learn's digits)")
    parser.add_argument("--coordinator", required=True, metavar="HOST:PORT", help="where process 0 listens")
    parser.add_argument("--num-processes", type=int, required=True, help="how many there are")
    parser.add_argument("--process-id", type=int, required=True, help="which one this is, counted from 0")
    parser.add_argument("--heartbeat", type=int, default=100, help="seconds until a silent process counts as dead")
    parser.add_argument("--hidden", type=int, default=64, help="hidden units (default: 64)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32, help="rows a batch, over all processes (default: 32)")
    parser.add_argument("--lr", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="write where the training stands here, or go on from there")
    parser.add_argument("--every", type=int, help="batches between checkpoints (default: an epoch)")
    parser.add_argument("--save", type=Path, help="write the network and its parameters here, for tn.load")
    args = parser.parse_args()

    # CPU devices of several processes talk through gloo; other devices bring their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # type: ignore[no-untyped-call]
    jax.distributed.initialize(
        args.coordinator,
        args.num_processes,
        args.process_id,
        heartbeat_timeout_seconds=args.heartbeat,
        shutdown_timeout_seconds=args.heartbeat,
    )
    try:
        train(args)
    except tn.Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        status = 130
    else:
        status = 0
    jax.distributed.shutdown()  # type: ignore[no-untyped-call]
    return status


def train(args: argparse.Namespace) -> None:
    """Train on the devices of all processes; process 0 reports."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    first = jax.process_index() == 0

    table = read_npz(args.data) if args.data else load_digits()
    data = split(table, task="classify", test_fraction=0.2, seed=args.seed, standardise=args.data is not None)
    n_in, n_out = data.x_train.shape[1], data.y_train.shape[1]
    net = tn.Sequential(tn.Linear(n_in, args.hidden), tn.Sigmoid(), tn.Linear(args.hidden, n_out), tn.Sigmoid())
    result = tn.fit(
        net,
        tn.SquaredError("mean"),
        data.x_train,
        data.y_train,
        optimizer=tn.SGD(args.lr),
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        engine="jax",
        mesh=mesh,
        progress=first and sys.stderr.isatty(),
        checkpoint=args.checkpoint,
        every=args.every,
    )
    if first:
        y_hat, _ = net.forward(result.params, data.x_test)
        accuracy = np.mean(y_hat.argmax(axis=1) == data.y_test.argmax(axis=1))
        print(f"{jax.device_count()} devices in {jax.process_count()} processes: {accuracy:.2%} on held-out rows")
        if args.save:
            tn.save(args.save, net, result.params)


if __name__ == "__main__":
    sys.exit(main())

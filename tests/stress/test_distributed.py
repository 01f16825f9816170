"""More than one device and more than one process give what one device gives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import tinynet as tn
from tinynet.cli.tables import load_digits, split
from tinynet.training.checkpoints import load_checkpoint
from tinynet.trees import leaves

ROOT = Path(__file__).parents[2]

EIGHT_DEVICES = """
import jax, numpy as np, tinynet as tn
from tinynet.trees import leaves

assert jax.device_count() == 8
rng = np.random.default_rng(1)
x, y = rng.random((83, 5)), rng.random((83, 2))
net = tn.Sequential(tn.Linear(5, 4), tn.Sigmoid(), tn.Linear(4, 2), tn.Sigmoid())
for mesh in (jax.make_mesh((8,), ("data",)), jax.make_mesh((4, 2), ("data", "other"))):
    for batch_size in (16, 24, 20, None):
        options = dict(optimizer=tn.SGD(0.5, 0.9), epochs=2, batch_size=batch_size, engine="jax")
        alone = tn.fit(net, tn.SquaredError("mean"), x, y, **options)
        shared = tn.fit(net, tn.SquaredError("mean"), x, y, mesh=mesh, **options)
        for p, q in zip(leaves(alone.params), leaves(shared.params)):
            assert np.abs(p - q).max() <= 1e-14, np.abs(p - q).max()
        assert np.abs(alone.history["loss"] - shared.history["loss"]).max() <= 1e-14

from tinynet.training.engines.jax import JaxEngine
engine = JaxEngine(net, tn.SquaredError(), tn.SGD(0.1), mesh, np.float32)
text = engine._program.scan_batches.lower(
    engine._program, engine.start(net.init(rng)), (np.ones((3, 16, 5), "f"), np.ones((3, 16, 2), "f"), None),
    engine._draw(rng, 3), engine.numbers,
).compile().as_text()
assert "all-reduce" in text, "the devices do not share the work"
print("equal")
"""


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"} | more


def test_eight_devices_share_each_batch_and_equal_one() -> None:
    env = environment(XLA_FLAGS="--xla_force_host_platform_device_count=8")
    done = subprocess.run([sys.executable, "-c", EIGHT_DEVICES], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"


def start_two(*more: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "scripts" / "train_distributed.py"), "--num-processes", "2", *more]
    return [
        subprocess.Popen(
            [*command, "--coordinator", f"localhost:{port}", "--process-id", str(i)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def two_training(*more: str) -> Iterator[list[subprocess.Popen[str]]]:
    processes = start_two(*more)
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def batches_done(path: Path) -> int:
    return 45 * (point := load_checkpoint(path)).epoch + point.batch if path.exists() else 0


def test_two_processes_equal_one_and_go_on_to_the_same_bits_after_a_death_and_ctrl_c(tmp_path: Path) -> None:
    path, whole, saved = tmp_path / "run", tmp_path / "whole", tmp_path / "digits.safetensors"
    options = "--every", "20", "--heartbeat", "10", "--checkpoint"
    with two_training("--epochs", "300", *options, str(path)) as (staying, dying):
        wait_for(lambda: batches_done(path) > 0, 60)
        dying.send_signal(signal.SIGKILL)
        staying.communicate(timeout=60)
        assert staying.returncode != 0
    cut_off = batches_done(path)
    assert 0 < cut_off < 300 * 45

    with two_training("--epochs", "300", *options, str(path)) as processes:
        wait_for(lambda: batches_done(path) > cut_off, 60)
        processes[1].send_signal(signal.SIGINT)
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        assert [process.returncode for process in processes] == [130, 130], outputs
        assert all(f"saved to {path}; to go on, make the same call again" in output for output in outputs)
    assert batches_done(path) < 300 * 45

    epochs = load_checkpoint(path).epoch + 3
    for checkpoint in (path, whole):
        more = *options, str(checkpoint), "--save", str(saved), "--epochs", str(epochs)
        with two_training(*more) as processes:
            outputs = [process.communicate(timeout=60)[0] for process in processes]
            assert [process.returncode for process in processes] == [0, 0], outputs
            assert "2 devices in 2 processes" in outputs[0], outputs
    for p, q in zip(leaves(load_checkpoint(path).params), leaves(load_checkpoint(whole).params), strict=True):
        np.testing.assert_array_equal(p, q)

    digits = split(load_digits(), task="classify", test_fraction=0.2, seed=0, standardise=False)
    net = tn.Sequential(tn.Linear(64, 64), tn.Sigmoid(), tn.Linear(64, 10), tn.Sigmoid())
    data = digits.x_train, digits.y_train
    alone = tn.fit(net, tn.SquaredError("mean"), *data, optimizer=tn.SGD(3.0), epochs=epochs, batch_size=32)
    saved_net, params = tn.load(saved)
    assert saved_net == net
    for p, q in zip(leaves(params), leaves(alone.params), strict=True):
        np.testing.assert_allclose(p, q, rtol=0, atol=epochs * 45 * 4 * 2.0**-23)  # float32, 45 updates an epoch

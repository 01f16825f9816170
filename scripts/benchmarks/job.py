"""Measure a whole process: read a table of 2,000 rows, train 64-30-10 for 60 epochs, print the accuracy.

    python scripts/benchmark.py job

Each contestant is the script that its users would write, started anew in each round, in turns. All train the same
network with the same optimizer (Adam, lr 0.01, batch 32) on 1,600 rows and print the accuracy on the other 400.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

READ = """
    import sys
    import numpy as np
    table = np.loadtxt(sys.argv[1], delimiter=",", dtype=np.float32)
    x, labels = table[:, :-1], table[:, -1].astype(int)
"""
TINYNET = """
    import tinynet as tn
    net = tn.Sequential(tn.Linear(64, 30), tn.ReLU(), tn.Linear(30, 10))
    loss = tn.SoftmaxCrossEntropy("mean")
    options = {"optimizer": tn.Adam(0.01), "epochs": 60, "batch_size": 32, "seed": 0}
    params = tn.fit(net, loss, x[:1600], np.eye(10, dtype=np.float32)[labels[:1600]], ENGINE**options).params
    print((tn.predict(net, params, x[1600:]).argmax(axis=1) == labels[1600:]).mean())
"""
SCIKIT_LEARN = """
    import warnings
    from sklearn.neural_network import MLPClassifier
    warnings.simplefilter("ignore")
    net = MLPClassifier((30,), alpha=0, batch_size=32, learning_rate_init=0.01, max_iter=60, tol=0, random_state=0)
    net.n_iter_no_change = 60
    print(net.fit(x[:1600], labels[:1600]).score(x[1600:], labels[1600:]))
"""
TORCH = """
    import torch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 30), torch.nn.ReLU(), torch.nn.Linear(30, 10))
    optimizer, loss = torch.optim.Adam(net.parameters(), 0.01), torch.nn.CrossEntropyLoss()
    x, labels = torch.from_numpy(x), torch.from_numpy(labels)
    for _ in range(60):
        for rows in torch.randperm(1600).split(32):
            optimizer.zero_grad()
            loss(net(x[rows]), labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        print((net(x[1600:]).argmax(dim=1) == labels[1600:]).float().mean().item())
"""
KERAS = """
    import os
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    net = keras.Sequential([keras.layers.Dense(30, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    net.fit(x[:1600], labels[:1600], batch_size=32, epochs=60, verbose=0)
    print(net.evaluate(x[1600:], labels[1600:], verbose=0)[1])
"""
CONTESTANTS = {
    "tinynet": ("tinynet", TINYNET.replace("ENGINE", "")),
    "tinynet, engine=jax": ("jax", TINYNET.replace("ENGINE", 'engine="jax", ')),
    "scikit-learn": ("sklearn", SCIKIT_LEARN),
    "torch": ("torch", TORCH),
    "keras on JAX": ("keras", KERAS),
}


def write_table(path: Path) -> None:
    """Write 2,000 rows of 64 numbers and a label: ten classes around random points."""
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=2000)
    x = rng.standard_normal((10, 64))[labels] + 1.5 * rng.standard_normal((2000, 64))
    np.savetxt(path, np.column_stack([x, labels]), fmt="%.6g", delimiter=",")


def table(*, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the median seconds of each contestant's process, and the accuracy that it printed."""
    there = [name for name, (package, _) in CONTESTANTS.items() if importlib.util.find_spec(package) is not None]
    for name in CONTESTANTS.keys() - set(there):
        print(f"left out: {name} (not installed)", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in there}
    accuracy: dict[str, float] = {}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "table.csv"
        write_table(data)
        order = np.random.default_rng(0)
        for _ in tqdm(range(rounds), unit="round", leave=False, disable=not sys.stderr.isatty()):
            for name in order.permutation(there):
                code = textwrap.dedent(READ + CONTESTANTS[name][1])
                start = time.perf_counter()
                command = [sys.executable, "-c", code, str(data)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                times[name].append(time.perf_counter() - start)
                accuracy[name] = float(done.stdout)
    return {name: {"seconds": statistics.median(times[name]), "accuracy": accuracy[name]} for name in there}


def print_table(figures: dict[str, dict[str, Any]]) -> None:
    mine = figures["tinynet"]["seconds"]
    print("\nSeconds from nothing to a result: start, read 2,000 rows, train 64-30-10 for 60 epochs; median")
    print("| | seconds | times tinynet's | accuracy |\n|---|---|---|---|")
    for name, row in figures.items():
        print(f"| {name} | {row['seconds']:.2f} | {row['seconds'] / mine:.1f}× | {row['accuracy']:.3f} |")


def measure(*, rounds: int) -> dict[str, Any]:
    """Measure and print a whole process."""
    figures = table(rounds=rounds)
    print_table(figures)
    return {"job": figures}

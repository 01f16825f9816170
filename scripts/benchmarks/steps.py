"""Measure a training step of the document's network, beside the floor and the peers, all interleaved in one run.

    python scripts/benchmark.py steps [--png sweeps.png]

Everyone trains the same sigmoid network on the same batches in float32 from the same weights by plain SGD on
E = ½ Σ (ŷ − y)² / m, and the parameters that come out are compared. The floor is the network's matrix products alone,
in NumPy, into preallocated arrays. Peers that are not installed are left out, and a line says so.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import tinynet as tn
from tinynet.training.batches import Batches
from tinynet.training.engines.numpy import NumpyEngine
from tinynet.training.engines.threads import shares, step_work

LR = 0.1
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SETTLE_SECONDS = 0.3
BUSY = "while True: pass"


@dataclass(frozen=True)
class Problem:
    """A network, its data and where it starts."""

    sizes: tuple[int, ...]
    batch: int
    batches: int

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch}"

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(itertools.pairwise(self.sizes))

    @property
    def flops(self) -> int:
        """Count the floating-point operations of a step's products: forward, dW, and da but for the first layer."""
        return sum(2 * self.batch * n_in * n_out * (3 if i else 2) for i, (n_in, n_out) in enumerate(self.pairs))

    def net(self, *, linear_output: bool = False) -> tn.Sequential:
        layers = [layer for n_in, n_out in self.pairs for layer in (tn.Linear(n_in, n_out), tn.Sigmoid())]
        return tn.Sequential(*(layers[:-1] if linear_output else layers))

    def data(self) -> Batches:
        rng = np.random.default_rng(0)
        m = self.batch * self.batches
        x = rng.random((m, self.sizes[0]), np.float32)
        return Batches(x, rng.random((m, self.sizes[-1]), np.float32), None, self.batch, None, np.float32)

    def params(self) -> list[Any]:
        """Return W and b of each affine map in turn."""
        params = self.net().init(np.random.default_rng(0))
        return [p[name] for p in params if p for name in ("W", "b")]


@dataclass(frozen=True)
class Contestant:
    """Someone who trains: `epoch` goes through the data once, `params` are the weights as `Problem.params` has them."""

    epoch: Callable[[], Any]
    params: Callable[[], list[Any]] | None = None
    linear_output: bool = False
    prepare: Callable[[], Any] = contextlib.nullcontext


def floor(problem: Problem, threads: int) -> Contestant:
    """The network's matrix products alone, into arrays that are there already, on the same data as everyone's."""
    rng = np.random.default_rng(0)
    data = problem.data()
    z = [rng.random((problem.batch, n), np.float32) for n in problem.sizes[1:]]
    d = [rng.random((problem.batch, n), np.float32) for n in problem.sizes[1:]]
    W = problem.params()[::2]
    dW = [np.empty_like(w) for w in W]

    def epoch() -> None:
        for x, _, _ in data:
            a = [x, *z]
            for i, w in enumerate(W):
                np.matmul(a[i], w.T, out=a[i + 1])
            for i in reversed(range(len(W))):
                np.matmul(d[i].T, a[i], out=dW[i])
                if i:
                    np.matmul(d[i], W[i], out=d[i - 1])

    return Contestant(epoch, prepare=partial(threadpool_limits, threads, user_api="blas"))


def tinynet_numpy(problem: Problem, threads: int | None = None, *, linear_output: bool = False) -> Contestant:
    work = step_work(problem.params(), problem.batch)
    net = problem.net(linear_output=linear_output)
    engine = NumpyEngine(net, tn.SquaredError("mean"), tn.SGD(LR), work, threads)
    return _tinynet(engine, problem)


def tinynet_jax(problem: Problem) -> Contestant:
    from tinynet.training.engines.jax import JaxEngine

    return _tinynet(JaxEngine(problem.net(), tn.SquaredError("mean"), tn.SGD(LR)), problem)


def jax_grad_scan(problem: Problem) -> Contestant:
    from tinynet.training.engines.jax import JaxEngine

    engine = JaxEngine(problem.net(), tn.SquaredError("mean"), tn.SGD(LR), backpropagate=_by_jax_grad)
    return _tinynet(engine, problem)


def _by_jax_grad(net: Any, loss: Any, params: Any, x: Any, y: Any, *, dE: float = 1.0, **_: Any) -> Any:
    import jax

    E, grads = jax.value_and_grad(lambda params: loss.forward(net.forward(params, x)[0], y)[0] * dE)(params)
    return E / dE, grads, None


def _tinynet(engine: Any, problem: Problem) -> Contestant:
    data, rng = problem.data(), np.random.default_rng(0)
    with engine.session():
        carry = engine.start(engine.net.init(np.random.default_rng(0)))

    def epoch() -> None:
        nonlocal carry
        carry, _ = engine.epoch(carry, data, rng)

    def params() -> list[Any]:
        return [p[name] for p in engine.params(carry) if p for name in ("W", "b")]

    return Contestant(epoch, params, isinstance(engine.net.layers[-1], tn.Linear), engine.session)


def jax_grad_step(problem: Problem) -> Contestant:
    import jax

    net, loss, data = problem.net(), tn.SquaredError("mean"), problem.data()
    params = jax.tree.map(jax.numpy.asarray, net.init(np.random.default_rng(0)))

    @partial(jax.jit, donate_argnums=0)
    def step(params: Any, x: Any, y: Any) -> Any:
        E, grads, _ = _by_jax_grad(net, loss, params, x, y)
        return jax.tree.map(lambda p, g: p - LR * g, params, grads), E

    def epoch() -> None:
        nonlocal params
        for x, y, _ in data:
            params, _ = step(params, x, y)
        jax.block_until_ready(params)  # type: ignore[no-untyped-call]

    return Contestant(
        epoch,
        lambda: [np.asarray(p[name]) for p in params if p for name in ("W", "b")],
        prepare=partial(jax.default_matmul_precision, "float32"),  # GPUs would round the operands
    )


def torch_eager(problem: Problem, threads: int) -> Contestant:
    import torch

    layers = [layer for n_in, n_out in problem.pairs for layer in (torch.nn.Linear(n_in, n_out), torch.nn.Sigmoid())]
    net = torch.nn.Sequential(*layers)
    with torch.no_grad():
        for parameter, p in zip(net.parameters(), problem.params(), strict=True):
            parameter.copy_(torch.from_numpy(p))
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    data = problem.data()
    batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y, _ in data]

    def epoch() -> None:
        for x, y in batches:
            optimizer.zero_grad()
            E = 0.5 * ((net(x) - y) ** 2).sum() / len(x)
            E.backward()
            optimizer.step()

    return Contestant(
        epoch, lambda: [p.detach().numpy() for p in net.parameters()], prepare=partial(torch_threads, threads)
    )


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Give torch so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scikit_learn(problem: Problem, threads: int) -> Contestant:
    """MLPRegressor, whose output is linear: one sigmoid less to compute."""
    from sklearn.neural_network import MLPRegressor

    data, start = problem.data(), problem.params()
    net = MLPRegressor(
        hidden_layer_sizes=problem.sizes[1:-1],
        activation="logistic",
        solver="sgd",
        alpha=0.0,
        batch_size=problem.batch,
        learning_rate_init=LR,
        max_iter=1,
        momentum=0.0,
        nesterovs_momentum=False,
        shuffle=False,
    )
    with warnings.catch_warnings(action="ignore"):
        net.partial_fit(data.x[:2], data.y[:2])
    for mine, p in zip(net.coefs_, start[::2], strict=True):
        mine[:] = p.T
    for mine, p in zip(net.intercepts_, start[1::2], strict=True):
        mine[:] = p

    def params() -> list[Any]:
        return [p for W, b in zip(net.coefs_, net.intercepts_, strict=True) for p in (W.T, b)]

    prepare = partial(threadpool_limits, threads, user_api="blas")
    return Contestant(lambda: net.partial_fit(data.x, data.y), params, True, prepare)


def thinc(problem: Problem) -> Contestant:
    from thinc.api import SGD, Sigmoid, chain

    layers = [Sigmoid(nO=n_out, nI=n_in) for n_in, n_out in problem.pairs]
    net: Any = chain(*layers)
    optimizer, data = SGD(LR, L2=0.0, grad_clip=0.0), problem.data()
    net.initialize()
    for layer, (W, b) in zip(layers, _pairs(problem.params()), strict=True):
        layer.set_param("W", W.copy())
        layer.set_param("b", b.copy())

    def epoch() -> None:
        for x, y, _ in data:
            y_hat, backprop = net.begin_update(x)
            backprop((y_hat - y) / len(x))
            net.finish_update(optimizer)

    return Contestant(epoch, lambda: [p for layer in layers for p in (layer.get_param("W"), layer.get_param("b"))])


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def by_threads(name: str, make: Callable[..., Contestant]) -> dict[str, Callable[[Any], Contestant]]:
    return {f"{name}, {_threads(n)}": partial(make, threads=n) for n in sorted({1, CPUS})}


def _threads(n: int) -> str:
    return f"{n} thread{'s' * (n > 1)}"


CONTESTANTS: dict[str, Callable[[Problem], Contestant]] = {
    **by_threads("floor", floor),
    "tinynet": tinynet_numpy,
    **by_threads("tinynet", tinynet_numpy),
    "tinynet, engine=jax": tinynet_jax,
    "jax.grad, same scan": jax_grad_scan,
    "jax.grad, jit a step": jax_grad_step,
    **by_threads("torch eager", torch_eager),
    **by_threads("scikit-learn", scikit_learn),
    "thinc": thinc,
}
ROWS = (
    Problem((784, 30, 10), 10, 1000),
    Problem((784, 128, 10), 128, 100),
    Problem((784, 1024, 1024, 10), 512, 4),
)
QUICK_ROWS = (Problem((20, 8, 3), 4, 3), Problem((20, 16, 3), 8, 2))


def field(problem: Problem, names: list[str]) -> tuple[dict[str, Contestant], dict[str, float]]:
    """Set everyone up and let them go through the data once: (contestants, seconds of that first epoch)."""
    contestants, first = {}, {}
    for name in names:
        try:
            contestant = CONTESTANTS[name](problem)
        except ImportError as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
            continue
        with contestant.prepare():
            start = time.perf_counter()
            contestant.epoch()
            first[name] = time.perf_counter() - start
        contestants[name] = contestant
    return contestants, first


def check_same_params(problem: Problem, contestants: dict[str, Contestant]) -> float:
    """Return how far the parameters after one epoch are from tinynet's, at worst, relative to the largest.

    Raises:
        RuntimeError: too far for the arithmetic to have been the same.
    """
    worst = 0.0
    for linear_output in (False, True):
        mine = tinynet_numpy(problem, linear_output=linear_output)
        mine.epoch()
        for name, contestant in contestants.items():
            if contestant.params is None or contestant.linear_output != linear_output:
                continue
            for p, q in zip(mine.params(), contestant.params(), strict=True):  # type: ignore[misc]
                far = float(np.abs(p - q).max() / np.abs(p).max())
                if not far < 1e-3:
                    raise RuntimeError(f"{problem.name}: {name} arrives elsewhere, {far:.1e} away")
                worst = max(worst, far)
    return worst


def interleaved(batches: int, contestants: dict[str, Contestant], rounds: int, bar: Any) -> dict[str, float]:
    """Return the median microseconds of a step; each round lets everyone through the data once, in a new order.

    The first epoch of each turn is not measured: in it caches fill, the threads of the one before stop spinning, and
    those that were asleep are given their cores.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(contestants)):
            contestant = contestants[name]
            with contestant.prepare():
                contestant.epoch()
                start = time.perf_counter()
                contestant.epoch()
                times[name].append((time.perf_counter() - start) / batches * 1e6)
        bar.update()
    return {name: statistics.median(t) for name, t in times.items()}


@contextlib.contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Keep `n` processes busy with nothing."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n)]
    try:
        time.sleep(SETTLE_SECONDS if n else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_row(problem: Problem, rounds: int, bar: Any) -> dict[str, Any]:
    contestants, first = field(problem, list(CONTESTANTS))
    far = check_same_params(problem, contestants)
    idle = interleaved(problem.batches, contestants, rounds, bar)
    some = {name: c for name, c in contestants.items() if name.startswith(("tinynet", "torch"))}
    with busy_processes(2):
        busy = interleaved(problem.batches, some, max(1, rounds // 4), bar)
    compile_seconds = {name: first[name] - idle[name] * problem.batches / 1e6 for name in idle if "jax" in name}
    return {
        "row": problem.name,
        "idle_us": idle,
        "busy_us": busy,
        "compile_s": compile_seconds,
        "worst_difference_of_params": far,
        "tinynet_threads": shares(step_work(problem.params(), problem.batch), None),
    }


def sweeps(rounds: int, quick: bool, bar: Any) -> dict[str, list[dict[str, float]]]:
    """Measure the time a floating-point operation takes over batch, width and depth."""
    series: dict[str, list[tuple[int, Problem]]] = {
        "batch": [(n, Problem((784, 128, 10), n, max(1, 2048 // n))) for n in (1, 4, 16, 64, 256, 1024)],
        "width": [(n, Problem((784, n, 10), 128, 8)) for n in (16, 64, 256, 1024)],
        "depth": [(n, Problem((784, *[128] * n, 10), 128, 8)) for n in (1, 2, 4, 8, 16)],
    }
    if quick:
        series = {name: [(n, Problem((8, 4, 2), 2, 2)) for n, _ in points[:2]] for name, points in series.items()}
    table: dict[str, list[dict[str, float]]] = {}
    for name, points in series.items():
        table[name] = []
        for n, problem in points:
            contestants, _ = field(problem, ["floor, 1 thread", "tinynet", "torch eager, 1 thread"])
            times = interleaved(problem.batches, contestants, rounds, bar)
            table[name].append({"at": n} | {k: us * 1e3 / (problem.flops / 1e3) for k, us in times.items()})
    return table


def draw(table: dict[str, list[dict[str, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(table), figsize=(12, 3.6), sharey=True, layout="constrained")
    titles = {
        "batch": "batch size, 784-128-10",
        "width": "hidden width, batch 128",
        "depth": "hidden layers of 128, batch 128",
    }
    for axis, (name, points) in zip(axes, table.items(), strict=True):
        for contestant in (key for key in points[0] if key != "at"):
            axis.plot([p["at"] for p in points], [p[contestant] for p in points], "o-", label=contestant)
        axis.set(xscale="log", yscale="log", xlabel=titles[name])
        axis.set_xticks([p["at"] for p in points], [str(p["at"]) for p in points])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ns per 1,000 floating-point operations")
    axes[0].legend(frameon=False)
    figure.suptitle("What an operation costs: level where the products dominate")
    temporary = path.with_name(f".{path.name}.partial.png")
    figure.savefig(temporary, dpi=130)
    os.replace(temporary, path)


def peak_memory(problem: Problem, names: list[str]) -> dict[str, float]:
    """Return the MiB that training adds to a fresh process's peak, for each contestant, by starting one for each."""
    added = {}
    for name in names:
        command = [sys.executable, __file__, name, json.dumps([*problem.sizes, problem.batch])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            added[name] = float(done.stdout)
    return added


def report_memory(name: str, problem: Problem) -> None:
    contestant = CONTESTANTS[name](Problem((2, 2, 2), 2, 1))
    with contestant.prepare():
        contestant.epoch()
    before = _peak()
    contestant = CONTESTANTS[name](problem)
    with contestant.prepare():
        contestant.epoch()
    print((_peak() - before) / 1024)


def _peak() -> int:
    """Return the peak memory of this process in KiB; Linux's getrusage would count the parent's too."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def import_cost(rounds: int) -> dict[str, float]:
    """Return the median milliseconds that an import takes in a fresh process."""
    times: dict[str, list[float]] = {"numpy": [], "tinynet": []}
    for _ in range(rounds):
        for module, t in times.items():
            code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
            env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
            t.append(float(done.stdout) * 1e3)
    return {module: statistics.median(t) for module, t in times.items()}


def print_rows(rows: list[dict[str, Any]]) -> None:
    print("\nMicroseconds a step, median; (how many times tinynet's); busy: beside two busy processes, times idle")
    print("| | " + " | ".join(row["row"] for row in rows) + " |")
    print("|---|" + "---|" * len(rows))
    for name in CONTESTANTS:
        cells = []
        for row in rows:
            us = row["idle_us"].get(name)
            if us is None:
                cells.append("–")
                continue
            cell = f"{us:,.0f} ({us / row['idle_us']['tinynet']:.2f}×)"
            if name in row["busy_us"]:
                cell += f", busy {row['busy_us'][name] / us:.1f}×"
            if name in row["compile_s"]:
                cell += f", compile {row['compile_s'][name]:.1f} s"
            cells.append(cell)
        print(f"| {name} | " + " | ".join(cells) + " |")
    ratios = []
    for row in rows:
        threads = _threads(row["tinynet_threads"])
        ratios.append(f"{row['idle_us']['tinynet'] / row['idle_us'][f'floor, {threads}']:.2f} ({threads})")
    print("| **tinynet / floor on as many threads** | " + " | ".join(ratios) + " |")
    far = [f"{row['worst_difference_of_params']:.0e}" for row in rows]
    print("| parameters differ by at most | " + " | ".join(far) + " |")


def measure(*, rounds: int, rows: Sequence[int], quick: bool, png: Path | None) -> dict[str, Any]:
    """Measure a training step, what it adds to memory, and the import; print the tables."""
    problems = QUICK_ROWS if quick else [ROWS[i] for i in rows] if rows else ROWS
    figures: dict[str, Any] = {}
    with tqdm(unit="round", leave=False, disable=not sys.stderr.isatty()) as bar:
        figures["rows"] = [measure_row(problem, rounds, bar) for problem in problems]
        print_rows(figures["rows"])
        figures["import_ms"] = import_cost(rounds)
        cost = figures["import_ms"]
        ratio = cost["tinynet"] / cost["numpy"]
        print(f"\nimport tinynet {cost['tinynet']:.0f} ms, import numpy {cost['numpy']:.0f} ms: {ratio:.2f}×")
        figures["peak_memory_mib"] = peak_memory(problems[-1], ["tinynet"] if quick else list(CONTESTANTS))
        print(f"\nMiB that training adds to the peak, {problems[-1].name}")
        for name, mib in figures["peak_memory_mib"].items():
            print(f"| {name} | {mib:,.0f} |")
        if png:
            figures["sweeps_ns_per_kflop"] = sweeps(max(2, rounds // 3), quick, bar)
            draw(figures["sweeps_ns_per_kflop"], png)
    return figures


if __name__ == "__main__":
    _, name, sizes = sys.argv
    *widths, batch = json.loads(sizes)
    report_memory(name, Problem(tuple(widths), batch, 2))

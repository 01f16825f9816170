"""Measure `tn.verify` beside the checkers of PyTorch, JAX and autograd, each on the same hand-written backward passes.

    python scripts/benchmark.py verify                # some 20 minutes; --quick: that it runs, not how fast

Every checker is given the code of one tinynet layer, right, and with one entry of its largest gradient off by a share
of itself: as a `torch.autograd.Function` (`gradcheck`, full and fast), as a `jax.custom_vjp` (`check_grads`), as a
primitive of autograd (`check_grads`). Each pair of layer and checker has a process of its own, which says how long the
first check takes (compilation included, imports not), how long later ones take, and from which share on the wrong entry
is seen. A checker that would take more than `LIMIT` seconds is not run, and what it would take is extrapolated from a
forward and backward pass for each number that it looks at. Peers that are not installed are left out, with a line.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

import tinynet as tn
from tinynet.arrays import Array, Cache, Params
from tinynet.trees import leaves, map_leaves

LIMIT = 60.0
SHARES = tuple(10.0**-k for k in range(1, 11))


def _dense(*sizes: int) -> tn.Layer:
    pairs = itertools.pairwise(sizes)
    return tn.Sequential(*(part for n_in, n_out in pairs for part in (tn.Linear(n_in, n_out), tn.Sigmoid())))


TARGETS: Mapping[str, tuple[Callable[[], tn.Layer], tuple[int, ...]]] = {
    "Linear + Sigmoid": (lambda: _dense(4, 3), (5, 4)),
    "784-30-10": (lambda: _dense(784, 30, 10), (10, 784)),
    "784-1024-1024-10": (lambda: _dense(784, 1024, 1024, 10), (10, 784)),
    "Conv2d": (lambda: tn.Conv2d(3, 8, 3), (4, 3, 8, 8)),
    "LayerNorm": (lambda: tn.LayerNorm(32), (8, 32)),
    "attention, t = 16": (lambda: tn.MultiHeadAttention(16, 2), (2, 16, 16)),
    "attention, t = 64": (lambda: tn.MultiHeadAttention(16, 2), (2, 64, 16)),
    "GRU, t = 5": (lambda: tn.GRU(8, 8), (4, 5, 8)),
    "GRU, t = 20": (lambda: tn.GRU(8, 8), (4, 20, 8)),
    "GRU, t = 40": (lambda: tn.GRU(8, 8), (4, 40, 8)),
}


@dataclass(frozen=True)
class OneWrongEntry(tn.Layer):
    """A layer whose largest gradient has one entry that is off by a share of itself."""

    layer: tn.Layer
    share: float

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return self.layer.init(rng, dtype)

    def forward(self, params: Params, x: Array) -> tuple[Array, Cache]:
        return self.layer.forward(params, x)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        dx, dparams = self.layer.backward(params, cache, dy)
        largest = max(leaves(params), key=np.size, default=None)
        if largest is None:
            return dx * self._factors(dx), dparams
        return dx, map_leaves(lambda p, g: g * self._factors(g) if p is largest else g, params, dparams)

    def _factors(self, g: Array) -> Array:
        factors = np.ones(g.size, g.dtype)
        factors[g.size // 2] += self.share
        return factors.reshape(g.shape)


@dataclass(frozen=True)
class Question:
    """Is the backward pass of this layer right at these parameters and this x (float64)?"""

    layer: tn.Layer
    params: Params
    x: Array

    @property
    def arrays(self) -> list[Array]:
        return [*leaves(self.params), self.x]


def by_tinynet(question: Question) -> bool:
    return tn.verify(question.layer, inputs=question.x, params=question.params, named=False).verdict == "PASS"


def by_gradcheck(question: Question, *, fast_mode: bool) -> bool:
    import torch

    module = tn.to_torch(question.layer, question.params)
    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
    names = [name for name, _ in module.named_parameters()]

    def function(*given: Any) -> Any:
        return torch.func.functional_call(module, dict(zip(names, given[:-1], strict=True)), (given[-1],))

    x = torch.tensor(question.x, requires_grad=True)
    return bool(torch.autograd.gradcheck(function, (*weights, x), fast_mode=fast_mode, raise_exception=False))


def by_check_grads(question: Question) -> bool:
    import jax
    from jax.test_util import check_grads

    with jax.enable_x64(True):
        function = tn.to_custom_vjp(question.layer)
        return _accepts(partial(check_grads, function, (question.params, question.x), order=1, modes=["rev"]))


def by_autograd(question: Question) -> bool:
    import jax
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    layer, like = question.layer, question.params

    def rebuilt(given: Any) -> tuple[Params, Array]:
        return jax.tree.unflatten(jax.tree.structure(like), given[:-1]), given[-1]

    @primitive  # type: ignore[untyped-decorator]
    def function(*given: Any) -> Any:
        return layer.forward(*rebuilt(given))[0]

    def vjp(i: int, _: Any, *given: Any) -> Callable[[Any], Any]:
        params, x = rebuilt(given)
        cache = layer.forward(params, x)[1]

        def pull(dy: Any) -> Any:
            dx, dparams = layer.backward(params, cache, dy)
            return [*leaves(dparams), dx][i]

        return pull

    defvjp(function, *(partial(vjp, i) for i in range(len(question.arrays))))
    argnums = list(range(len(question.arrays)))
    return _accepts(partial(check_grads(function, argnums, modes=["rev"], order=1), *question.arrays))


def _accepts(check: Callable[[], Any]) -> bool:
    try:
        check()
    except AssertionError:
        return False
    return True


CHECKERS: Mapping[str, tuple[str, Callable[[Question], bool]]] = {
    "tinynet": ("tinynet", by_tinynet),
    "torch gradcheck": ("torch", partial(by_gradcheck, fast_mode=False)),
    "torch gradcheck, fast": ("torch", partial(by_gradcheck, fast_mode=True)),
    "jax check_grads": ("jax", by_check_grads),
    "autograd check_grads": ("autograd", by_autograd),
}


def pose(target: str, share: float = 0.0) -> Question:
    """Return the question whether a target's backward pass is right; with a share, it is not."""
    make, shape = TARGETS[target]
    layer, rng = make(), np.random.default_rng(0)
    params, x = layer.init(rng, np.float64), rng.standard_normal(shape)
    return Question(OneWrongEntry(layer, share) if share else layer, params, x)


def passes_of(target: str) -> float:
    """Return the median seconds of a forward and a backward pass in NumPy."""
    question = pose(target)

    def both() -> None:
        y, cache = question.layer.forward(question.params, question.x)
        question.layer.backward(question.params, cache, y)

    return statistics.median(_seconds(both) for _ in range(7))


def measure_one(target: str, checker: str) -> dict[str, Any]:
    """Measure one checker on one target, in a process where nothing was checked before."""
    check = CHECKERS[checker][1]
    question = pose(target)
    if checker == "torch gradcheck" and (expected := _by_differences(target, question)) > LIMIT:
        return {"extrapolated_s": expected}
    verdicts: list[bool] = []
    cold = _seconds(lambda: verdicts.append(check(question)))
    warm = statistics.median(_seconds(lambda: verdicts.append(check(question))) for _ in range(3))
    smallest = None
    for share in SHARES:
        if check(pose(target, share)):
            break
        smallest = share
    wrong = pose(target, SHARES[0])
    found = _seconds(lambda: verdicts.append(not check(wrong))) if smallest is not None else None
    return {"cold_s": cold, "warm_s": warm, "accepts_the_right": all(verdicts), "smallest": smallest, "found_s": found}


def _by_differences(target: str, question: Question) -> float:
    """Return what two forward passes for each number that goes in and a backward pass for each one out would take."""
    y, _ = question.layer.forward(question.params, question.x)
    return passes_of(target) * float(sum(a.size for a in question.arrays) + y.size)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(*, quick: bool) -> list[dict[str, Any]]:
    """Measure each checker on each target, each in a fresh process."""
    there = [name for name, (package, _) in CHECKERS.items() if importlib.util.find_spec(package) is not None]
    for name in CHECKERS.keys() - set(there):
        print(f"left out: {name} (not installed)", file=sys.stderr)
    rows = []
    targets = list(TARGETS)[: 1 if quick else None]
    for target in tqdm(targets, unit="target", leave=False, disable=not sys.stderr.isatty()):
        row: dict[str, Any] = {"target": target, "pass_s": passes_of(target)}
        for name in there:
            command = [sys.executable, __file__, "--one", target, name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            row[name] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.splitlines()[-1]}
        rows.append(row)
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    print("\nSeconds of the first check / of later ones; the smallest share of one entry whose error is seen")
    print("| | forward and backward | " + " | ".join(CHECKERS) + " |")
    print("|---|---|" + "---|" * len(CHECKERS))
    for row in rows:
        cells = [f"{row['pass_s'] * 1e3:.2g} ms", *(_cell(row.get(name)) for name in CHECKERS)]
        print(f"| {row['target']} | " + " | ".join(cells) + " |")


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "–"
    if "error" in figures:
        return str(figures["error"])
    if "extrapolated_s" in figures:
        return f"not run: some {figures['extrapolated_s'] / 60:,.0f} min"
    smallest = "none is seen" if figures["smallest"] is None else f"{figures['smallest']:.0e}"
    accused = "" if figures["accepts_the_right"] else ", accuses the right one"
    return f"{figures['cold_s']:.2g} / {figures['warm_s']:.2g}; {smallest}{accused}"


def measure(*, quick: bool) -> dict[str, Any]:
    """Measure and print what verifying takes."""
    rows = table(quick=quick)
    print_table(rows)
    return {"verify": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, required=True, metavar=("TARGET", "CHECKER"), help="measure one; print JSON")
    print(json.dumps(measure_one(*parser.parse_args().one)))

"""Measure the verifier: what it finds, names and overlooks, when it cries wolf, and how long it takes.

    python scripts/verification_report.py [--json FILE] [--seed 0] [--quick]

Prints the smallest error that is seen, the seeded faults found and named, the mutation score of every backward pass of
the package, the false alarms, and the time beside `torch.autograd.gradcheck` and `jax.test_util.check_grads` where
these are installed: pip install 'tinynet-grad[bench]'. `--quick` takes 15 s, to see that it runs; nothing to quote.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tinynet as tn
from tests.verification.mutation_scores import MUTATED, mutation_score
from tinynet.files.atomic import write_atomically
from tinynet.trees import leaves, map_leaves
from tinynet.verification.cases import Case
from tinynet.verification.selftest import KIT, TARGETS, self_test, tabulate

Array = npt.NDArray[Any]
Bar = Callable[[], Any]


@dataclass(frozen=True)
class Budget:
    """How much to measure."""

    repeats: int
    digits: Sequence[int]
    targets: Sequence[Any]
    kit: Sequence[Case]
    every_fault: bool
    mutated: Sequence[type]
    layers: int
    architectures: int
    networks: int
    zeroed: int
    sizes: int


FULL = Budget(
    5, range(2, 17), TARGETS, KIT, True, MUTATED, layers=1000, architectures=25, networks=500, zeroed=20, sizes=3
)
QUICK = Budget(
    1, (2, 13), TARGETS[2:3], (), False, (tn.Sigmoid,), layers=3, architectures=1, networks=1, zeroed=1, sizes=1
)

SIZES: dict[str, Callable[[], tn.Layer]] = {
    "Linear 4-3": lambda: tn.Linear(4, 3),
    "784-30-10": lambda: _sigmoid_network(784, 30, 10),
    "784-1024-1024-10": lambda: _sigmoid_network(784, 1024, 1024, 10),
}


def _sigmoid_network(*widths: int) -> tn.Sequential:
    return tn.Sequential(*(layer for n, k in pairwise(widths) for layer in (tn.Linear(n, k), tn.Sigmoid())))


def smallest_errors(budget: Budget, tick: Bar) -> dict[str, dict[str, float]]:
    """For the hand-written sigmoid layer: the smallest 10⁻ᵏ by which a gradient may be wrong and is always seen."""

    def forward(x: Array, W: Array, b: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-(x @ W + b))))

    def wrong(relative: float, gradient: int, one_entry: bool, dtype: str) -> Callable[..., Any]:
        def backward(args: tuple[Array, Array, Array], dy: Array) -> tuple[Array, ...]:
            x, W, b = args
            a = forward(x, W, b)
            dz = dy * a * (1 - a)
            grads = [dz @ W.T, x.T @ dz, dz.sum(axis=0)]
            g = grads[gradient]
            if dy.dtype == dtype:
                hit = abs(g) == abs(g).max() if one_entry else np.ones(g.shape, bool)
                grads[gradient] = np.where(hit, g * g.dtype.type(1 + relative), g)
            return tuple(grads)

        return backward

    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((5, 4)), rng.standard_normal((4, 3)), rng.standard_normal(3)
    found: dict[str, dict[str, float]] = {}
    for dtype, probes in (("float64", ["rectangular"]), ("float32", ["rectangular", "float32"])):
        for one_entry in (False, True):
            row = found.setdefault(f"{dtype}, {'one entry' if one_entry else 'whole tensor'}", {})
            for gradient, name in enumerate(("x", "W", "b")):
                row[name] = float("nan")
                for k in budget.digits:
                    verdicts = [
                        tn.verify(
                            (forward, wrong(10.0**-k, gradient, one_entry, dtype)), inputs=inputs, probes=probes, seed=s
                        ).verdict
                        for s in range(budget.repeats)
                    ]
                    if set(verdicts) != {"FAIL"}:
                        break
                    row[name] = 10.0**-k
                tick()
    return found


def seeded(budget: Budget, progress: Any) -> dict[str, Any]:
    """Every seeded fault in every target: fault × layer."""
    outcomes = self_test([*budget.targets, *budget.kit], every=budget.every_fault, progress=progress)
    table: dict[str, dict[str, list[int]]] = {}
    targets = list(dict.fromkeys(o.target for o in outcomes))
    for target in targets:
        for row in tabulate([o for o in outcomes if o.target == target]):
            table.setdefault(row.name, {})[target] = [row.seeded, row.found, row.named, row.misnamed]
    table["all"] = table.pop("all")
    total = tabulate(outcomes)[-1]
    missed = [
        f"{o.target}: {o.seeded.name} of {o.seeded.gradient}: {o.seeded.description}; "
        f"named {', '.join(f.fault for f in o.report.findings) or 'nothing'}"
        for o in outcomes
        if not o.named
    ]
    return {
        "targets": targets[: len(budget.targets)],
        "kit": targets[len(budget.targets) :],
        "table": table,
        "total": asdict(total),
        "not named": missed,
    }


def mutation_scores(budget: Budget, tick: Bar) -> dict[str, dict[str, Any]]:
    """Mutants of every backward pass of the package: how many verify kills, and which survive."""
    scores: dict[str, dict[str, Any]] = {}
    for cls in budget.mutated:
        score = mutation_score(cls)
        scores[cls.__name__] = {
            "mutants": score.mutants,
            "killed": score.killed,
            "equivalent": len(score.equivalent),
            "survivors": [m.description for m in score.survivors],
        }
        tick()
    return scores


def false_alarms(budget: Budget, seed: int, tick: Bar) -> dict[str, dict[str, Any]]:
    """Right layers and networks, with random parameters and inputs of random scale: how many do not pass."""
    rng = np.random.default_rng(seed)
    widths, batches = [1, 2, 3, 5, 16], [1, 2, 7]
    alarms: dict[str, dict[str, Any]] = {}

    def count(kind: str, target: Any, **options: Any) -> None:
        entry = alarms.setdefault(kind, {"tried": 0, "alarms": []})
        report = tn.verify(target, **options)
        entry["tried"] += 1
        if not report.ok:
            entry["alarms"].append(str(report))
        tick()

    for i in range(budget.layers):
        n, k, m = int(rng.choice(widths)), int(rng.choice(widths)), int(rng.choice(batches))
        layer = tn.Sigmoid() if rng.random() < 0.3 else tn.Linear(n, k)
        count("right layers", layer, inputs=10.0 ** rng.uniform(-3, 1) * rng.standard_normal((m, n)), seed=i)
    nets = []
    for _ in range(budget.architectures):
        sizes = [int(n) for n in rng.choice(widths, int(rng.integers(2, 7)))]
        layers = [part for a, b in pairwise(sizes) for part in [tn.Linear(a, b), tn.Sigmoid()][: 1 + rng.integers(2)]]
        nets.append((tn.Sequential(*layers), sizes[0], int(rng.choice(batches))))
    for i in range(budget.networks):
        net, n, m = nets[i % len(nets)]
        loss = [None, tn.SquaredError(), tn.SquaredError("mean")][i // len(nets) % 3]
        count("right networks", net, inputs=rng.standard_normal((m, n)), loss=loss, seed=i)
    normal, zeros = rng.standard_normal((1000, 100)), np.round(rng.standard_normal((20, 30)))
    for at_0 in (0.0, 0.5, 1.0):

        def backward(args: tuple[Array], dy: Array, at_0: float = at_0) -> Array:
            return np.asarray(dy * np.where(args[0] == 0, at_0, args[0] > 0).astype(dy.dtype))

        for kind, x in (("ReLU on 1e5 normal inputs", normal), ("ReLU at exact zeros", zeros)):
            count(kind, (_relu, backward), inputs=x)
    return alarms


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def times(budget: Budget, tick: Bar) -> dict[str, dict[str, float | str]]:
    """Seconds for one right target: verify in a fresh process and again, then the others'."""
    measured: dict[str, dict[str, float | str]] = {}
    for name, make in list(SIZES.items())[: budget.sizes]:
        net = make()
        row = measured[name] = {"parameters": float(sum(p.size for p in leaves(net.init(np.random.default_rng(0)))))}
        code = (
            "import time; start = time.perf_counter(); import runpy, tinynet as tn; "
            f"module = runpy.run_path({__file__!r}); net = module['SIZES'][{name!r}](); first = time.perf_counter(); "
            "assert tn.verify(net).ok; now = time.perf_counter(); print(now - start, now - first)"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        row["verify, fresh process, with imports"], row["verify, cold"] = map(float, out)
        tn.verify(net)
        row["verify, warm"] = statistics.median(_seconds(tn.verify, net) for _ in range(budget.repeats))
        tick()
        row.update(_others(net, int(row["parameters"])))
        tick()
    return measured


def _others(net: tn.Layer, n_params: int) -> dict[str, float | str]:
    rng = np.random.default_rng(0)
    params = map_leaves(lambda p: p + 0.3 * rng.standard_normal(p.shape), net.init(rng, np.float64))
    n_in = next(p for p in leaves(params) if p.ndim == 2).shape[1]
    x = rng.standard_normal((5, n_in))
    row: dict[str, float | str] = {}
    too_slow = n_params > 100_000
    try:
        import torch
    except ImportError:
        row["torch gradcheck"] = "not installed"
    else:
        gradcheck: Any = torch.autograd.gradcheck
        f, tensors = _torch_function(net, params, x)
        name = f"torch {torch.__version__.partition('+')[0]} gradcheck"
        slow = f"not run: {2 * (n_params + x.size):,} forward passes"
        row[name] = slow if too_slow else _seconds(gradcheck, f, tensors)
        row[f"{name}, fast mode"] = _seconds(gradcheck, f, tensors, fast_mode=True)
    import jax
    from jax.test_util import check_grads

    with jax.enable_x64(True):
        g = tn.to_custom_vjp(net)
        name = f"jax {jax.__version__} check_grads, reverse"
        row[name] = _seconds(check_grads, g, (params, x), order=1, modes=["rev"])
    return row


def _torch_function(net: tn.Layer, params: Any, x: Array) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    import torch

    flat = leaves(params)

    def with_leaves(values: Sequence[Any]) -> Any:
        rest = iter(values)
        return map_leaves(lambda _: next(rest), params)

    class Op(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, *ps: Any) -> Any:
            ctx.params = with_leaves([p.detach().numpy() for p in ps])
            y, ctx.cache = net.forward(ctx.params, x.detach().numpy())
            return torch.from_numpy(y)

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            dx, dparams = net.backward(ctx.params, ctx.cache, dy.numpy())
            return tuple(map(torch.from_numpy, [dx, *leaves(dparams)]))

    return Op.apply, tuple(torch.from_numpy(a.copy()).requires_grad_() for a in (x, *flat))


class Zeroed(tn.Linear):
    """A Linear with one entry of one gradient set to zero."""

    def backward(self, params: Any, a: Any, dz: Any) -> Any:
        dx, dparams = super().backward(params, a, dz)
        if isinstance(dz, np.ndarray):
            name, entry = self.hit  # type: ignore[attr-defined]
            dparams[name].flat[entry] = 0
        return dx, dparams


def zeroed_entry(budget: Budget, seed: int, tick: Bar) -> dict[str, Any]:
    """One entry, drawn from all 23,860 of 784-30-10, zeroed: how often it is found, and how fast."""
    rng = np.random.default_rng(seed)
    widths = [(784, 30), (30, 10)]
    tn.verify(_sigmoid_network(784, 30, 10))
    found, named, seconds = 0, 0, []
    for entry in rng.choice(23_860, budget.zeroed, replace=False):
        layers: list[tn.Layer] = []
        for n, k in widths:
            size = n * k + k
            layer = tn.Linear(n, k)
            if 0 <= entry < size:
                layer = Zeroed(n, k)
                object.__setattr__(layer, "hit", ("W", entry) if entry < n * k else ("b", entry - n * k))
            layers += [layer, tn.Sigmoid()]
            entry -= size
        start = time.perf_counter()
        report = tn.verify(tn.Sequential(*layers))
        seconds.append(time.perf_counter() - start)
        found += report.verdict == "FAIL"
        named += any(f.fault == "one entry" for f in report.findings)
        tick()
    median, longest = statistics.median(seconds), max(seconds)
    return {"tried": budget.zeroed, "found": found, "named": named, "median seconds": median, "longest": longest}


def _seconds(f: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    start = time.perf_counter()
    f(*args, **kwargs)
    return time.perf_counter() - start


def text(measured: dict[str, Any]) -> str:
    """Everything, to be read."""
    lines = ["Smallest relative error that is always seen, on a hand-written sigmoid layer"]
    for kind, row in measured["smallest errors"].items():
        lines.append(f"  {kind:<24}" + "".join(f"  {name} {error:.0e}" for name, error in row.items()))
    faults = measured["seeded faults"]
    lines += ["", "Seeded faults: found/named of those seeded"]
    lines += [f"  {chr(65 + i)}  {target}" for i, target in enumerate(faults["targets"])]
    lines.append(f"  {'':<34}" + "".join(f"{chr(65 + i):>12}" for i in range(len(faults["targets"]))))
    for name, row in faults["table"].items():
        cells = [row.get(target) for target in faults["targets"]]
        lines.append(f"  {name:<34}" + "".join(f"{f'{c[1]}/{c[2]} of {c[0]}' if c else '–':>12}" for c in cells))
    lines += ["", f"  {'':<56}seeded  found  named  misnamed"] if faults["kit"] else []
    for target in faults["kit"]:
        lines.append(f"  {target:<56}{'{:>6}{:>7}{:>7}{:>10}'.format(*faults['table']['all'][target])}")
    lines += [f"  not named: {missed}" for missed in faults["not named"]]
    total = faults["total"]
    lines.append(
        f"  {total['found']} of {total['seeded']} found, {total['named']} named, {total['misnamed']} named wrongly"
    )
    lines += ["", "Mutants of backward passes killed"]
    for name, score in measured["mutants"].items():
        lines.append(f"  {name:<20} {score['killed']} of {score['mutants']}, {score['equivalent']} equivalent")
        lines += [f"    survives: {description}" for description in score["survivors"]]
    lines += ["", "False alarms"]
    for kind, entry in measured["false alarms"].items():
        lines.append(f"  {kind:<28} {len(entry['alarms'])} of {entry['tried']}")
    zeroed = measured["zeroed entry"]
    lines += [
        "",
        f"One entry of 23,860 zeroed: found {zeroed['found']} of {zeroed['tried']}, named {zeroed['named']}, "
        f"{zeroed['median seconds']:.2f} s (median; longest {zeroed['longest']:.2f} s)",
        "",
        f"Time, s ({measured['machine']})",
    ]
    for name, row in measured["times"].items():
        lines.append(f"  {name}, {row['parameters']:,.0f} parameters")
        for what, value in row.items():
            if what != "parameters":
                lines.append(f"    {what:<42} {value if isinstance(value, str) else f'{value:.3f}'}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure the verifier.")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--seed", type=int, default=0, help="of the random layers and entries (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    args = parser.parse_args(argv)
    try:
        from tqdm import tqdm
    except ImportError as error:
        parser.error(f"{error}; use pip install 'tinynet-grad[bench]'")
    budget = QUICK if args.quick else FULL

    def bar(label: str, total: int) -> Any:
        return tqdm(total=total, desc=label, leave=False, disable=None)

    measured: dict[str, Any] = {"machine": f"{platform.machine()}, Python {platform.python_version()}"}
    measured["seconds"] = -time.perf_counter()
    with bar("times", 2 * budget.sizes) as b:
        measured["times"] = times(budget, b.update)
    with bar("smallest errors", 12) as b:
        measured["smallest errors"] = smallest_errors(budget, b.update)
    measured["seeded faults"] = seeded(
        budget, lambda faults: tqdm(faults, desc="seeded faults", leave=False, disable=None)
    )
    with bar("mutants", len(budget.mutated)) as b:
        measured["mutants"] = mutation_scores(budget, b.update)
    with bar("false alarms", budget.layers + budget.networks + 6) as b:
        measured["false alarms"] = false_alarms(budget, args.seed, b.update)
    with bar("zeroed entry", budget.zeroed) as b:
        measured["zeroed entry"] = zeroed_entry(budget, args.seed, b.update)
    measured["seconds"] += time.perf_counter()
    print(text(measured))
    if args.json is not None:
        write_atomically(args.json, (json.dumps(measured, ensure_ascii=False, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("verification_report: interrupted")

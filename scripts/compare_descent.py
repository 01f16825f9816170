"""§4 of the document, shown: gradient descent, mini-batch and single-sample SGD on handwritten digits.

The three differ in `batch_size` alone. Each spends the same number of gradient evaluations (one sample's gradient is
one evaluation) at the learning rate that suits it best, and for each of §4's four statements this prints what was
measured. Needs `pip install 'tinynet-grad[train,plot]'`.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import tinynet as tn
from tinynet.arrays import Params
from tinynet.cli.tables import Split, load_digits, split
from tinynet.trees import leaves, map_leaves

BATCH_SIZES = {"gradient descent": None, "mini-batch SGD": 10, "single-sample SGD": 1}
COLOURS = {"gradient descent": "#0072B2", "mini-batch SGD": "#D55E00", "single-sample SGD": "#009E73"}  # Okabe and Ito

NET = tn.Sequential(tn.Linear(64, 30), tn.Sigmoid(), tn.Linear(30, 10), tn.Sigmoid())
LOSS = tn.SquaredError("mean")  # for every batch size the mean of (17), so that the learning rates compare
CONSTANT_LOSS = 0.45  # of the best constant prediction of 10 balanced one-hot classes: ½ (1 − 1/10)

XOR = tn.Sequential(tn.Linear(2, 2), tn.Sigmoid(), tn.Linear(2, 1), tn.Sigmoid())
XOR_X, XOR_Y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([[0.0], [1.0], [1.0], [0.0]])
XOR_LR, XOR_SOLVED = 4.0, 0.005  # a network stuck at one of XOR's plateaus stays above 0.06
XOR_BATCH_SIZES = {"gradient descent": None, "mini-batch SGD": 2, "single-sample SGD": 1}


@dataclass(frozen=True)
class Budget:
    """How much to compute: epochs of the comparison; learning rates, seeds and epochs of the sweep; starts of XOR."""

    epochs: int
    rates: Sequence[float]
    sweep_seeds: int
    sweep_epochs: dict[str, int]  # gradient descent makes one update an epoch and needs more of them
    xor_starts: int
    xor_epochs: int


FULL = Budget(
    epochs=40,
    rates=[2.0**k for k in range(-2, 6)],
    sweep_seeds=3,
    sweep_epochs={"gradient descent": 300, "mini-batch SGD": 5, "single-sample SGD": 5},
    xor_starts=50,
    xor_epochs=4000,
)
QUICK = Budget(
    epochs=3,
    rates=[1.0, 4.0],
    sweep_seeds=1,
    sweep_epochs={"gradient descent": 20, "mini-batch SGD": 1, "single-sample SGD": 1},
    xor_starts=3,
    xor_epochs=100,
)


@dataclass(frozen=True)
class Sweep:
    """Training loss by learning rate (the median over the seeds), and seconds an update."""

    loss: dict[float, float]
    seconds: float

    @property
    def best(self) -> float:
        return min(self.loss, key=self.loss.__getitem__)

    @property
    def largest_tolerated(self) -> float:
        """Return the largest rate that more than halves the loss of a constant prediction; NaN if none does."""
        return max((lr for lr, loss in self.loss.items() if loss < CONSTANT_LOSS / 2), default=math.nan)


@dataclass(frozen=True)
class Run:
    """One method's training: one entry per epoch, and the median length of an update at the start."""

    lr: float
    updates: int
    evaluations: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    step: float


def sweep(method: str, data: Split, budget: Budget, seed: int, tick: Callable[[], None]) -> Sweep:
    """Train at every learning rate, from the same few starts."""
    epochs, m = budget.sweep_epochs[method], len(data.x_train)
    losses, seconds = {}, []
    for lr in budget.rates:
        finals = []
        for s in range(seed, seed + budget.sweep_seeds):
            result = tn.fit(
                NET,
                LOSS,
                data.x_train,
                data.y_train,
                optimizer=tn.SGD(lr),
                epochs=epochs,
                batch_size=BATCH_SIZES[method],
                seed=s,
            )
            finals.append(training_loss(result.params, data))
            seconds.append(result.history["seconds"][-1] / (epochs * updates_an_epoch(method, m)))
            tick()
        losses[lr] = statistics.median(finals)
    return Sweep(losses, statistics.median(seconds))


def train(method: str, lr: float, data: Split, budget: Budget, seed: int) -> Run:
    """Spend `budget.epochs` evaluations per training row."""
    m, batch_size = len(data.x_train), BATCH_SIZES[method]
    start = NET.init(np.random.default_rng(seed))
    result = tn.fit(
        NET,
        LOSS,
        data.x_train,
        data.y_train,
        params=start,
        optimizer=tn.SGD(lr),
        epochs=budget.epochs,
        batch_size=batch_size,
        seed=seed,
        validation=(data.x_test, data.y_test),
        metrics={"E": lambda y_hat, y: float(LOSS.forward(y_hat, y)[0]), "accuracy": accuracy},
    )
    return Run(
        lr,
        budget.epochs * updates_an_epoch(method, m),
        m * np.arange(1, budget.epochs + 1),
        result.history["E"],
        result.history["validation_accuracy"],
        step_length(start, lr, batch_size or m, data, seed),
    )


def xor_solved(method: str, budget: Budget, seed: int, tick: Callable[[], None]) -> npt.NDArray[np.bool_]:
    """Return for each start, drawn from N(0, 1), whether training solved XOR."""
    solved = []
    for s in range(seed, seed + budget.xor_starts):
        rng = np.random.default_rng(s)
        start = map_leaves(lambda p: rng.standard_normal(p.shape), XOR.init(rng))  # noqa: B023
        result = tn.fit(
            XOR,
            LOSS,
            XOR_X,
            XOR_Y,
            params=start,
            optimizer=tn.SGD(XOR_LR),
            epochs=budget.xor_epochs,
            batch_size=XOR_BATCH_SIZES[method],
            seed=s,
            tolerance=XOR_SOLVED,
        )
        solved.append(result.stopped == "tolerance")
        tick()
    return np.array(solved)


def updates_an_epoch(method: str, m: int) -> int:
    return math.ceil(m / (BATCH_SIZES[method] or m))


def training_loss(params: Params, data: Split) -> float:
    return float(LOSS.forward(NET.forward(params, data.x_train)[0], data.y_train)[0])


def accuracy(y_hat: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    return float(np.mean(y_hat.argmax(axis=1) == y.argmax(axis=1)))


def step_length(params: Params, lr: float, batch_size: int, data: Split, seed: int) -> float:
    """Return the median over up to 100 random batches of ‖η ∇w‖, the distance that one update moves the parameters."""
    rng, m = np.random.default_rng(seed), len(data.x_train)
    lengths = []
    for _ in range(1 if batch_size == m else 100):
        rows = rng.choice(m, batch_size, replace=False)
        _, grads = tn.value_and_grads(NET, LOSS, params, data.x_train[rows], data.y_train[rows])
        lengths.append(lr * math.sqrt(sum(float(np.sum(g**2)) for g in leaves(grads))))
    return statistics.median(lengths)


def sum_against_batch(data: Split, seed: int) -> float:
    """Return max |mean of all single-sample gradients − gradient descent's| / max |gradient descent's|, in float64."""
    params = NET.init(np.random.default_rng(seed), np.float64)
    x, y = data.x_train.astype(np.float64), data.y_train.astype(np.float64)
    whole = leaves(tn.value_and_grads(NET, LOSS, params, x, y)[1])
    total = [np.zeros_like(g) for g in whole]
    for i in range(len(x)):
        for t, g in zip(
            total, leaves(tn.value_and_grads(NET, LOSS, params, x[i : i + 1], y[i : i + 1])[1]), strict=True
        ):
            t += g
    return max(float(np.abs(t / len(x) - g).max() / np.abs(g).max()) for t, g in zip(total, whole, strict=True))


def table(runs: dict[str, Run], sweeps: dict[str, Sweep]) -> str:
    """Return a table of what each method reached."""
    rows = [("", "batch", "rate", "updates", "loss", "accuracy", "90 % after", "time")]
    for method, run in runs.items():
        reached = run.evaluations[run.accuracy >= 0.9]
        rows.append(
            (
                method,
                str(BATCH_SIZES[method] or "all"),
                f"{run.lr:g}",
                f"{run.updates:,}",
                f"{run.loss[-1]:.4f}",
                f"{run.accuracy[-1]:.1%}",
                f"{reached[0]:,}" if len(reached) else "never",
                f"{run.updates * sweeps[method].seconds:.2f} s",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(r)) for r in rows)


def statements(
    runs: dict[str, Run], sweeps: dict[str, Sweep], solved: dict[str, npt.NDArray[np.bool_]], difference: float, m: int
) -> str:
    """Return §4's four statements and what was measured for each."""
    gd, mini, single = runs.values()
    gd_sweep, mini_sweep, single_sweep = sweeps.values()
    tolerated = [s.largest_tolerated for s in sweeps.values()]
    larger_than = [name for name, lr in zip(runs, tolerated, strict=True) if tolerated[0] > lr]
    stuck = ~solved["gradient descent"]
    lines = [
        "(i) Gradient descent sums the errors of all samples before an update; SGD updates after one.",
        f"    So it is by construction. In {gd.evaluations[-1]:,} evaluations: {gd.updates:,} updates against "
        f"{single.updates:,}, and {mini.updates:,}",
        f"    with the batches of (17). At the start the mean of the {m:,} single-sample gradients differs from",
        f"    gradient descent's by {difference:.0e} of its largest entry, in float64.",
        "",
        "(ii) Each update of gradient descent needs more computation.",
        f"    {_verdict(gd_sweep.seconds > single_sweep.seconds)}: {_time(gd_sweep.seconds)} an update against "
        f"{_time(mini_sweep.seconds)} (mini-batch) and {_time(single_sweep.seconds)} (single).",
        f"    A sample, though, costs {_time(gd_sweep.seconds / m)} against {_time(mini_sweep.seconds / 10)} and "
        f"{_time(single_sweep.seconds)}: many at once are matrix products.",
        "",
        "(iii) Gradient descent follows the true gradient and so often takes a larger step at each update.",
        f"    Largest rate of {', '.join(f'{lr:g}' for lr in gd_sweep.loss)} that still learns (training loss below "
        f"{CONSTANT_LOSS / 2:g}):",
        f"    {', '.join(f'{name} {lr:g}' for name, lr in zip(runs, tolerated, strict=True))}.",
        f"    Larger for gradient descent than for {' and '.join(larger_than) or 'neither'}.",
        "    ‖η ∇w‖, the length of an update, at the start and at the rates of the table (median over batches):",
        f"    {', '.join(f'{name} {run.step:.2g}' for name, run in runs.items())}.",
        "",
        "(iv) Where the error surface has several local minima, SGD may sometimes avoid them.",
        f"    XOR with a 2-2-1 sigmoid network, the same {len(stuck)} starts from N(0, 1) and rate {XOR_LR:g} for all: "
        f"gradient descent",
        f"    ends stuck (E above {XOR_SOLVED:g} to the last epoch) from {stuck.sum()} of them.",
    ]
    for name in list(runs)[1:]:
        lines.append(
            f"    {name}: stuck from {(~solved[name]).sum()}; it solves {(stuck & solved[name]).sum()} of the "
            f"{stuck.sum()} that gradient descent does not, and"
        )
        lines.append(f"    gets stuck from {(~stuck & ~solved[name]).sum()} of the {(~stuck).sum()} that it does.")
    return "\n".join(lines)


def _verdict(holds: bool) -> str:
    return "Borne out" if holds else "Not borne out"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


def draw(runs: dict[str, Run], path: Path) -> None:
    """Draw loss and accuracy against gradient evaluations and move the finished picture to `path`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.set_yscale("log")
    loss.margins(y=0.12)
    accuracy.set_ylim(0, 102)
    for axes in (loss, accuracy):
        axes.set_xscale("log")
    _draw_panel(loss, runs, {name: run.loss for name, run in runs.items()}, "Training loss E")
    _draw_panel(
        accuracy, runs, {name: 100 * run.accuracy for name, run in runs.items()}, "Accuracy on held-out digits, %"
    )
    for axes in (loss, accuracy):
        axes.set_xlabel("gradient evaluations (one a sample)")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(unfinished, format="png", dpi=150)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _draw_panel(axes: Any, runs: dict[str, Run], values: dict[str, npt.NDArray[Any]], title: str) -> None:
    """Draw one line per method, each with its name at its end, pushed down where the one above would touch it."""
    axes.set_title(title, loc="left")
    for name, run in runs.items():
        axes.plot(run.evaluations, values[name], color=COLOURS[name], linewidth=2)
    axes.get_ylim()  # settles the limits, and with them transData
    above = math.inf
    for name in sorted(runs, key=lambda name: -float(values[name][-1])):
        end = (runs[name].evaluations[-1], values[name][-1])
        height = axes.transAxes.inverted().transform(axes.transData.transform(end))[1]
        above = min(height, above - 0.11)
        axes.annotate(
            f"{name}\nη = {runs[name].lr:g}, {runs[name].updates:,} updates",
            (end[0], above),
            xycoords=("data", "axes fraction"),
            xytext=(6, 0),
            textcoords="offset points",
            color=COLOURS[name],
            va="center",
            fontsize=9,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, draw."""
    parser = argparse.ArgumentParser(description="Show §4's four statements on gradient descent and SGD.")
    parser.add_argument("--output", type=_png, default=Path("compare_descent.png"), help="the picture, a .png file")
    parser.add_argument("--seed", type=_seed, default=0, help="of the split, the weights and the order (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; no result to quote")
    args = parser.parse_args(argv)
    try:
        import matplotlib  # noqa: F401
        from tqdm import tqdm
    except ImportError as error:
        parser.error(f"{error}; use pip install 'tinynet-grad[train,plot]'")
    budget = QUICK if args.quick else FULL
    data = split(load_digits(), task="classify", test_fraction=0.2, seed=args.seed, standardise=False)
    work = len(BATCH_SIZES) * (len(budget.rates) * budget.sweep_seeds + budget.xor_starts)
    with tqdm(total=work, unit="fit", disable=None) as bar:
        bar.set_description("learning rates")
        sweeps = {name: sweep(name, data, budget, args.seed, bar.update) for name in BATCH_SIZES}
        bar.set_description("comparison")
        runs = {name: train(name, sweeps[name].best, data, budget, args.seed) for name in BATCH_SIZES}
        bar.set_description("XOR")
        solved = {name: xor_solved(name, budget, args.seed, bar.update) for name in BATCH_SIZES}
    draw(runs, args.output)
    m = len(data.x_train)
    print(
        f"{budget.epochs * m:,} gradient evaluations each; 64-30-10 sigmoid network; "
        f"{m:,} digits to train on, {len(data.x_test)} held out; seed {args.seed}"
    )
    print(table(runs, sweeps), "", statements(runs, sweeps, solved, sum_against_batch(data, args.seed), m), sep="\n")
    print(f"\ncurves: {args.output}")
    return 0


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: there is no folder {str(path.parent)!r}")
    return path


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 0")
    return int(text)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("compare_descent: interrupted")

"""Many runs of one network: seeds and settings of the optimizer, one after the other or all at once."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinynet.arrays import Params
from tinynet.checks import check_instance, check_natural, check_positive_int
from tinynet.inspection import html_table, table_lines
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.training.arguments import first_dtype, fitted, initial_params, source, split_off
from tinynet.training.batches import Samples
from tinynet.training.engines import Carry, TrainingState
from tinynet.training.evaluation import EngineName, Metrics, measured, metrics_by_name
from tinynet.training.fit import FitResult, fit, join
from tinynet.training.interruptions import DivergenceError, all_finite
from tinynet.trees import parts, with_part


@dataclass(frozen=True)
class SweepResult:
    """The result of `sweep`: one entry per run.

    Attributes:
        settings: {"seed": …} and the settings of the grid, for each run.
        results: those of `fit`. A run that diverged has stopped="diverged", no params, and NaN from that epoch on.
    """

    settings: tuple[dict[str, Any], ...]
    results: tuple[FitResult, ...]

    @property
    def table(self) -> Any:
        """Return a row per run, its settings and the last entry of its history: a pandas frame where pandas is there,
        else a list of dicts."""
        try:
            import pandas
        except ImportError:
            return self._rows()
        return pandas.DataFrame(self._rows())

    def __str__(self) -> str:
        """Return the table as text."""
        return "\n".join(table_lines(self._cells(), left=0))

    def _repr_html_(self) -> str:
        return html_table(self._cells())

    def _cells(self) -> list[tuple[str, ...]]:
        rows = self._rows()
        columns = tuple(dict.fromkeys(name for row in rows for name in row))
        shown = [{k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in rows]
        return [columns, *(tuple(row.get(name, "") for name in columns) for row in shown)]

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {**settings, **{k: float(v[-1]) for k, v in result.history.items()}, "stopped": result.stopped}
            for settings, result in zip(self.settings, self.results, strict=True)
        ]


def sweep(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Any = None,
    *,
    optimizer: Optimizer,
    epochs: int,
    seeds: Iterable[int] = (0,),
    grid: Mapping[str, Sequence[Any]] | None = None,
    params: Params = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    engine: EngineName = "numpy",
    validation: tuple[Any, Any] | float | None = None,
    metrics: Metrics | None = None,
) -> SweepResult:
    """Train once for each seed and each point of the grid; each run is that of `fit` with these arguments.

    On NumPy the runs follow each other. On JAX those whose optimizers differ only in numbers that are `traced`, such as
    lr, run as one program, compiled once. No run warns that it made no headway: the table shows that.

    Args:
        optimizer: the settings that the grid does not name.
        seeds: of `fit`, for each point.
        grid: field of the optimizer -> its values; every combination is a point. "optimizer.lr" is the lr of the
            optimizer that a wrapper follows.
        the others: as for `fit`; x and y are data, no iterable of batches.

    Raises:
        TypeError, ValueError: an argument does not fit; nothing was trained.
    """
    check_instance("sweep", "optimizer", optimizer, Optimizer)
    check_positive_int("sweep", "epochs", epochs)
    grid = dict(grid or {})
    known = {".".join(map(str, path)): path for path, _, holder in parts(optimizer) if isinstance(holder, Optimizer)}
    if unknown := grid.keys() - known.keys():
        raise ValueError(
            f"sweep: grid has {min(unknown)!r}, which is no setting of {optimizer!r:.80}; expected one of {list(known)}"
        )
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    runs = [{"seed": check_natural("sweep", "seeds", seed), **point} for point in points for seed in seeds]
    if not runs:
        raise ValueError("sweep: seeds or grid leave no run; expected at least one")
    optimizers = []
    for run in runs:
        set_up: Any = optimizer
        for name in grid:
            set_up = with_part(set_up, known[name], run[name])
        optimizers.append(set_up)
    common = {"params": params, "batch_size": batch_size, "shuffle": shuffle, "validation": validation}
    common |= {"epochs": int(epochs), "metrics": metrics_by_name(metrics, loss)}
    if engine != "jax":
        pairs = zip(runs, optimizers, strict=True)
        results = [_fit(net, loss, x, y, optimizer=o, seed=run["seed"], engine=engine, **common) for run, o in pairs]
    else:
        by_run: dict[int, FitResult] = {}
        for group in _together(optimizers, runs, validation):
            seeds = [runs[i]["seed"] for i in group]
            at_once = _fit_together(net, loss, x, y, [optimizers[i] for i in group], seeds, **common)
            by_run |= zip(group, at_once, strict=True)
        results = [by_run[i] for i in range(len(runs))]
    return SweepResult(tuple(runs), tuple(results))


def _fit(net: Layer, loss: Loss, x: Any, y: Any, *, epochs: int, **options: Any) -> FitResult:
    rows: list[Mapping[str, float]] = []

    def stops(epoch: Any) -> bool:
        rows.append(epoch.row)
        return len(rows) == epochs  # after a stop that was asked for, `fit` does not warn that it made no headway

    try:
        result = fit(net, loss, x, y, epochs=epochs, callbacks=[stops], **options)
    except DivergenceError:
        return _diverged(rows, epochs)
    return replace(result, stopped="epochs")


def _diverged(rows: list[Any], epochs: int) -> FitResult:
    return FitResult(None, _history(rows, epochs), "diverged", TrainingState(None))


def _history(rows: list[Mapping[str, float]], epochs: int) -> dict[str, Any]:
    names = list(rows[0]) if rows else ["loss"]
    return {name: np.array([row[name] for row in rows] + [math.nan] * (epochs - len(rows))) for name in names}


def _together(optimizers: Sequence[Optimizer], runs: Sequence[Mapping[str, Any]], validation: Any) -> list[list[int]]:
    """Return which runs are one program: those whose optimizers are of one template, and that have the same data."""
    from tinynet.training.engines.templates import Template, traced

    groups: dict[Any, list[int]] = {}
    for i, (optimizer, run) in enumerate(zip(optimizers, runs, strict=True)):
        # A share that is held out is drawn by the seed: then runs of different seeds have different data.
        apart = run["seed"] if isinstance(validation, (float, np.floating)) else None
        template = Template.without(optimizer, tuple(path for path, _ in traced(optimizer)))
        groups.setdefault((template, apart), []).append(i)
    return list(groups.values())


def _fit_together(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    optimizers: Sequence[Optimizer],
    seeds: Sequence[int],
    *,
    params: Params,
    epochs: int,
    batch_size: int | None,
    shuffle: bool,
    validation: Any,
    metrics: Any,
) -> list[FitResult]:
    """Do as `fit` for each run, with every array of a run stacked along a new first axis."""
    from tinynet.training.engines.jax import JaxEngine, stacked

    data, held_out = split_off(source(loss, x, y, None, None, batch_size, shuffle, epochs), validation, seeds[0])
    if not isinstance(data, Samples):
        raise TypeError("sweep: x is an iterable of batches; expected data")
    rngs = [np.random.default_rng(seed) for seed in seeds]
    order_rngs, sample_rngs = zip(*(rng.spawn(2) for rng in rngs), strict=True)
    starts = [initial_params(net, params, rng, first_dtype(data.x)) for rng in rngs]
    data, watched, _, dtype = fitted(net, loss, data, held_out, starts[0], None, metrics)
    engines = [JaxEngine(net, loss, optimizer, None, dtype) for optimizer in optimizers]
    rows: list[list[Mapping[str, float]]] = [[] for _ in seeds]
    began = time.perf_counter()
    with engines[0].session():
        carry = stacked([engine.start(start) for engine, start in zip(engines, starts, strict=True)])
        numbers = stacked([tuple(np.asarray(number, dtype) for number in engine.numbers) for engine in engines])
        for epoch in range(epochs):
            batches: list[Any] = [data.epoch(rng) for rng in order_rngs]
            draws = [rng.spawn(1)[0] for rng in sample_rngs]
            carry, losses = engines[0].epoch_of_runs(carry, batches, draws, numbers)
            runs = _split(carry, len(seeds))
            observed = [run.optimizer for run in runs]
            for r, run in enumerate(runs):
                finite = all(math.isfinite(E) for E, _ in losses[r]) and all_finite(run.params)
                if len(rows[r]) < epoch or not finite:
                    continue  # it diverged
                told = measured(net, loss, run.params, run.layers, watched=watched, metrics=metrics, engine="jax")
                row = {"loss": join(loss, losses[r]), **told, "seconds": time.perf_counter() - began}
                rows[r].append(row)
                observed[r] = optimizers[r].observe(run.optimizer, row)
            if any(new is not run.optimizer for new, run in zip(observed, runs, strict=True)):
                carry = carry._replace(optimizer=stacked(observed))
        runs = _split(carry, len(seeds))
    return [
        FitResult(run.params, _history(told, epochs), "epochs", TrainingState(run.optimizer, run.layers))
        if len(told) == epochs
        else _diverged(told, epochs)
        for run, told in zip(runs, rows, strict=True)
    ]


def _split(carry: Carry, n: int) -> list[Carry]:
    """Return what each of n runs carries, as NumPy arrays."""
    import jax

    on_host = jax.tree.map(np.asarray, carry)
    return [jax.tree.map(lambda a, r=r: a[r], on_host) for r in range(n)]

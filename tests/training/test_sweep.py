"""`sweep`: each run is that of `fit`; on JAX all of them are one program, compiled once."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import tinynet as tn
from tinynet.training.engines.jax import Program
from tinynet.trees import leaves

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(22, 3)), RNG.normal(size=(22, 2))
NET = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Tanh(), tn.Dropout(0.2), tn.Linear(4, 2))
LOSS = tn.SquaredError("mean")
COMMON: dict[str, Any] = {"epochs": 3, "batch_size": 5, "validation": (X[:7], Y[:7]), "metrics": ["r2"]}


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_each_run_is_that_of_fit(engine: Any) -> None:
    grid = {"lr": [0.01, 0.1, np.float64(0.3)], "momentum": [0.0, 0.5]}
    result = tn.sweep(NET, LOSS, X, Y, optimizer=tn.SGD(1.0), seeds=range(2), grid=grid, engine=engine, **COMMON)
    runs = itertools.product([0.01, 0.1, 0.3], [0.0, 0.5], range(2))
    for (lr, momentum, seed), settings, run in zip(runs, result.settings, result.results, strict=True):
        assert settings == {"lr": lr, "momentum": momentum, "seed": seed}
        single = tn.fit(NET, LOSS, X, Y, optimizer=tn.SGD(lr, momentum), seed=seed, **COMMON)
        got, expected = ((r.params, r.state.optimizer, r.state.layers) for r in (run, single))
        for p, q in zip(leaves(got), leaves(expected), strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)
        assert run.history.keys() == single.history.keys()
        for name in run.history.keys() - {"seconds"}:
            np.testing.assert_allclose(run.history[name], single.history[name], rtol=1e-9)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_run_goes_on_with_fit_as_one_that_was_longer(engine: Any) -> None:
    common: dict[str, Any] = {"optimizer": tn.SGD(0.1, 0.9), "engine": engine}
    still = tn.Sequential(*NET.layers[:3], NET.layers[4])  # what is dropped is drawn anew
    half, longer = (tn.sweep(still, LOSS, X, Y, seeds=[3, 4], epochs=n, **common).results for n in (2, 4))
    for one, other in zip(half, longer, strict=True):
        rest = tn.fit(still, LOSS, X, Y, params=one.params, state=one.state, epochs=2, **common)
        for p, q in zip(
            leaves((rest.params, rest.state.layers)), leaves((other.params, other.state.layers)), strict=True
        ):
            np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_settings_of_optimizers_inside_others_are_swept_by_their_paths(engine: Any) -> None:
    optimizer = tn.ClipByGlobalNorm(tn.Groups({"0.*": tn.SGD(0.1), "*": tn.Adam(0.1)}), 1.0)
    grid = {"optimizer.groups.1.1.lr": [0.01, 0.05], "max_norm": [0.5]}
    result = tn.sweep(NET, LOSS, X, Y, optimizer=optimizer, epochs=2, grid=grid, engine=engine)
    for lr, settings, run in zip((0.01, 0.05), result.settings, result.results, strict=True):
        assert settings == {"seed": 0, "optimizer.groups.1.1.lr": lr, "max_norm": 0.5}
        single = tn.ClipByGlobalNorm(tn.Groups({"0.*": tn.SGD(0.1), "*": tn.Adam(lr)}), 0.5)
        expected = tn.fit(NET, LOSS, X, Y, optimizer=single, epochs=2)
        np.testing.assert_allclose(run.history["loss"], expected.history["loss"], rtol=1e-9)


def test_a_new_learning_rate_compiles_nothing() -> None:
    net = tn.Sequential(tn.Linear(3, 4), tn.Tanh(), tn.Dropout(0.2), tn.Linear(4, 2))
    options = {"engine": "jax", "epochs": 2, "batch_size": 11}
    of = lambda a, b: (  # noqa: E731
        tn.SGD(a, b),
        tn.AdamW(tn.ExponentialDecay(a, b, 3)),
        tn.WeightDecay(tn.SGD(a), b),
        tn.AverageWeights(tn.Nesterov(a, b), b),
        tn.ReduceOnPlateau(
            tn.Groups({"0.*": tn.ClipByGlobalNorm(tn.SGD(a), b), "*": tn.AdamW(a, weight_decay=b)}), "loss", b
        ),
    )
    for optimizer in of(0.1, 0.9):
        tn.fit(net, LOSS, X, Y, optimizer=optimizer, **options)
    compiled = Program.scan_rows._cache_size()  # type: ignore[attr-defined]
    for optimizer in of(0.2, 0.6):
        one, other = (tn.fit(net, LOSS, X, Y, optimizer=optimizer, **options | {"engine": e}) for e in ("numpy", "jax"))
        for p, q in zip(
            leaves((one.params, one.state.optimizer)), leaves((other.params, other.state.optimizer)), strict=True
        ):
            np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)
    assert Program.scan_rows._cache_size() == compiled  # type: ignore[attr-defined]


def test_a_sweep_compiles_once() -> None:
    before = Program.scan_rows_of_runs._cache_size()  # type: ignore[attr-defined]
    net = tn.Sequential(tn.Linear(3, 5), tn.Sigmoid(), tn.Linear(5, 2))
    for lrs in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]):
        tn.sweep(net, LOSS, X, Y, optimizer=tn.Adam(), epochs=3, seeds=range(5), grid={"lr": lrs}, engine="jax")
    assert Program.scan_rows_of_runs._cache_size() == before + 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_run_that_diverges_leaves_the_others_alone(engine: Any) -> None:
    options: dict[str, Any] = {"optimizer": tn.SGD(0.1), "epochs": 30, "engine": engine}
    result = tn.sweep(tn.Linear(3, 2), LOSS, 1e3 * X, Y, grid={"lr": [1e-7, 1e3]}, **options)
    good, bad = result.results
    assert (good.stopped, bad.stopped, bad.params) == ("epochs", "diverged", None)
    assert np.isfinite(good.history["loss"]).all()
    lost = np.isnan(bad.history["loss"])
    assert (len(lost), lost[0], lost[-1]) == (30, False, True)
    assert list(result.table["stopped"]) == ["epochs", "diverged"]
    assert list(result.table["lr"]) == [1e-7, 1e3]
    head, one, other = str(result).splitlines()
    assert head.split() == list(result.table.columns)
    assert (one.split()[-1], other.split()[-1]) == ("epochs", "diverged")
    assert len(head) == len(one) == len(other)
    assert "<td>diverged</td>" in result._repr_html_()


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_grid_with_a_learning_rate_that_learns_nothing_is_no_reason_to_warn(engine: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = tn.sweep(
            tn.Linear(3, 2), LOSS, X, Y, optimizer=tn.SGD(1.0), epochs=12, grid={"lr": [1e-9, 0.1]}, engine=engine
        )
    still, learning = (run.history["loss"][-1] for run in result.results)
    assert learning < 0.9 * still


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_the_warnings_of_other_threads_are_left_alone_meanwhile(engine: Any) -> None:
    before, during = list(warnings.filters), []

    def watch(y_hat: Any, y: Any) -> float:
        during.append(list(warnings.filters))
        return 0.0

    tn.sweep(tn.Linear(3, 2), LOSS, X, Y, optimizer=tn.SGD(0.1), epochs=2, metrics={"watch": watch}, engine=engine)
    assert during == [before, before]


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_an_optimizer_that_watches_the_history_watches_that_of_its_run(engine: Any) -> None:
    optimizer = tn.ReduceOnPlateau(tn.SGD(0.5), factor=0.5, patience=1)
    wrong: dict[str, Any] = {"epochs": 8, "validation": (X, -Y)}
    result = tn.sweep(tn.Linear(3, 2), LOSS, X, Y, optimizer=optimizer, seeds=[3, 4], engine=engine, **wrong)
    for seed, run in zip((3, 4), result.results, strict=True):
        single = tn.fit(tn.Linear(3, 2), LOSS, X, Y, optimizer=optimizer, seed=seed, **wrong)
        assert float(run.state.optimizer["scale"]) == float(single.state.optimizer["scale"]) < 1
        np.testing.assert_allclose(run.history["loss"], single.history["loss"], rtol=1e-9)


def test_seeds_that_can_be_gone_through_once_are_those_of_each_point() -> None:
    result = tn.sweep(NET, LOSS, X, Y, optimizer=tn.SGD(0.1), epochs=1, seeds=iter((3, 4)), grid={"lr": [0.1, 0.2]})
    assert [(run["lr"], run["seed"]) for run in result.settings] == [(0.1, 3), (0.1, 4), (0.2, 3), (0.2, 4)]


def test_one_run_alone_is_a_sweep_too() -> None:
    result = tn.sweep(NET, LOSS, X, Y, optimizer=tn.SGD(0.1), seeds=[3], engine="jax", **COMMON)
    single = tn.fit(NET, LOSS, X, Y, optimizer=tn.SGD(0.1), seed=3, **COMMON)
    np.testing.assert_allclose(result.results[0].history["loss"], single.history["loss"], rtol=1e-9)


def test_batches_are_not_what_a_sweep_on_jax_takes() -> None:
    with pytest.raises(TypeError, match="sweep: x is an iterable of batches; expected data"):
        tn.sweep(NET, LOSS, [(X, Y)], None, optimizer=tn.SGD(0.1), epochs=2, engine="jax")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": {"beta": [1]}}, r"grid has 'beta', which is no setting of SGD.*expected one of \['lr', 'momentum'\]"),
        (
            {"grid": {"lr": [1]}, "optimizer": tn.Accumulate(tn.SGD(1.0), 2)},
            r"expected one of \['optimizer', 'optimizer.lr', .*'every'",
        ),
        ({"seeds": []}, "leave no run"),
        ({"seeds": [-1]}, "seeds is -1"),
        ({"optimizer": 3}, "optimizer is int"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_what_does_not_fit_is_named(options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"sweep: .*{message}"):
        tn.sweep(NET, LOSS, X, Y, **{"optimizer": tn.SGD(0.1), "epochs": 1} | options)

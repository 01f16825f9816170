"""Data in the forms in which people have them train as the arrays do that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tinynet as tn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))
NET = tn.Sequential(tn.Linear(3, 4), tn.Sigmoid(), tn.Linear(4, 2))


def fit(x: Any, y: Any = None, **options: Any) -> Any:
    settings: dict[str, Any] = {"optimizer": tn.SGD(0.1), "epochs": 2, "params": NET.init(np.random.default_rng(1))}
    return tn.fit(NET, tn.SquaredError("mean"), x, y, **settings | options).params[0]["W"]


def in_parts(**options: Any) -> Any:
    return fit(X, Y, batch_size=5, shuffle=False, **options)


def slices() -> Iterator[slice]:
    return (slice(i, i + 5) for i in range(0, 20, 5))


def test_batches_that_are_dicts() -> None:
    weights = RNG.random(20)
    for batches, expected in [
        ([{"x": X[i], "y": Y[i]} for i in slices()], in_parts()),
        ([{"y": Y[i], "weights": weights[i], "x": X[i]} for i in slices()], in_parts(sample_weight=weights)),
    ]:
        np.testing.assert_array_equal(fit(batches), expected)
    with pytest.raises(TypeError, match=r"batch 0 of x is a dict with keys \['image'\]; expected a tuple \(x, y\) or"):
        fit([{"image": X}])


def test_loaders_of_torch() -> None:
    data = pytest.importorskip("torch.utils.data")
    import torch

    pairs = data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    dicts = [{"x": a, "y": b} for a, b in zip(X, Y, strict=True)]
    for source in (pairs, dicts):
        np.testing.assert_array_equal(fit(data.DataLoader(source, batch_size=5)), in_parts())


def _polars(a: Any) -> Any:
    return pytest.importorskip("polars").DataFrame(a)


@pytest.mark.parametrize("frame", [pd.DataFrame, _polars], ids=["pandas", "polars"])
def test_frames(frame: Callable[[Any], Any]) -> None:
    expected = in_parts()
    np.testing.assert_array_equal(fit(frame(X), frame(Y), batch_size=5, shuffle=False), expected)
    np.testing.assert_array_equal(fit([(frame(X[i]), frame(Y[i])) for i in slices()]), expected)
    params = NET.init(np.random.default_rng(1), np.float64)
    np.testing.assert_array_equal(tn.predict(NET, params, frame(X)), tn.predict(NET, params, X))
    metrics = ["r2", "mae"]
    measured = tn.evaluate(NET, tn.SquaredError(), params, frame(X), frame(Y), metrics=metrics)
    assert measured == pytest.approx(tn.evaluate(NET, tn.SquaredError(), params, X, Y, metrics=metrics))


def test_columns_of_several_kinds_of_number() -> None:
    frame = pd.DataFrame({"a": range(20), "b": [True, False] * 10, "c": X[:, 0]})
    for mixed in (frame, frame.convert_dtypes()):
        np.testing.assert_array_equal(fit(mixed, Y), fit(frame.astype(float).to_numpy(), Y))
    with pytest.raises(TypeError, match="x has dtype object; expected real numbers"):
        fit(frame.assign(b="text"), Y)


@pytest.mark.parametrize("options", [{}, {"every": 3}, {"engine": "jax"}], ids=str)
def test_a_generator_that_reuses_its_arrays(options: dict[str, Any], tmp_path: Any) -> None:
    def batches() -> Iterator[tuple[Any, Any]]:
        x, y = np.empty((5, 3)), np.empty((5, 2))
        for i in slices():
            x[:], y[:] = X[i], Y[i]
            yield x, y

    if "every" in options:
        options = options | {"checkpoint": tmp_path / "c"}
    np.testing.assert_allclose(fit(batches, **options), in_parts(), rtol=1e-6)

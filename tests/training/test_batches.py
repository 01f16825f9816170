"""`fit` on arrays mapped from files and on iterables of batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinynet as tn
from tinynet.trees import leaves

ROOT = Path(__file__).parents[2]
NET = tn.Sequential(tn.Linear(3, 4), tn.Sigmoid(), tn.Linear(4, 2))


def data(m: int = 21) -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    return rng.random((m, 3)), rng.random((m, 2))


def fit(x: Any, y: Any = None, **options: Any) -> tn.FitResult:
    return tn.fit(NET, tn.SquaredError("mean"), x, y, **{"optimizer": tn.SGD(0.2), "epochs": 3} | options)


def batches(x: Any, y: Any, size: int = 5) -> Iterator[tuple[Any, Any]]:
    for i in range(0, len(x), size):
        yield x[i : i + size], y[i : i + size]


def assert_equal(a: tn.FitResult, b: tn.FitResult) -> None:
    for p, q in zip(leaves(a.params), leaves(b.params), strict=True):
        np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(a.history["loss"], b.history["loss"])


def test_a_list_or_a_function_of_batches_equals_the_arrays() -> None:
    x, y = data()
    expected = fit(x, y, batch_size=5, shuffle=False)
    assert_equal(fit(list(batches(x, y))), expected)
    assert_equal(fit(lambda: batches(x, y)), expected)


def test_a_generator_does_for_one_epoch() -> None:
    x, y = data()
    assert_equal(fit(batches(x, y), epochs=1), fit(x, y, batch_size=5, shuffle=False, epochs=1))


def test_the_function_is_called_once_an_epoch() -> None:
    calls = []

    def source() -> Iterator[tuple[Any, Any]]:
        calls.append(1)
        return batches(*data())

    fit(source)
    assert len(calls) == 3


def test_a_stream_may_yield_weights() -> None:
    x, y = data()
    weights = np.linspace(0, 2, 21)
    stream = [(x[i : i + 5], y[i : i + 5], weights[i : i + 5]) for i in range(0, 21, 5)]
    assert_equal(fit(stream), fit(x, y, sample_weight=weights, batch_size=5, shuffle=False))


def exhausted() -> Iterator[Any]:
    generator = batches(*data())
    list(generator)
    return generator


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (exhausted(), {"epochs": 1}, "exhausted"),
        (batches(*data()), {"epochs": 2}, "can be gone through once"),
        ([], {}, "yields no batch"),
        ([data()[0]], {}, r"batch 0 of x is float64 array of shape \(21, 3\); expected a tuple"),
        ([(data()[0], data()[1][:3])], {}, "y of batch 0 has 3 samples; expected 21"),
        ([(data()[0] * np.nan, data()[1])], {}, "NaN"),
        ([data(), (np.full((2, 3), np.inf), np.ones((2, 2)))], {}, "x of batch 1 has a value that is NaN or infinite"),
        ([data()], {"batch_size": 5}, "batch_size"),
        ([data()], {"sample_weight": np.ones(21)}, "weights"),
        (data()[0], {}, "y is None; expected"),
        (7, {}, "x is int; expected arrays, or an iterable of batches"),
    ],
)
def test_streams_that_do_not_fit_are_refused(x: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit(x, **options)


def test_a_stream_that_dries_up_after_the_first_epoch_is_refused() -> None:
    generator = batches(*data())
    with pytest.raises(ValueError, match="second time"):
        fit(lambda: generator)


def test_divergence_on_a_stream_gives_the_params_that_the_epoch_began_with() -> None:
    x, y = data()
    with pytest.raises(tn.DivergenceError) as caught:
        fit(lambda: batches(x, y), optimizer=tn.SGD(1e4), epochs=200)
    assert all(np.isfinite(p).all() for p in leaves(caught.value.params))


@pytest.mark.parametrize("engine", ["numpy", "jax"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_a_mapped_file_equals_the_array(tmp_path: Path, engine: str, shuffle: bool, mode: Any) -> None:
    x, y = data()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode=mode) for name in "xy"]
    options = {"batch_size": 5, "shuffle": shuffle, "engine": engine}
    a, b = fit(x, y, **options), fit(*mapped, **options)
    for p, q in zip(leaves(a.params), leaves(b.params), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-13)


def test_changes_to_a_copy_on_write_mapping_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinynet.training.batches._RELEASE_EVERY", 1)
    x, y = data(2000)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[:] = 2 * x
    fit(mapped, y, batch_size=50)
    np.testing.assert_array_equal(mapped, 2 * x)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_mapped_file_with_a_nan_is_met_with_its_row(tmp_path: Path, shuffle: bool) -> None:
    x, y = data()
    x[17, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match="row 17"):
        fit(np.load(tmp_path / "x.npy", mmap_mode="r"), y, batch_size=5, shuffle=shuffle)

"""`fit` on arrays mapped from files and on iterables of batches."""

from __future__ import annotations

import tracemalloc
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
    options = {"net": NET, "loss": tn.SquaredError("mean"), "optimizer": tn.SGD(0.2), "epochs": 3} | options
    return tn.fit(x=x, y=y, **options)


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
        ([(*data(), np.full(21, -0.5))], {}, "weights of batch 0 has the value -0.5; expected at least 0"),
        ([(np.ma.masked_less(data()[0], 0.5), data()[1])], {}, r"x of batch 0 has masked values; .* \(`filled`\)"),
        ([data()], {"batch_size": 5}, "batch_size"),
        ([data()], {"sample_weight": np.ones(21)}, "weights"),
        (data()[0], {}, "y is None; expected"),
        (7, {}, "x is int; expected arrays, or an iterable of batches"),
    ],
)
def test_streams_that_do_not_fit_are_refused(x: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit(x, **options)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
@pytest.mark.parametrize("every", [None, 50])
def test_an_epoch_of_a_stream_takes_no_more_memory_when_it_is_longer(
    engine: Any, every: int | None, tmp_path: Path
) -> None:
    def peak(n: int) -> int:
        """Return the most bytes that are held while n batches of 1 MiB come."""

        def source() -> Iterator[tuple[Any, Any]]:
            for _ in range(n):
                yield np.zeros((2**13, 15)), np.zeros((2**13, 1))

        at: dict[str, Any] = {} if every is None else {"every": every, "checkpoint": tmp_path / f"run{n}"}
        tracemalloc.start()
        try:
            fit(source, net=tn.Linear(15, 1), epochs=1, engine=engine, **at)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short = [peak(8) for _ in range(2)][-1]  # the first one imports and compiles
    assert peak(60) < short + 16 * 2**20


@pytest.mark.parametrize("engine", ["numpy", "jax"])
@pytest.mark.parametrize("as_stream", [False, True])
def test_labels_of_minus_one_and_one_are_refused_before_anything_is_trained(engine: str, as_stream: bool) -> None:
    x, y = data()
    y = np.where(y > 0.5, 1.0, -1.0)
    given = [list(batches(x, y))] if as_stream else [x, y]
    with pytest.raises(ValueError, match=r"y has values from -1 to 1; expected 0 to 1; use \(y \+ 1\) / 2"):
        tn.fit(NET, tn.BinaryCrossEntropy(), *given, optimizer=tn.SGD(0.1), epochs=1, engine=engine)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_label_out_of_range_in_a_later_batch_is_refused(engine: str) -> None:
    x, y = data()
    stream = [(x, y), (x, y), (x, 2 * y)]
    with pytest.raises(ValueError, match="expected 0 to 1"):
        tn.fit(NET, tn.BinaryCrossEntropy(), stream, optimizer=tn.SGD(0.1), epochs=1, engine=engine)


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("which", ["x", "y", "weights"])
def test_what_the_dtype_of_the_params_cannot_hold_is_refused(as_stream: bool, which: str) -> None:
    x, y = data()
    arrays = {"x": x, "y": y, "weights": np.ones(21)}
    arrays[which].flat[5] = 1e300
    params = tn.map_leaves(np.float32, NET.init(np.random.default_rng(0)))
    options: dict[str, Any] = {} if as_stream else {"sample_weight": arrays["weights"]}
    given = [[tuple(arrays.values())]] if as_stream else [arrays["x"], arrays["y"]]
    with pytest.raises(ValueError, match=rf"{which}( of batch 0)? has the value 1e\+300, which float32"):
        fit(*given, params=params, **options)


def test_predict_refuses_what_the_dtype_of_the_params_cannot_hold() -> None:
    params = tn.map_leaves(np.float32, NET.init(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"x has the value 1e\+300"):
        tn.predict(NET, params, np.full((2, 3), 1e300))


def test_a_masked_array_without_masked_values_is_taken() -> None:
    x, y = data()
    assert_equal(fit(np.ma.masked_less(x, -1), y), fit(x, y))


def test_a_stream_that_dries_up_after_the_first_epoch_is_refused() -> None:
    generator = batches(*data())
    with pytest.raises(ValueError, match="second time"):
        fit(lambda: generator)


def first_without_a_finite_loss(x: Any, y: Any) -> tuple[int, int]:
    """Return epoch and batch as a loop by hand meets them."""
    loss, params = tn.SquaredError("mean"), NET.init(np.random.default_rng(0), np.float64)
    with np.errstate(all="ignore"):
        for epoch in range(200):
            for i, batch in enumerate(batches(x, y)):
                E, grads = tn.value_and_grads(NET, loss, params, *batch)
                params = tn.map_leaves(lambda p, g: p - 1e4 * g, params, grads)
                if not np.isfinite(E):
                    return epoch, i
    raise AssertionError("it stays finite")


def test_divergence_on_a_stream_gives_the_params_that_the_epoch_began_with() -> None:
    x, y = data()
    with pytest.raises(tn.DivergenceError) as caught:
        fit(lambda: batches(x, y), optimizer=tn.SGD(1e4), epochs=200)
    assert (caught.value.epoch, caught.value.batch) == first_without_a_finite_loss(x, y)
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
    np.save(tmp_path / "y.npy", y)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"]
    for target in (y, mapped[1]):
        with pytest.raises(ValueError, match="row 17"):
            fit(mapped[0], target, batch_size=5, shuffle=shuffle)

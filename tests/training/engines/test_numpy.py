"""The NumPy engine: it does what the optimizer's pure update does, and leaves the machine as it was."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import tinynet as tn
from tinynet.training.engines.numpy import NumpyEngine
from tinynet.training.engines.threads import PRODUCT_WORK, SHARE_WORK, blas_threads, shares
from tinynet.trees import leaves

NET = tn.Sequential(tn.Linear(5, 4), tn.Sigmoid(), tn.Linear(4, 2), tn.Sigmoid())


def data(m: int = 23, dtype: Any = np.float64) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.random((m, 5)).astype(dtype), rng.random((m, 2)).astype(dtype)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_an_epoch_equals_the_textbook_loop(momentum: float, reduction: Any) -> None:
    x, y = data()
    loss, optimizer = tn.SquaredError(reduction), tn.SGD(0.3, momentum)
    params = NET.init(np.random.default_rng(0), np.float64)
    state = optimizer.init(params)
    fitted = tn.fit(NET, loss, x, y, params=params, optimizer=optimizer, epochs=2, batch_size=5, shuffle=False)
    for _ in range(2):
        for i in range(0, len(x), 5):
            _, grads = tn.value_and_grads(NET, loss, params, x[i : i + 5], y[i : i + 5])
            params, state = optimizer.update(params, grads, state)
    for got, expected in zip(leaves(fitted.params), leaves(params), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_subclass_of_sgd_keeps_its_own_step() -> None:
    class Half(tn.SGD):
        def step(self, params: Any, grads: Any, state: Any) -> Any:
            return tn.SGD(self.lr / 2).step(params, grads, state)

    x, y = data()
    fits = [
        tn.fit(NET, tn.SquaredError(), x, y, optimizer=optimizer, epochs=2, batch_size=5)
        for optimizer in (Half(0.2), tn.SGD(0.1))
    ]
    np.testing.assert_allclose(leaves(fits[0].params)[0], leaves(fits[1].params)[0], rtol=1e-12)


def blas_limits() -> list[int]:
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_threads_are_limited_while_training_and_restored_after_it() -> None:
    x, y = data()
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before, seen = blas_limits(), []
        tn.fit(
            NET,
            tn.SquaredError(),
            x,
            y,
            optimizer=tn.SGD(0.1),
            epochs=1,
            callbacks=[lambda _: seen.append(blas_limits())],
        )
        assert seen == [[1] * len(before)]
        assert blas_limits() == before


def test_threads_are_restored_after_an_exception() -> None:
    x, y = data()
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_limits()
        with pytest.raises(ZeroDivisionError):
            tn.fit(NET, tn.SquaredError(), x, y, optimizer=tn.SGD(0.1), epochs=1, callbacks=[lambda _: bool(1 // 0)])
        assert blas_limits() == before


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Allow two threads; threadpoolctl lets only the thread that set a limit change it, as long as that lives."""
    with ThreadPoolExecutor(1) as pool:
        limited = pool.submit(threadpoolctl.threadpool_limits, 2, user_api="blas").result()
    yield
    with ThreadPoolExecutor(1) as pool:
        pool.submit(limited.restore_original_limits).result()


@pytest.mark.parametrize("last", ["first in", "second in"])
@pytest.mark.usefixtures("two_threads")
def test_of_two_at_a_time_the_last_one_out_restores_the_threads(last: str) -> None:
    """Whichever ends first, the products stay limited until the other ends."""
    x, y = data()
    ends = {"first in": threading.Event(), "second in": threading.Event()}
    began: queue.Queue[str] = queue.Queue()

    def train(name: str) -> None:
        def wait(_: tn.training.callbacks.Epoch) -> None:
            began.put(name)
            assert ends[name].wait(20)

        tn.fit(NET, tn.SquaredError(), x, y, optimizer=tn.SGD(0.1), epochs=1, callbacks=[wait])

    runs = {}
    for name in ends:
        runs[name] = threading.Thread(target=train, args=(name,))
        runs[name].start()
        assert began.get(timeout=20) == name
    for name in sorted(ends, key=lambda name: name == last):
        assert set(blas_limits()) == {1}
        ends[name].set()
        runs[name].join(20)
    assert set(blas_limits()) == {2}


def test_the_latest_limit_holds_and_the_one_before_it_comes_back() -> None:
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        n = len(blas_limits())
        with blas_threads(0, 2):
            with blas_threads(0, 1):
                assert blas_limits() == [1] * n
            assert blas_limits() == [2] * n
        assert blas_limits() == [3] * n


def test_large_work_and_the_argument_choose_the_threads() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        n = len(blas_limits())
        with blas_threads(PRODUCT_WORK, None):
            assert blas_limits() == [2] * n
        with blas_threads(PRODUCT_WORK, 1):
            assert blas_limits() == [1] * n
        with blas_threads(0, 2):
            assert blas_limits() == [2] * n


@pytest.mark.parametrize("threads", [2, 3, 40])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_threads_that_share_a_batch_equal_one(threads: int, reduction: Any, weighted: bool) -> None:
    x, y = data()
    options: dict[str, Any] = {"optimizer": tn.SGD(0.1, 0.5), "epochs": 3, "batch_size": 9}
    if weighted:
        options["sample_weight"] = np.linspace(0, 2, 23)
    one, several = (tn.fit(NET, tn.SquaredError(reduction), x, y, threads=n, **options) for n in (1, threads))
    for p, q in zip(leaves(one.params), leaves(several.params), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12)
    np.testing.assert_allclose(one.history["loss"], several.history["loss"], rtol=1e-13)


@pytest.mark.parametrize(("threads", "parts"), [(1, [23]), (2, [11, 12]), (3, [7, 8, 8])])
def test_as_many_threads_as_asked_for_share_the_samples(threads: int, parts: list[int]) -> None:
    met: list[int] = []

    class Noting(tn.Sigmoid):
        def forward(self, params: Any, x: Any) -> Any:
            met.append(len(x))
            return super().forward(params, x)

        def samplewise(self) -> bool:
            return True

    net = tn.Sequential(tn.Linear(5, 2), Noting())
    tn.fit(net, tn.SquaredError(), *data(), optimizer=tn.SGD(0.1), epochs=1, threads=threads)
    assert sorted(m for m in met if m > 4) == parts  # up to 4 are looked at before


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_float32_stay_float32(threads: int) -> None:
    seen = set()

    class Spy(tn.SGD):
        def step(self, params: Any, grads: Any, state: Any) -> Any:
            seen.update(g.dtype for g in leaves(grads))
            return super().step(params, grads, state)

    weights = np.linspace(0, 2, 23)
    tn.fit(
        NET,
        tn.SquaredError("mean"),
        *data(dtype=np.float32),
        optimizer=Spy(0.1),
        epochs=1,
        batch_size=9,
        threads=threads,
        sample_weight=weights,
    )
    assert seen == {np.dtype(np.float32)}


def test_threads_that_share_a_batch_report_divergence_without_a_warning() -> None:
    x, y = data()
    with pytest.raises(tn.DivergenceError):
        tn.fit(tn.Sequential(tn.Linear(5, 2)), tn.SquaredError(), x, y, optimizer=tn.SGD(1e9), epochs=99, threads=2)


def test_a_layer_that_joins_samples_is_never_split() -> None:
    class Centred(tn.Linear):
        def forward(self, params: Any, x: Any) -> Any:
            return super().forward(params, x - x.mean(axis=0))

    x, y = data()
    net = tn.Sequential(Centred(5, 4), tn.Sigmoid(), tn.Linear(4, 2))
    one, two = (tn.fit(net, tn.SquaredError(), x, y, optimizer=tn.SGD(0.1), epochs=3, threads=n) for n in (1, 2))
    np.testing.assert_allclose(leaves(one.params)[0], leaves(two.params)[0], rtol=1e-12)
    assert not net.samplewise()


def test_large_steps_are_shared_and_small_ones_are_not() -> None:
    assert shares(SHARE_WORK / 2, None) == 1
    assert shares(100 * SHARE_WORK, None) >= 1
    assert shares(0, 3) == 3
    assert NumpyEngine(NET, tn.SquaredError(), tn.SGD(0.1), work=0.0)._shares == 1


@pytest.mark.parametrize("threads", [0, 1.5, "all"])
def test_threads_must_be_a_positive_int(threads: Any) -> None:
    x, y = data()
    with pytest.raises((TypeError, ValueError), match="threads"):
        tn.fit(NET, tn.SquaredError(), x, y, optimizer=tn.SGD(0.1), epochs=1, threads=threads)


@dataclass(frozen=True)
class Jitter(tn.Layer):
    """Scales its input by a number drawn for each batch."""

    seed: int | None = None

    def sample(self, rng: np.random.Generator) -> tn.Layer:
        return Jitter(int(rng.integers(2**32)))

    def forward(self, params: Any, x: Any) -> Any:
        scale = 1.0 if self.seed is None else 0.5 + self.seed / 2**32
        return x * scale, scale

    def backward(self, params: Any, scale: Any, dy: Any) -> Any:
        return dy * scale, {}


def test_a_random_layer_draws_once_a_batch_and_the_same_for_the_same_seed() -> None:
    x, y = data()
    net = tn.Sequential(tn.Linear(5, 2), Jitter())

    def run(seed: int) -> Any:
        return tn.fit(net, tn.SquaredError(), x, y, optimizer=tn.SGD(0.01), epochs=2, batch_size=5, seed=seed)

    first, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(leaves(first.params)[0], leaves(again.params)[0])
    assert not np.array_equal(leaves(first.params)[0], leaves(other.params)[0])


def test_divergence_of_a_random_network_walks_the_same_draws_again() -> None:
    x, y = data()
    net = tn.Sequential(tn.Linear(5, 2), Jitter())
    with pytest.raises(tn.DivergenceError) as caught:
        tn.fit(net, tn.SquaredError(), x, y, optimizer=tn.SGD(1e3), epochs=200, batch_size=5)
    assert all(np.isfinite(p).all() for p in leaves(caught.value.params))
    assert caught.value.epoch > 0

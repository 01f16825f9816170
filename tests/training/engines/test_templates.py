"""What a configuration must be for programs to be compiled for it, and what may change on it while they run."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import tinynet as tn
from tinynet.training.engines.templates import Attributes
from tinynet.trees import leaves

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(22, 3)), RNG.normal(size=(22, 2))


class Same(tn.Layer):
    def forward(self, params: Any, x: Any) -> Any:
        return x + 0, None

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return dy, {}


@dataclass(frozen=True)
class Holding(Same):
    """Holds something that is no part of its hash."""

    held: Any = field(default=None, hash=False, compare=False)


@dataclass(frozen=True)
class Hashed(Same):
    """Holds something, `held`, that is part of its hash, and something that is not."""

    free: Any = field(default=None, hash=False, compare=False)
    held: Any = None


@dataclass
class Settings:
    scale: float = 2.0


class Plain(Same):
    """Is told by its identity, as objects are, whatever it holds."""

    def __init__(self) -> None:
        self.settings, self.names, self.table = Settings(), ["a"], {"x": np.ones(2)}


class Remembering(Same):
    """Keeps in a dict, by shape, a number or the mean of its input; or counts there how often it is asked."""

    def __init__(self, what: str = "number") -> None:
        self.what, self.by_shape = what, {}  # type: ignore[var-annotated]

    def forward(self, params: Any, x: Any) -> Any:
        key = x.shape[1] if self.what == "counter" else x.shape
        if self.what == "counter":
            self.by_shape[key] = self.by_shape.get(key, 0) + 1
        return x * self.by_shape.setdefault(key, x.mean() if self.what == "mean" else 2.0), None

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return 2 * dy, {}


def fit(layer: tn.Layer, engine: Any = "jax") -> Any:
    net, loss = tn.Sequential(layer, tn.Linear(3, 2)), tn.SquaredError("mean")
    return tn.fit(net, loss, X, Y, optimizer=tn.SGD(0.1), epochs=2, batch_size=5, engine=engine)


@pytest.mark.parametrize("layer", [Holding(Settings()), Plain()], ids=["left out of the hash", "no dataclass"])
def test_what_no_hash_depends_on_needs_none(layer: tn.Layer) -> None:
    one, other = (fit(layer, engine) for engine in ("numpy", "jax"))
    for p, q in zip(leaves(one.params), leaves(other.params), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-10)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Hashed(Settings(), held=[1]), "Hashed has no hash.*: its field held of type list"),
        (Hashed([1], held=(1, Settings())), r"Settings has no hash.*: its class has none"),
        (Hashed([1], held=Hashed(held=(np.ones(2),))), r"Hashed has no hash.*: its field held of type tuple"),
    ],
    ids=["its own", "inside", "further inside"],
)
def test_what_is_left_out_of_a_hash_is_not_named_as_the_reason_that_there_is_none(
    layer: tn.Layer, message: str
) -> None:
    with pytest.raises(TypeError, match=f"fit: {message}"):
        fit(layer)


def test_a_layer_may_remember_what_it_computed_for_a_shape() -> None:
    one, other = (fit(Remembering(), engine) for engine in ("numpy", "jax"))
    for p, q in zip(leaves(one.params), leaves(other.params), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-10)


@pytest.mark.parametrize("what", ["counter", "mean"])
def test_a_dict_whose_values_change_or_depend_on_the_data_would_be_lost(what: str) -> None:
    with pytest.raises(TypeError, match="Remembering set its attribute 'by_shape' while training"):
        fit(Remembering(what))


def test_a_large_table_is_not_copied_and_a_small_array_that_changes_is_noticed() -> None:
    table, count = np.zeros(2**22), np.zeros(8)
    tracemalloc.start()
    try:
        attributes = Attributes(tn.Sequential(Holding(table), Holding(count)))
        attributes.check_unchanged()
        assert tracemalloc.get_traced_memory()[1] < table.nbytes / 16
    finally:
        tracemalloc.stop()
    count[5] += 1
    with pytest.raises(TypeError, match="Holding set its attribute 'held' while training"):
        attributes.check_unchanged()
    count[5] -= 1
    Attributes(Holding(np.array([1j * np.nan]))).check_unchanged()
    table += 1
    with pytest.raises(TypeError, match="Holding set its attribute 'held' while training"):
        attributes.check_unchanged()

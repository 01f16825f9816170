"""What breaks the contract of a layer or a loss is named before anything is trained, on both engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tinynet as tn

ENGINES = ("numpy", "jax")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 2))


@dataclass(frozen=True)
class Scale(tn.Layer):
    """y = s ⊗ x, right or wrong."""

    wrong: str = ""

    def init(self, rng: Any, dtype: Any = np.float32) -> Any:
        if self.wrong == "a number":
            return {"s": 1.0}
        return {"s": np.ones(2, np.float64 if self.wrong == "another dtype" else dtype)}

    def forward(self, params: Any, x: Any) -> Any:
        if self.wrong == "y alone":
            return params["s"] * x
        if self.wrong == "writes":
            x *= params["s"]
            return x, x
        return params["s"] * x, x

    def backward(self, params: Any, x: Any, dy: Any) -> Any:
        dx, grads = params["s"] * dy, {"s": (dy * x).sum(axis=0)}
        return {"dx alone": dx, "swapped": (grads, dx), "summed": (dx.sum(axis=0), grads)}.get(self.wrong, (dx, grads))


class Half(tn.Loss):
    """½ Σ (ŷ − y)², right or wrong."""

    wrong = ""

    def forward(self, y_hat: Any, y: Any) -> Any:
        if self.wrong == "writes":
            y -= y_hat
        r = y_hat - y
        E = (r * r).sum(axis=1 if self.wrong == "a vector" else None) / 2
        return E if self.wrong == "E alone" else (E, r)

    def backward(self, r: Any, dE: Any = 1.0) -> Any:
        return {"no dE": r, "summed": dE * r.sum(axis=1)}.get(self.wrong, dE * r)


class Short(Half):
    def backward(self, r: Any) -> Any:  # type: ignore[override]
        return r


def fit(net: tn.Layer, loss: tn.Loss, engine: str, x: Any = X, y: Any = Y) -> Any:
    return tn.fit(net, loss, x, y, optimizer=tn.SGD(0.01), epochs=2, batch_size=5, engine=engine)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "y alone",
            r"fit: Scale.forward \(layer 1.f\) returned float64 array of shape \(1, 2\); expected \(y, cache\)",
        ),
        ("dx alone", r"fit: Scale.backward \(layer 1.f\) returned float64 array.*; expected \(dx, dparams\)"),
        ("swapped", r"fit: Scale.backward \(layer 1.f\) returned dx dict; expected shape \(1, 2\), as x has"),
        ("a number", r'fit: init makes params\[1\]\["s"\] float; expected an array of float64'),
    ],
)
def test_a_layer_that_breaks_the_contract_is_named_by_its_place(engine: str, wrong: str, message: str) -> None:
    fit(tn.Sequential(tn.Linear(3, 2), tn.Residual(Scale())), Half(), engine)
    with pytest.raises(TypeError, match=message):
        fit(tn.Sequential(tn.Linear(3, 2), tn.Residual(Scale(wrong))), Half(), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_parameters_that_init_makes_of_another_dtype_are_refused(engine: str) -> None:
    x, y = X.astype(np.float32), Y.astype(np.float32)
    with pytest.raises(TypeError, match=r'init makes params\["s"\] float64 array.*; expected an array of float32'):
        fit(Scale("another dtype"), Half(), engine, x[:, :2], y)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a vector", r"fit: Half.forward returned E of shape \(1,\); expected a scalar"),
        ("E alone", r"fit: Half.forward returned float64 array of shape \(\); expected \(E, cache\)"),
        ("no dE", r"fit: Half.backward\(cache, dE=0.0\) is what dE=1.0 gives"),
        ("summed", r"fit: Half.backward returned dy_hat float64 array of shape \(1,\); expected shape \(1, 2\)"),
    ],
)
def test_a_loss_that_breaks_the_contract_is_named(
    engine: str, wrong: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a loss that ignores dE, plain SGD would train with a learning rate of 1, whatever was asked for."""
    monkeypatch.setattr(Half, "wrong", wrong)
    with pytest.raises(TypeError, match=message):
        fit(tn.Linear(3, 2), Half(), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_without_dE_is_told_how_backward_is_called(engine: str) -> None:
    with pytest.raises(TypeError, match=r"Short.backward\(\) takes 2 .*; expected backward\(self, cache, dE=1.0\)"):
        fit(tn.Linear(3, 2), Short(), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_data_that_were_handed_in_are_not_written_into(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = X[:, :2].copy(), Y.copy()
    with pytest.raises(TypeError, match=r"fit: Scale.forward writes into an array that it was handed; expected a copy"):
        fit(Scale("writes"), Half(), engine, x, y)
    monkeypatch.setattr(Half, "wrong", "writes")
    with pytest.raises(TypeError, match=r"fit: Half.forward writes into an array that it was handed"):
        fit(Scale(), Half(), engine, x, y)
    np.testing.assert_array_equal(x, X[:, :2])
    np.testing.assert_array_equal(y, Y)


@dataclass(frozen=True)
class Plain(tn.Layer):
    """y = max(x, 0) as it is written with NumPy alone."""

    how: str

    def forward(self, params: Any, x: Any) -> Any:
        if self.how == "numpy":
            return np.maximum(x, 0), x
        return (x if float(x.mean()) > 0 else 2 * x), x

    def backward(self, params: Any, x: Any, dy: Any) -> Any:
        return dy * (x > 0), {}


@pytest.mark.parametrize("how", ["numpy", "float"])
def test_what_the_jax_engine_cannot_compile_says_what_to_do(how: str) -> None:
    net = tn.Sequential(tn.Linear(3, 2), Plain(how))
    fit(net, Half(), "numpy")
    with pytest.raises(TypeError) as caught:
        fit(net, Half(), "jax")
    assert any("take functions from tinynet.namespace(x)" in note for note in caught.value.__notes__)


class Required(Half):
    """A loss whose backward pass has no default, and returns the cache that it was given."""

    def forward(self, y_hat: Any, y: Any) -> Any:
        r = y_hat - y
        return (r * r).sum() / 2, r

    def backward(self, r: Any, dE: Any) -> Any:  # type: ignore[override]
        r *= dE
        return r


class Clipped(Half):
    def backward(self, r: Any, dE: Any = 1.0) -> Any:
        return np.clip(dE * r, -0.1, 0.1)


class OfTwo(Half):
    """A loss that goes back for two samples and more."""

    def backward(self, r: Any, dE: Any = 1.0) -> Any:
        if len(r) < 2:
            raise ValueError("a batch has two samples at least")
        return dE * r


@pytest.mark.parametrize("loss", [Required(), Clipped(), OfTwo()])
def test_losses_that_go_back_otherwise_are_trained(loss: tn.Loss) -> None:
    result = tn.fit(tn.Linear(3, 2), loss, X, Y, optimizer=tn.SGD(0.01), epochs=2, batch_size=6)
    assert np.isfinite(result.history["loss"]).all()


@dataclass(frozen=True)
class Cell(tn.Layer):
    def forward(self, params: Any, x: Any) -> Any:
        return x, x, None

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return dy, {}


@dataclass(frozen=True)
class Composite(tn.Layer):
    """A composite with a manner of its own with its child."""

    cell: tn.Layer

    def forward(self, params: Any, x: Any) -> Any:
        y, _, cache = self.cell.forward({}, x)
        return y, cache

    def backward(self, params: Any, cache: Any, dy: Any) -> Any:
        return dy, {"cell": {}}


def test_a_child_with_a_manner_of_its_own_is_not_blamed_for_another_layer() -> None:
    with pytest.raises(ValueError, match=r"Linear\(n_in=4.*x has shape \(1, 3\)"):
        fit(tn.Sequential(Composite(Cell()), tn.Linear(4, 2)), Half(), "numpy")
    fit(tn.Sequential(Composite(Cell()), tn.Linear(3, 2)), Half(), "numpy")

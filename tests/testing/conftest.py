"""What a gradient ought to be: `jax.vjp` of the right forward pass, on inputs of many kinds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest

from tinynet import Layer, Loss
from tinynet.testing.wrong_targets import named
from tinynet.trees import map_leaves


@dataclass
class Case:
    """A forward and a backward pass of a right target, and the exact gradients by name."""

    right: Layer | Loss
    args: tuple[Any, Any]  # (params, x) or (ŷ, y)
    dy: Any
    exact: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with jax.enable_x64(True):
            # At exactly 0 JAX differentiates |z| and min(z, 0) by convention; just beside it, it need not.
            wide = map_leaves(lambda a: jax.numpy.asarray(np.where(a == 0, 1e-300, a), "float64"), self.args)
            y, pull = jax.vjp(lambda *args: self.right.forward(*args)[0], *wide)
            first, second = pull(jax.numpy.asarray(self.dy, "float64").reshape(y.shape))
        grads = named(first, "y_hat") if isinstance(self.right, Loss) else named(second, "x") | named(first, "params")
        self.exact = map_leaves(np.asarray, grads)

    @property
    def x(self) -> Any:
        return self.args[0 if isinstance(self.right, Loss) else 1]

    def forward(self, suspect: Any) -> tuple[Any, Any]:
        return suspect.forward(*self.args)

    def backward(self, suspect: Any, cache: Any) -> dict[str, Any]:
        """The gradients by name, those of `param_grads` too."""
        if isinstance(suspect, Loss):
            return {"y_hat": suspect.backward(cache, self.dy)}
        params = self.args[0]
        dx, dparams = suspect.backward(params, cache, self.dy)
        alone = named(suspect.param_grads(params, cache, self.dy), "params")
        return named(dx, "x") | named(dparams, "params") | {f"{name} of param_grads": g for name, g in alone.items()}

    def wrong(self, got: dict[str, Any]) -> set[str]:
        """The names of the gradients that have the wrong values, shape or dtype."""
        right = {name.removesuffix(" of param_grads") for name in got}
        return {
            name.removesuffix(" of param_grads")
            for name, g in got.items()
            if not same(g, self.exact.get(name.removesuffix(" of param_grads")), self.x.dtype)
        } | (self.exact.keys() ^ right)


def same(got: Any, exact: Any, dtype: np.dtype) -> bool:
    """Whether an array is right to 32 units of its dtype, relative to its largest entry."""
    if got is None or exact is None or np.shape(got) != exact.shape or got.dtype != dtype:
        return False
    scale = np.abs(exact).max(initial=0.0)
    return bool(np.all(np.abs(got - exact) <= 32 * np.finfo(dtype).eps * scale))


def cases(right: Layer | Loss, width: int, *, leading: tuple[int, ...] = (5,)) -> Iterator[Case]:
    """Yield an ordinary case first; then other values, batch sizes, layouts and dtypes."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((*leading, width))

    def case(x: Any, *, other: Any = None, dy: Any = None) -> Case:
        if isinstance(right, Loss):
            y = np.random.default_rng(8).standard_normal(x.shape).astype(x.dtype)
            return Case(right, (x, y), 0.7)
        params = other or map_leaves(
            lambda p: p + 0.3 * rng.standard_normal(p.shape), right.init(np.random.default_rng(9), np.float64)
        )
        y = right.forward(params, x)[0]
        dy = rng.standard_normal(y.shape).astype(x.dtype) if dy is None else dy(rng.standard_normal(y.shape))
        return Case(right, (params, x), dy)

    yield case(x)
    yield from (case(x[:1]), case(3 * x), case(20 * x), case(x * (abs(x) > 0.5)))
    yield from (case(np.asfortranarray(x)), case(x[::-1]), case(x[:, ::-1]))
    ordinary = case(x)
    if isinstance(right, Layer):
        params = ordinary.args[0]
        yield case(x, dy=np.asfortranarray)
        yield case(x, dy=lambda dy: np.broadcast_to(dy[:1], dy.shape))
        yield case(x, other=map_leaves(np.asfortranarray, params))
        narrow = map_leaves(lambda p: p.astype(np.float32), params)
        yield case(x.astype(np.float32), other=narrow)
    else:
        yield case(x.astype(np.float32))


@pytest.fixture(scope="session")
def cases_of() -> Callable[..., list[Case]]:
    made: dict[Any, list[Case]] = {}

    def of(right: Layer | Loss, width: int, **kwargs: Any) -> list[Case]:
        key = (repr(right), width, *kwargs.values())
        if key not in made:
            made[key] = list(cases(right, width, **kwargs))
        return made[key]

    return of

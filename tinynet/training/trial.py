"""One sample goes through the network and back before anything is trained: what does not fit is met and named here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from tinynet.arrays import Params, describe, is_array, is_floating
from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.layers.stand_in import StandIn, with_watched_children
from tinynet.losses import Loss
from tinynet.training.batches import arrays_in, cast, count, map_arrays, mapping, rows_of
from tinynet.trees import leaves, leaves_with_paths

T = TypeVar("T")


class Misfit(TypeError):
    """A layer or a loss returns something else than it should, or writes into what it was handed."""


class NoPair(Misfit):
    """No pair is returned; a composite may have its own manner with its children."""


def check_fits(name: str, net: Layer, loss: Loss, params: Params, state: Any, x: Any, y: Any, dtype: Any) -> None:
    """Send one sample of the data called `name` through, and its error back; raise where something does not fit."""
    params, state, one = map_arrays(_read_only, (params, state, cast("x", rows_of(x, slice(1)), dtype)))
    y_hat, cache = _named(lambda net: _pair(forward_with_state(net, params, one, state), "forward", "(y, cache)"), net)
    if all(mapping(a) is None for a in arrays_in(y)):
        every = map_arrays(lambda a: np.broadcast_to(a[:1], (count(x), *a.shape[1:])), y_hat)
        y = cast("y", y, dtype)
    else:  # a file is read when its batches come
        every, y = y_hat, cast("y", rows_of(y, slice(1)), dtype)
    arrays = is_array(every) and is_array(y)
    try:
        loss.check(every, y)
    except (TypeError, ValueError) as error:
        classes = arrays and every.ndim == 2 and y.ndim == 1 and y.dtype.kind in "iu"
        hint = f"; for classes use numpy.eye({every.shape[1]})[y]" if classes else ""
        raise type(error)(f"fit: {name} do not fit the network's output: {error}{hint}") from error
    if type(loss).check is Loss.check and arrays and {y.ndim, every.ndim} == {1, 2} and y.size == every.size:
        # Broadcasting would hide the mistake: (m,) against (m, 1) makes (m, m).
        raise ValueError(f"{loss}: y has shape {y.shape}; expected {every.shape}, that of y_hat")
    dy = _error(loss, y_hat, map_arrays(_read_only, rows_of(y, slice(1))))
    if dy is None:
        return

    def back(layer: Layer) -> None:
        kept = cache if layer is net else forward_with_state(layer, params, one, state)[1]
        layer.param_grads(params, kept, dy)

    try:
        _named(back, net)
    except Misfit:
        raise
    except Exception:  # the layer that evaluates need not go back
        pass


def _error(loss: Loss, y_hat: Any, y: Any) -> Any:
    """Return ∂E/∂ŷ, checked; None where the loss of one sample alone, of NumPy's arrays, does not go back."""
    name = type(loss).__name__
    with _refusing_writes(f"{name}.forward"):
        E, residual = _pair(loss.forward(y_hat, y), f"{name}.forward", "(E, cache)")
    if np.shape(E) != ():
        raise Misfit(f"fit: {name}.forward returned E of shape {np.shape(E)}; expected a scalar")
    try:
        dy = map_arrays(np.array, loss.backward(residual, 1.0))
        nothing = loss.backward(loss.forward(y_hat, y)[1], 0.0)
    except Exception as error:
        if "positional argument" in str(error):
            raise Misfit(f"fit: {error}; expected backward(self, cache, dE=1.0)") from error
        return None
    _check_like(f"{name}.backward returned dy_hat", dy, y_hat, "y_hat")
    pairs = [(a, b) for a, b in zip(leaves(dy), leaves(nothing), strict=True) if a is not None]
    if any(np.any(a) for a, _ in pairs) and all(np.array_equal(a, b) for a, b in pairs):
        raise Misfit(f"fit: {name}.backward(cache, dE=0.0) is what dE=1.0 gives; expected dE · ∂E/∂ŷ")
    return dy


def _named(go: Callable[[Layer], T], net: Layer) -> T:
    """Return go(net); where that fails, go again with layers that say which of them breaks the contract."""
    with np.errstate(all="ignore"):
        try:
            return go(net)
        except Exception as error:
            try:
                go(_Checked(net, ""))
            except Misfit as named:
                if not isinstance(named, NoPair) or "unpack" in str(error) or isinstance(error, NoPair):
                    raise named from error
            except Exception:  # it has another reason
                pass
            raise


class _Checked(StandIn):
    """A layer that raises Misfit, with its name, where it does not return what it should."""

    def __init__(self, layer: Layer, path: str) -> None:
        super().__init__(with_watched_children(layer, path, _Checked))
        self._name = f"{type(layer).__name__}.{{}}" + (f" (layer {path})" if path else "")

    def forward(self, params: Params, x: Any, **options: Any) -> tuple[Any, Any]:
        name = self._name.format("forward")
        with _refusing_writes(name):
            y, cache = _pair(super().forward(params, x, **options), name, "(y, cache)")
        return y, (x, cache)

    def backward(self, params: Params, cache: Any, dy: Any) -> tuple[Any, Params]:
        name = self._name.format("backward")
        with _refusing_writes(name):
            dx, dparams = _pair(super().backward(params, cache[1], dy), name, "(dx, dparams)")
        _check_like(f"{name} returned dx", dx, cache[0], "x")
        return dx, dparams

    def param_grads(self, params: Params, cache: Any, dy: Any) -> Params:
        return super().param_grads(params, cache[1], dy)


def _pair(out: Any, what: str, expected: str) -> tuple[Any, Any]:
    if not isinstance(out, tuple) or len(out) != 2:
        given = f"{len(out)} values" if isinstance(out, tuple) else describe(out)
        raise NoPair(f"fit: {what} returned {given}; expected {expected}")
    return out


def _check_like(what: str, dx: Any, x: Any, name: str) -> None:
    """Raise Misfit unless the gradient by x has the shapes of x; None, where nobody needs it, will do."""
    given = dict(leaves_with_paths(dx))
    for path, a in leaves_with_paths(x):
        found = given.get(path, dx)
        if found is not None and is_floating(a) and np.shape(found) != a.shape:
            raise Misfit(f"fit: {what}{path} {describe(found)}; expected shape {a.shape}, as {name} has")


@contextmanager
def _refusing_writes(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise Misfit(f"fit: {what} writes into an array that it was handed; expected a copy to be changed") from error


def _read_only(a: Any) -> Any:
    view = np.asarray(a).view()
    view.flags.writeable = False
    return view

"""What can be verified, brought to one form: named arrays in, an output, named gradients out.

A tinynet `Layer` or `Loss`, a network with its loss, a pair of functions, a closure that returns (y, backprop), and an
object that keeps its cache and gradients on `self` all become a `Subject`. Nothing here judges anything.
"""

from __future__ import annotations

import copy
import inspect
import re
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.layers import Layer, Sequential
from tinynet.losses import Loss
from tinynet.trees import leaves_with_paths, map_leaves
from tinynet.verification.tracing import names_in, traceable

__all__ = [
    "MISSING",
    "Args",
    "Closure",
    "LayerSubject",
    "LossSubject",
    "Subject",
    "TargetError",
    "drawn_like",
    "make_subject",
    "nearby",
]

Args = dict[str, npt.NDArray[Any]]
"""The arrays that go in, by name: "x", "params.W", "params[0].b", "y_hat", …"""

Gradients = dict[str, Any]
"""What came out, by the same names, exactly as the target gave it: not necessarily arrays."""

MISSING = object()
"""Stands for a gradient that is not there at all."""


class TargetError(ValueError):
    """The target, or what was given with it, cannot be verified as it stands."""


class Malformed(Exception):
    """A backward pass returned something that cannot be matched with the arrays that went in."""


class Session(ABC):
    """One life of the target: state that it keeps between calls is kept within a session, and nowhere else."""

    @abstractmethod
    def forward(self, args: Args) -> tuple[Any, Any]:
        """Return (y, context for `backward`)."""

    @abstractmethod
    def backward(self, context: Any, dy: Any) -> Gradients:
        """Return the gradient of every array of `wrt`."""

    def params_now(self) -> Args:
        """Return the parameters that a target keeps on itself, as they are now."""
        return {}

    keeps_one_cache = False
    """Whether a second forward pass replaces the cache of the first by design."""


class Subject(ABC):
    """A target with arrays of fixed shapes.

    Attributes:
        name: for the report.
        args: example arrays, float64 where they are floating.
        wrt: the names that gradients are taken by.
        batched: the names whose first axis counts samples.
        depth: how many layers deep, the number of times rounding may add up.
        code: the functions that compute gradients, to find the line at fault.
        key: equal for subjects with one forward function; None if that cannot be known.
        parts: the layers and losses that `key` speaks of; two may have one forward pass and differ going back.
        rebound: trace a copy of the target in which NumPy's names stand for jax.numpy's.
        by_jax: the target computes with JAX itself, and is called in 64-bit mode.
    """

    name: str
    args: Args
    wrt: tuple[str, ...]
    batched: tuple[str, ...] = ("x",)
    depth: int = 1
    code: tuple[Callable[..., Any], ...] = ()
    key: Any = None
    parts: tuple[Any, ...] = ()
    rebound: bool = False
    by_jax: bool = False

    @abstractmethod
    def session(self) -> Session:
        """Start a life with nothing remembered."""

    @abstractmethod
    def pure(self, args: Mapping[str, Any]) -> Any:
        """Compute y of `args`, to be traced by JAX."""

    def with_args(self, args: Args) -> Subject:
        """Return the same subject with other arrays."""
        other = copy.copy(self)
        other.args = args
        return other

    def resized(self, rng: np.random.Generator) -> list[tuple[str, Subject]]:
        """Return the subject in other widths: every size that occurs, but the batch's, becomes another one.

        Whether the target accepts them is for its forward pass to say.
        """
        sizes = sorted({n for name, a in self.args.items() for n in a.shape[int(name in self.batched) :]})
        variants: list[tuple[str, Subject]] = []
        for label, to in (("square", lambda i: 3), ("width 1", lambda i: 1), ("larger", lambda i: 9 + 4 * i)):
            new = {n: to(i) for i, n in enumerate(sizes)}
            args = {}
            for name, a in self.args.items():
                batch = a.shape[: int(name in self.batched)]
                shape = (*batch, *(new[n] for n in a.shape[len(batch) :]))
                args[name] = drawn_like(a, shape, rng)
            variants.append((label, self.with_args(args)))
        return variants if sizes else []

    def shares_forward(self, other: Subject) -> bool:
        """Whether the two differ in their arrays only."""
        return self.key == other.key if self.key is not None else type(self) is type(other)

    def with_batch(self, m: int, rng: np.random.Generator) -> Subject:
        """Return the subject with m samples, each near one of its own."""
        args = dict(self.args)
        for name in self.batched:
            args[name] = nearby(args[name][rng.integers(0, len(args[name]), m)], 0.2, rng)
        return self.with_args(args)


# tinynet's own contract


@dataclass
class _LayerSession(Session):
    layer: Layer
    like: Any

    def forward(self, args: Args) -> tuple[Any, Any]:
        params = _params_from(args, self.like)
        y, cache = _pair(self.layer.forward(params, args["x"]), "forward", "(y, cache)")
        return y, (params, cache)

    def backward(self, context: Any, dy: Any) -> Gradients:
        params, cache = context
        dx, dparams = _pair(self.layer.backward(params, cache, dy), "backward", "(dx, dparams)")
        return {"x": dx} | _named_gradients(dparams, self.like)

    def param_grads(self, context: Any, dy: Any) -> Gradients:
        params, cache = context
        return _named_gradients(self.layer.param_grads(params, cache, dy), self.like)


class LayerSubject(Subject):
    """A tinynet layer."""

    def __init__(self, layer: Layer, params: Any, x: npt.NDArray[Any], wrt_x: bool = True) -> None:
        self.layer, self.like, self.name = layer, params, _short(layer)
        self.args = {"x": x} | {f"params{_dotted(path)}": np.array(p) for path, p in leaves_with_paths(params)}
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f" and (wrt_x or n != "x"))
        self.depth = _depth(layer)
        cls = type(layer)
        self.code = tuple(getattr(cls, n) for n in ("backward", "param_grads") if n in cls.__dict__)
        self.key, self.parts = _forward_key(params, layer), (layer,)

    def session(self) -> Session:
        return _LayerSession(_fresh(self.layer), self.like)

    def params(self, args: Mapping[str, Any]) -> Any:
        """Return the parameters among `args`, in the structure that the layer knows."""
        return _params_from(args, self.like)

    def pure(self, args: Mapping[str, Any]) -> Any:
        layer = traceable(self.layer) if self.rebound else _fresh(self.layer)
        return _pair(layer.forward(_params_from(args, self.like), args["x"]), "forward", "(y, cache)")[0]

    def resized(self, rng: np.random.Generator) -> list[tuple[str, Subject]]:
        variants: list[tuple[str, Subject]] = []
        for label, (n_in, n_out) in {"square": (3, 3), "width 1": (1, 1), "larger": (13, 9)}.items():
            subject = self._with_widths(n_in, n_out, rng)
            if subject is not None:
                variants.append((label, subject))
        return variants

    def _with_widths(self, n_in: int, n_out: int, rng: np.random.Generator) -> Subject | None:
        x = self.args["x"]
        if x.ndim < 2 or x.dtype.kind != "f" or isinstance(self.layer, Sequential):
            return None
        layer: Layer = self.layer
        widths = _width_fields(layer)
        if widths:
            try:
                layer = replace(layer, **dict(zip(widths, (n_in, n_out), strict=False)))  # type: ignore[type-var]
            except (TypeError, ValueError):
                return None
        elif len(self.args) > 1:
            return None
        try:
            return random_layer_subject(layer, (x.shape[0], *x.shape[1:-1], n_in), rng)
        except Exception:
            return None


@dataclass
class _LossSession(Session):
    loss: Loss

    def forward(self, args: Args) -> tuple[Any, Any]:
        return _pair(self.loss.forward(args["y_hat"], args["y"]), "forward", "(E, cache)")

    def backward(self, context: Any, dy: Any) -> Gradients:
        # A loss is asked for ∂E/∂ŷ alone nearly always, without dE.
        return {"y_hat": self.loss.backward(context) if dy is None else self.loss.backward(context, dy)}


class LossSubject(Subject):
    """A tinynet loss."""

    batched = ("y_hat", "y")
    wrt = ("y_hat",)

    def __init__(self, loss: Loss, y_hat: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        self.loss, self.name, self.args = loss, _short(loss), {"y_hat": y_hat, "y": y}
        self.code = (type(loss).backward,)
        self.key, self.parts = _forward_key((), loss), (loss,)

    def session(self) -> Session:
        return _LossSession(_fresh(self.loss))

    def pure(self, args: Mapping[str, Any]) -> Any:
        loss = traceable(self.loss) if self.rebound else _fresh(self.loss)
        return _pair(loss.forward(args["y_hat"], args["y"]), "forward", "(E, cache)")[0]

    def resized(self, rng: np.random.Generator) -> list[tuple[str, Subject]]:
        y_hat, y = self.args["y_hat"], self.args["y"]
        if y_hat.ndim < 2 or y.shape != y_hat.shape:
            return []
        shapes = {"square": (4, 4), "width 1": (5, 1), "larger": (16, 9)}
        return [
            (label, self.with_args({"y_hat": drawn_like(y_hat, shape, rng), "y": drawn_like(y, shape, rng)}))
            for label, shape in shapes.items()
        ]


@dataclass
class _NetworkSession(Session):
    net: Layer
    loss: Loss
    like: Any

    def forward(self, args: Args) -> tuple[Any, Any]:
        params = _params_from(args, self.like)
        y_hat, cache = _pair(self.net.forward(params, args["x"]), "forward", "(y, cache)")
        E, residual = _pair(self.loss.forward(y_hat, args["y"]), "forward", "(E, cache)")
        return E, (params, cache, residual)

    def backward(self, context: Any, dy: Any) -> Gradients:
        params, cache, residual = context
        dy_hat = self.loss.backward(residual, dy)
        dx, dparams = _pair(self.net.backward(params, cache, dy_hat), "backward", "(dx, dparams)")
        return {"x": dx} | _named_gradients(dparams, self.like)

    def param_grads(self, context: Any, dy: Any) -> Gradients:
        params, cache, residual = context
        return _named_gradients(self.net.param_grads(params, cache, self.loss.backward(residual, dy)), self.like)


class NetworkSubject(LayerSubject):
    """A network with its loss: E of the parameters and the input."""

    batched = ("x", "y")

    def __init__(self, net: Layer, loss: Loss, params: Any, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        super().__init__(net, params, x)
        self.loss, self.name = loss, f"{_short(net)} with {_short(loss)}"
        self.args["y"] = y
        self.depth += 1
        self.key, self.parts = _forward_key(params, net, loss), (net, loss)

    def session(self) -> Session:
        return _NetworkSession(_fresh(self.layer), _fresh(self.loss), self.like)

    def pure(self, args: Mapping[str, Any]) -> Any:
        y_hat = super().pure(args)
        loss = traceable(self.loss) if self.rebound else _fresh(self.loss)
        return _pair(loss.forward(y_hat, args["y"]), "forward", "(E, cache)")[0]

    def resized(self, rng: np.random.Generator) -> list[tuple[str, Subject]]:
        return []


# code that knows nothing of us


@dataclass
class _PairSession(Session):
    forward_function: Callable[..., Any]
    backward_function: Callable[..., Any]
    names: tuple[str, ...]

    def forward(self, args: Args) -> tuple[Any, Any]:
        values = tuple(args[n] for n in self.names)
        return self.forward_function(*values), values

    def backward(self, context: Any, dy: Any) -> Gradients:
        return _positional(self.backward_function(context, dy), self.names)


class PairSubject(Subject):
    """Two functions: forward(*args) -> y, and backward(args, dy) -> a gradient an argument."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], values: Sequence[Any]) -> None:
        self.forward_function, self.backward_function = forward, backward
        self.names = _argument_names(forward, len(values))
        self.args = dict(zip(self.names, values, strict=True))
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f")
        self.batched = _batched(self, self.names)
        self.name, self.code = getattr(backward, "__qualname__", repr(backward)), (backward,)
        self.key, self.parts = _function_key(forward), (id(backward), backward)

    def session(self) -> Session:
        return _PairSession(_fresh(self.forward_function), _fresh(self.backward_function), self.names)

    def pure(self, args: Mapping[str, Any]) -> Any:
        forward = traceable(self.forward_function) if self.rebound else _fresh(self.forward_function)
        return forward(*(args[n] for n in self.names))


@dataclass
class _ClosureSession(Session):
    function: Callable[..., Any]
    names: tuple[str, ...]

    def forward(self, args: Args) -> tuple[Any, Any]:
        return _pair(self.function(*(args[n] for n in self.names)), "the function", "(y, backprop)")

    def backward(self, context: Any, dy: Any) -> Gradients:
        return _positional(context(dy), self.names)


class Closure(Subject):
    """A function that returns (y, backprop); backprop(dy) -> a gradient an argument."""

    def __init__(self, function: Callable[..., Any], values: Sequence[Any]) -> None:
        self.function = function
        self.names = _argument_names(function, len(values))
        self.args = dict(zip(self.names, values, strict=True))
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f")
        self.batched = _batched(self, self.names)
        self.name, self.code = getattr(function, "__qualname__", repr(function)), (function,)

    def session(self) -> Session:
        return _ClosureSession(_fresh(self.function), self.names)

    def pure(self, args: Mapping[str, Any]) -> Any:
        function = traceable(self.function) if self.rebound else _fresh(self.function)
        return _pair(function(*(args[n] for n in self.names)), "the function", "(y, backprop)")[0]


@dataclass
class _ObjectSession(Session):
    target: Any
    slots: dict[str, tuple[str, ...]]
    keeps_one_cache = True

    def forward(self, args: Args) -> tuple[Any, Any]:
        _put_params(self.target, self.slots, args)
        return _first(self.target.forward(args["x"])), None

    def backward(self, context: Any, dy: Any) -> Gradients:
        for reset in ("zero_grad", "zero_grads"):
            if callable(getattr(self.target, reset, None)):
                getattr(self.target, reset)()
        out = self.target.backward(dy)
        values = list(out) if isinstance(out, (tuple, list)) else [out]
        dx, rest = values[0] if values else MISSING, values[1:]
        grads: Gradients = {"x": dx}
        for (name, slot), value in zip(self.slots.items(), rest or [MISSING] * len(self.slots), strict=False):
            grads[name] = _find_gradient(self.target, slot) if value is MISSING else value
        return grads

    def params_now(self) -> Args:
        return {name: np.asarray(_get(self.target, slot)) for name, slot in self.slots.items()}


class ObjectSubject(Subject):
    """An object with forward(x) and backward(dy) that keeps parameters, cache and gradients on itself."""

    def __init__(self, target: Any, x: npt.NDArray[Any], rng: np.random.Generator | None = None) -> None:
        self.target, self.slots, self.name = target, _param_slots(target), type(target).__name__
        self.args = {"x": x}
        for name, slot in self.slots.items():
            value = np.array(_get(target, slot), np.float64)
            self.args[name] = value if rng is None else _perturbed(value, rng)
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f")
        self.code = (type(target).backward,)

    def session(self) -> Session:
        return _ObjectSession(_fresh(self.target), self.slots)

    def pure(self, args: Mapping[str, Any]) -> Any:
        target = traceable(self.target) if self.rebound else _fresh(self.target)
        _put_params(target, self.slots, args)
        return _first(target.forward(args["x"]))


# arrays like others


def nearby(a: npt.NDArray[Any], by: float, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return an array near `a`: other values, but of its kind; rows of integers, or that sum to 1, in another order."""
    if a.dtype.kind != "f" or _is_distributions(a):
        return rng.permutation(a) if a.ndim else a
    return np.asarray(a * (1 + by * rng.standard_normal(a.shape)))


def drawn_like(a: npt.NDArray[Any], shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return an array of another shape, with values like those of `a`; rows that sum to 1 go on doing so."""
    if _is_distributions(a):
        return (
            np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
            if np.all(a % 1 == 0)
            else _distributions(shape, rng)
        )
    drawn = rng.choice(a.ravel() if a.size else np.zeros(1, a.dtype), shape)
    return drawn * (1 + 0.3 * rng.standard_normal(shape)) if a.dtype.kind == "f" else drawn


def _distributions(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Draw targets in (0, 1) that sum to 1 over the last axis: any loss takes them, also one of probabilities."""
    y = rng.random(shape) + 0.1
    return np.asarray(y / y.sum(axis=-1, keepdims=True)) if y.ndim else np.asarray(y)


def _is_distributions(a: npt.NDArray[Any]) -> bool:
    return a.ndim > 1 and a.shape[-1] > 1 and a.size > 0 and bool(np.all(a >= 0) and np.allclose(a.sum(axis=-1), 1))


# making subjects


def make_subject(target: Any, inputs: Any, params: Any, loss: Loss | None, rng: np.random.Generator) -> Subject:
    """Bring `target` to the one form, with random arrays where none are given.

    Raises:
        TargetError: it is nothing that can be verified, or its arrays cannot be guessed.
    """
    if isinstance(target, type):
        target = _construct(target)
    if isinstance(target, Loss):
        return _loss_subject(target, inputs, rng)
    if isinstance(target, Layer):
        return _layer_subject(target, inputs, params, loss, rng)
    if loss is not None:
        raise TargetError("loss= goes with a tinynet Layer; expected target to be one")
    if isinstance(target, (tuple, list)) and len(target) == 2 and all(map(callable, target)):
        forward, backward = target
        return PairSubject(forward, backward, _example_values(forward, inputs, rng))
    if callable(getattr(target, "forward", None)) and callable(getattr(target, "backward", None)):
        return _object_subject(target, inputs, rng)
    if callable(target):
        return Closure(target, _example_values(target, inputs, rng))
    raise TargetError(
        f"target is {type(target).__name__}; expected a tinynet Layer or Loss, an object with forward(x) and "
        "backward(dy), a function that returns (y, backprop), or a pair (forward, backward)"
    )


def random_layer_subject(layer: Layer, shape: tuple[int, ...], rng: np.random.Generator) -> LayerSubject:
    """Build a layer's subject with random parameters near its own initial ones, and a random normal input."""
    params = map_leaves(lambda p: _perturbed(np.asarray(p), rng), layer.init(rng, np.float64))
    subject = LayerSubject(layer, params, rng.standard_normal(shape))
    subject.session().forward(subject.args)
    return subject


def _layer_subject(layer: Layer, inputs: Any, params: Any, loss: Loss | None, rng: np.random.Generator) -> Subject:
    given = _arrays(inputs, rng) if inputs is not None else ()
    if params is None:
        params = map_leaves(lambda p: _perturbed(np.asarray(p), rng), layer.init(rng, np.float64))
    params = map_leaves(_as_float64, params)
    if given:
        x = given[0]
        _try_forward(layer, params, x, raising=True)
    else:
        x = _guess_input(layer, params, rng)
    if loss is None:
        return LayerSubject(layer, params, x)
    y_hat = _pair(_forward_on_copies(layer, params, x), "forward", "(y, cache)")[0]
    y = given[1] if len(given) > 1 else _distributions(np.shape(y_hat), rng)
    return NetworkSubject(layer, loss, params, x, y)


def _loss_subject(loss: Loss, inputs: Any, rng: np.random.Generator) -> Subject:
    given = _arrays(inputs, rng) if inputs is not None else [rng.standard_normal((5, 3))]
    y_hat = given[0]
    return LossSubject(loss, y_hat, given[1] if len(given) > 1 else _distributions(y_hat.shape, rng))


def _object_subject(target: Any, inputs: Any, rng: np.random.Generator) -> Subject:
    if inputs is not None:
        return ObjectSubject(target, _arrays(inputs, rng)[0], rng)
    slots = _param_slots(target)
    widths = [n for slot in slots.values() for n in np.shape(_get(target, slot))]
    for n in dict.fromkeys([*widths, 4]):
        subject = ObjectSubject(target, rng.standard_normal((5, n)), rng)
        try:
            subject.session().forward(subject.args)
        except Exception:
            continue
        return subject
    raise TargetError(f"{type(target).__name__}: no input shape that its forward accepts was found; give inputs=x")


def _guess_input(layer: Layer, params: Any, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Find an input that the layer's forward accepts, by its own numbers: (m, n), then (m, c, h, w), then indices."""
    sizes = [p.shape for _, p in leaves_with_paths(params)] + [(n,) for n in _ints(layer)]
    widths = [*(s[-1] for s in sizes if s), *(s[1] for s in sizes if len(s) > 1), *(s[0] for s in sizes if s), 4]
    for n in dict.fromkeys(widths):
        for shape in ((5, n), (3, n, 7, 6), (5, 4, n)):
            x = rng.standard_normal(shape)
            if _try_forward(layer, params, x):
                return x
    indices = rng.integers(0, max([2, *(s[0] for s in sizes if s)]), (5, 3))
    if _try_forward(layer, params, indices):
        return indices
    raise TargetError(f"{_short(layer)}: no input shape that its forward accepts was found; give inputs=x")


def _forward_on_copies(layer: Layer, params: Any, x: npt.NDArray[Any]) -> Any:
    return _fresh(layer).forward(map_leaves(np.copy, params), x.copy())


def _try_forward(layer: Layer, params: Any, x: npt.NDArray[Any], raising: bool = False) -> bool:
    try:
        _forward_on_copies(layer, params, x)
    except Exception as error:
        if raising:
            raise TargetError(f"{_short(layer)}: forward does not accept inputs= ({error})") from error
        return False
    return True


def _example_values(forward: Callable[..., Any], inputs: Any, rng: np.random.Generator) -> tuple[Any, ...]:
    if inputs is not None:
        return _arrays(inputs, rng)
    try:
        required = [
            p
            for p in inspect.signature(forward).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        required = []
    if len(required) != 1:
        raise TargetError(
            f"{getattr(forward, '__qualname__', forward)}: takes {len(required)} arguments; give inputs=, an array each"
        )
    return (rng.standard_normal((5, 3)),)


def _arrays(inputs: Any, rng: np.random.Generator) -> tuple[npt.NDArray[Any], ...]:
    """Turn `inputs` into arrays: an array, a tuple of arrays, a dict of arrays, or a shape to fill at random."""
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, (tuple, list)) and inputs and all(isinstance(n, int) for n in inputs):
        return (rng.standard_normal(tuple(inputs)),)
    if not isinstance(inputs, (tuple, list)):
        inputs = (inputs,)
    return tuple(_as_float64(value) for value in inputs)


def _as_float64(value: Any) -> npt.NDArray[Any]:
    array = np.array(value)
    if array.dtype.kind not in "fiub":
        raise TargetError(f"inputs or params hold {array.dtype}; expected arrays of real numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise TargetError("inputs or params hold a value that is NaN or infinite; expected finite numbers")
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _construct(cls: type) -> Any:
    """Build an instance: with no arguments, or with small widths for required int arguments."""
    try:
        return cls()
    except TypeError:
        pass
    required = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    if all(p.annotation in (int, "int", p.empty) for p in required):
        try:
            return cls(*[4, 3, 2, 5, 6][: len(required)])
        except Exception as error:
            raise TargetError(f"{cls.__name__}: could not be constructed ({error}); give an instance") from error
    raise TargetError(f"{cls.__name__}: takes arguments that cannot be guessed; give an instance")


def _batched(subject: Subject, names: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments whose first axis counts samples: the first one, and all as long as it if it cannot go alone."""
    first = subject.args[names[0]] if names else np.zeros(())
    if first.ndim == 0:
        return ()
    together = tuple(n for n in names if subject.args[n].shape[:1] == first.shape[:1])
    for chosen in (names[:1], together) if len(first) > 2 else ():
        try:
            subject.session().forward({n: a[:-1].copy() if n in chosen else a.copy() for n, a in subject.args.items()})
        except Exception:
            continue
        return chosen
    return names[:1]


# small pieces


def _pair(out: Any, of: str, form: str) -> tuple[Any, Any]:
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        given = f"{len(out)} values" if isinstance(out, (tuple, list)) else type(out).__name__
        raise Malformed(f"{of} returned {given}; expected {form}")
    return out[0], out[1]


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) and out else out


def _positional(out: Any, names: tuple[str, ...]) -> Gradients:
    if not isinstance(out, (tuple, list)):
        out = (out,)
    if len(out) != len(names):
        raise Malformed(f"backward returned {len(out)} gradients; expected {len(names)}, one for each of {names}")
    return dict(zip(names, out, strict=True))


def _named_gradients(dparams: Any, like: Any, path: str = "params") -> Gradients:
    """Name the gradients as the parameters are named; what is absent is MISSING, what is extra keeps its own name."""
    if isinstance(like, Mapping):
        given = dparams if isinstance(dparams, Mapping) else {}
        grads: Gradients = {}
        for key, part in like.items():
            grads |= _named_gradients(given.get(key, MISSING), part, f"{path}.{key}")
        return grads | {f"{path}.{key}": value for key, value in given.items() if key not in like}
    if isinstance(like, (tuple, list)):
        if not isinstance(dparams, (tuple, list)) and dparams is not None and dparams is not MISSING:
            raise Malformed(f"{type(dparams).__name__} is returned for {path}; expected a tuple of {len(like)}")
        entries = list(dparams) if isinstance(dparams, (tuple, list)) else []
        entries += [MISSING] * (len(like) - len(entries))
        named: Gradients = {}
        for i, part in enumerate(like):
            named |= _named_gradients(entries[i], part, f"{path}[{i}]")
        return named | {f"{path}[{i}]": value for i, value in enumerate(entries) if i >= len(like)}
    return {path: dparams}


def _params_from(args: Mapping[str, Any], like: Any, path: str = "params") -> Any:
    if isinstance(like, Mapping):
        return {key: _params_from(args, part, f"{path}.{key}") for key, part in like.items()}
    if isinstance(like, (tuple, list)):
        return tuple(_params_from(args, part, f"{path}[{i}]") for i, part in enumerate(like))
    return args[path]


def _dotted(path: str) -> str:
    return re.sub(r'\["([^"]*)"\]', r".\1", path)


def _structure(params: Any) -> Any:
    return tuple(path for path, _ in leaves_with_paths(params))


def _depth(layer: Any) -> int:
    parts = getattr(layer, "layers", None)
    return sum(map(_depth, parts)) if isinstance(parts, tuple) and parts else 1


def _short(target: Any) -> str:
    text = repr(target)
    return text if len(text) <= 60 else f"{type(target).__name__}(…)"


def _forward_key(params: Any, *targets: Any) -> Any:
    """What a forward pass is a function of besides its arrays; None where that cannot be known.

    An object that compares by identity may change behind an equal hash; a frozen dataclass of plain values may not.
    """
    try:
        key = (_structure(params), tuple(map(_configuration, targets)))
        hash(key)
    except TypeError:
        return None
    return key


def _configuration(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_configuration, value))
    if not isinstance(value, (Layer, Loss)):
        return value
    if not is_dataclass(value):
        raise TypeError
    # A class that is wrong on purpose says whose forward pass it has.
    cls = getattr(type(value), "_forward_of", type(value))
    return (cls, *(_configuration(getattr(value, f.name)) for f in fields(value)))


def _function_key(function: Any) -> Any:
    """What a function computes: its code and all that the code refers to; None where that cannot be told."""
    try:
        key = _meaning(function, [])
        hash(key)
    except (TypeError, ValueError):
        return None
    return key


def _meaning(value: Any, above: list[Any]) -> Any:
    if any(value is f for f in above):
        return "recursion", value.__qualname__
    if isinstance(value, types.FunctionType):
        names = [n for n in sorted(names_in(value.__code__)) if n in value.__globals__]
        refers = [value.__globals__[n] for n in names] + [c.cell_contents for c in value.__closure__ or ()]
        rest = (value.__defaults__, value.__kwdefaults__, value.__dict__)
        return value.__code__, tuple(names), tuple(_meaning(v, [*above, value]) for v in (*refers, *rest))
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_meaning(v, above) for v in value)
    if isinstance(value, dict):
        return dict, tuple((k, _meaning(v, above)) for k, v in value.items())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic)):
        return type(value), value
    if isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
        return value
    if callable(value) and type(value).__module__ == "numpy":
        return value
    raise TypeError(f"what a {type(value).__name__} means cannot be told from its value")


def _fresh(target: Any) -> Any:
    """Copy the target with all that it remembers; a function has nothing that could be copied."""
    try:
        return copy.deepcopy(target)
    except Exception:
        return copy.copy(target)


def _ints(layer: Any) -> list[int]:
    values = [getattr(layer, f.name) for f in fields(layer)] if is_dataclass(layer) else list(vars(layer).values())
    parts = [n for value in values for n in (value if isinstance(value, tuple) else (value,))]
    nested = [n for value in parts if isinstance(value, Layer) for n in _ints(value)]
    return [n for n in parts if isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 4096] + nested


def _width_fields(layer: Any) -> tuple[str, ...]:
    """The fields that hold the width of the input and of the output, by the names people give them."""
    if not is_dataclass(layer):
        return ()
    names = {f.name for f in fields(layer) if isinstance(getattr(layer, f.name), int)}
    for pair in (("n_in", "n_out"), ("in_features", "out_features"), ("n_inputs", "n_outputs"), ("d_in", "d_out")):
        if names >= set(pair):
            return pair
    return tuple(n for n in ("n", "n_features", "features", "width", "dim", "size") if n in names)[:1]


def _perturbed(p: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Move parameters off their initial values: a bias of 0 or a gain of 1 hides a mistake."""
    return p + 0.3 * rng.standard_normal(p.shape) if p.dtype.kind == "f" else p


def _argument_names(function: Callable[..., Any], n: int) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(names[:n]) if len(names) >= n else tuple(f"args[{i}]" for i in range(n))


_CACHE_NAME = re.compile(r"^_|cache|^d[A-Z_]|^d(w|b|gamma|beta|weights?|bias)$|grad|^(x|z|a|y|out|inp|input|output)s?$")


def _param_slots(target: Any) -> dict[str, tuple[str, ...]]:
    """Find the parameters on an object: floating arrays that are there before the first forward pass."""
    slots: dict[str, tuple[str, ...]] = {}
    for name, value in vars(target).items() if hasattr(target, "__dict__") else ():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not _CACHE_NAME.search(name):
            slots[name] = (name,)
        elif isinstance(value, dict) and name.strip("_") in ("params", "parameters", "weights", "p"):
            for key, part in value.items():
                if isinstance(part, np.ndarray) and part.dtype.kind == "f":
                    slots[f"{name}.{key}"] = (name, key)
    return slots


def _get(target: Any, slot: tuple[str, ...]) -> Any:
    value = getattr(target, slot[0])
    return value if len(slot) == 1 else value[slot[1]]


def _put_params(target: Any, slots: Mapping[str, tuple[str, ...]], args: Mapping[str, Any]) -> None:
    for name, slot in slots.items():
        if len(slot) == 1:
            setattr(target, slot[0], args[name])
        else:
            getattr(target, slot[0])[slot[1]] = args[name]


def _find_gradient(target: Any, slot: tuple[str, ...]) -> Any:
    """Find where an object keeps the gradient of a parameter: dW, grad_W, W_grad, grads["W"], grads["dW"], …"""
    name = slot[-1]
    spellings = [
        f"d{name}",
        f"d_{name}",
        f"grad_{name}",
        f"{name}_grad",
        f"g{name}",
        f"g_{name}",
        f"grad{name}",
        f"D{name}",
    ]
    for spelling in spellings:
        if hasattr(target, spelling):
            return getattr(target, spelling)
    for holder in ("grads", "gradients", "grad", "dparams", "d", "g", "_grads"):
        held = getattr(target, holder, None)
        if isinstance(held, Mapping):
            for key in (name, *spellings):
                if key in held:
                    return held[key]
    return MISSING

"""tinynet's own contract as subjects: a layer, a loss, a network with its loss."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.layers import Layer, Sequential
from tinynet.losses import Loss
from tinynet.trees import leaves_with_paths, map_leaves
from tinynet.verification.subjects.identity import forward_key
from tinynet.verification.subjects.likeness import drawn_like, perturbed
from tinynet.verification.subjects.subject import (
    MISSING,
    Args,
    Gradients,
    Malformed,
    Session,
    Subject,
    fresh,
    pair,
    short,
)
from tinynet.verification.tracing import traceable

__all__ = ["LayerSubject", "LossSubject", "NetworkSubject", "random_layer_subject"]


@dataclass
class _LayerSession(Session):
    layer: Layer
    like: Any

    def forward(self, args: Args) -> tuple[Any, Any]:
        params = _params_from(args, self.like)
        y, cache = pair(self.layer.forward(params, args["x"]), "forward", "(y, cache)")
        return y, (params, cache)

    def backward(self, context: Any, dy: Any) -> Gradients:
        params, cache = context
        dx, dparams = pair(self.layer.backward(params, cache, dy), "backward", "(dx, dparams)")
        return {"x": dx} | _named_gradients(dparams, self.like)

    def param_grads(self, context: Any, dy: Any) -> Gradients:
        params, cache = context
        return _named_gradients(self.layer.param_grads(params, cache, dy), self.like)


class LayerSubject(Subject):
    """A tinynet layer."""

    def __init__(self, layer: Layer, params: Any, x: npt.NDArray[Any], wrt_x: bool = True) -> None:
        self.layer, self.like, self.name = layer, params, short(layer)
        self.args = {"x": x} | {f"params{_dotted(path)}": np.array(p) for path, p in leaves_with_paths(params)}
        self.wrt = tuple(n for n, a in self.args.items() if a.dtype.kind == "f" and (wrt_x or n != "x"))
        self.depth = _depth(layer)
        cls = type(layer)
        self.code = tuple(getattr(cls, n) for n in ("backward", "param_grads") if n in cls.__dict__)
        self.key, self.parts = forward_key(params, layer), (layer,)

    def session(self) -> Session:
        return _LayerSession(fresh(self.layer), self.like)

    def params(self, args: Mapping[str, Any]) -> Any:
        """Return the parameters among `args`, in the structure that the layer knows."""
        return _params_from(args, self.like)

    def pure(self, args: Mapping[str, Any]) -> Any:
        layer = traceable(self.layer) if self.rebound else fresh(self.layer)
        return pair(layer.forward(_params_from(args, self.like), args["x"]), "forward", "(y, cache)")[0]

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
            if getattr(layer, widths[0]) != x.shape[-1]:
                return None  # channels, perhaps: the last axis is no width of the layer
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
        return pair(self.loss.forward(args["y_hat"], args["y"]), "forward", "(E, cache)")

    def backward(self, context: Any, dy: Any) -> Gradients:
        # A loss is asked for ∂E/∂ŷ alone nearly always, without dE.
        return {"y_hat": self.loss.backward(context) if dy is None else self.loss.backward(context, dy)}


class LossSubject(Subject):
    """A tinynet loss."""

    batched = ("y_hat", "y")
    wrt = ("y_hat",)

    def __init__(self, loss: Loss, y_hat: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        self.loss, self.name, self.args = loss, short(loss), {"y_hat": y_hat, "y": y}
        self.code = (type(loss).backward,)
        self.key, self.parts = forward_key((), loss), (loss,)

    def session(self) -> Session:
        return _LossSession(fresh(self.loss))

    def pure(self, args: Mapping[str, Any]) -> Any:
        loss = traceable(self.loss) if self.rebound else fresh(self.loss)
        return pair(loss.forward(args["y_hat"], args["y"]), "forward", "(E, cache)")[0]

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
        y_hat, cache = pair(self.net.forward(params, args["x"]), "forward", "(y, cache)")
        E, residual = pair(self.loss.forward(y_hat, args["y"]), "forward", "(E, cache)")
        return E, (params, cache, residual)

    def backward(self, context: Any, dy: Any) -> Gradients:
        params, cache, residual = context
        dy_hat = self.loss.backward(residual, dy)
        dx, dparams = pair(self.net.backward(params, cache, dy_hat), "backward", "(dx, dparams)")
        return {"x": dx} | _named_gradients(dparams, self.like)

    def param_grads(self, context: Any, dy: Any) -> Gradients:
        params, cache, residual = context
        return _named_gradients(self.net.param_grads(params, cache, self.loss.backward(residual, dy)), self.like)


class NetworkSubject(LayerSubject):
    """A network with its loss: E of the parameters and the input."""

    batched = ("x", "y")

    def __init__(self, net: Layer, loss: Loss, params: Any, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        super().__init__(net, params, x)
        self.loss, self.name = loss, f"{short(net)} with {short(loss)}"
        self.args["y"] = y
        self.depth += 1
        self.key, self.parts = forward_key(params, net, loss), (net, loss)

    def session(self) -> Session:
        return _NetworkSession(fresh(self.layer), fresh(self.loss), self.like)

    def pure(self, args: Mapping[str, Any]) -> Any:
        y_hat = super().pure(args)
        loss = traceable(self.loss) if self.rebound else fresh(self.loss)
        return pair(loss.forward(y_hat, args["y"]), "forward", "(E, cache)")[0]

    def resized(self, rng: np.random.Generator) -> list[tuple[str, Subject]]:
        return []


def random_layer_subject(layer: Layer, shape: tuple[int, ...], rng: np.random.Generator) -> LayerSubject:
    """Build a layer's subject with random parameters near its own initial ones, and a random normal input."""
    params = map_leaves(lambda p: perturbed(np.asarray(p), rng), layer.init(rng, np.float64))
    subject = LayerSubject(layer, params, rng.standard_normal(shape))
    subject.session().forward(subject.args)
    return subject


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


def _depth(layer: Any) -> int:
    parts = getattr(layer, "layers", None)
    return sum(map(_depth, parts)) if isinstance(parts, tuple) and parts else 1


def _width_fields(layer: Any) -> tuple[str, ...]:
    """The fields that hold the width of the input and of the output, by the names people give them."""
    if not is_dataclass(layer):
        return ()
    names = {f.name for f in fields(layer) if isinstance(getattr(layer, f.name), int)}
    for both in (("n_in", "n_out"), ("in_features", "out_features"), ("n_inputs", "n_outputs"), ("d_in", "d_out")):
        if names >= set(both):
            return both
    return tuple(n for n in ("n", "n_features", "features", "width", "dim", "size") if n in names)[:1]

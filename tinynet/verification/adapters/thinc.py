"""thinc Models as subjects."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.verification.adapters.arguments import Arguments, floats, is_shape, match, read_arguments
from tinynet.verification.adapters.subject import MISSING, Args, Array, Gradients, Subject, TargetError
from tinynet.verification.copies import rebound
from tinynet.verification.numpy_as_jax import Traced, raw


@dataclass
class _ModelSession:
    """A copy of a model, with its parameters by name and what it has accumulated of each gradient."""

    model: Any
    arguments: Arguments
    _nodes: dict[str, tuple[Any, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._nodes = dict(_params_of(self.model))

    def forward(self, args: Args) -> tuple[Any, Any]:
        for name, (node, key) in self._nodes.items():
            node.set_param(key, args[name])
        (X,), _ = self.arguments.filled(args)
        Y, backprop = self.model(X, is_train=True)
        return Y, backprop

    def backward(self, context: Any, dy: Any) -> Gradients:
        before = {n: np.array(node.get_grad(key)) for n, (node, key) in self._nodes.items() if node.has_grad(key)}
        grads = dict(match(self.arguments.positional[0], context(dy)))
        for name, (node, key) in self._nodes.items():
            grads[name] = np.array(node.get_grad(key)) - before.get(name, 0) if node.has_grad(key) else MISSING
        return grads


def adapt_thinc(target: Any, inputs: Any, params: Mapping[str, Any] | None, rng: np.random.Generator) -> Subject | None:
    """Return a thinc Model as a subject; None where the target is none.

    Args:
        target: a Model; its forward pass is `model(X, is_train=True)`.
        inputs: X, an array, a shape, or a list, tuple or dict of arrays.
        params: values for its parameters by name, W, or 0.W for the first layer inside.
        rng: for what is drawn: X, and parameters that are zero where the model has not been initialized.

    Raises:
        TargetError: the inputs or params do not fit, or the model cannot be initialized with them.
    """
    thinc = sys.modules.get("thinc.model")
    if thinc is None or not isinstance(target, thinc.Model):
        return None

    def forward(X: Any) -> Any:
        return target(X, is_train=True)

    if isinstance(inputs, list) or (isinstance(inputs, tuple) and len(inputs) != 1 and not is_shape(inputs)):
        inputs = (inputs,)
    arguments, arrays = read_arguments(
        forward, inputs, rng, name=target.name, integers=any(n.param_names for n in target.walk())
    )
    model = _initialized(target, arguments, arrays, rng)
    held = {n: np.array(node.get_param(key), np.float64) for n, (node, key) in _params_of(model)}
    for key, value in (params or {}).items():
        name = f"params.{key}"
        if name not in held or held[name].shape != np.shape(value):
            expected = (
                f"shape {held[name].shape}" if name in held else f"one of {', '.join(n[7:] for n in held) or 'none'}"
            )
            raise TargetError(f"{target.name}: params= has {key} of shape {np.shape(value)}; expected {expected}")
        held[name] = np.array(value, np.float64)
    args = {**arrays, **held}

    def pure(given: Mapping[str, Any], manners: bool) -> Any:
        copy = model.copy()
        if manners:
            given = {n: Traced(a) for n, a in given.items()}
            for node in copy.walk():
                node._func = rebound(node._func)
        return raw(_ModelSession(copy, arguments).forward(given)[0])

    return Subject(
        name=target.name,
        args=args,
        wrt=floats(args),
        inputs=tuple(arrays),
        start=lambda: _ModelSession(model.copy(), arguments),
        pure=pure,
        one_cache=True,
        code=tuple(node._func for node in model.walk()),
    )


def _initialized(target: Any, arguments: Arguments, arrays: Mapping[str, Array], rng: np.random.Generator) -> Any:
    """Return a copy of the model with all its parameters; those that it makes as zeros now are drawn."""
    model = target.copy()
    missing = [(node, key) for node in model.walk() for key in node.param_names if node.has_param(key) is None]
    if not missing:
        return model
    (X,), _ = arguments.filled({n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()})
    try:
        model.initialize(X=X)
    except Exception as error:
        raise TargetError(
            f"{target.name}: initialize(X=…) raises {type(error).__name__}: {error}; see inputs="
        ) from error
    for node, key in missing:
        if node.has_param(key) and not np.any(node.get_param(key)):
            node.set_param(key, 0.5 * rng.standard_normal(node.get_param(key).shape))
    return model


def _params_of(
    model: Any, path: str = "params", seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield each parameter by name, with its node and its name there; of layers that stand in two places, once."""
    known = {model.id}
    for key in model.param_names:
        if model.has_param(key):
            yield f"{path}.{key}", (model, key)
    for i, layer in enumerate(model.layers):
        if layer.id not in seen | known:
            yield from _params_of(layer, f"{path}.{i}", seen | known)
            known |= {node.id for node in layer.walk()}

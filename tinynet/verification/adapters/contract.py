"""tinynet's own contract: a layer, a loss, a network with its loss."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from tinynet.layers import Layer, Sequential
from tinynet.layers.layer import forward_with_state
from tinynet.layers.stand_in import StandIn, with_watched_children
from tinynet.losses import Loss
from tinynet.trees import leaves, leaves_with_paths, map_leaves
from tinynet.verification.adapters.arguments import as_array, dotted, floats, is_shape
from tinynet.verification.adapters.parts import followed, fresh
from tinynet.verification.adapters.subject import (
    MISSING,
    Args,
    Array,
    Gradients,
    Malformed,
    Subject,
    TargetError,
    short,
    shortened,
    shorter,
)

_PATTERNS: tuple[tuple[int | None, ...], ...] = ((5, None), (3, None, 7, 6), (3, None, 7), (5, 4, None))


def named_leaves(tree: Any, prefix: str) -> dict[str, Any]:
    """Return the leaves of a pytree by name: `params.0.W`."""
    return {prefix + dotted(path): leaf for path, leaf in leaves_with_paths(tree)}


def rebuilt(like: Any, prefix: str, args: Mapping[str, Any]) -> Any:
    """Return a pytree of the structure of `like` with the arrays of `args`."""
    if isinstance(like, Mapping):
        return {key: rebuilt(part, f"{prefix}.{key}", args) for key, part in like.items()}
    if isinstance(like, (tuple, list)):
        return tuple(rebuilt(part, f"{prefix}.{i}", args) for i, part in enumerate(like))
    return args.get(prefix, like)


def named_gradients(grads: Any, like: Any, prefix: str) -> Gradients:
    """Name gradients as their arrays are named; what is absent is MISSING, what is extra keeps its own name."""
    if isinstance(like, Mapping):
        parts, given = like, grads if isinstance(grads, Mapping) else {}
    elif isinstance(like, (tuple, list)):
        if not isinstance(grads, (tuple, list)) and grads is not None and grads is not MISSING:
            raise Malformed(f"{type(grads).__name__} is returned for {prefix}; expected a tuple of {len(like)}")
        parts = dict(enumerate(like))
        given = dict(enumerate(grads)) if isinstance(grads, (tuple, list)) else {}
    else:
        return {prefix: grads}
    found: dict[str, Any] = {}
    for key, part in parts.items():
        found |= named_gradients(given.get(key, MISSING), part, f"{prefix}.{key}")
    return found | {f"{prefix}.{key}": value for key, value in given.items() if key not in parts}


def pair(out: Any, of: str, form: str) -> tuple[Any, Any]:
    """Return `out` if it is a pair.

    Raises:
        Malformed: it is not; names what it is the result `of`, and the `form` expected.
    """
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        given = f"{len(out)} values" if isinstance(out, (tuple, list)) else type(out).__name__
        raise Malformed(f"{of} returned {given}; expected {form}")
    return out[0], out[1]


@dataclass(frozen=True)
class _Form:
    """A layer, and a loss behind it if there is one, with the structure of what it takes."""

    layer: Layer
    x: Any
    params: Any
    state: Any
    loss: Loss | None = None
    y: Any = None

    def forward(self, args: Mapping[str, Any]) -> tuple[Any, Any]:
        params, x = rebuilt(self.params, "params", args), rebuilt(self.x, "x", args)
        state = rebuilt(self.state, "state", args)
        y, cache = pair(forward_with_state(self.layer, params, x, state), "forward", "(y, cache)")
        if self.loss is None:
            return y, (params, cache, None)
        E, residual = pair(self.loss.forward(y, rebuilt(self.y, "y", args)), "forward", "(E, cache)")
        return E, (params, cache, residual)

    def backward(self, context: Any, dy: Any) -> Gradients:
        params, cache, residual = context
        dy = dy if self.loss is None else self.loss.backward(residual, dy)
        dx, dparams = pair(self.layer.backward(params, cache, dy), "backward", "(dx, dparams)")
        return {**named_gradients(dx, self.x, "x"), **named_gradients(dparams, self.params, "params")}

    def param_grads(self, context: Any, dy: Any) -> Gradients:
        """Return the gradients of the parameters by the shorter way."""
        params, cache, residual = context
        dy = dy if self.loss is None else self.loss.backward(residual, dy)
        return named_gradients(self.layer.param_grads(params, cache, dy), self.params, "params")


def layer_subject(layer: Layer, x: Any, params: Any, *, loss: Loss | None = None, y: Any = None) -> Subject:
    """Return a layer at x and its parameters, with a loss and its target y if it is a network to be trained."""
    form = _Form(layer, x, params, layer.init_state(np.float64), loss, y)
    inputs, own, targets = named_leaves(x, "x"), named_leaves(params, "params"), named_leaves(y, "y")
    every = inputs | own | named_leaves(form.state, "state") | targets
    args: dict[str, Array] = {n: a for n, a in every.items() if isinstance(a, np.ndarray)}

    def narrower(divisor: int) -> Subject:
        small_x, small_params, small_y = (map_leaves(lambda a: shortened(a, divisor), t) for t in (x, params, y))
        lengths = {k for a in args.values() for k in a.shape}
        return layer_subject(_with_sizes(layer, lengths, divisor), small_x, small_params, loss=loss, y=small_y)

    return Subject(
        name=short(layer) if loss is None else f"{short(layer)} with {short(loss)}",
        args=args,
        wrt=tuple(n for n in floats(args) if n in inputs or n in own),
        inputs=(*inputs, *(n for n in targets if n in args)),
        start=lambda: fresh(form),
        pure=followed(form, lambda form, args: form.forward(args)[0]),
        contract=True,
        depth=_depth(layer) + (loss is not None),
        code=tuple(
            f
            for cls in type(layer).__mro__
            for n in ("forward", "backward", "param_grads")
            if (f := vars(cls).get(n)) and cls is not Layer
        ),
        constants=numbers(layer),
        configuration=_configuration(layer),
        reference=lambda f, args: f(rebuilt(params, "params", args), rebuilt(x, "x", args)),
        parts=lambda: _parts(form, args),
        narrower=narrower,
    )


def _configuration(layer: Any) -> frozenset[str]:
    """Return the fields of a frozen dataclass."""
    if not is_dataclass(layer) or not getattr(layer, "__dataclass_params__").frozen:  # noqa: B009
        return frozenset()
    return frozenset(f.name for f in fields(layer))


def _with_sizes(layer: Layer, lengths: Collection[int], divisor: int) -> Any:
    """Return a layer, and those inside it, with the numbers in its fields that are lengths of arrays made shorter.

    Raises:
        TypeError, ValueError: its configuration is not in its fields, or it takes no such sizes.
    """
    children = {name: _with_sizes(child, lengths, divisor) for name, child in layer.children().items()}
    layer = layer.with_children(children)
    sizes = {f.name: getattr(layer, f.name) for f in fields(layer) if f.init}  # type: ignore[arg-type]
    sizes = {name: shorter(k, divisor) for name, k in sizes.items() if type(k) is int and k in lengths}
    return replace(layer, **sizes) if sizes else layer  # type: ignore[type-var]


def _parts(form: _Form, args: Args) -> list[tuple[str, Subject]]:
    """Return the layers inside a composite with the parameters and the input that reach them."""
    met: list[tuple[str, Layer, Any, Any]] = []
    if not form.layer.children():
        return []
    try:
        watched = with_watched_children(fresh(form.layer), "", lambda child, path: _Recorder(child, path, met))
        replace(form, layer=watched).forward({n: a.copy() for n, a in args.items()})
    except Exception:
        return []
    return [
        (path, layer_subject(child, x, params))
        for path, child, params, x in met
        if all(isinstance(a, np.ndarray) for a in leaves((params, x)))
    ]


class _Recorder(StandIn):
    """Notes what reaches a layer inside a composite."""

    def __init__(self, layer: Layer, path: str, met: list[tuple[str, Layer, Any, Any]]) -> None:
        super().__init__(layer)
        self._path, self._met = path, met

    def forward(self, params: Any, x: Any, **options: Any) -> tuple[Any, Any]:
        self._met.append((self._path, self._layer, map_leaves(np.array, params), map_leaves(np.array, x)))
        return super().forward(params, x, **options)


@dataclass(frozen=True)
class _LossForm:
    """A loss with the structure of what it takes."""

    loss: Loss
    y_hat: Any
    y: Any

    def taken(self, args: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return (ŷ, y) with the arrays of `args`."""
        return rebuilt(self.y_hat, "y_hat", args), rebuilt(self.y, "y", args)

    def forward(self, args: Mapping[str, Any]) -> tuple[Any, Any]:
        return pair(self.loss.forward(*self.taken(args)), "forward", "(E, cache)")

    def backward(self, context: Any, dy: Any) -> Gradients:
        # It is asked for ∂E/∂ŷ alone nearly always, without dE, whose default is then part of what is judged.
        alone = isinstance(dy, np.ndarray) and bool(np.all(dy == 1.0))
        grads = self.loss.backward(context) if alone else self.loss.backward(context, dy)
        return named_gradients(grads, self.y_hat, "y_hat")


def loss_subject(loss: Loss, y_hat: Any, y: Any) -> Subject:
    """Return a loss at ŷ and y, arrays or tuples and dicts of them; y is None where it takes none."""
    form = _LossForm(loss, y_hat, y)
    outputs, targets = named_leaves(y_hat, "y_hat"), named_leaves(y, "y")
    args: dict[str, Array] = {n: a for n, a in (outputs | targets).items() if a is not None}
    return Subject(
        name=short(loss),
        args=args,
        wrt=tuple(n for n in floats(args) if n in outputs),
        inputs=tuple(args),
        start=lambda: fresh(form),
        pure=followed(form, lambda form, args: form.forward(args)[0]),
        contract=True,
        may_lack=frozenset(targets),
        code=(type(loss).forward, type(loss).backward),
        constants=numbers(loss),
        reference=lambda f, args: f(*form.taken(args)),
    )


def adapt_layer(layer: Layer, inputs: Any, params: Any, loss: Loss | None, rng: np.random.Generator) -> Subject:
    """Return a layer as a subject, with random arrays where none are given.

    Raises:
        TargetError: no input that it accepts was found, or the one given is refused.
    """
    params = map_leaves(lambda p: as_array(p, "params"), _drawn_params(layer, rng) if params is None else params)
    given = _given(inputs, rng)
    if len(given) > (1 if loss is None else 2):
        expected = "(x,)" if loss is None else "(x, y)"
        raise TargetError(
            f"{short(layer)}: inputs= has {len(given)} entries; expected {expected}; where x is a tuple, "
            f"{'inputs=((a, b),)' if loss is None else 'inputs=((a, b), y)'}"
        )
    try:
        x = given[0] if given else _guess_input(layer, params, rng)
        y_hat = _output(layer, params, x)
    except TargetError as error:
        made, own = (_shapes_of(p) for p in (layer.init(rng, np.float64), params))
        if made == own:
            raise
        raise TargetError(f"{error}; params= has {own}, where init makes {made}") from error
    if loss is None and not given:
        return replace(layer_subject(layer, x, params), variants=lambda rng: _in_other_widths(layer, x, rng))
    if loss is None or len(given) > 1:
        return layer_subject(layer, x, params, loss=loss, y=given[1] if len(given) > 1 else None)
    if isinstance(y_hat, (tuple, list, dict)):
        raise TargetError(
            f"{short(layer)}: y_hat is a {type(y_hat).__name__}, so that y cannot be guessed; give inputs=(x, y), with "
            "None for y where the loss takes none"
        )
    return layer_subject(layer, x, params, loss=loss, y=distributions(np.shape(y_hat), rng))


def adapt_loss(loss: Loss, inputs: Any, rng: np.random.Generator) -> Subject:
    """Return a loss as a subject; ŷ is drawn from a normal distribution, y from distributions over the outputs."""
    given = _given(inputs, rng)
    if len(given) == 1 and not isinstance(given[0], np.ndarray):
        raise TargetError(
            f"{short(loss)}: inputs= has one entry, a {type(given[0]).__name__}; expected (y_hat, y), with None for y "
            "where the loss takes none"
        )
    if len(given) > 2:
        raise TargetError(
            f"{short(loss)}: inputs= has {len(given)} entries; expected (y_hat, y), where each may be a tuple or a dict"
        )
    if len(given) == 2:
        return loss_subject(loss, *given)
    y_hat = given[0] if given else rng.standard_normal((5, 3))
    y = distributions(y_hat.shape, rng)
    try:
        fresh(loss).forward(y_hat.copy(), y.copy())
    except Exception as error:
        raise TargetError(
            f"{short(loss)}: forward does not accept y_hat of shape {y_hat.shape} and y of the same ({error}); give "
            "inputs=(y_hat, y), with None for y where the loss takes none"
        ) from error
    subject = loss_subject(loss, y_hat, y)
    return subject if given else replace(subject, variants=lambda rng: _losses_in_other_widths(loss, rng))


def _losses_in_other_widths(loss: Loss, rng: np.random.Generator) -> list[tuple[str, Subject]]:
    shapes = {"square": (4, 4), "width 1": (5, 1), "larger": (16, 9)}
    return [(label, loss_subject(loss, rng.standard_normal(s), distributions(s, rng))) for label, s in shapes.items()]


def _shapes_of(params: Any) -> str:
    return ", ".join(f"{n} {np.shape(a)}" for n, a in named_leaves(params, "params").items()) or "nothing"


def _drawn_params(layer: Layer, rng: np.random.Generator) -> Any:
    """Return parameters near their initial values, no entry of which is special: b = 0 and γ = 1 hide mistakes."""

    def moved(p: Array) -> Array:
        return np.asarray(p + 0.3 * rng.standard_normal(p.shape)) if p.dtype.kind == "f" else p

    return map_leaves(lambda p: moved(np.asarray(p)), layer.init(rng, np.float64))


def distributions(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return probabilities that sum to 1 along the last axis: targets that every loss takes."""
    if not shape:
        return np.asarray(rng.random())
    y = rng.random(shape) + 0.05
    return np.asarray(y / y.sum(axis=-1, keepdims=True))


def numbers(layer: Any) -> dict[str, float]:
    """Return the numbers of a configuration by name, those of layers inside too."""
    found: dict[str, float] = {}
    held = {f.name: getattr(layer, f.name, None) for f in fields(layer)} if is_dataclass(layer) else dict(vars(layer))
    for name, value in held.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = float(value)
    for path, child in layer.children().items() if isinstance(layer, Layer) else ():
        found |= {f"{path}.{n}": v for n, v in numbers(child).items()}
    return found


def _given(inputs: Any, rng: np.random.Generator) -> tuple[Any, ...]:
    if inputs is None:
        return ()
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if is_shape(inputs) or not isinstance(inputs, (tuple, list)):
        inputs = (inputs,)

    def arrays(value: Any) -> Any:
        if is_shape(value):
            return rng.standard_normal(value)
        if isinstance(value, Mapping):
            return {key: arrays(part) for key, part in value.items()}
        if isinstance(value, tuple):
            return tuple(map(arrays, value))
        return None if value is None else as_array(value, "inputs")

    given = tuple(map(arrays, inputs))
    for a in leaves(given):
        if a is not None and a.size == 0:
            raise TargetError(f"inputs= has shape {a.shape}, which holds no number; give at least one sample")
    return given


def _output(layer: Layer, params: Any, x: Any) -> Any:
    """Return y; None where forward takes the input, and what it returns is for the verdict.

    Raises:
        TargetError: it does not take it.
    """
    try:
        subject = layer_subject(layer, x, params)
        return subject.start().forward({n: a.copy() for n, a in subject.args.items()})[0]
    except Malformed:
        return None
    except Exception as error:
        raise TargetError(f"{short(layer)}: forward does not accept inputs= ({error})") from error


def _accepts(layer: Layer, params: Any, x: Any) -> bool:
    try:
        _output(layer, params, x)
    except TargetError:
        return False
    return True


def _guess_input(layer: Layer, params: Any, rng: np.random.Generator) -> Any:
    """Find an input that the layer's forward accepts, by its own numbers.

    In this order: features (m, n), images (m, n, h, w), series (m, n, t), sequences (m, t, n), indices.
    """
    whole = [int(v) for v in numbers(layer).values() if v == int(v) and 0 < v <= 4096]
    sizes = [p.shape for p in leaves(params)] + [(n,) for n in whole]
    widths = [*(s[-1] for s in sizes if s), *(s[1] for s in sizes if len(s) > 1), *(s[0] for s in sizes if s), 4]
    for n in dict.fromkeys(widths):
        for pattern in _PATTERNS:
            x = rng.standard_normal([k if isinstance(k, int) else n for k in pattern])
            if _accepts(layer, params, x):
                return x
    indices = rng.integers(0, max([2, *(s[0] for s in sizes if s)]), (5, 3))
    if _accepts(layer, params, indices):
        return indices
    raise TargetError(f"{short(layer)}: no input shape that its forward accepts was found; give inputs=x")


def _depth(layer: Any) -> int:
    return sum(map(_depth, layer.layers)) or 1 if isinstance(layer, Sequential) else 1


def _in_other_widths(layer: Layer, x: Array, rng: np.random.Generator) -> list[tuple[str, Subject]]:
    """Return the layer with other widths on inputs that fit it, where its fields say what its widths are."""
    if x.dtype.kind != "f" or isinstance(layer, Sequential):
        return []
    found: list[tuple[str, Subject]] = []
    has_params = bool(leaves(layer.init(rng, np.float64)))
    widths = _width_fields(layer)
    for label, sizes in {"square": (3, 3), "width 1": (1, 1), "larger": (13, 9)}.items():
        wider = layer
        if widths:
            if getattr(layer, widths[0]) != x.shape[-1]:
                return []  # channels, perhaps: the last axis is no width of the layer
            try:
                wider = replace(layer, **dict(zip(widths, sizes, strict=False)))  # type: ignore[type-var]
            except (TypeError, ValueError):
                continue
        elif has_params:
            return []
        params, wider_x = _drawn_params(wider, rng), rng.standard_normal((*x.shape[:-1], sizes[0]))
        if _accepts(wider, params, wider_x):
            found.append((label, layer_subject(wider, wider_x, params)))
    return found


def _width_fields(layer: Any) -> tuple[str, ...]:
    """Return the fields that hold the width of the input and of the output, by the names people give them."""
    if not is_dataclass(layer):
        return ()
    names = {f.name for f in fields(layer) if isinstance(getattr(layer, f.name), int)}
    for both in (("n_in", "n_out"), ("in_features", "out_features"), ("n_inputs", "n_outputs"), ("d_in", "d_out")):
        if names >= set(both):
            return both
    return tuple(n for n in ("n", "n_features", "features", "width", "dim", "size") if n in names)[:1]

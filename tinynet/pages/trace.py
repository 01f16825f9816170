"""A trace as a page: what its script draws, the network, the equation of each step and its numbers, as one record."""

from __future__ import annotations

import base64
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.arrays import Params, is_array, is_floating
from tinynet.checks import check_positive_int
from tinynet.equations import EQUATIONS
from tinynet.gradients import value_and_grads
from tinynet.inspection import (
    Quantity,
    Trace,
    chain_of,
    error_name,
    output_names,
    parameter_name,
    superscript,
    trace,
)
from tinynet.layers import Linear, Sigmoid
from tinynet.layers.layer import forward_with_state
from tinynet.losses import SquaredError
from tinynet.optimizers import SGD
from tinynet.pages import as_json, fill, read
from tinynet.pages.mathml import mathml, with_formulas
from tinynet.trees import leaves, leaves_with_paths, map_leaves

UNITS = 8
"""A layer of more units is folded."""

SAMPLES = 4
"""So many samples of a batch are shown."""

PLANES, PIXELS = 16, 32
"""A heat map has at most so many planes, and so many rows and columns in each."""

Values = npt.NDArray[Any]

_OF_SECTION_2 = {"dW2": {5, 6, 7}, "dW1": {8, 9, 10, 11}, "db2": {12, 13}, "db1": {14, 15, 16}}


def trace_page(first: Trace, lr: float, steps: int) -> str:
    """Return the page of `steps` training steps of gradient descent that begin with `first`."""
    check_positive_int("to_html", "steps", steps)
    first = _of_chain(first)
    optimizer, traces = SGD(lr), [first]
    for _ in range(steps):
        at = traces[-1]
        _, grads = value_and_grads(at.net, at.loss, at.params, at.x, at.y, state=at.state)
        params, _ = optimizer.update(at.params, grads, optimizer.init(at.params))
        traces.append(_of_chain(trace(at.net, at.loss, params, at.x, at.y, state=at.state)))
    layers = {q.name[1:]: q.layer for q in first}
    updates = [_update(name) for name in sorted(first.parameters, key=lambda name: layers[name])]
    shown = [_shown_step(first, q) for q in (*first.quantities, *updates)]
    used = {number for step in shown for number in step["numbers"]}
    by_jax, remark = _exact_gradients(first)
    tensors = {name: _tensor(first, name, value) for name, value in _values(first).items()}
    data = {
        "network": [repr(link.layer) for link in chain_of(first.net, first.params)],
        "loss": repr(first.loss),
        "samples": len(leaves(first.x)[0]),
        "lr": optimizer.lr,
        "columns": _columns(first),
        "tensors": tensors,
        "attention": list(first.attention),
        "steps": shown,
        "document": {e.number: [mathml(e.formula), with_formulas(e.erratum)] for e in EQUATIONS if e.number in used},
        "frames": [_frame(now, later, by_jax(now.params), tensors) for now, later in pairwise(traces)],
        "remark": remark,
    }
    return fill("trace.html", script=read("trace.js"), data=as_json(data))


def _of_chain(at: Trace) -> Trace:
    """Return the trace without what is inside its layers, which the drawing has no place for."""
    attention = {name: P for name, P in at.attention.items() if "[" not in name}
    return replace(at, quantities=tuple(q for q in at if q.rule != "inside"), attention=attention)


def _values(at: Trace) -> dict[str, Values]:
    """Return everything that the page shows of one training step, by name."""
    targets = {"y": at.y} if is_array(at.y) and at.y.shape == at[output_names(at)[-1]].shape else {}
    values = {q.name: q.value for q in at} | at.parameters | at.slopes | at.attention | targets
    return {name: np.asarray(leaves(value)[0]) for name, value in values.items()}  # of several inputs the first


def _frame(now: Trace, later: Trace, exact: dict[str, Values], tensors: dict[str, Any]) -> dict[str, Any]:
    """Return one training step: the values, the parameters after it, what `jax.grad` says, and how far that is off.

    The unit of a difference is the spacing of the type's numbers at the largest entry, as in `verify`.
    """
    values = _values(now) | {f"{name}+": np.asarray(p) for name, p in later.parameters.items()}
    eps = float(np.finfo(values["E"].dtype).eps)
    units = {name: eps * float(np.abs(g).max(initial=0)) for name, g in exact.items()}
    worst = {name: np.abs(values[name] - g).max(initial=0) / (units[name] or 1) for name, g in exact.items()}
    return {
        "values": {name: _entries(tensors[name.removesuffix("+")], value) for name, value in values.items()},
        "exact": {name: _entries(tensors[name], g) for name, g in exact.items()},
        "unit": units,
        "worst": {name: _number(ratio) for name, ratio in worst.items()},
    }


# The steps


def _update(name: str) -> Quantity:
    W = superscript(name)
    return Quantity(f"{name}+", f"{W} ← {W} − η d{W}", None, -1, "update", (name, f"d{name}"))


def _shown_step(at: Trace, q: Quantity) -> dict[str, Any]:
    equation = q.equation.split("  ")[0]
    place = (*at.names, q.name).index(q.name)
    phase = "forward" if place <= at.names.index("E") else "backward" if place < len(at.names) else "update"
    return {
        "name": q.name,
        "text": q.equation,
        "equation": mathml(re.sub(r"(?<!\w)d(?=\w)", "∂E/∂", equation)),
        "phase": phase,
        "rule": q.rule,
        "factors": q.factors,
        "numbers": _numbers(at, q),
    }


def _numbers(at: Trace, q: Quantity) -> list[int]:
    """Return the numbers of the equations that a step carries out, those of §2 too where the network is that of §1."""
    layers = [link.layer for link in chain_of(at.net, at.params)]
    level = sum(name[0] == "z" for name in output_names(at))
    numbers = {int(n) for n in re.findall(r"\((\d+)\)", q.equation.partition("  ")[2])}
    is_sigmoid = q.layer >= 0 and isinstance(layers[q.layer], Sigmoid)
    is_squared = isinstance(at.loss, SquaredError)
    if is_squared and q.rule == "loss":
        numbers.add(3)
    if q.rule == "entrywise" and is_sigmoid:
        numbers.add(1)
    if q.rule == "product":
        numbers |= {2} if is_sigmoid else set()
        numbers.add(21 if q.name == f"δ{level}" else 22)
    if q.rule in ("outer", "sum"):
        numbers.add(23 if q.rule == "outer" else 25)
        numbers |= {17} if at.loss.reduction == "mean" else set()
    if is_squared and [type(layer) for layer in layers] == [Linear, Sigmoid, Linear, Sigmoid]:
        numbers |= _OF_SECTION_2.get(q.name, set())
    return sorted(numbers)


# The network


def _columns(at: Trace) -> list[dict[str, Any]]:
    """Return the columns of the drawing: input and layers; a function of each entry joins the layer before it."""
    columns: list[dict[str, Any]] = [{"names": ["a0"], "title": "input", "rule": "input", "factors": []}]
    columns[0]["parameters"] = []
    quantities = {q.name: q for q in at}
    for name in output_names(at)[1:]:
        q = quantities[name]
        title = type(chain_of(at.net, at.params)[q.layer].layer).__name__
        if q.rule == "entrywise":
            columns[-1]["names"].append(name)
            columns[-1]["title"] += f", {title}"
            continue
        parameters = [g.name[1:] for g in at if g.layer == q.layer and g.name[1:] in at.parameters]
        columns.append(
            {"names": [name], "title": title, "rule": q.rule, "factors": q.factors, "parameters": parameters}
        )
    for column in columns:
        column["errors"] = [error_name(name) for name in column["names"]]
    return columns


# The numbers


def _tensor(at: Trace, name: str, value: Values) -> dict[str, Any]:
    """Return how a value is shown: as a number, a row of each sample, a vector, a matrix, or a heat map."""
    learned = name.removeprefix("d") in at.parameters
    kind = "map"
    if value.ndim == 0:
        kind = "number"
    elif learned and value.ndim <= 2:
        kind = "vector" if value.ndim == 1 else "matrix"
    elif not learned and value.ndim == 2:
        kind = "rows"
    rows = _folded(value.shape[0 if learned else -1]) if kind in ("vector", "matrix", "rows") else []
    columns = _folded(value.shape[1]) if kind == "matrix" else []
    wide = kind == "matrix" and max(value.shape) > UNITS
    return {"kind": kind, "shape": value.shape, "rows": rows, "columns": columns, "learned": learned, "wide": wide}


def _folded(n: int) -> list[int]:
    """Return which of n units are shown: all, or the first five and the last two."""
    return list(range(n)) if n <= UNITS else [0, 1, 2, 3, 4, n - 2, n - 1]


def _entries(tensor: dict[str, Any], value: Values) -> Any:
    kind, rows = tensor["kind"], tensor["rows"]
    if kind == "number":
        return _number(value)
    if kind == "vector":
        return [_number(v) for v in value[rows]]
    if kind == "matrix":
        shown = [[_number(v) for v in row] for row in value[np.ix_(rows, tensor["columns"])]]
        return {"folded": shown, "heat": _heat_map(value)} if tensor["wide"] else shown
    if kind == "rows":
        return [[_number(v) for v in row[rows]] for row in value[:SAMPLES]]
    return _heat_map(value) if tensor["learned"] else [_heat_map(v) for v in value[:SAMPLES]]


def _number(value: Any) -> float | str:
    """Return the number of fewest digits that is this one in its own type; text where JSON has no number."""
    return float(str(np.asarray(value)[()])) if np.isfinite(value) else str(value)


def _heat_map(value: Values) -> dict[str, Any]:
    """Return planes of −127 to 127, in units of the largest entry; a pixel stands for the largest of its block."""
    height, width = (1, *value.shape)[-2:]
    planes = value.reshape(-1, height, width)[:PLANES]
    high, wide = -(-height // PIXELS), -(-width // PIXELS)
    blocks = [
        [[_largest(plane[i : i + high, j : j + wide]) for j in range(0, width, wide)] for i in range(0, height, high)]
        for plane in planes
    ]
    limit = float(np.abs(planes).max(initial=0, where=np.isfinite(planes)))
    levels = np.round(np.nan_to_num(np.array(blocks)) / (limit or 1) * 127).clip(-127, 127).astype(np.int8)
    return {"shape": levels.shape, "limit": limit, "levels": base64.b64encode(levels.tobytes()).decode()}


def _largest(block: Values) -> float:
    return float(block.flat[np.abs(block).argmax()])


# The oracle


def _exact_gradients(first: Trace) -> tuple[Callable[[Params], dict[str, Values]], str]:
    """Return a function of the parameters that has δ, ∂E/∂a and all dW and db from `jax.grad` in float64, and a remark.

    ∂E/∂z is the derivative of E by a nudge that is added to z. Where JAX cannot trace the network, the remark says why.
    """
    try:
        import jax
    except ImportError:
        return lambda params: {}, "JAX is not installed"
    chain, names = chain_of(first.net, first.params, first.state), output_names(first)

    def E(params: Sequence[Params], nudges: Sequence[Any]) -> Any:
        value = double(first.x)
        for link, layer_params, nudge in zip(chain, params, nudges, strict=True):
            value, _ = forward_with_state(link.layer, layer_params, value, double(link.state))
            value = map_leaves(operator.add, value, nudge)
        return first.loss.forward(value, double(first.y))[0]

    def double(tree: Any) -> Any:
        def leaf(a: Any) -> Any:
            return jax.numpy.asarray(a, "float64" if is_floating(a) else None)

        return None if tree is None else map_leaves(leaf, tree)

    gradient = jax.jit(jax.grad(E, argnums=(0, 1)))

    def exact(params: Params) -> dict[str, Values]:
        with jax.enable_x64(True):
            parts = [double(link.params) for link in chain_of(first.net, params)]
            nudges = [map_leaves(lambda v: np.zeros(np.shape(v)), first[name]) for name in names[1:]]
            grads, errors = gradient(parts, nudges)
        named = {error_name(name): np.asarray(leaves(e)[0]) for name, e in zip(names[1:], errors, strict=True)}
        for name, grad in zip(names[1:], grads, strict=True):
            named |= {f"d{parameter_name(path, name)}": np.asarray(g) for path, g in leaves_with_paths(grad)}
        return named

    try:
        exact(first.params)
    except Exception as error:
        return lambda params: {}, f"jax.grad cannot trace this network: {type(error).__name__}: {error}".split("\n")[0]
    return exact, ""

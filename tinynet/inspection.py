"""See inside a network: what it consists of (`summary`), and one pass forward and backward (`trace`)."""

from __future__ import annotations

import codecs
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

import numpy as np

from tinynet.arrays import Array, Params, State, is_array
from tinynet.checks import check_instance
from tinynet.files.atomic import write_atomically
from tinynet.layers import Layer, Linear, MultiHeadAttention, Sequential, Sigmoid
from tinynet.layers.layer import forward_with_state
from tinynet.layers.stand_in import StandIn, with_watched_children
from tinynet.losses import Loss, SquaredError
from tinynet.trees import leaves, leaves_with_paths, map_leaves

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ASCII = {"delta": "δ", "dE/da": "∂E/∂a", "dE/dy": "∂E/∂y", "f'": "f′"}


# Text for any terminal

_SPELLED = {"∂": "d", "ŷ": "y_hat", "Σ": "sum", "∑": "sum", "½": "1/2", "′": "'", "⊗": "(*)", "−": "-", "∇": "grad "}
_SPELLED |= {"·": "*", "×": "x", "─": "-", "–": "-", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≈": "~", "±": "+-"}
_SPELLED |= {"√": "sqrt ", "‖": "||", "∞": "inf", "§": "section ", "†": "+", "⟨": "<", "⟩": ">", "’": "'"}
_RAISED = {"<super>": "^", "<sub>": "_"}


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Return in ASCII the sign that an encoding lacks, and where to go on: an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    at = error.start
    sign, before = error.object[at], error.object[max(at - 1, 0) : at]
    kind, *_ = unicodedata.decomposition(sign).split() or [""]
    is_first = kind != unicodedata.decomposition(before or " ").partition(" ")[0]
    greek = re.fullmatch(r"GREEK \w+ LETTER (\w+)", unicodedata.name(sign, ""))
    if sign in _SPELLED:
        text = _SPELLED[sign]
    elif greek:
        text = greek[1].lower()
    elif unicodedata.combining(sign):
        text = ""
    else:
        plain = "".join(_SPELLED.get(part, part) for part in unicodedata.normalize("NFKD", sign))
        text = _RAISED.get(kind, "") * is_first + (plain.encode("ascii", "ignore").decode() or "?")
    return text, at + 1


codecs.register_error("tinynet.spelled", _spell)


def for_terminal(text: str) -> str:
    """Spell out the signs of `text` that the encoding of `sys.stdout` lacks, so that `print` does not fail on GBK."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "tinynet.spelled").decode(encoding)


# What a network consists of


@dataclass(frozen=True)
class SummaryRow:
    """One layer.

    Attributes:
        path: where it is: "2", or "3.f.0" for the first layer inside the Residual at 3.
        layer: the layer itself.
        output_shape: of one sample.
        parameters: how many numbers it learns.
        multiply_adds: of its matrix products, for one sample.
    """

    path: str
    layer: Layer
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """The layers of a network; `print(summary)` shows them as a table, and so does a notebook.

    Attributes:
        input_shape: of one sample.
        rows: one row per layer, in order; a composite is replaced by what is inside.
    """

    input_shape: tuple[int, ...]
    rows: tuple[SummaryRow, ...]

    @property
    def parameters(self) -> int:
        """Return how many numbers all layers learn."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Return those of all layers, for one sample forward; backward takes about twice as many."""
        return sum(row.multiply_adds for row in self.rows)

    def _table(self) -> list[tuple[str, ...]]:
        layers = [
            (row.path, repr(row.layer), _shape(row.output_shape), f"{row.parameters:,}", f"{row.multiply_adds:,}")
            for row in self.rows
        ]
        return [
            ("", "layer", "output", "parameters", "multiply-adds"),
            ("", "input", _shape(self.input_shape), "", ""),
            *layers,
            ("", "total", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"),
        ]

    def __str__(self) -> str:
        lines = table_lines(self._table(), left=3)
        rule = for_terminal("─") * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _repr_html_(self) -> str:
        return html_table(self._table())


def summary(net: Layer, x: Array) -> Summary:
    """Return the table of `net` for input like x: shapes and counts are those of one sample.

    Args:
        net: the network.
        x: (m, …), m of at least 1, of which one row is sent through freshly drawn parameters; also a tuple or a dict of
            such arrays.

    Raises:
        TypeError, ValueError: x has no sample; whatever the layers raise on input that does not fit.
    """
    check_instance("summary", "net", net, Layer)
    x = map_leaves(np.asarray, x)
    for part in leaves(x):
        if part.ndim == 0 or len(part) == 0:
            raise ValueError(f"summary: x has shape {part.shape}; expected (m, …) with m of at least 1")
    dtype = next((part.dtype for part in leaves(x) if part.dtype.kind == "f"), np.float32)
    params, rows = net.init(np.random.default_rng(0), dtype), list[SummaryRow]()
    watched = _Watched(net, "", rows, set())
    forward_with_state(watched, params, map_leaves(lambda a: a[:1], x), net.init_state(dtype))
    return Summary(leaves(x)[0].shape[1:], tuple(rows))


class _Counting(np.ndarray):
    """An array that notes the multiply-adds of each matrix product in which it, or what comes of it, takes part."""

    counts: list[int]

    def __array_finalize__(self, source: Any) -> None:
        self.counts = getattr(source, "counts", [])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            options["out"] = tuple(map(np.asarray, options["out"]))
        plain = (np.asarray(a) if isinstance(a, np.ndarray) else a for a in inputs)  # a number does not widen the rest
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            self.counts.append(np.size(result) * inputs[0].shape[-1])
        return _counting(result, self.counts) if isinstance(result, np.ndarray) else result


def _counting(a: Array, counts: list[int]) -> Array:
    view = np.asarray(a).view(_Counting)
    view.counts = counts
    return view


class _Watched(StandIn):
    """Writes the row of a layer when it runs; what was seen before it, as in its children, is not counted again."""

    def __init__(self, layer: Layer, path: str, rows: list[SummaryRow], seen: set[int]) -> None:
        super().__init__(with_watched_children(layer, path, lambda child, at: _Watched(child, at, rows, seen)))
        self._given, self._path, self._rows, self._seen = layer, path, rows, seen

    def forward(self, params: Params, x: Any, **options: Any) -> tuple[Any, Any]:
        before, counts = len(self._rows), list[int]()
        counted = map_leaves(lambda p: _counting(p, counts), params)
        y, cache = super().forward(counted, map_leaves(np.asarray, x), **options)
        new = {_address(p): p.size for p in leaves(params) if _address(p) not in self._seen}
        self._seen.update(new)
        own = sum(new.values())
        if own or counts or len(self._rows) == before:
            self._rows.append(SummaryRow(self._path, self._given, leaves(y)[0].shape[1:], own, sum(counts)))
        return y, cache


def _address(p: Array) -> int:
    """Return where in memory an array begins: the same for the parameters of tied layers."""
    return int(p.__array_interface__["data"][0])


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "1"


def table_lines(table: list[tuple[str, ...]], *, left: int) -> list[str]:
    """Return a table as aligned lines: the first `left` columns to the left, the others to the right."""
    rows = [tuple(map(for_terminal, cells)) for cells in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([*map(str.ljust, cells[:left], widths), *map(str.rjust, cells[left:], widths[left:])]).rstrip()
        for cells in rows
    ]


def html_table(table: list[tuple[str, ...]]) -> str:
    """Return a table as HTML, its first row the head."""

    def row(tag: str, cells: tuple[str, ...]) -> str:
        tags = [tag if cell else "td" for cell in cells]  # a head that is empty is none
        return f"<tr>{''.join(f'<{t}>{escape(cell)}</{t}>' for t, cell in zip(tags, cells, strict=True))}</tr>"

    body = "".join(row("td", cells) for cells in table[1:])
    return f"<table><thead>{row('th', table[0])}</thead><tbody>{body}</tbody></table>"


def history_table(history: Mapping[str, Array]) -> list[tuple[str, ...]]:
    """Return a table of the history of `fit`: what was measured, in the first and the last epoch and at its best."""
    table: list[tuple[str, ...]] = [("", "first", "last", "smallest", "at epoch", "largest", "at epoch")]
    for name, values in history.items():
        if name != "seconds" and np.isfinite(values).any():
            low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
            ends = [f"{values[k]:.4g}" for k in (0, -1, low, high)]
            table.append((name, *ends[:3], f"{low + 1}", ends[3], f"{high + 1}"))
    return table


# One pass forward and backward


@dataclass(frozen=True)
class Quantity:
    """One intermediate value.

    Attributes:
        name: "z1", "a1", "δ1", "dW1", "∂E/∂a1", "E".
        equation: how it came about, with its number in the document where it has one.
        value: the array, one row per sample; dW and db are summed over the samples.
        layer: which layer computed it, counted from 0 in the chain; −1 for the input and the loss.
        rule: how an entry follows from those of the factors: "input", "affine", "entrywise", "layer", "loss",
            "residual", "transposed", "product", "outer" or "sum"; or "inside", of a layer that is part of another.
        factors: the names of what it is computed from.
    """

    name: str
    equation: str
    value: Array
    layer: int
    rule: str
    factors: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _beside(for_terminal(self.equation), self.value, 0)


@dataclass(frozen=True)
class Trace:
    """Every quantity of one pass forward and backward, in the order of its computation.

    `trace["δ2"]`, or in ASCII `trace["delta2"]` and `trace["dE/da2"]`, is a value by its name; the parameters `W2`,
    `b2` and the derivative `f′(z2)` are there too. `print(trace)` shows each equation beside its value, and of a large
    value the shape and the range; a notebook shows the page of `to_html`.

    Attributes:
        quantities: in the order of their computation.
        parameters: W1, b1, … by name.
        slopes: f′(z1), … of each layer that is a function of each entry.
        attention: P1, … of each MultiHeadAttention (m, heads, t, t): how much each place takes from each; P[2.f.1] of
            one inside another layer.
        net, loss, params, x, y, state: what was traced.
    """

    quantities: tuple[Quantity, ...]
    parameters: dict[str, Array] = field(repr=False)
    slopes: dict[str, Array] = field(repr=False)
    attention: dict[str, Array] = field(repr=False)
    net: Layer
    loss: Loss
    params: Params = field(repr=False)
    x: Array = field(repr=False)
    y: Array = field(repr=False)
    state: State = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names, in order."""
        return tuple(q.name for q in self.quantities)

    def __getitem__(self, name: str) -> Array:
        wanted = name
        for ascii_name, symbol in _ASCII.items():
            wanted = wanted.replace(ascii_name, symbol)
        named = {q.name: q.value for q in self.quantities} | self.parameters | self.slopes | self.attention
        if wanted not in named:
            raise KeyError(f"trace: {name!r} is not a quantity; expected one of {', '.join(named)}")
        return named[wanted]

    def __iter__(self) -> Iterator[Quantity]:
        return iter(self.quantities)

    def __str__(self) -> str:
        equations = [for_terminal(q.equation) for q in self.quantities]
        width = max(map(len, equations))
        return "\n".join(_beside(e, q.value, width) for e, q in zip(equations, self.quantities, strict=True))

    def to_html(self, path: str | os.PathLike[str], *, lr: float = 0.5, steps: int = 2) -> None:
        """Write a page that shows the passes forward and backward step by step, each number beside `jax.grad`'s.

        The page is one file that needs nothing else. Each step is one equation, with its number in the document and
        its values; after the last gradient come the updates w ← w − η ∂E/∂w (§3), and then the next training step.

        Args:
            path: the file; replaced as a whole or left as it was.
            lr: the learning rate η.
            steps: how many training steps, each on the same x and y.

        Raises:
            TypeError, ValueError: lr or steps is out of its range.
            OSError: the file cannot be written.
        """
        from tinynet.pages.trace import trace_page

        write_atomically(path, trace_page(self, lr, steps).encode())

    def _repr_html_(self) -> str:
        from tinynet.pages import in_notebook
        from tinynet.pages.trace import trace_page

        return in_notebook("Back-propagation", trace_page(self, 0.5, 2), str(self))


def trace(net: Layer, loss: Loss, params: Params, x: Array, y: Array, *, state: State = None) -> Trace:
    """Return every intermediate value of E = loss(net(params, x), y) and its gradient.

    A layer with parameters opens a level l: its output is z^l, ∂E/∂z^l is δ^l, and its gradients are dW^l, db^l (or
    d + whatever its parameters are called). The output of a layer without parameters is a^l, of a second one a^l′. The
    input is a⁰. What a layer inside another returns is y[2.f.1], the path being that of `summary`, and the error there
    ∂E/∂y[2.f.1]; where such a layer is called more than once, y[f]′ is the second.

    Shapes:
        x (m, …), y of the shape of the network's output; every value keeps the batch's rows. `state` is that of a
        network whose layers read one, `result.state.layers` after `fit`; `net.sample(rng)` reads none.

    Raises:
        TypeError, ValueError: whatever the layers and the loss raise on input that does not fit.
    """
    check_instance("trace", "net", net, Layer)
    check_instance("trace", "loss", loss, Loss)
    chain = chain_of(net, params, state)
    names, values, caches, inside = _names(chain), [x], [], list[list[_Note]]()
    for link in chain:
        inside.append([])
        watched = with_watched_children(link.layer, link.path, lambda child, at: _Noted(child, at, inside[-1]))
        value, cache = forward_with_state(watched, link.params, values[-1], link.state)
        values.append(value)
        caches.append((watched, cache))
    E, residual = loss.forward(values[-1], y)
    error = loss.backward(residual)
    left, factors = error_name(names[-1]), (names[-1], "y")
    steps = [
        Quantity("E", _loss_equation(loss), E, -1, "loss", factors),
        Quantity(left, _first_error_equation(loss, names[-1]), error, -1, "residual", factors),
    ]
    parameters, slopes, attention = {}, {}, dict[str, Array]()
    outputs = dict[int, list[Quantity]]()
    for i in reversed(range(len(chain))):
        _, layer, layer_params, _ = chain[i]
        watched, cache = caches[i]
        output, source, above = names[i + 1], names[i], error
        error, dparams = watched.backward(layer_params, cache, above)
        outputs[i], errors = _inside(inside[i], {id(values[i]): source}, i)
        steps += errors
        attention |= {f"P{n.name[1:]}": n.cache[4] for n in inside[i] if isinstance(n.layer, MultiHeadAttention)}
        slope = _slope(watched, layer_params, cache, above, error)
        kind = "affine" if isinstance(layer, Linear) else "layer" if slope is None else "entrywise"
        outputs[i].append(_output(layer, kind, values[i + 1], output, source, i))
        for (path, p), dp in zip(leaves_with_paths(layer_params), leaves(dparams), strict=True):
            name = parameter_name(path, output)
            parameters[name] = p
            steps.append(_gradient(kind, name, dp, output, source, i))
        if isinstance(layer, MultiHeadAttention):
            attention[f"P{output[1:]}"] = cache[4]
        if i > 0:
            if slope is not None:
                slopes[f"f′({source})"] = slope
            steps.append(_passed_error(layer, kind, error, output, source, i))
    forward = [Quantity("a0", f"{superscript('a0')} = x", x, -1, "input")]
    forward += [q for i in range(len(chain)) for q in outputs[i]]
    return Trace((*forward, *steps), parameters, slopes, attention, net, loss, params, x, y, state)


@dataclass
class _Note:
    """One call of a layer inside another: what went in and came out, and the error there once it has come back."""

    name: str
    layer: Layer
    x: Any
    y: Any
    cache: Any
    dy: Any = None


class _Noted(StandIn):
    """Notes each call of a layer; a chain, whose output is that of its last layer, has no note of its own."""

    def __init__(self, layer: Layer, path: str, notes: list[_Note]) -> None:
        super().__init__(with_watched_children(layer, path, lambda child, at: _Noted(child, at, notes)))
        self._given, self._path, self._notes = layer, path, notes

    def forward(self, params: Params, x: Any, **options: Any) -> tuple[Any, Any]:
        y, cache = super().forward(params, x, **options)
        name = f"y[{self._path}]"
        while any(note.name == name for note in self._notes):
            name += "′"
        note = _Note(name, self._given, x, y, cache)
        if not self._notes or self._notes[-1].y is not y:
            self._notes.append(note)
        return y, (note, cache)

    def backward(self, params: Params, cache: Any, dy: Any) -> tuple[Any, Params]:
        cache[0].dy = dy
        return super().backward(params, cache[1], dy)

    def param_grads(self, params: Params, cache: Any, dy: Any) -> Params:
        return self.backward(params, cache, dy)[1]


def _inside(notes: list[_Note], names: dict[int, str], i: int) -> tuple[list[Quantity], list[Quantity]]:
    """Return outputs and errors of the layers inside layer i; `names` has that of its input, by identity."""
    outputs = []
    for note in notes:
        source = names.get(id(note.x), "…")
        factors = (source,) if source in names.values() else ()
        equation = f"{note.name} = {type(note.layer).__name__}({superscript(source)})"
        outputs.append(Quantity(note.name, equation, note.y, i, "inside", factors))
        names = {**names, id(note.y): note.name}
    errors = [Quantity(f"∂E/∂{n.name}", f"∂E/∂{n.name}", n.dy, i, "inside") for n in reversed(notes)]
    return outputs, [q for q in errors if q.value is not None]


class Link(NamedTuple):
    """A layer of a chain: where in the network it is, its parameters, and its state or None."""

    path: str
    layer: Layer
    params: Params
    state: State


def chain_of(net: Layer, params: Params, state: State = None, path: str = "") -> list[Link]:
    """Return the layers one after another; a Sequential inside another is unrolled."""
    if not isinstance(net, Sequential):
        return [Link(path, net, params, state)]
    states = (None,) * len(net.layers) if state is None else state
    parts = zip(net.children().items(), params, states, strict=True)
    return [link for (name, layer), p, s in parts for link in chain_of(layer, p, s, f"{path}.{name}".strip("."))]


def output_names(at: Trace) -> list[str]:
    """Return a0 and the name of each layer's output."""
    return _names(chain_of(at.net, at.params))


def _names(chain: list[Link]) -> list[str]:
    names, level = ["a0"], 0
    for link in chain:
        learns = bool(leaves(link.params))
        level += learns
        name = f"z{level}" if learns else f"a{level}"
        while name in names:
            name += "′"
        names.append(name)
    return names


def _slope(layer: Layer, params: Params, cache: Any, dy: Array, dx: Array) -> Array | None:
    """Return f′(z) where the layer is a function of each entry: where ∂E/∂z is ∂E/∂a ⊗ f′(z), f′(z) being ∂(Σ a)/∂z."""
    if leaves(params) or not is_array(dy) or not is_array(dx) or dx.shape != dy.shape:
        return None
    slope, _ = layer.backward(params, cache, np.ones(dy.shape, dy.dtype))
    return slope if np.allclose(dx, dy * slope, rtol=1e-5, atol=0) else None


def superscript(name: str) -> str:
    """Write the level of a name above it: z² for z2."""
    return re.sub(r"\d+(?=′*$)", lambda level: level.group().translate(_SUPERSCRIPTS), name)


def error_name(name: str) -> str:
    """Return the name of ∂E by an output: δ of z, ∂E/∂a of a."""
    return f"δ{name[1:]}" if name[0] == "z" else f"∂E/∂{name}"


def parameter_name(path: str, output: str) -> str:
    """Return the name of a parameter by its path in the layer's and the layer's output: W2."""
    return re.sub(r"\W+", ".", path).strip(".") + output[1:]


def _symbol(layer: Layer) -> str:
    return "f" if isinstance(layer, Sigmoid) else type(layer).__name__


def _output(layer: Layer, kind: str, value: Array, name: str, source: str, i: int) -> Quantity:
    left, a, W, b = superscript(name), superscript(source), f"W{name[1:]}", f"b{name[1:]}"
    if kind == "affine":
        return Quantity(name, f"{left} = {superscript(W)} {a} + {superscript(b)}  (18)", value, i, kind, (W, source, b))
    number = "  (19)" if kind == "entrywise" else ""
    weights = (f"P{name[1:]}",) if isinstance(layer, MultiHeadAttention) else ()
    return Quantity(name, f"{left} = {_symbol(layer)}({a}){number}", value, i, kind, (source, *weights))


def _loss_equation(loss: Loss) -> str:
    if isinstance(loss, SquaredError):
        return "E = ½ Σ (ŷ − y)²  (4)" if loss.reduction == "sum" else "E = ½ Σ (ŷ − y)² / m  (4), (17)"
    return f"E = {type(loss).__name__}(ŷ, y)"


def _first_error_equation(loss: Loss, name: str) -> str:
    left = superscript(error_name(name))
    if isinstance(loss, SquaredError):
        return f"{left} = ŷ − y  (21)" if loss.reduction == "sum" else f"{left} = (ŷ − y) / m  (17), (21)"
    return f"{left} = ∂E/∂ŷ"


def _passed_error(layer: Layer, kind: str, value: Array, output: str, source: str, i: int) -> Quantity:
    name, above, W = error_name(source), error_name(output), f"W{output[1:]}"
    left, right = superscript(name), superscript(above)
    if kind == "affine":
        return Quantity(name, f"{left} = {superscript(W)}ᵀ {right}  in (22)", value, i, "transposed", (W, above))
    if kind == "entrywise":
        slope = f"f′({source})"
        equation = f"{left} = {right} ⊗ {_symbol(layer)}′({superscript(source)})  (20)"
        return Quantity(name, equation, value, i, "product", (above, slope))
    equation = f"{left} = {right} · ∂{superscript(output)}/∂{superscript(source)}"
    return Quantity(name, equation, value, i, "layer", (above, source))


def _gradient(kind: str, name: str, value: Array, output: str, source: str, i: int) -> Quantity:
    left, error = f"d{superscript(name)}", error_name(output)
    δ, a, key = superscript(error), superscript(source), name.removesuffix(output[1:])
    if kind == "affine" and key == "W":
        return Quantity(f"d{name}", f"{left} = {δ} ({a})ᵀ  (24)", value, i, "outer", (error, source))
    if kind == "affine":
        return Quantity(f"d{name}", f"{left} = {δ}  (26)", value, i, "sum", (error,))
    return Quantity(f"d{name}", f"{left} = {δ} · ∂{superscript(output)}/∂{key}", value, i, "layer", (error, source))


def _beside(equation: str, value: Any, width: int) -> str:
    value = np.asarray(leaves(value)[0])  # of several inputs the first
    if value.ndim > 2 or value.size > 60:
        shape = _shape(value.shape)
        text = f"{shape}, from {value.min():.4g} to {value.max():.4g}, mean {value.mean():.4g}"
        return f"{equation:<{width}}  {for_terminal(text)}"
    text = np.array2string(value, precision=5, suppress_small=True, max_line_width=100)
    return f"{equation:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2))

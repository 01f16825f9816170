"""Measure the names and places that the verifier gives to faults in layers that are not tinynet's.

    python scripts/calibrate_diagnosis.py [--half build|figure] [--only NAME] [--most 18] [--list] [--json FILE]

Each fault is one small change to the text of a `backward` in `tests/verification/researchers`: a term or a factor
dropped or added, a name swapped with another, a transpose forgotten, a wrong axis, a gradient detached, time truncated.
So its line is known, and the line of `forward` that it belongs to: by the convention of that folder `dq` is ∂E/∂q.
Counted are the faults found; those named; those placed within one line, in `forward` (`.at`) and in `backward`
(`.where`); and those named wrongly: by a name that does not describe the change, or at other lines. The rules of the
diagnosis may be built on the half "build" alone. Some seconds per fault.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
import json
import random
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tinynet as tn
from tinynet.files.atomic import write_atomically

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "verification" / "researchers"
HALVES = {
    "build": ("attention", "gates", "likelihoods", "memory"),
    "figure": ("blocks", "contrast", "heads", "recurrence"),
}

_FACTOR = {
    "scaled", "factor left out", "factor taken twice", "another value", "sign", "σ′ missing", "σ′ of the output",
    "another activation's derivative",
}  # fmt: skip
_PATH = {"missing path", "zero", "off-diagonal terms missing"}
TRUTHFUL = {
    "a term dropped": _PATH,
    "a gradient detached": _PATH,
    "truncated in time": _PATH,
    "a factor changed": _FACTOR | _PATH,
    "a factor dropped": _FACTOR,
    "a factor added": _FACTOR,
    "a sign": {"sign", "scaled", "another value", "another activation's derivative"},
    "a name swapped": _FACTOR | _PATH | {"operands swapped", "exchanged gradients", "W for Wᵀ"},
    "a transpose": {"W for Wᵀ", "transpose", "another value", "operands swapped"},
    "a wrong axis": {
        "summed over the wrong axis", "summed over an axis", "not summed over an axis", "not summed over the batch",
        "summed over everything", "another value",
    },
}  # fmt: skip
"""By kind of change, the faults whose sentence is true of it."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One change to the text of a backward pass.

    Attributes:
        layer: the name of the right layer.
        kind: a key of `TRUTHFUL`.
        text: "dq = ds @ k  →  dq = ds @ q".
        line: of the statement of `backward` that was changed.
        edges: the lines of `forward` that this statement, or the part of it, belongs to.
        target: the layer with the change.
        inputs: the shape to verify it at.
    """

    layer: str
    kind: str
    text: str
    line: int
    edges: tuple[int, ...]
    target: tn.Layer
    inputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the verifier said of a change, and the seconds that it took to find and to name it."""

    change: Change
    verdict: str
    faults: tuple[str, ...]
    at: tuple[int, ...]
    where: tuple[int, ...]
    finding: float
    naming: float

    @property
    def found(self) -> bool:
        return self.verdict == "FAIL"

    @property
    def named(self) -> bool:
        return any(fault != "unknown" for fault in self.faults)

    @property
    def placed_at(self) -> bool:
        return _near(self.at, self.change.edges)

    @property
    def placed_where(self) -> bool:
        return _near(self.where, (self.change.line,))

    @property
    def right(self) -> bool:
        """Return whether it was found, named truly, and placed."""
        return self.found and self.named and not self.wrong and self.placed_at and self.placed_where

    @property
    def wrong(self) -> bool:
        """Return whether a name was given that is untrue, or that stands at lines which have nothing to do with it."""
        untrue = any(fault not in TRUTHFUL[self.change.kind] for fault in self.faults if fault != "unknown")
        elsewhere = bool(self.at or self.where) and not (self.placed_at or self.placed_where)
        return self.named and (untrue or elsewhere)


def _told(o: Outcome) -> str:
    c = o.change
    said = f"{o.verdict} {'; '.join(o.faults)}, at {o.at}, where {o.where}, {o.finding:.1f} + {o.naming:.1f} s"
    return f"        {c.kind}, line {c.line}, forward {c.edges}: {c.text}\n            {said}"


def _near(lines: Sequence[int], known: Sequence[int]) -> bool:
    return any(abs(a - b) <= 1 for a in lines for b in known)


# ---- changes to a text ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Edit:
    """Another text in place of a node of `backward`; `part` is what is wrong then, if not all of the node."""

    kind: str
    node: ast.expr | ast.keyword
    text: str
    part: ast.expr | None = None


def edits(backward: ast.FunctionDef, alike: dict[str, list[str]]) -> Iterator[Edit]:
    """Yield every change of one node.

    Args:
        backward: the syntax tree.
        alike: for each local array the others of the same shape.
    """
    carried = _carried(backward)
    for node in _computing(backward):
        match node:
            case ast.BinOp(left, ast.Add() | ast.Sub() as op, right):
                minus = isinstance(op, ast.Sub)
                kept = ast.UnaryOp(ast.USub(), right) if minus else right
                yield Edit("a term dropped" if _gradients(right) else "a factor changed", node, _text(left), right)
                if not isinstance(left, ast.BinOp) or not isinstance(left.op, (ast.Add, ast.Sub)):
                    yield Edit("a term dropped" if _gradients(left) else "a factor changed", node, _text(kept), left)
                yield Edit("a sign", node, _text(ast.BinOp(left, ast.Add() if minus else ast.Sub(), right)), right)
            case ast.BinOp(left, ast.Mult(), right):
                for one, other in ((left, right), (right, left)):
                    if _gradients(one) or not _gradients(node):
                        yield Edit("a factor dropped", node, _text(one))
                    if not _gradients(other):
                        yield Edit("a factor added", node, _text(ast.BinOp(node, ast.Mult(), other)))
            case ast.BinOp(left, ast.Div()):
                yield Edit("a factor dropped", node, _text(left))
            case ast.BinOp(left, ast.Pow(), ast.Constant(int(n))) if n > 1:
                yield Edit("a factor dropped", node, _text(ast.BinOp(left, ast.Pow(), ast.Constant(n - 1))))
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                yield Edit("a sign", node, _text(operand))
            case ast.Attribute(value, "T" | "mT"):
                yield Edit("a transpose", node, _text(value))
            case ast.keyword("axis", value):
                axes = (str(k) for k in (0, 1, 2, -1, -2))
                yield from (Edit("a wrong axis", node, f"axis={k}") for k in axes if k != ast.unparse(value))
            case ast.Call(ast.Attribute(value, "sum" | "mean" as name), args, keywords) if keywords:
                call = ast.Attribute(value, "mean" if name == "sum" else "sum", ast.Load())
                yield Edit("a factor changed", node, _text(ast.Call(call, args, keywords)))
            case ast.Name(name, ast.Load()):
                like = [other for other in alike.get(name, ()) if _is_gradient(other) == _is_gradient(name)]
                yield from (Edit("a name swapped", node, other) for other in like[:2])
                if _is_gradient(name) and name != "dy":
                    yield Edit("a gradient detached", node, f"(0 * {name})")
            case ast.Assign([ast.Name(name)], value):
                if name in carried:
                    yield Edit("truncated in time", value, f"0 * {_text(value)}")
                elif _is_gradient(name):
                    yield Edit("a factor added", value, f"2 * {_text(value)}")


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _is_gradient(name: str) -> bool:
    return re.fullmatch(r"d[a-z]\w*", name) is not None


def _gradients(node: ast.AST) -> set[str]:
    """Return the names in `node` of gradients, without their d."""
    return {n.id[1:] for n in ast.walk(node) if isinstance(n, ast.Name) and _is_gradient(n.id)}


def _computing(parent: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that compute values: not what indexes, counts or gives shapes, and no assignment of several."""
    for field, value in ast.iter_fields(parent):
        if field in ("slice", "iter", "target", "targets") or (field == "args" and not _takes_values(parent)):
            continue
        for node in value if isinstance(value, list) else [value]:
            several = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
            if isinstance(node, ast.AST) and not several:
                yield node
                yield from _computing(node)


def _takes_values(call: ast.AST) -> bool:
    if not isinstance(call, ast.Call):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name not in ("reshape", "range", "zeros", "eye", "len", "namespace", "transpose")


def _carried(backward: ast.FunctionDef) -> set[str]:
    """Return the names that a loop hands from one step to the next."""
    before: set[str] = set()
    carried: set[str] = set()
    for s in backward.body:
        stored = {n.id for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        carried |= stored & before if isinstance(s, ast.For) else set()
        before |= stored
    return carried


def edge_lines(module: ast.Module, cls: ast.ClassDef, statement: ast.stmt, node: ast.AST) -> tuple[int, ...]:
    """Return the lines that a changed node of `statement`, in `backward`, belongs to in `forward` and its helpers.

    In `dv = … du …` it is the line where u is computed, with the lines between v and u that have no gradient of their
    own, and the line of v, whose activation `dv` may include. A gradient of nothing that `forward` names (`dnext`)
    stands for those that it is made of, and dx for the lines that use x. Where du is used once, a change of it there is
    the same as one where it is made: then the lines of that statement count too.
    """
    forward, backward = _method(cls, "forward"), _method(cls, "backward")
    defined, made = _assignments(forward), _assignments(backward)
    defined.setdefault("x", [s for s in ast.walk(forward) if isinstance(s, ast.Assign) and "x" in _names(s.value)])
    helpers = {n.name: n for n in module.body if isinstance(n, ast.FunctionDef)}
    own = {name[1:] for name in made} | {"y"}

    def of(node: ast.AST, seen: frozenset[str] = frozenset()) -> set[str]:
        """Return the variables of `forward` whose gradients are in `node`."""
        found: set[str] = set()
        for name in _gradients(node) - seen:
            parts = [] if name in defined else made.get(f"d{name}", [])
            found |= {name} if name in defined else set().union(*(of(s.value, seen | {name}) for s in parts))
        return found

    below = node
    while not of(below) and below is not statement:
        below = next(n for n in ast.walk(statement) if below in ast.iter_child_nodes(n))
    targets = {t.id[1:] for t in getattr(statement, "targets", []) if isinstance(t, ast.Name)} & defined.keys() - {"x"}
    found = [s for v in targets for s in defined[v]]
    used = of(below)
    loads = Counter(n.id for n in ast.walk(backward) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    for _ in made:
        used |= set().union(*(of(s.value) for u in used if loads[f"d{u}"] == 1 for s in made.get(f"d{u}", ())))
    todo = [s for u in used for s in defined[u]]
    while todo:
        s = todo.pop()
        if s not in found:
            found.append(s)
            todo += [t for w in (_names(s.value) & defined.keys()) - own - {"x"} for t in defined[w]]
    called = {helpers[name] for s in found for name in _names(s.value) if name in helpers}
    return tuple(sorted({s.lineno for s in found} | {s.lineno for f in called for s in f.body}))


def _assignments(function: ast.FunctionDef) -> dict[str, list[ast.Assign]]:
    """Return by name the statements that assign it."""
    found: dict[str, list[ast.Assign]] = {}
    for s in ast.walk(function):
        if isinstance(s, ast.Assign):
            for name in (n.id for target in s.targets for n in ast.walk(target) if isinstance(n, ast.Name)):
                found.setdefault(name, []).append(s)
    return found


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


# ---- changed layers ---------------------------------------------------------------------------------------------


def changes(module: str, folder: Path, most: int) -> Iterator[Change]:
    """Yield changed copies of the layers of a module of researchers, written to `folder`.

    Of changes with the same gradients the first counts; what raises, or gives another shape, is no fault of diagnosis.
    """
    source = (FOLDER / f"{module}.py").read_bytes()
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    for name, (right, shapes) in _loaded(FOLDER / f"{module}.py").LAYERS.items():
        cls = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == type(right).__name__)
        backward = _method(cls, "backward")
        exact = _gradients_of(right, shapes)
        assert exact is not None
        seen, found = [exact], []
        for i, edit in enumerate(edits(backward, _alike(right, shapes[0]))):
            node = edit.node
            if node.lineno != node.end_lineno:
                continue
            line = lines[node.lineno - 1]
            changed = line[: node.col_offset] + edit.text.encode() + line[node.end_col_offset :]
            path = folder / f"{cls.name}_{i}.py"
            path.write_bytes(b"".join([*lines[: node.lineno - 1], changed, *lines[node.lineno :]]))
            target = _loaded(path).LAYERS[name][0]
            got = _gradients_of(target, shapes)
            if got is None or any(_same(got, other) for other in seen):
                path.unlink()
                continue
            seen.append(got)
            statement = _statement(backward, node)
            edges = edge_lines(tree, cls, statement, edit.part or node)
            description = f"{line.decode().strip()}  →  {changed.decode().strip()}"
            found.append(Change(name, edit.kind, description, statement.lineno, edges, target, shapes[0]))
        yield from _spread(found, most)


def _spread(found: list[Change], most: int) -> list[Change]:
    """Return at most `most` changes, of all kinds alike, at random but always the same."""
    draw = random.Random(0)
    by_kind = {kind: [c for c in found if c.kind == kind] for kind in TRUTHFUL}
    for changes_of_kind in by_kind.values():
        draw.shuffle(changes_of_kind)
    chosen: list[Change] = []
    while len(chosen) < most and any(by_kind.values()):
        chosen += [rest.pop() for rest in by_kind.values() if rest]
    return sorted(chosen[:most], key=lambda change: change.line)


def _loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _method(cls: ast.ClassDef, name: str) -> ast.FunctionDef:
    return next(n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == name)


def _statement(backward: ast.FunctionDef, node: ast.AST) -> ast.stmt:
    """Return the innermost statement around `node`."""
    around = [s for s in ast.walk(backward) if isinstance(s, ast.stmt) and any(n is node for n in ast.walk(s))]
    return min(around, key=lambda s: sum(1 for _ in ast.walk(s)))


def _example(layer: tn.Layer, shape: Sequence[int]) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(1)
    params, x = layer.init(rng, np.float64), rng.standard_normal(shape)
    y, cache = layer.forward(params, x)
    return params, x, cache, rng.standard_normal(y.shape)


def _gradients_of(layer: tn.Layer, shapes: Sequence[Sequence[int]]) -> list[Any] | None:
    """Return every gradient at every shape; None where the backward pass raises or gives other shapes."""
    found: list[Any] = []
    for shape in shapes:
        params, x, cache, dy = _example(layer, shape)
        try:
            dx, dparams = layer.backward(params, cache, dy)
        except Exception:
            return None
        got = [dx, *(dparams[key] for key in sorted(params))]
        if any(np.shape(g) != p.shape for g, p in zip(got, [x, *(params[key] for key in sorted(params))], strict=True)):
            return None
        found += [np.asarray(g) for g in got]
    return found if all(np.isfinite(g).all() for g in found) else None


def _same(a: list[Any], b: list[Any]) -> bool:
    return all(np.allclose(g, h, rtol=1e-9, atol=1e-12) for g, h in zip(a, b, strict=True))


def _alike(layer: tn.Layer, shape: Sequence[int]) -> dict[str, list[str]]:
    """Return, for each local array of `backward`, the others of the same shape, in an order drawn at random."""
    params, _, cache, dy = _example(layer, shape)
    code, local = type(layer).backward.__code__, {}

    def watch(frame: Any, _event: str, _arg: Any) -> Any:
        if frame.f_code is code:
            local.update({k: v.shape for k, v in frame.f_locals.items() if isinstance(v, np.ndarray) and v.size > 1})
            return watch
        return None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        layer.backward(params, cache, dy)
    finally:
        sys.settrace(before)
    draw = random.Random(0)
    others = {name: [o for o, shape in local.items() if shape == local[name] and o != name] for name in local}
    return {name: draw.sample(o, len(o)) for name, o in others.items()}


# ---- the measurement --------------------------------------------------------------------------------------------


def judge(change: Change) -> Outcome:
    """Verify a changed layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        tn.verify(change.target, inputs=change.inputs, name_seconds=0)
        found = time.perf_counter()
        report = tn.verify(change.target, inputs=change.inputs)
        named = time.perf_counter()
    findings = report.findings
    return Outcome(
        change,
        report.verdict,
        tuple(f.fault for f in findings),
        tuple(line for f in findings for line in _lines(getattr(f, "at", ""))),
        tuple(line for f in findings for line in _lines(f.where)),
        found - start,
        max(0.0, (named - found) - (found - start)),
    )


def _lines(place: str) -> list[int]:
    found = re.search(r"\.py:(\d+)", place or "")
    return [int(found[1])] if found else []


def count(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the figures of some outcomes."""
    return {
        "faults": len(outcomes),
        "found": sum(o.found for o in outcomes),
        "named": sum(o.named and not o.wrong for o in outcomes),
        "named wrongly": sum(o.wrong for o in outcomes),
        "placed in forward": sum(o.placed_at for o in outcomes),
        "placed in backward": sum(o.placed_where for o in outcomes),
        "seconds finding": round(sum(o.finding for o in outcomes), 1),
        "seconds naming": round(sum(o.naming for o in outcomes), 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--half", choices=HALVES, help="only the layers for building, or only those for the figure")
    parser.add_argument("--only", default="", help="only layers whose name contains this")
    parser.add_argument("--most", type=int, default=18, help="faults per layer at most (default: 18)")
    parser.add_argument("--list", action="store_true", help="print what was not found, named and placed")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(argv)
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for half in [args.half] if args.half else list(HALVES):
            outcomes: list[Outcome] = []
            for module in HALVES[half]:
                made = [c for c in changes(module, Path(folder), args.most) if args.only in c.layer]
                for name in dict.fromkeys(c.layer for c in made):
                    of_layer = [judge(c) for c in made if c.layer == name]
                    outcomes += of_layer
                    measured[name] = count(of_layer)
                    print(f"{half:7} {name:26} {_row(measured[name])}", flush=True)
                    if args.list:
                        print(*(_told(o) for o in of_layer if not o.right), sep="\n", flush=True)
            measured[f"all of {half}"] = count(outcomes)
            print(f"{half:7} {'all':26} {_row(measured[f'all of {half}'])}", flush=True)
    if args.json is not None:
        write_atomically(args.json, (json.dumps(measured, ensure_ascii=False, indent=2) + "\n").encode())
    return 0


def _row(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:g}" for name, value in figures.items())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("calibrate_diagnosis: interrupted")

"""Where in the backward the mistake is: the first statement that, given the exact value instead of its own, mends all.

The backward is run as it is, once watched; then once for each statement, with what it wrote disturbed, which shows
whether all that is wrong and nothing that is right depends on it; then once for each exact cotangent that such a
statement could have been meant to compute, with that in its place (in a loop, in every turn). Only lines that ran are
named.
"""

from __future__ import annotations

import ast
import functools
import itertools
import sys
import time
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from tinynet.trees import leaves
from tinynet.verification.diagnosis.evidence import Spoilt, Wrong
from tinynet.verification.diagnosis.primitives import Array, disturbed
from tinynet.verification.diagnosis.recording import record
from tinynet.verification.diagnosis.source import Line, statement_at, statements_on
from tinynet.verification.diagnosis.tape import Site, Tape
from tinynet.verification.execution import is_targets_file

Run = Callable[["Tracer"], Mapping[str, Any]]
"""Runs the target, its backward within `with tracer`, and returns the gradients."""
Replacements = Mapping[tuple[Line, str], Mapping[int, Array]]
"""For a statement and what it writes to: in which turn, counted from 0, which value is put there instead."""


@dataclass
class Tracer:
    """What the statements of the user's code write within `with tracer`, in the order in which each ran first.

    Attributes:
        replacements: what is put in the place of what a statement wrote.
        beside: a folder whose statements are not looked at; "" for none.
        written: for a statement and what it writes to, the values of every turn.
        times: when it wrote them, counted over all statements.
        returned: for each call, the statement that it ended with, and the arrays it returned or put into containers.
        last: the statement with which the outermost call ended.
        wrote: the first statement that changed an array that is watched.
    """

    replacements: Replacements = field(default_factory=dict)
    beside: str = ""
    written: dict[tuple[Line, str], list[Array]] = field(default_factory=lambda: defaultdict(list))
    times: dict[tuple[Line, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    returned: list[tuple[Line, list[Array]]] = field(default_factory=list)
    last: Line = Line()  # noqa: RUF009 - an immutable value
    wrote: Line = Line()  # noqa: RUF009 - an immutable value
    _watched: list[tuple[Array, bytes]] = field(default_factory=list)

    def watching(self, tree: Any) -> Tracer:
        """Look for who writes into these arrays, too."""
        arrays = [a for a in jax.tree.leaves(tree) if isinstance(a, np.ndarray)]
        self._watched += [(a, a.tobytes()) for a in arrays]
        return self

    def __enter__(self) -> None:
        self._tracer_before = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._tracer_before)

    def _call(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        beside = bool(self.beside) and file.startswith(self.beside)
        if beside or _is_foreign(file) or name.endswith(("comp>", "<genexpr>")):
            return None
        pending: list[tuple[Line, Mapping[str, Any]]] = []

        def trace(frame: types.FrameType, event: str, arg: Any) -> Any:
            found = statement_at(frame.f_code.co_filename, frame.f_lineno)
            names = frame.f_locals  # asked for once: before Python 3.13 each time forgets what was put into it
            if pending and (event == "return" or found is None or found[0] != pending[0][0]):
                self._after(*pending.pop(), names, frame.f_globals)
            if event == "line" and found is not None:
                pending[:] = [(found[0], _doubtful(found[0], names, frame.f_globals))]
            elif event == "return" and found is not None:
                self.last = found[0]
                self.returned.append((found[0], _arrays(arg)))
            return trace

        return trace

    def _after(self, line: Line, before: Mapping[str, Any], names: dict[str, Any], others: dict[str, Any]) -> None:
        if not self.wrote and any(a.tobytes() != before for a, before in self._watched):
            self.wrote = line
        for target in (target for statement, _ in statements_on(line) for target in _targets(statement)):
            text = ast.unparse(target)
            value = _evaluated(text, names, others)
            if before.get(text) == _state(value):
                continue
            held = _held(value)
            if held is None:
                self.returned.append((line, _arrays(value)))
                continue
            turns = self.written[line, text]
            new = self.replacements.get((line, text), {}).get(len(turns))
            turns.append(held.copy())
            self.times[line, text].append(sum(map(len, self.times.values())))
            if new is not None:
                if isinstance(target, ast.Name):
                    names[text] = _like(value, new)
                elif held.ndim and held.flags.writeable:
                    held[...] = new


def _doubtful(line: Line, names: dict[str, Any], others: dict[str, Any]) -> dict[str, tuple[int, bytes]]:
    """Return what a line writes to only if it comes to it, as it is before."""
    doubtful = (target for statement, may in statements_on(line) if may for target in _targets(statement))
    return {text: _state(_evaluated(text, names, others)) for text in map(ast.unparse, doubtful)}


def _evaluated(text: str, names: dict[str, Any], others: dict[str, Any]) -> Any:
    try:
        return eval(text, others, dict(names))
    except Exception:
        return None


def _state(value: Any) -> tuple[int, bytes]:
    held = _held(value)
    return id(value), b"" if held is None else held.tobytes()


def _arrays(value: Any) -> list[Array]:
    return [held.copy() for leaf in leaves(value) if (held := _held(leaf)) is not None]


def _like(value: Any, new: Array) -> Any:
    """Return an array of the kind of `value` that holds other numbers."""
    if hasattr(value, "new_tensor"):
        return value.new_tensor(new)
    return jax.numpy.asarray(new, value.dtype) if isinstance(value, jax.Array) else new.copy()


def _held(value: object) -> Array | None:
    """Return the numbers of an array, of JAX's or PyTorch's too, as they are in memory; None for anything else."""
    if hasattr(value, "detach") and hasattr(value, "new_tensor"):
        value = value.detach().cpu().numpy()
    elif isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        value = np.asarray(value)
    return np.asarray(value) if isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind == "f" else None


def _targets(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield what a statement writes to, for `g[i] = t` g too; for `g.add_(t)` and `np.add.at(g, i, t)` what it may."""
    given: list[ast.expr] = []
    match statement:
        case ast.Assign(targets):
            given = targets
        case ast.AugAssign(aim) | ast.AnnAssign(aim):
            given = [aim]
        case ast.Expr(ast.Call(function, args)):
            owner = [function.value] if isinstance(function, ast.Attribute) else []
            given = [e for e in (*owner, *args[:1]) if isinstance(e, (ast.Name, ast.Attribute, ast.Subscript))]
    for target in given:
        yield from target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
        if isinstance(target, ast.Subscript):
            yield target.value


@functools.lru_cache(maxsize=1024)
def _is_foreign(file: str) -> bool:
    return file.startswith("<") or not is_targets_file(file)


@dataclass(frozen=True)
class Exact:
    """What belongs where a statement wrote something else: a value of the forward, or ∂E/∂ of it.

    Attributes:
        place, name: of the value, among `Tape.places`; or the site of the uses that carry it on to the next step.
        value: whether it is the value itself.
        turned: whether its last two axes are exchanged.
        at: the forward's statement that makes the value; of ∂E/∂ of it, the last one that uses it.
        alone: whether nothing else uses it.
    """

    place: Any
    name: str
    value: bool
    turned: bool
    at: Line
    alone: bool

    def of(self, tape: Tape) -> list[Array] | None:
        """Return it as it is in a run, in the order in which a backward comes to its steps; None if it is not there."""
        if isinstance(self.place, Site):
            return tape.carried(self.place, tape.cotangents, {})
        slots, _ = tape.places.get(self.place, ((), ""))
        arrays = dict(enumerate(tape.values)) if self.value else tape.cotangents
        if not slots or not all(slot in arrays for slot in slots):
            return None
        steps = [np.asarray(arrays[slot]) for slot in reversed(slots)]
        if self.turned and any(step.ndim < 2 for step in steps):
            return None
        return [np.swapaxes(step, -1, -2) for step in steps] if self.turned else steps


@dataclass(frozen=True)
class Blame:
    """The statement of the backward to blame, what it writes to, and what belongs there instead."""

    line: Line = Line()  # noqa: RUF009 - an immutable value
    target: str = ""
    exact: Exact | None = None


def placed(
    run: Run, wrong: Wrong, gradients: Sequence[str], spoilt: Spoilt | None = None, *, seconds: float = 3.0
) -> Blame:
    """Return the statement of the backward to blame for these gradients; no line if there is none to name.

    Args:
        run: runs the target's forward, and its backward within `with tracer`, on `wrong.args` and `wrong.dy`.
        wrong: what that run gave when it was judged.
        gradients: the names of those to explain.
        spoilt: what the mistake makes of the cotangents of that run, if it has a name.
    """
    deadline = time.monotonic() + seconds
    tracer = Tracer()
    try:
        before = run(tracer)
    except Exception:
        return Blame()
    if len(gradients) > 1 and all(any(_is_exact(before.get(b), wrong, a) for b in gradients) for a in gradients):
        return Blame(_last_with(tracer, [wrong.exact[a] for a in gradients]))

    def again(replacements: Replacements) -> Mapping[str, Any]:
        if time.monotonic() > deadline:
            raise TimeoutError
        return _run_with(run, replacements)

    def is_suspect(keys: Sequence[tuple[Line, str]]) -> bool:
        """Whether all that is wrong, and nothing that is right, depends on what is written there."""
        other = {key: {i: disturbed(turn) for i, turn in enumerate(tracer.written[key])} for key in keys}
        return _spoils(again(other), before, wrong, gradients)

    def off_since(meant: tuple[tuple[Line, str], Mapping[int, Array], Any]) -> int:
        """When a statement wrote, for the first time, something else than it was meant to."""
        key, values, _ = meant
        turns = zip(tracer.times[key], tracer.written[key], strict=True)
        return next(when for i, (when, turn) in enumerate(turns) if i in values and not _close(values[i], turn))

    suspects: dict[tuple[Line, str], list[Array]] = {}
    lines: list[Line] = []
    known: Known = []
    try:
        if spoilt and (key := _first_spoilt(tracer, spoilt)) and is_suspect([key]):
            return Blame(*key)
        known = _known(record(wrong))
        for line, keys in itertools.groupby(tracer.written, key=lambda key: key[0]):
            alone = {key: tracer.written[key] for key in keys if is_suspect([key])}
            suspects |= alone
            every = [key for key in tracer.written if key[0] == line]
            if alone or (len(every) > 1 and line not in lines and is_suspect(every)):
                lines.append(line)
        right = _first_exact(tracer.written, known, wrong.dy)
        doubtful = {key: turns for key, turns in suspects.items() if key not in right}
        for key, values, exact in sorted(_gradients_meant(wrong, doubtful, known), key=off_since):
            if _is_mended(again({key: values}), wrong, gradients):
                return Blame(*key, exact)
        mends = []  # of the values of the forward the one of that name, else the last: others may do by chance
        for key, values, exact in _values_meant(suspects, known):
            if _is_mended(again({key: values}), wrong, gradients):
                mends.append(Blame(*key, exact))
                if exact is None or exact.name.split(".")[-1] == key[1].split(".")[-1]:
                    return mends[-1 if exact else 0]
        if mends:
            return mends[-1]
        for key, values, exact in _gradients_meant(wrong, {k: suspects[k] for k in suspects if k in right}, known):
            if _is_mended(again({key: values}), wrong, gradients):
                return Blame(*key, exact)
    except TimeoutError:
        pass
    if lines and len(gradients) > 1:  # the last on which all that is wrong depends, and nothing that is right
        return Blame(lines[-1])
    last = lines[-1] if lines else tracer.last
    return Blame(_last_written(tracer, wrong, gradients, known) or last)


def _first_spoilt(tracer: Tracer, spoilt: Spoilt) -> tuple[Line, str] | None:
    """Return what was the first to write what the mistake makes of a cotangent; None if nothing wrote such a thing.

    What is another cotangent as it should be tells nothing, nor do the zeros with which a sum begins.
    """
    exact = [e for _, e in spoilt.pairs]
    names = Counter(text.partition("[")[0] for _, text in tracer.written)
    times: dict[int, tuple[Line, str]] = {}
    for key, turns in tracer.written.items():
        begins = not any(turn.any() for turn in turns) and names[key[1]] > 1
        if not begins and not any(_all_close(e, turns) for e in exact):
            found = [i for w, e in spoilt.pairs if (i := _turn_spoilt(turns, w, e)) is not None]
            times |= {tracer.times[key][i]: key for i in found}
    return times[min(times)] if times else None


def _turn_spoilt(turns: Sequence[Array], wrong: Sequence[Array], exact: Sequence[Array]) -> int | None:
    """Return the first turn in which a statement wrote what is wrong where it is; None if it wrote something else.

    A gradient that a loop adds up is there in the last turn alone; the last step of a loop may pass on nothing.
    """
    last = len(turns) - 1 if len(wrong) == 1 else 0
    if len(wrong) > len(turns) or not all(_close(w, t) for w, t in zip(wrong, turns[last:], strict=False)):
        return None
    return next((last + i for i, (w, e) in enumerate(zip(wrong, exact, strict=True)) if not _close(w, e)), None)


def confirms(run: Run, wrong: Wrong, gradients: Sequence[str], blame: Blame) -> bool:
    """Return whether another run would be right, too, if the statement to blame wrote what belongs there."""
    tape = record(wrong)
    values = blame.exact.of(tape) if tape is not None and blame.exact is not None else None
    return values is not None and _is_mended(
        _run_with(run, {(blame.line, blame.target): dict(enumerate(values))}), wrong, gradients
    )


def _run_with(run: Run, replacements: Replacements) -> Mapping[str, Any]:
    try:
        return run(Tracer(replacements))
    except Exception:
        return {}


def _is_mended(got: Mapping[str, Any], wrong: Wrong, gradients: Sequence[str]) -> bool:
    return all(_is_exact(got.get(name), wrong, name) for name in (*gradients, *_right(wrong)))


def _right(wrong: Wrong) -> list[str]:
    return [name for name in wrong.wrt if name not in wrong.wrong]


def _spoils(after: Mapping[str, Any], before: Mapping[str, Any], wrong: Wrong, gradients: Sequence[str]) -> bool:
    """Return whether a disturbance reached every one of these gradients, and none that is right."""
    arrays = [n for n in wrong.wrt if after.get(n) is not None and before.get(n) is not None]
    moved = {n for n in arrays if not np.array_equal(after[n], before[n], equal_nan=True)}
    return moved >= set(gradients) and not moved & set(_right(wrong))


def _is_exact(got: Any, wrong: Wrong, name: str) -> bool:
    exact = wrong.exact[name]
    if got is None or np.shape(got) != exact.shape:
        return False
    return bool(np.all(np.abs(np.asarray(got) - exact) <= 4 * wrong.tolerance[name]))


Written = Mapping[tuple[Line, str], Sequence[Array]]
Known = Sequence[tuple[Exact, list[Array]]]


Meant = Iterator[tuple[tuple[Line, str], dict[int, Array], Exact | None]]
"""For a statement and what it writes to, what it could have been meant to write there, turn by turn."""


def _gradients_meant(wrong: Wrong, written: Written, known: Known) -> Meant:
    """Yield the exact gradients, and ∂E/∂ of every value of the forward, where something else was written."""
    for key, turns in written.items():
        for exact in wrong.exact.values():
            for value in (exact, exact.T) if exact.ndim > 1 else (exact,):
                if value.shape == turns[0].shape and not _close(value, turns[-1]):
                    yield key, {len(turns) - 1: value}, None
        for e, values in known:
            read = turns[: len(values)] if isinstance(e.place, Site) else turns  # the last step may hand on nothing
            if not e.value and _fit(values, read) and not _all_close(values, read):
                yield key, dict(enumerate(values)), e


def _first_exact(written: Written, known: Known, dy: Sequence[Array]) -> set[tuple[Line, str]]:
    """Return what wrote ∂E/∂ of a value as it is, where nothing had written it, nor dy was it: that may be right.

    What writes it once more, `da = dd`, may have left something out.
    """
    found: set[tuple[Line, str]] = set()
    before: list[Sequence[Array]] = [[np.asarray(d)] for d in dy]
    for key, turns in written.items():
        exact = any(not e.value and _all_close(values, turns) for e, values in known)
        if exact and not any(_all_close(earlier, turns) for earlier in before):
            found.add(key)
        before.append(turns)
    return found


def _values_meant(written: Written, known: Known) -> Meant:
    """Yield the forward's values where what was written is no exact gradient."""
    for key, turns in written.items():
        if not any(_all_close(values, turns) for e, values in known if not e.value):
            for e, values in known:
                if e.value and [v.shape for v in values] == [t.shape for t in turns] and not _all_close(values, turns):
                    yield key, dict(enumerate(values)), e


def _fit(values: Sequence[Array], turns: Sequence[Array]) -> bool:
    """Return whether values have the shapes of what was written, or the shapes of sums of it that keep the axes."""
    return len(values) == len(turns) and all(
        v.ndim == t.ndim and all(n in (1, m) for n, m in zip(v.shape, t.shape, strict=True))
        for v, t in zip(values, turns, strict=True)
    )


def _all_close(values: Sequence[Array], turns: Sequence[Array]) -> bool:
    return len(values) == len(turns) and all(_close(v, t) for v, t in zip(values, turns, strict=True))


def _known(tape: Tape | None) -> Known:
    """Return the exact cotangents and the values of each place of the forward."""
    if tape is None:
        return []
    uses = {slot: op.line for op in tape.operations for slot in op.operands}
    times = Counter(slot for op in tape.operations for slot in op.operands)
    makes = {slot: op.line for op in tape.operations for slot in op.outs}
    found = []
    places: dict[tuple[int, ...], Any] = {}
    for place, (slots, _) in tape.places.items():
        places.setdefault(slots, place)
    for slots, place in places.items():
        name = tape.places[place][1]
        for value, turned in itertools.product((False, True), (False, True)):
            lines = (makes, uses) if value else (uses, makes)
            at = next((of[slots[-1]] for of in lines if slots[-1] in of), Line())
            exact = Exact(place, name, value, turned, at, all(times[s] == 1 for s in slots))
            if tape.values[slots[0]].ndim > 1 or not turned:
                steps = exact.of(tape)
                found += [(exact, steps)] if steps is not None else []
    for site in tape.sites():
        if site.carried:
            exact = Exact(site, "", False, False, site.line, False)
            found.append((exact, tape.carried(site, tape.cotangents, {})))
    return found


def _close(a: Array, b: Array) -> bool:
    r = 1e-10 if a.dtype == b.dtype == np.float64 else 1e-4
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=r, atol=r / 1e3 * float(np.max(np.abs(a), initial=0))))


def _last_with(tracer: Tracer, arrays: Sequence[Array]) -> Line:
    """Return the last statement that returned all these arrays or put them into a container, else wrote one of them."""
    for line, held in reversed(tracer.returned):
        if all(any(_close(a, b) for b in held) for a in arrays):
            return line
    lines = [line for (line, _), turns in tracer.written.items() if any(_close(a, turns[-1]) for a in arrays)]
    return lines[-1] if lines else tracer.last


def _last_written(tracer: Tracer, wrong: Wrong, gradients: Sequence[str], known: Known) -> Line:
    """Return the statement that wrote, or else returned, a gradient as it came out.

    What is right, but of another array, was only returned for it. Not one of a helper that is called several times,
    which does not say by which call.
    """
    calls = Counter(line for line, _ in tracer.returned)
    returned = [r for r in tracer.returned if calls[r[0]] == 1] or tracer.returned
    for name in gradients:
        got = np.asarray(wrong.got[name])
        for (line, _), turns in tracer.written.items():
            right = any(_all_close(values, turns) for e, values in known if not e.value)
            if not right and any(_close(turn, got) for turn in turns):
                return line
        for line, arrays in reversed(returned):
            if any(_close(a, got) for a in arrays):
                return line
    return Line()

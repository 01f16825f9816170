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
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from tinynet.trees import leaves
from tinynet.verification.diagnosis.evidence import Wrong
from tinynet.verification.diagnosis.mistakes import places_of
from tinynet.verification.diagnosis.primitives import Array, disturbed
from tinynet.verification.diagnosis.source import Line, statement_at, statements_on
from tinynet.verification.diagnosis.tape import record
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
        written: for a statement and what it writes to, the values of every turn.
        returned: for each call, the statement that it ended with, and the arrays it returned or put into containers.
        last: the statement with which the outermost call ended.
        wrote: the first statement that changed an array that is watched.
    """

    replacements: Replacements = field(default_factory=dict)
    written: dict[tuple[Line, str], list[Array]] = field(default_factory=lambda: defaultdict(list))
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
        if _is_foreign(frame.f_code.co_filename):
            return None
        pending: list[Line] = []

        def trace(frame: types.FrameType, event: str, arg: Any) -> Any:
            found = statement_at(frame.f_code.co_filename, frame.f_lineno)
            if pending and (event == "return" or found is None or found[0] != pending[0]):
                self._after(frame, pending.pop())
            if event == "line" and found is not None:
                pending[:] = [found[0]]
            elif event == "return" and found is not None:
                self.last = found[0]
                self.returned.append((found[0], _arrays(arg)))
            return trace

        return trace

    def _after(self, frame: types.FrameType, line: Line) -> None:
        if not self.wrote and any(a.tobytes() != before for a, before in self._watched):
            self.wrote = line
        for target in itertools.chain(*map(_targets, statements_on(line))):
            text = ast.unparse(target)
            try:
                value = eval(text, frame.f_globals, dict(frame.f_locals))
            except Exception:
                continue
            held = _held(value)
            if held is None:
                self.returned.append((line, _arrays(value)))
                continue
            turns = self.written[line, text]
            new = self.replacements.get((line, text), {}).get(len(turns))
            turns.append(held.copy())
            if new is not None:
                if isinstance(target, ast.Name):
                    frame.f_locals[text] = _like(value, new)
                elif held.ndim and held.flags.writeable:
                    held[...] = new


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
    given = (
        statement.targets
        if isinstance(statement, ast.Assign)
        else [statement.target]
        if isinstance(statement, (ast.AugAssign, ast.AnnAssign))
        else []
    )
    for target in given:
        yield from target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]


@functools.lru_cache(maxsize=1024)
def _is_foreign(file: str) -> bool:
    return file.startswith("<") or not is_targets_file(file)


def placed(run: Run, wrong: Wrong, gradients: Sequence[str], *, seconds: float = 3.0) -> Line:
    """Return the statement of the backward to blame for these gradients; no line if there is none to name.

    Args:
        run: runs the target's forward, and its backward within `with tracer`, on `wrong.args` and `wrong.dy`.
        wrong: what that run gave when it was judged.
        gradients: the names of those to explain.
    """
    deadline = time.monotonic() + seconds
    tracer = Tracer()
    try:
        before = run(tracer)
    except Exception:
        return Line()

    def again(key: tuple[Line, str], values: Mapping[int, Array]) -> Mapping[str, Any]:
        if time.monotonic() > deadline:
            raise TimeoutError
        try:
            return run(Tracer({key: values}))
        except Exception:
            return {}

    suspects: dict[tuple[Line, str], list[Array]] = {}
    try:
        known = _known(wrong, values=False)
        for key, turns in tracer.written.items():
            if _spoils(again(key, {i: disturbed(turn) for i, turn in enumerate(turns)}), before, wrong, gradients):
                suspects[key] = turns
        # Cotangents first: only where none of them mends it, a value of the forward, or a multiple of what is there.
        for key, values in itertools.chain(_of_cotangents(wrong, suspects, known), _of_values(wrong, suspects)):
            mended = again(key, values)
            if all(_is_exact(mended.get(name), wrong, name) for name in (*gradients, *_right(wrong))):
                return key[0]
    except TimeoutError:
        pass
    if suspects and len(gradients) > 1:  # the last on which all that is wrong depends, and nothing that is right
        return list(suspects)[-1][0]
    return _last_written(tracer, wrong, gradients) or (list(suspects)[-1][0] if suspects else tracer.last)


def _right(wrong: Wrong) -> list[str]:
    return [name for name in wrong.wrt if name not in wrong.wrong]


def _spoils(after: Mapping[str, Any], before: Mapping[str, Any], wrong: Wrong, gradients: Sequence[str]) -> bool:
    """Return whether a disturbance reached every one of these gradients, and none that is right."""
    moved = {n for n in wrong.wrt if n in after and not np.array_equal(after[n], before[n], equal_nan=True)}
    return moved >= set(gradients) and not moved & set(_right(wrong))


def _is_exact(got: Any, wrong: Wrong, name: str) -> bool:
    exact = wrong.exact[name]
    return np.shape(got) == exact.shape and bool(np.all(np.abs(np.asarray(got) - exact) <= 4 * wrong.tolerance[name]))


Written = Mapping[tuple[Line, str], Sequence[Array]]
Candidate = tuple[tuple[Line, str], dict[int, Array]]


def _of_cotangents(wrong: Wrong, written: Written, known: Sequence[list[Array]]) -> Iterator[Candidate]:
    """Yield for each statement the exact cotangents that it could have been meant to write."""
    for key, turns in written.items():
        for exact in wrong.exact.values():
            for value in (exact, exact.T) if exact.ndim > 1 else (exact,):
                if value.shape == turns[0].shape and not _close(value, turns[-1]):
                    yield key, {len(turns) - 1: value}
        yield from ((key, other) for other in _others(known, turns))


def _of_values(wrong: Wrong, written: Written) -> Iterator[Candidate]:
    """Yield for each statement the forward's values of that shape, and multiples of what it wrote."""
    known = _known(wrong, values=True)
    for key, turns in written.items():
        yield from ((key, other) for other in _others(known, turns))
        for factor in (-1.0, 0.5, 2.0):
            yield key, {i: factor * turn for i, turn in enumerate(turns)}


def _others(known: Sequence[list[Array]], turns: Sequence[Array]) -> Iterator[dict[int, Array]]:
    for values in known:
        if [v.shape for v in values] == [t.shape for t in turns] and not _all_close(values, turns):
            yield dict(enumerate(values))


def _all_close(values: Sequence[Array], turns: Sequence[Array]) -> bool:
    return len(values) == len(turns) and all(_close(v, t) for v, t in zip(values, turns, strict=True))


def _known(wrong: Wrong, *, values: bool) -> list[list[Array]]:
    """Return the exact cotangents, or the values, of each place of the forward, as a backward comes to them."""
    if wrong.forward is None:
        return []
    try:
        tape = record(wrong.forward, wrong.args, wrong.wrt, wrong.dy)
    except Exception:
        return []
    arrays = dict(enumerate(tape.values)) if values else tape.cotangents
    found = []
    for slots in dict.fromkeys(slots for slots, _ in places_of(tape).values()):
        if all(s in arrays for s in slots):
            steps = [np.asarray(arrays[s]) for s in reversed(slots)]
            found.append(steps)
            if steps[0].ndim > 1:
                found.append([np.swapaxes(v, -1, -2) for v in steps])
    return found


def _close(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-10, atol=1e-13 * float(np.max(np.abs(a), initial=0))))


def _last_written(tracer: Tracer, wrong: Wrong, gradients: Sequence[str]) -> Line:
    """Return the statement that wrote, or else returned, a gradient as it came out."""
    for name in gradients:
        got = np.asarray(wrong.got[name])
        for (line, _), turns in tracer.written.items():
            if any(_close(turn, got) for turn in turns):
                return line
        for line, arrays in tracer.returned:
            if any(_close(a, got) for a in arrays):
                return line
    return Line()

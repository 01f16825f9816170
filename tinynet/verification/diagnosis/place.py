"""Where in the backward the mistake is: the first statement that, given the exact value instead of its own, mends all.

The backward is run as it is, once watched; then once for each statement, with what it wrote disturbed, which shows
whether all that is wrong and nothing that is right depends on it; then once for each exact cotangent that such a
statement could have been meant to compute, with that in its place (in a loop, in every turn). Only lines that ran are
named.
"""

from __future__ import annotations

import ast
import functools
import sys
import sysconfig
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinynet.trees import leaves
from tinynet.verification.diagnosis.evidence import Wrong
from tinynet.verification.diagnosis.mistakes import places_of
from tinynet.verification.diagnosis.primitives import Array, disturbed, library_roots
from tinynet.verification.diagnosis.source import HERE, Line, statement_at
from tinynet.verification.diagnosis.tape import record

Run = Callable[["Tracer"], Mapping[str, Any]]
"""Runs the target, its backward within `with tracer`, and returns the gradients."""
Replacements = Mapping[tuple[Line, str], Mapping[int, Array]]
"""For a statement and what it writes to: in which turn, counted from 0, which value is put there instead."""


@dataclass
class Tracer:
    """What the statements of the user's code write within `with tracer`, in the order in which each ran first."""

    replacements: Replacements = field(default_factory=dict)
    written: dict[tuple[Line, str], list[Array]] = field(default_factory=lambda: defaultdict(list))
    returned: list[tuple[Line, list[Array]]] = field(default_factory=list)

    def __enter__(self) -> None:
        self._tracer_before = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._tracer_before)

    def _call(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        if _is_foreign(frame.f_code.co_filename):
            return None
        pending: list[tuple[Line, ast.stmt]] = []

        def trace(frame: types.FrameType, event: str, arg: Any) -> Any:
            found = statement_at(frame.f_code.co_filename, frame.f_lineno)
            if pending and (event == "return" or found is None or found[0] != pending[0][0]):
                self._after(frame, *pending.pop())
            if event == "line" and found is not None:
                pending[:] = [found]
            elif event == "return" and found is not None:
                self.returned.append((found[0], [h.copy() for a in leaves(arg) if (h := _held(a)) is not None]))
            return trace

        return trace

    def _after(self, frame: types.FrameType, line: Line, statement: ast.stmt) -> None:
        for target in _targets(statement):
            text = ast.unparse(target)
            try:
                value = eval(text, frame.f_globals, dict(frame.f_locals))
            except Exception:
                continue
            held = _held(value)
            if held is None:
                continue
            turns = self.written[line, text]
            new = self.replacements.get((line, text), {}).get(len(turns))
            turns.append(held.copy())
            if new is not None:
                if isinstance(target, ast.Name):
                    frame.f_locals[text] = value.new_tensor(new) if hasattr(value, "new_tensor") else new.copy()
                elif held.ndim:
                    held[...] = new


def _held(value: object) -> Array | None:
    """Return the numbers of an array, or of a tensor of PyTorch's, as they are in memory; None for anything else."""
    if hasattr(value, "detach") and hasattr(value, "new_tensor"):
        value = value.detach().cpu().numpy()
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
    return file.startswith(("<", *library_roots(), sysconfig.get_path("stdlib"), HERE))


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

    right = [name for name in wrong.wrt if name not in wrong.wrong]
    suspects: dict[tuple[Line, str], list[Array]] = {}
    try:
        known = _known(wrong, values=False)
        for key, turns in tracer.written.items():
            after = again(key, {i: disturbed(turn) for i, turn in enumerate(turns)})
            moved = {n for n in wrong.wrt if n in after and not np.array_equal(after[n], before[n], equal_nan=True)}
            if moved >= set(gradients) and not moved & set(right):
                suspects[key] = turns
        # Cotangents first: only where none of them mends it, a value of the forward, or a multiple of what is there.
        for candidates in (_of_cotangents(wrong, suspects, known), _of_values(wrong, suspects)):
            for key, values in candidates:
                mended = again(key, values)
                if all(_is_exact(mended.get(name), wrong, name) for name in (*gradients, *right)):
                    return key[0]
    except TimeoutError:
        pass
    if suspects and len(gradients) > 1:  # the last on which all that is wrong depends, and nothing that is right
        return list(suspects)[-1][0]
    return _last_written(tracer, wrong, gradients)


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
            if turns and _close(turns[-1], got):
                return line
        for line, arrays in tracer.returned:
            if any(_close(a, got) for a in arrays):
                return line
    return Line()

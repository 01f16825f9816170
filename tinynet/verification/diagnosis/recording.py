"""From a forward to its tape: it is traced once, and run once, operation by operation, in NumPy.

Calls, scans, loops and branches are followed as they ran. Rules that the user gave JAX for a function of his own are
not heeded: its body is differentiated.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tinynet.verification.diagnosis.evidence import Wrong
from tinynet.verification.diagnosis.primitives import evaluate
from tinynet.verification.diagnosis.source import HERE, Line
from tinynet.verification.diagnosis.tape import Frames, Key, Operation, Tape
from tinynet.verification.execution import is_targets_file
from tinynet.verification.jaxpr import called, interpret, is_users_rule, opened


def record(run: Wrong) -> Tape | None:
    """Trace the forward of a run and run it once, in NumPy; None where it cannot be traced."""
    if run.forward is None:
        return None
    forward, args = run.forward, run.args
    try:
        with jax.enable_x64(True):
            closed = jax.make_jaxpr(lambda given: forward(given))(dict(args))  # JAX would print what `forward` is
        return _played(closed, run)
    except Exception:
        return None


def _played(closed: Any, run: Wrong) -> Tape:
    tape = Tape(dy=tuple(np.asarray(d) for d in run.dy))
    names = sorted(run.args)  # JAX flattens a dict in this order
    slots = [tape.new(run.args[name], name in run.wrt) for name in names]
    tape.inputs = dict(zip(names, slots, strict=True))
    tape.outputs = tuple(_follow(tape, closed.jaxpr, closed.consts, slots, (), ()))
    every, used = tape.operations, _used(tape.operations, tape.outputs)
    tape.operations = _with_lines(used)
    known = {op.outs for op in used}
    tape.beside = _with_lines([op for op in every if op.outs not in known])
    tape.cotangents = tape.sweep()
    settle([tape])
    return tape


def settle(tapes: Sequence[Tape]) -> None:
    """Find the edges through which nothing passes in any run of a forward, from each run's exact sweep.

    What passes nothing in one step of a loop alone, h = 0 at the first, or in one run, is no such edge.
    """
    uses = [tape.uses() for tape in tapes]
    nothing = {use for _, idle in uses for use in idle} - {use for passing, _ in uses for use in passing}
    for tape in tapes:
        edges = [(i, k) for i, op in enumerate(tape.operations) for k in range(len(op.operands))]
        tape.nothing = {(i, k) for i, k in edges if (tape.operations[i].key, k) in nothing}


def _used(operations: Sequence[Operation], outputs: Sequence[int]) -> list[Operation]:
    """Return the operations that the outputs depend on."""
    needed, used = set(outputs), []
    for op in reversed(operations):
        if needed & set(op.outs):
            used.append(op)
            needed |= set(op.operands)
    return used[::-1]


def _with_lines(operations: Sequence[Operation]) -> list[Operation]:
    """Give each operation its line: the innermost one that tells it from others.

    The line inside a helper that several lines call does not say which of them; then theirs does.
    """
    callers: dict[Any, set[Any]] = defaultdict(set)
    for op in operations:
        for (_, function), caller in itertools.pairwise(op.frames):
            callers[function].add(caller)
    lines = []
    for op in operations:
        telling = [i for i, (_, function) in enumerate(op.frames) if len(callers[function]) < 2]
        i = telling[0] if telling else len(op.frames) - 1
        lines.append(dataclasses.replace(op, line=op.frames[i][0] if op.frames else Line()))
    return lines


def _follow(
    tape: Tape, jaxpr: Any, consts: Sequence[Any], slots: Sequence[int], caller: Key, frames: Frames
) -> list[int]:
    """Run the operations of `jaxpr`, and return the slots of its outputs."""

    def step(eqn: Any, operands: list[int]) -> list[int]:
        own, inner = _origin(eqn)
        key, here = (*caller, *own), (*inner, *frames)
        outs = _into(tape, eqn, operands, key, here)
        return _append(tape, eqn.primitive, eqn.params, operands, key, here) if outs is None else outs

    return interpret(jaxpr, [tape.new(c, False) for c in consts], slots, step, lambda value: tape.new(value, False))


def _append(tape: Tape, primitive: Any, params: Any, operands: Sequence[int], key: Key, frames: Frames) -> list[int]:
    """Run one operation, and return the slots of its outputs."""
    moving = any(tape.moving[s] for s in operands) and primitive.name != "stop_gradient"
    results = evaluate(primitive, params, [tape.values[s] for s in operands])
    outs = [tape.new(value, moving) for value in results]
    if any(tape.moving[s] for s in outs):
        tape.operations.append(Operation(primitive, params, tuple(operands), tuple(outs), key, frames))
    return outs


def _into(tape: Tape, eqn: Any, operands: list[int], key: Key, frames: Frames) -> list[int] | None:
    """Follow a call, a branch or a loop as it runs; None for a plain operation."""
    name, p = eqn.primitive.name, eqn.params

    def run(body: Any, slots: Sequence[int]) -> list[int]:
        return _follow(tape, *opened(body), slots, key, frames)

    if name == "scan":
        fixed, carried = p["num_consts"], p["num_carry"]
        consts, carry, xs = operands[:fixed], operands[fixed : fixed + carried], operands[fixed + carried :]
        ys: list[list[int]] = []
        order = range(p["length"])
        for t in reversed(order) if p["reverse"] else order:
            taken = [_part(tape, x, t, frames, (*key, "x", j)) for j, x in enumerate(xs)]
            outs = run(p["jaxpr"], [*consts, *carry, *taken])
            carry = outs[:carried]
            ys.append(outs[carried:])
        steps = ys[::-1] if p["reverse"] else ys
        return [
            *carry,
            *(_stacked(tape, list(y), frames, (*key, "y", j)) for j, y in enumerate(zip(*steps, strict=True))),
        ]
    if name == "while":
        a, b = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
        carry = operands[b:]
        while tape.values[run(p["cond_jaxpr"], [*operands[:a], *carry])[0]]:
            carry = run(p["body_jaxpr"], [*operands[a:b], *carry])
        return carry
    if name == "cond":
        return run(p["branches"][int(tape.values[operands[0]])], operands[1:])
    inner = called(eqn)
    if inner is None or (name.startswith("custom_") and not is_users_rule(eqn)):
        return None
    return _follow(tape, *inner, operands[: len(inner[0].invars)], key, frames)


class _Numpy:
    """Stands for a primitive of JAX's where a loop takes its inputs apart and puts its outputs together."""

    multiple_results = False

    def __init__(self, name: str) -> None:
        self.name = name


_TAKE, _RESHAPE, _STACK = _Numpy("slice"), _Numpy("reshape"), _Numpy("concatenate")


def _part(tape: Tape, x: int, t: int, frames: Frames, key: Key) -> int:
    shape = tape.values[x].shape
    starts, limits = (t, *[0] * (len(shape) - 1)), (t + 1, *shape[1:])
    cut = {"start_indices": starts, "limit_indices": limits, "strides": None}
    taken = _append(tape, _TAKE, cut, [x], key, frames)
    return _append(tape, _RESHAPE, {"new_sizes": shape[1:]}, taken, (*key, 1), frames)[0]


def _stacked(tape: Tape, ys: list[int], frames: Frames, key: Key) -> int:
    rows = [_append(tape, _RESHAPE, {"new_sizes": (1, *tape.values[y].shape)}, [y], key, frames)[0] for y in ys]
    return _append(tape, _STACK, {"dimension": 0}, rows, (*key, 1), frames)[0]


def _origin(eqn: Any) -> tuple[Key, Frames]:
    """Return what identifies the place in the source where an operation was traced, and the user's lines of it."""
    traceback = eqn.source_info.traceback
    if traceback is None:
        return (eqn.primitive.name,), ()
    codes, offsets = traceback.raw_frames()
    key: list[Any] = [eqn.primitive.name]
    frames = []
    for code, offset in itertools.islice(zip(codes, offsets, strict=True), 4, None):
        if code.co_filename.startswith(HERE):
            continue
        key.append((code.co_filename, code.co_firstlineno, offset))
        if is_targets_file(code.co_filename):
            frames.append((Line.of(code, offset), (code.co_filename, code.co_firstlineno, code.co_name)))
    return tuple(key), tuple(frames)

"""How a target is read: where its gradients are, which arrays it updates, and in which number type it computes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.subject import MISSING, Array, Subject
from tinynet.verification.examples import cotangent
from tinynet.verification.execution import Run, Watch, execute
from tinynet.verification.oracle import find_oracle, leaves_of
from tinynet.verification.tolerance import CHOICE, distance, largest


def choose(subjects: list[Subject], watch: Watch, rng: np.random.Generator) -> Subject:
    """Return the reading of a target under which it is right at two draws; else the one that is least wrong."""
    scored = []
    for i, subject in enumerate(subjects):
        if len(subjects) == 1 and subject.settle is None:
            return subject
        try:
            subject, wrong = _score(subject, watch, rng)
        except (Exception, SystemExit):
            wrong = 1e6 if _outputs(execute(subject, subject.args, None, watch)) else 2e6
        if wrong == 0:
            return subject
        scored.append((wrong, i, subject))
    return min(scored, key=lambda s: s[:2])[2]


def _score(subject: Subject, watch: Watch, rng: np.random.Generator) -> tuple[Subject, float]:
    """Return a subject that has settled where its gradients are, and how many of them are wrong at two draws."""
    first = execute(subject, subject.args, None, watch)
    if first.error is not None:
        raise first.error
    if not (outputs := _outputs(first)):
        raise TypeError("an output is no array of floating-point numbers")
    dy = cotangent(outputs, rng)
    if (tried := execute(subject, subject.args, dy, watch)).error is not None:
        raise tried.error  # before an oracle is made for a reading that does not even run
    oracle = find_oracle(subject, watch, dy)
    draws = [(subject.args, d, oracle(subject.args, d)) for d in (dy, cotangent(outputs, rng))]
    if subject.settle is not None:
        subject = subject.settle(subject, draws)
    wrong = 0.0
    for args, dy, exact in draws:
        run = execute(subject, args, dy, watch)
        if run.error is not None:
            raise run.error
        for name, g in exact.grads.items():
            got = run.grads.get(name)
            fits = isinstance(got, (np.ndarray, np.generic, float)) and np.shape(got) == g.shape
            size = largest(g)
            wrong += 2.0 if not fits else float(distance(np.asarray(got, np.float64), g) > CHOICE * size)
    return subject, wrong


def with_updates(subject: Subject, watch: Watch, rng: np.random.Generator) -> Subject:
    """Return a subject that may write into the arguments that have no gradient and do not move y."""
    first = execute(subject, subject.args, None, watch)
    outputs = _outputs(first)
    if not first.mutated or not outputs or subject.contract:
        return subject
    run = execute(subject, subject.args, cotangent(outputs, rng), watch)
    lacking = [n for n in subject.inputs if (g := run.grads.get(n)) is None or g is MISSING]
    written = [n for n in run.mutated if n in lacking]
    moved = {n: a + rng.random(a.shape) if n in written and a.dtype.kind == "f" else a for n, a in subject.args.items()}
    others = _outputs(execute(subject, moved, None, watch))
    if run.error is not None or not others or not written:
        return subject
    return subject.that_updates(written) if all(map(np.array_equal, outputs, others)) else subject


def computes_in_float32(subject: Subject, watch: Watch, inputs: Any, rng: np.random.Generator) -> bool:
    """Return whether a target computes in float32: its forward pass, or its backward pass where it is given float32."""
    if subject.contract:
        return False
    first, near, far = (_moved(subject, watch, size, rng) for size in (0.0, 1e-12, 1e-5))
    if not first or not near or not far or any(y.dtype != np.float64 for y in first):
        return False  # a float32 result is judged as one
    if all(map(np.array_equal, first, near)) and not any(map(np.array_equal, first, far)):
        return True
    given = [a.dtype for a in jax.tree.leaves(inputs) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    if not given or any(dtype != np.float32 for dtype in given):
        return False
    grads = execute(subject, subject.args, cotangent(first, rng), watch).grads.values()
    return any(getattr(g, "dtype", None) == np.float32 for g in grads)


def _moved(subject: Subject, watch: Watch, size: float, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return y with the inputs moved by a share of their size; nothing where there is none."""
    floats = [n for n in subject.inputs if subject.args[n].dtype.kind == "f"]
    args = {n: a * (1 + size * rng.random(a.shape)) if n in floats else a for n, a in subject.args.items()}
    run = execute(subject, args, None, watch)
    return _outputs(run) if floats else ()


def _outputs(run: Run) -> tuple[Array, ...]:
    """Return the arrays that a forward pass gave; nothing where it gave anything else."""
    try:
        leaves = leaves_of(run.y) if run.error is None else ()
    except Exception:
        return ()
    return leaves if all(leaf.dtype.kind in "fV" for leaf in leaves) else ()

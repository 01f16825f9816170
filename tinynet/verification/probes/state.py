"""What a target remembers, writes into and hands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.subject import Array, Exact, Subject
from tinynet.verification.bench import Bench
from tinynet.verification.examples import alike, cotangent, near, with_batch
from tinynet.verification.execution import Hang, Run, execute, told
from tinynet.verification.observations import Fault, Observed
from tinynet.verification.report import Probe
from tinynet.verification.tolerance import CHOICE, distance, largest, unit_of

DRAWS = (
    "the forward pass gives another y at each call; draw from a generator that is kept, which is set to one state "
    "before each, or hand the numbers over as an input"
)


def probe_state(b: Bench, seen: Observed) -> Observed:
    """Repeat calls, make others in between, and look at what is written into and what shares memory."""
    A = b.subject
    seen += Observed(coverage=(Probe("state"),))
    outputs = b.shapes.of(A, A.args)
    # A loss is asked for ∂E/∂ŷ alone nearly always: dE is 1.
    dy = cotangent(outputs, b.rng) if any(y.ndim for y in outputs) else tuple(np.ones(()) for _ in outputs)
    runs = [execute(A, A.args, dy, b.watch) for _ in range(4)]
    if any(r.error for r in runs):
        return seen  # the values say what is wrong
    if runs[0].mutated:  # a second call would start from what the first one wrote
        return seen + Observed(faults=tuple(mutation(A, runs[0], "state")))
    exact = b.oracle(A.args, dy)
    seen += Observed(notes=tuple(_notes_on_memory(A, runs[0])))
    found = _kept_memory(A, runs[0])
    session = A.start()
    again = [execute(A, A.args, dy, b.watch, session=session) for _ in range(4)]
    if not A.contract and any(other_y(some[0], r) for some in (runs, again) for r in some[1:]):
        return seen + Observed(faults=tuple(found), reason=DRAWS)
    found += _repeats(A, runs, exact, "the same call, on a fresh copy of the target,")
    adds_up = _adds_up(A, again)
    if not adds_up:
        found += _repeats(A, again, exact, "the same call on the same target")
        if not A.one_cache:
            twice = execute(A, A.args, dy, b.watch, session=session, after=again[-1])
            found += _repeats(A, [again[-1], twice], exact, "backward twice after one forward")
            found += _shared_results(A, [*again, twice])
            found += _in_between(b, dy, exact)
    else:
        text = "each call adds to the gradients of the one before: set them to zero in between"
        seen += Observed(notes=(text,))
    if not found and not adds_up:
        found += _reused(b, dy)
    if not found:
        found += _after_another(b, dy, exact, adds_up=adds_up)
    return seen + Observed(faults=tuple(found))


def mutation(A: Subject, run: Run, probe: str) -> list[Fault]:
    """Return the fault of a run that wrote into what it was handed."""
    if not run.mutated:
        return []
    name = run.mutated[0]
    role = "dy" if name.startswith("dy") else "x" if name in A.inputs else "params"
    return [Fault(run.mutated, f"mutates {role}", f"{', '.join(run.mutated)} was written into", probe)]


def _notes_on_memory(A: Subject, run: Run) -> list[str]:
    notes = [
        f"the gradient of {n} is a view of {other}"
        for n, other in run.shared.items()
        if other.startswith("dy") or other in A.inputs
    ]
    arrays = [(n, g) for n, g in run.handed_out.items() if isinstance(g, np.ndarray) and g.size]
    for i, (n, g) in enumerate(arrays):
        notes += [f"the gradients of {m} and {n} share memory" for m, h in arrays[:i] if np.shares_memory(g, h)]
    return notes


def _kept_memory(A: Subject, run: Run) -> list[Fault]:
    """A parameter handed out as a gradient: who scales the gradient in place changes the parameter."""
    return [
        Fault((n,), "shares memory", f"the gradient is a view of {other}: writing into one changes the other", "state")
        for n, other in run.shared.items()
        if other not in A.inputs and not other.startswith("dy")
    ]


def _repeats(A: Subject, runs: Sequence[Run], exact: Exact, what: str) -> list[Fault]:
    """The same call several times: what differs is added to by each call, or changes of itself."""
    first = runs[0]
    if error := next((r.error for r in runs if r.error is not None), None):
        if isinstance(error, (Hang, SystemExit)):
            return []
        return [Fault(A.wrt, "stale cache", f"{what} raises {told(error)} the second time", "state")]
    changed = [n for n in A.wrt if any(_differ(r.grads.get(n), first.grads.get(n), exact.grads[n]) for r in runs[1:])]
    if not changed:
        return []
    if what.startswith("backward"):
        text, fault = f"{what} gives another result: the first backward pass wrote into the cache", "mutates its cache"
    elif all(_grows([r.grads[n] for r in runs]) for n in changed):
        text, fault = f"each call adds to the result of the one before: {what}", "accumulates"
    else:
        text, fault = f"{what} gives another result each time", "not deterministic"
    return [_fault(changed, fault, text, runs[1], first.grads)]


def _adds_up(A: Subject, runs: Sequence[Run]) -> bool:
    """Return whether an object adds each call's gradients of its parameters to those before, as many do on purpose."""
    if not A.one_cache or any(r.error for r in runs):
        return False
    first = {n: g for n, g in runs[0].grads.items() if isinstance(g, np.ndarray)}
    changed = [n for n, g in first.items() if _differ(runs[1].grads.get(n), g, g)]
    if not changed or any(n in A.inputs for n in changed):
        return False
    sums = [(r.grads.get(n), i * first[n]) for i, r in enumerate(runs, 1) for n in changed]
    return not any(_differ(got, expected, expected) for got, expected in sums)


def _grows(results: Sequence[Any]) -> bool:
    """Return whether each result is a multiple of the one before, plus another: the steps are then proportional."""
    arrays = [np.asarray(r) for r in results]
    if any(a.shape != arrays[0].shape or a.dtype.kind != "f" for a in arrays):
        return False
    steps = [b - a for a, b in pairwise(arrays)]
    size = float(np.vdot(steps[0], steps[0]))
    if not size:
        return False
    rate = float(np.vdot(steps[0], steps[1])) / size
    slack = 1e-9 * max(largest(a) for a in arrays)
    return rate > 0 and all(distance(b, rate * a) <= slack for a, b in pairwise(steps))


def _in_between(b: Bench, dy: tuple[Array, ...], exact: Exact) -> list[Fault]:
    """Forward A, forward B, backward A: the cache handed back is A's, whatever came after."""
    A, B = b.subject, _another(b.subject, b.rng)
    session = A.start()
    first = execute(A, A.args, dy, b.watch, session=session)
    other = execute(B, B.args, dy, b.watch, session=session)
    late = execute(A, A.args, dy, b.watch, session=session, after=first)
    if first.error is not None or other.error is not None or late.error is not None:
        return []
    changed = [n for n in A.wrt if _differ(late.grads.get(n), first.grads.get(n), exact.grads[n])]
    text = "the result depends on another forward pass than the one it belongs to: forward A, forward B, backward A"
    return [_fault(changed, "stale cache", text, late, first.grads)] if changed else []


def _reused(b: Bench, dy: tuple[Array, ...]) -> list[Fault]:
    """The same call with another dy: a gradient by it alone, as of 3x, differs, and must not be in the same array."""
    A, session = b.subject, b.subject.start()
    first = execute(A, A.args, dy, b.watch, session=session)
    second = execute(A, A.args, tuple(-2 * d for d in dy), b.watch, session=session)
    if first.error is not None or second.error is not None:
        return []
    return _changed_since(first)


def _changed_since(run: Run) -> list[Fault]:
    """Return the fault of arrays that a run handed out and that hold something else by now."""
    changed = [
        n
        for n, g in run.handed_out.items()
        if isinstance(g, np.ndarray) and g.dtype.kind == "f" and not np.array_equal(g, run.grads[n], equal_nan=True)
    ]
    changed = ["y"] if _written_into(run) else changed
    text = "the array that was returned changes at the next call: an internal buffer is handed out and reused"
    return [Fault(tuple(changed), "shares memory", text, "state")] if changed else []


def _after_another(b: Bench, dy: tuple[Array, ...], exact: Exact, *, adds_up: bool) -> list[Fault]:
    """B after A, where B is another input, other parameters, a longer and a shorter batch: right for A, so for B."""
    A, batch = b.subject, b.batch
    others = [
        ("another input", _another(A, b.rng, params=False)),
        ("other parameters", _another(A, b.rng, inputs=False)),
    ]
    if batch is not None and batch.size > 1:
        # The sizes at which the values were compared, whose gradients are compiled already.
        longer = 33 if b.may_grow and not b.numerical and batch.size < 33 else batch.size + 3
        others += [
            ("a longer batch", A.at(with_batch(A.args, batch, longer, b.rng))),
            ("a shorter batch", A.at(with_batch(A.args, batch, 2 if batch.size > 2 else 1, b.rng))),
        ]
    found: list[Fault] = []
    for what, B in others:
        try:
            outputs = b.shapes.of(B, B.args)
            same = all(d.shape == y.shape for d, y in zip(dy, outputs, strict=True))
            dy_B = dy if same else cotangent(outputs, b.rng)
            right = b.oracle(B.args, dy_B).grads
        except Exception:
            continue
        session = A.start()
        before = execute(A, A.args, dy, b.watch, session=session)
        run = execute(B, B.args, dy_B, b.watch, session=session)
        if adds_up:
            run = _without_those_before(A, run, before)
        if before.error is not None or isinstance(run.error, (Hang, SystemExit)):
            return found
        alone = execute(B, B.args, dy_B, b.watch)
        if alone.error is not None:
            continue
        if run.error is not None:
            text = f"A, then {what} B raises {told(run.error)}, where B alone does not"
            return [*found, Fault(A.wrt, "stale cache", text, "state")]
        if not adds_up and (changed := _changed_since(before)):
            return [*found, *changed]
        wrong = [n for n in A.wrt if _off(run.grads.get(n), right[n]) and not _off(alone.grads.get(n), right[n])]
        if wrong:
            stale = all(not _differ(run.grads.get(n), before.grads.get(n), right[n]) for n in wrong)
            again = ", where it gives A's again" if stale else ""
            text = f"right for {what} B alone, and wrong for B after A{again}"
            return [*found, _fault(wrong, "stale cache", text, run, right)]
        everywhere = [n for n in A.wrt if _off(run.grads.get(n), right[n])]
        if everywhere and not any(_off(before.grads.get(n), exact.grads[n]) for n in A.wrt):
            # Something outside the target remembers A, which no copy of the target forgets; or the values say why.
            text = f"right for the first call, and wrong for the next one with {what}"
            found.append(_fault(everywhere, "unknown", text, run, right))
    return found if len(found) == len(others) else []


def _without_those_before(A: Subject, run: Run, before: Run) -> Run:
    """Return the run with the gradients of parameters that its own call added to those of the run before."""
    added = {
        n: g if n in A.inputs or not isinstance(g, np.ndarray) else g - before.grads[n] for n, g in run.grads.items()
    }
    return replace(run, grads=added)


def other_y(one: Run, other: Run) -> bool:
    """Return whether the same forward pass gave another y, as it does where it draws random numbers."""
    pairs = zip(jax.tree.leaves(one.y), jax.tree.leaves(other.y), strict=False)
    return one.error is None and other.error is None and any(_differ(p, q, p) for p, q in pairs)


def _written_into(run: Run) -> bool:
    """Return whether the arrays of y are no longer what they were when they were returned."""
    pairs = zip(jax.tree.leaves(run.handed_y), jax.tree.leaves(run.y), strict=False)
    return any(isinstance(p, np.ndarray) and not np.array_equal(p, q, equal_nan=True) for p, q in pairs)


def _another(A: Subject, rng: np.random.Generator, inputs: bool = True, params: bool = True) -> Subject:
    """Return the subject with another input, with slightly other parameters, or with both."""
    args = dict(A.args)
    for n, a in A.args.items():
        if a.dtype.kind == "f" and a.size and (inputs if n in A.inputs else params):
            if n in A.inputs:
                # A cache may hold no more than signs: where there are both, they are exchanged.
                base = -a if a.min() < 0 < a.max() else a
                args[n] = alike(a, base + 0.1 * (np.abs(base) + 0.1) * rng.standard_normal(a.shape), a)
            else:
                args[n] = near(A, n, rng)
        elif a.size and inputs and n in A.inputs:
            args[n] = rng.permutation(a.ravel()).reshape(a.shape)
    return A.at(args)


def _off(got: Any, exact: Array) -> bool:
    if not isinstance(got, (np.ndarray, np.generic)) or np.shape(got) != exact.shape:
        return False
    scale = largest(exact)
    return not distance(np.asarray(got, np.float64), exact) <= CHOICE * scale * (
        100 if np.asarray(got).dtype == np.float32 else 1
    )


def _fault(names: Sequence[str], fault: str, text: str, run: Run, other: Any) -> Fault:
    got, expected = run.grads.get(names[0]), other.get(names[0])
    arrays = isinstance(got, np.ndarray) and isinstance(expected, np.ndarray) and got.shape == expected.shape
    return Fault(tuple(names), fault, text, "state", got=got if arrays else None, expected=expected if arrays else None)


def _differ(a: Any, b: Any, scale: Array) -> bool:
    """Return whether two results differ by more than the order of a threaded sum explains."""
    if not (hasattr(a, "dtype") and hasattr(b, "dtype")):
        return type(a) is not type(b)
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return True
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return False
    return a.dtype.kind == "f" and distance(a, b) > 8 * unit_of(a.dtype) * float(
        np.max(np.abs(scale), initial=0) + np.max(np.abs(np.nan_to_num(a)), initial=0)
    )


def _shared_results(A: Subject, runs: Sequence[Run]) -> list[Fault]:
    found = []
    for name in A.wrt:
        results = [g for r in runs if isinstance(g := r.handed_out.get(name), np.ndarray) and g.size]
        if any(np.shares_memory(a, b) for i, a in enumerate(results) for b in results[:i]):
            text = "the gradient shares memory with that of an earlier call: an internal buffer is handed out"
            found.append(Fault((name,), "shares memory", text, "state"))
    return found

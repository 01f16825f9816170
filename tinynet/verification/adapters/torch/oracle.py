"""Exact gradients of a PyTorch forward pass, whatever derivatives its author wrote by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import torch

from tinynet.verification.adapters.subject import Args, Array, Exact, Oracle, Subject
from tinynet.verification.adapters.torch.plain import EVERYWHERE, IN_FUNCTIONS, NOWHERE, Plain, plain
from tinynet.verification.adapters.torch.sessions import (
    Call,
    is_differentiable,
    one_thread,
    same_draws,
    tensors_of,
    to_array,
)
from tinynet.verification.execution import told
from tinynet.verification.numerical import NumericalOracle, ridders
from tinynet.verification.probes.lines import closeness
from tinynet.verification.tolerance import LOOSER, largest

_TEXT = "PyTorch's own autograd through the body of your forward pass, float64"


@dataclass
class TorchOracle:
    """PyTorch's own autograd, with the body of a Function in place of its rule.

    Attributes:
        start: makes the forward pass on a copy of the target without hooks.
        wrt, device: as of the session.
        ignores_from: see `Plain`.
    """

    start: Callable[[], Call]
    wrt: tuple[str, ...]
    device: torch.device
    ignores_from: float = NOWHERE
    text: str = _TEXT
    resolution: float = 0.0
    caveat: str = ""

    def __call__(self, args: Args, dy: tuple[Array, ...]) -> Exact:
        """Return the outputs and the gradients of Σ dy ⊗ y, in float64."""
        return self.followed(args, dy)[0]

    def followed(self, args: Args, dy: tuple[Array, ...]) -> tuple[Exact, Plain]:
        """Return also what was met on the way."""
        leaves = {
            n: torch.from_numpy(_float64(a)).to(self.device).requires_grad_(n in self.wrt) for n, a in args.items()
        }
        call, copies = self.start(), {n: t.clone() for n, t in leaves.items()}
        with same_draws(self.device), one_thread(), torch.enable_grad(), plain(self.ignores_from) as mode:
            outs = [t for t in tensors_of(call(copies)) if is_differentiable(t)]
            grads: Any = [None] * len(self.wrt)
            if outs:
                dys = [torch.from_numpy(_float64(d)).to(self.device) for d in dy]
                grads = torch.autograd.grad(outs, [leaves[n] for n in self.wrt], dys, allow_unused=True)
        exact = {n: np.zeros(args[n].shape) if g is None else to_array(g) for n, g in zip(self.wrt, grads, strict=True)}
        return Exact(tuple(to_array(o) for o in outs), exact), mode


@dataclass(frozen=True)
class Choice:
    """The oracle of a target.

    Attributes:
        oracle: makes it, for the arrays whose gradients are asked for.
        reading: its `ignores_from`; None where it is numerical.
        notes: how the forward pass was read.
        functions: the Functions in it, each with the arguments at its first call.
    """

    oracle: Callable[[tuple[str, ...]], Oracle]
    reading: float | None
    notes: tuple[str, ...] = ()
    functions: Mapping[Any, tuple[Any, ...]] | None = None


def choose_oracle(
    subject: Subject, start: Callable[[], Call], device: torch.device, rng: np.random.Generator
) -> Choice:
    """Return PyTorch's autograd where differences of the forward pass confirm it, else differences.

    Where `detach` stands in the body of a Function, it is read in the way that makes the target's gradients right.
    """
    args = subject.args
    session = subject.start()
    y, context = session.forward(args)
    leaves = jax.tree.leaves(y)
    dy = tuple(rng.standard_normal(np.shape(leaf)).astype(leaf.dtype) for leaf in leaves)

    def read(ignores_from: float) -> TorchOracle:
        return TorchOracle(start, subject.wrt, device, ignores_from, resolution=LOOSER * closeness(subject))

    def call(moved: Args) -> tuple[Array, ...]:
        return tuple(jax.tree.leaves(subject.start().forward(moved)[0]))

    def differences(reason: str) -> Choice:
        note = f"PyTorch cannot differentiate the body of forward: {reason}; compared with differences"
        return Choice(lambda wrt: NumericalOracle(call, wrt, why=reason), None, (note,), {})

    try:
        whole, mode = read(EVERYWHERE).followed(args, dy)
    except Exception as error:
        return differences(told(error))
    if not _confirmed(call, args, dy, whole, rng):
        at = f" at {next(iter(mode.left))}" if mode.left else ""
        return differences(f"values leave it{at}")
    candidates = [(reading, read(reading).followed(args, dy)[0]) for reading in (NOWHERE, IN_FUNCTIONS) if mode.stopped]
    if not candidates or all(_same(whole, exact) for _, exact in candidates):
        return Choice(lambda wrt: replace(read(NOWHERE), wrt=wrt), NOWHERE, (), mode.functions)
    try:
        grads = session.backward(context, jax.tree.unflatten(jax.tree.structure(y), dy))
    except Exception:
        grads = {}
    reading, _ = min(candidates, key=lambda c: _distance(grads, c[1]))
    without = [line for line, inside in mode.stopped.items() if inside and reading == IN_FUNCTIONS]
    stopping = [line for line in mode.stopped if line not in without]
    notes = [f"detach or no_grad at {', '.join(stopping)} stops the derivative"][: len(stopping)]
    notes += [f"detach or no_grad at {', '.join(without)}, in the body of a Function, stops nothing"][: len(without)]
    return Choice(lambda wrt: replace(read(reading), wrt=wrt), reading, tuple(notes), mode.functions)


def _confirmed(
    call: Callable[[Args], tuple[Array, ...]], args: Args, dy: tuple[Array, ...], exact: Exact, rng: np.random.Generator
) -> bool:
    """Return whether differences along a random direction contradict nothing; noise and jumps confirm anything."""
    along = {n: rng.standard_normal(args[n].shape) * (np.sqrt(np.mean(args[n] ** 2)) or 1.0) for n in exact.grads}

    def f(h: float) -> tuple[Array, ...]:
        moved = {n: (a + h * along[n]).astype(a.dtype) if n in along else a.copy() for n, a in args.items()}
        return call(moved)

    along_y, error = ridders(f, 0.1)
    flat = np.concatenate([np.ravel(d) for d in dy])
    slopes, errors = along_y * flat, error * np.abs(flat)
    terms = [float(np.sum(along[n] * g)) for n, g in exact.grads.items()]
    size = sum(float(np.sum(np.abs(along[n] * g))) for n, g in exact.grads.items())
    return not abs(float(slopes.sum()) - sum(terms)) > float(errors.sum()) + 1e-6 * (size + float(np.abs(slopes).sum()))


def _same(one: Exact, other: Exact) -> bool:
    return all(np.allclose(g, other.grads[n], rtol=1e-12, atol=0) for n, g in one.grads.items())


def _distance(got: Mapping[str, Any], exact: Exact) -> float:
    """Return how far gradients are from exact ones, relative to the largest of each; in steps of rounding."""
    worst = 0.0
    for name, want in exact.grads.items():
        mine = np.zeros(want.shape) if got.get(name) is None else np.asarray(got[name])
        if mine.shape != want.shape:
            return float("inf")
        scale = largest(want) + largest(mine)
        worst = max(worst, largest(mine - want) / scale if scale else 0.0)
    return 0.0 if worst < 1e-5 else worst


def _float64(array: Array) -> Array:
    array = np.array(array)
    return array.astype(np.float64) if array.dtype.kind == "f" else array

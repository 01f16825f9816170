"""Gradients that deviate from the forward pass on purpose: straight-through, reversed, surrogate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinynet.verification.adapters.parts import followed
from tinynet.verification.adapters.subject import Args, Array, Draw, Exact, Oracle, Subject, TargetError
from tinynet.verification.execution import Watch, told
from tinynet.verification.numerical import NumericalOracle
from tinynet.verification.oracle import find_oracle, leaves_of


@dataclasses.dataclass(frozen=True)
class _Intended:
    """The outputs of the target, and the gradients of the function that is meant instead."""

    meant: Oracle
    outputs: Callable[[Args], tuple[Array, ...]]

    @property
    def text(self) -> str:
        return self.meant.text.replace("your forward pass", "intended=")

    @property
    def resolution(self) -> float:
        return self.meant.resolution

    @property
    def caveat(self) -> str:
        return self.meant.caveat

    def __call__(self, args: Args, dy: tuple[Array, ...]) -> Exact:
        return dataclasses.replace(self.meant(args, dy), y=self.outputs(args))


def as_intended(subject: Subject, intended: Callable[..., Any], watch: Watch) -> Subject:
    """Return a subject whose gradients are judged by those of `intended`, which takes the same arguments.

    Raises:
        TargetError: it is a form whose arguments another function cannot take.
    """
    called = subject.reference
    if called is None:
        raise TargetError(
            f"{subject.name}: intended= goes with arrays of NumPy's and JAX's, and with functions of them"
        )

    if not subject.contract and (held := [n for n in subject.wrt if n not in subject.inputs]):
        raise TargetError(
            f"{subject.name}: intended= takes {', '.join(subject.inputs)}, and cannot mean the gradient of {held[0]}; "
            f"say which it means: wrt={list(subject.inputs)}"
        )

    def outputs(s: Subject, args: Args) -> tuple[Array, ...]:
        return leaves_of(s.start().forward({n: np.array(a) for n, a in args.items()})[0])

    def meant_outputs(args: Args) -> tuple[Array, ...]:
        return leaves_of(called(intended, {n: np.array(a) for n, a in args.items()}))

    def make(s: Subject) -> Oracle:
        y = outputs(s, s.args)
        _check(s, y, meant_outputs)
        meant: Oracle = NumericalOracle(meant_outputs, s.wrt)
        if s.library != "torch":
            other = dataclasses.replace(s, pure=followed(intended, called), make_oracle=None, library="numpy")
            found = find_oracle(other, watch, tuple(np.ones_like(leaf) for leaf in y))
            meant = meant if isinstance(found, NumericalOracle) else found
        return _Intended(meant, lambda args: outputs(s, args))

    def settled(s: Subject, draws: Sequence[Draw]) -> Subject:
        return dataclasses.replace(subject.settle(s, draws), modes=list) if subject.settle is not None else s

    note = "the gradients are those of intended=, not of the forward pass"
    return dataclasses.replace(
        subject,
        make_oracle=make,
        variants=lambda rng: [(label, as_intended(v, intended, watch)) for label, v in subject.variants(rng)],
        narrower=None,
        parts=list,
        modes=list,
        settle=subject.settle and settled,
        notes=(*subject.notes, note),
    )


def _check(subject: Subject, y: tuple[Array, ...], meant_outputs: Callable[[Args], tuple[Array, ...]]) -> None:
    """Refuse a function that does not take the arguments of the forward pass or returns other shapes."""
    try:
        shapes = [leaf.shape for leaf in meant_outputs(subject.args)]
    except Exception as error:
        raise TargetError(
            f"{subject.name}: intended= raises {told(error)}; expected a function of {', '.join(subject.inputs)}"
        ) from error
    if shapes != [leaf.shape for leaf in y]:
        raise TargetError(
            f"{subject.name}: intended= returns {_listed(shapes)}; expected {_listed(leaf.shape for leaf in y)}, "
            "as the forward pass does"
        )


def _listed(shapes: Iterable[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "no array"

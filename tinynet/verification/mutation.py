"""The verifier verified by mutants: one small change in a backward pass, and whether `verify` notices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynet.losses import Loss
from tinynet.testing import Mutant, mutate_backward
from tinynet.testing.faulty import instance_of
from tinynet.trees import leaves
from tinynet.verification.cases import CASES, Case
from tinynet.verification.subjects import make_subject
from tinynet.verification.trial import PROBES
from tinynet.verification.verify import verify

__all__ = ["EQUIVALENT", "MUTATED", "Equivalent", "MutationScore", "mutation_score"]

MUTATED: tuple[type, ...] = tuple(dict.fromkeys(type(case.target) for case in CASES))
"""The classes whose mutants are verified: every public layer and loss."""


@dataclass(frozen=True)
class Equivalent:
    """Mutants of one class that compute the same as the original.

    Attributes:
        texts: what stands in the description of each, after the arrow; one mutant a text.
        reason: why it is the same.
    """

    texts: tuple[str, ...]
    reason: str


EQUIVALENT: dict[type, tuple[Equivalent, ...]] = {}

_PROBES = tuple(probe for probe in PROBES if probe != "compiled")  # which compiles anew for each mutant


@dataclass(frozen=True)
class MutationScore:
    """What became of the mutants of one class.

    Attributes:
        mutants: how many there are; those of `forward` whose cache is the original's are not counted.
        equivalent: the survivors that `EQUIVALENT` lists.
        survivors: the others that verify passes: there should be none.
    """

    cls: type
    mutants: int
    equivalent: tuple[str, ...]
    survivors: tuple[str, ...]

    @property
    def killed(self) -> int:
        return self.mutants - len(self.equivalent) - len(self.survivors)


def mutation_score(cls: type[Any]) -> MutationScore:
    """Verify every mutant of `cls` on the cases of that class, until one of them does not pass."""
    suspects = [case for case in CASES if type(case.target) is cls]
    right = [_caches(case.target, case) for case in suspects]
    backward = mutate_backward(cls)
    mutants = list(backward)
    for mutant in mutate_backward(cls, forward=True)[len(backward) :]:
        caches = [_caches(instance_of(mutant.cls, case.target), case) for case in suspects]
        if None not in caches and caches != right:
            mutants.append(mutant)
    passing = [m.description for m in mutants if all(_passes(m, case) for case in suspects)]
    known = [text for equivalent in EQUIVALENT.get(cls, ()) for text in equivalent.texts]
    equivalent = tuple(p for p in passing if any(p.endswith(text) for text in known))
    return MutationScore(cls, len(mutants), equivalent, tuple(p for p in passing if p not in equivalent))


def _passes(mutant: Mutant, case: Case) -> bool:
    suspect = instance_of(mutant.cls, case.target)
    return verify(suspect, inputs=case.inputs, dtype="float64", probes=_PROBES, named=False).ok


def _caches(target: Any, case: Case) -> list[tuple[Any, ...]] | None:
    """What a forward pass leaves for the backward pass, at usual, large and tied inputs; None if it raises."""
    subject = make_subject(case.target, case.inputs, None, None, np.random.default_rng(0))
    setattr(subject, "loss" if isinstance(target, Loss) else "layer", target)
    name, x = subject.batched[0], subject.args[subject.batched[0]]
    found = []
    for given in (x, 6 * x, np.round(x)) if x.dtype.kind == "f" else (x,):
        try:
            _, cache = subject.session().forward({n: a.copy() for n, a in {**subject.args, name: given}.items()})
        except Exception:
            return None
        found += [(np.shape(leaf), np.asarray(leaf).dtype, np.asarray(leaf).tobytes()) for leaf in leaves(cache)]
    return found

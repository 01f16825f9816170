"""The verifier verified by mutants: one small change in a backward pass, and whether `verify` notices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinynet as tn
from tinynet.testing import Mutant, mutate_backward
from tinynet.testing.seeded_faults import example
from tinynet.testing.wrong_targets import instance_of
from tinynet.trees import leaves, map_leaves
from tinynet.verification.cases import CASES, Case

MUTATED: tuple[type, ...] = tuple(dict.fromkeys(type(case.target) for case in CASES))
"""The classes whose mutants are verified: every public layer and loss."""


@dataclass(frozen=True)
class Equivalent:
    """Mutants of one class that compute the same as the original.

    Attributes:
        change: what stands in each, written `method: changed line`, and in no other survivor.
        reason: why it is the same.
        count: how many they are.
    """

    change: str
    reason: str
    count: int = 1


_VECTOR = "the transpose of a vector is itself"
_NEGATIVE = "NumPy infers every negative length; JAX refuses it, which is no gradient"
_FOUR = "of four axes, -2 and 2 are the same"
_KINK = "at z = 0 each slope between those of the two sides is right"
_TOO_MANY = "the entries beyond kernel² are never read"
_COPIED = "whether an array that has its dtype already is copied changes no number"
_WIDE = "float32 and float64, which are verified, are wide enough already"
_PAIRED = "of two, 1 and -1 are the same"
_ALONE = "of one, 0 and -1 are the same"
_MATRIX = "of two axes, 1 and -1 are the same"
_AS_LONG = "`strict` says that lengths are equal, which they are"
_ALL_OR_NONE = "lengths go in for all branches or for none"
_SHIFT = "the softmax of scores that are all moved is the same"
_BLOCKS = "how samples are cut into blocks, for the processor's cache, changes no sum"

EQUIVALENT: Mapping[type, Sequence[Equivalent]] = {
    tn.Linear: (Equivalent("'b': Δ.sum(axis=0).T}", _VECTOR),),
    tn.ReLU: (Equivalent("z >= 0)", _KINK),),
    tn.LeakyReLU: (Equivalent("z >= 0)", _KINK),),
    tn.GELU: (Equivalent("copy=True", _COPIED),),
    tn.LayerNorm: (
        Equivalent("g = dy * params['gamma']", _WIDE),
        Equivalent("copy=True), dparams)", _COPIED),
        Equivalent("copy=False).T, 'beta'", _VECTOR),
        Equivalent("copy=True), 'beta'", _COPIED),
        Equivalent("'beta': rows(dy).sum(axis=0).T}", _VECTOR),
    ),
    tn.RMSNorm: (
        Equivalent("g = dy * params['gamma']", _WIDE),
        Equivalent("copy=True), dparams)", _COPIED),
        Equivalent("copy=False).T}", _VECTOR),
        Equivalent("copy=True)}", _COPIED),
    ),
    tn.BatchNorm: (
        Equivalent("dx = dy * self._along(params['gamma'], dy)", _WIDE),
        Equivalent("max(0, dy.size // self.n)", "without samples every sum is 0"),
        Equivalent("max(-1, dy.size // self.n)", "without samples every sum is 0"),
        Equivalent("copy=True), dparams)", _COPIED),
        Equivalent("copy=False).T, 'beta'", _VECTOR),
        Equivalent("copy=True), 'beta'", _COPIED),
        Equivalent("'beta': dy.sum(axis=axes).T}", _VECTOR),
        Equivalent("v.reshape(-2, *(1,)", _NEGATIVE),
        Equivalent("batch = {'mean': ", "what `update_state` reads is no gradient", count=3),
    ),
    tn.RNN: (
        Equivalent("self._grads(params, cache, dy)[-1]", _PAIRED),
        Equivalent("dcarry[-1] + dy", _ALONE),
        Equivalent("*dcarry[2:]", "there are no others"),
        Equivalent("(ε @ W_hh, *others)", "the cell has no path to h but W_hh"),
        Equivalent("nothing[-1]", "every step of it is zeros"),
        Equivalent("Δ.sum(axis=0).T", _VECTOR),
        Equivalent("Δ_hh.sum(axis=0).T", _VECTOR),
        Equivalent("n = self.n_out", "it has one gate"),
    ),
    tn.GRU: (
        Equivalent("self._grads(params, cache, dy)[-1]", _PAIRED),
        Equivalent("dcarry[-1] + dy", _ALONE),
        Equivalent("*dcarry[2:]", "there are no others"),
        Equivalent("nothing[-1]", "every step of it is zeros"),
        Equivalent("Δ.sum(axis=0).T", _VECTOR),
        Equivalent("Δ_hh.sum(axis=0).T", _VECTOR),
        Equivalent("namespace(dcarry[-1])", _ALONE),
        Equivalent("axis=1)", _MATRIX, count=2),
    ),
    tn.LSTM: (
        Equivalent("self._grads(params, cache, dy)[-1]", _PAIRED),
        Equivalent("*dcarry[-1:]", _PAIRED),
        Equivalent("(ε @ W_hh, *others)", "the cell has no path to h but W_hh"),
        Equivalent("nothing[-1]", "every step of it is zeros"),
        Equivalent("Δ.sum(axis=0).T", _VECTOR),
        Equivalent("Δ_hh.sum(axis=0).T", _VECTOR),
        Equivalent("namespace(dcarry[", "all of them are of one library", count=2),
        Equivalent("axis=1)", _MATRIX),
        Equivalent("start: return (h, h)", "both begin with zeros"),
    ),
    tn.MultiHeadAttention: (
        Equivalent("self._grads(params, cache, dy)[-1]", _PAIRED),
        Equivalent("swapaxes(-1, 2)", _FOUR, count=3),
        Equivalent("Δ_in.sum(axis=0).T", _VECTOR),
        Equivalent("Δ_out.sum(axis=0).T", _VECTOR),
        Equivalent("swapaxes(1, -2)", _FOUR, count=2),
        Equivalent("z.shape[:-2]", _FOUR),
    ),
    tn.Conv1d: (
        Equivalent("t + (2 + p))", "what is too wide is cut off at the end"),
        Equivalent("t + 2), dtype", "what is too wide is cut off at the end"),
        Equivalent("t + 3 * p)", "what is too wide is cut off at the end"),
        Equivalent("'b': Δ.sum(axis=(0, 2)).T}", _VECTOR),
        Equivalent("-(self.kernel * self.n_in))", _NEGATIVE),
        Equivalent("3 * self.padding", "windows beyond the padded end are cut off"),
        Equivalent("[(p, p)])", "padding with nothing is no change"),
    ),
    tn.Add: (
        Equivalent("strict=False", _AS_LONG, count=2),
        Equivalent("if terms[1] is None", _ALL_OR_NONE),
        Equivalent("if terms[-1] is None", _ALL_OR_NONE),
    ),
    tn.Concatenate: (
        Equivalent("strict=False", _AS_LONG, count=3),
        Equivalent("return sum(terms[1:], terms[0])", "None goes in for lengths, which its cases do not have"),
        Equivalent("if terms[1] is None", _ALL_OR_NONE),
        Equivalent("if terms[-1] is None", _ALL_OR_NONE),
        Equivalent("sum(terms[-1:], terms[0])", "its cases have two branches, and Add's three"),
    ),
    tn.Tied: (
        Equivalent("_put: return {**params, key: part}", "the dicts of the package's layers hold arrays, and no dicts"),
        Equivalent("_put: return parts", "a list in the place of a tuple has the same arrays in the same order"),
        Equivalent("else part[int(key)]", "what is no dict is a tuple already"),
        Equivalent("_without: (deleted)", "it refuses a path that leads nowhere"),
    ),
    tn.Shared: (Equivalent("strict=False", _AS_LONG, count=3),),
    tn.InfoNCE: (
        Equivalent("sum(axis=-1, keepdims=True) * a)", _MATRIX),
        Equivalent("r_a, r_b = (-", "both signs change, and a · b does not", count=2),
        Equivalent("S += S.max(", _SHIFT),
        Equivalent("forward: (deleted)", _SHIFT),
        Equivalent("S -= S.max(keepdims", _SHIFT),
        Equivalent("S -= S.max(axis=None", _SHIFT),
    ),
    tn.Flatten: (Equivalent("return (dy.reshape(x.shape), {})", "a view of dy is right, and a note"),),
    tn.Conv2d: (
        Equivalent("'b': Δ.sum(axis=(0, 2, 3)).T}", _VECTOR),
        Equivalent("'b': Δ.sum(axis=(0, -2, 3))}", _FOUR),
        Equivalent(".transpose(1, 3, 0, -2)", _FOUR),
        Equivalent("W.transpose(-2, 0, 3, 1)", _FOUR),
        Equivalent("x.reshape(*x.shape[:2], ", _FOUR),
        Equivalent("x.shape[2] * x.shape[-1])", _FOUR),
        Equivalent("self.n_out, -(self.kernel * self.n_in))", _NEGATIVE),
        Equivalent(".reshape(m, -(self.kernel * self.n_in), rows, columns)", _NEGATIVE),
        Equivalent("-(x.shape[-2] * x.shape[-1]))", _NEGATIVE),
        Equivalent("width + 3 * p), dtype", "what is too wide is cut off at the end"),
        Equivalent("a = xp.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])", "padding with nothing is no change"),
        Equivalent("_work: ", _BLOCKS, count=10),
    ),
    tn.MaxPool2d: (
        Equivalent("arange(self.kernel ** 3)", _TOO_MANY),
        Equivalent(".reshape(-2, 1, 1)", _NEGATIVE),
    ),
    tn.AvgPool2d: (Equivalent("self.kernel ** 3, rows, columns)", _TOO_MANY),),
}
"""The mutants of the package that no test of gradients can kill."""


@dataclass(frozen=True)
class MutationScore:
    """What became of the mutants of one class.

    Attributes:
        mutants: how many there are; those of `forward` whose cache is the original's are not counted.
        equivalent: the survivors that `EQUIVALENT` lists.
        survivors: the others that `verify` passes, by every probe and in both dtypes: there should be none.
    """

    cls: type
    mutants: int
    equivalent: tuple[Mutant, ...]
    survivors: tuple[Mutant, ...]

    @property
    def killed(self) -> int:
        return self.mutants - len(self.equivalent) - len(self.survivors)


def mutation_score(cls: type[Any], known: Mapping[type, Sequence[Equivalent]] = EQUIVALENT) -> MutationScore:
    """Verify every mutant of `cls` on the cases of that class, until one of them does not pass."""
    cases = [case for case in CASES if type(case.target) is cls]
    right = [_caches(case.target, case) for case in cases]
    backward = mutate_backward(cls)
    mutants = list(backward)
    for mutant in mutate_backward(cls, forward=True)[len(backward) :]:
        caches = [_caches(instance_of(mutant.cls, case.target), case) for case in cases]
        if None not in caches and caches != right:
            mutants.append(mutant)
    passing = mutants
    for options in ({"dtype": "float64", "probes": ["rectangular"]}, {"dtype": "float64"}):
        passing = [m for m in passing if all(_passes(m, case, **options) for case in cases)]
    equivalent: list[Mutant] = []
    for kind in known.get(cls, ()):
        alike = [m for m in passing if kind.change in f"{m.method}: {m.description.partition(' → ')[2]}"]
        equivalent += alike if len(alike) == kind.count else []
    rest = [m for m in passing if m not in equivalent]
    survivors = tuple(m for m in rest if all(_passes(m, case) for case in cases))
    return MutationScore(cls, len(mutants), tuple(equivalent), survivors)


def _passes(mutant: Mutant, case: Case, **options: Any) -> bool:
    try:
        return bool(tn.verify(instance_of(mutant.cls, case.target), inputs=case.inputs, named=False, **options).ok)
    except tn.TargetError:
        return False  # it cannot be called at all


def _caches(target: Any, case: Case) -> list[tuple[Any, ...]] | None:
    """Return what a forward pass leaves for the backward pass, at usual, large and tied inputs; None if it raises."""
    x, other = example(case.target, case.inputs, np.random.default_rng(0))
    found: list[tuple[Any, ...]] = []
    for change in (lambda a: a, lambda a: 6 * a, np.round) if leaves(x)[0].dtype.kind == "f" else (lambda a: a,):
        changed = map_leaves(change, x)
        try:
            with np.errstate(all="ignore"):
                _, cache = target.forward(*((changed, other) if isinstance(target, tn.Loss) else (other, changed)))
        except Exception:
            return None
        found += [(np.shape(leaf), np.asarray(leaf).dtype, np.asarray(leaf).tobytes()) for leaf in leaves(cache)]
    return found

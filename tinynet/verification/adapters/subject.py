"""The one form in which the verifier knows a target: named arrays in, arrays out, named gradients back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tinynet.verification.tolerance import LARGE

Array: TypeAlias = npt.NDArray[Any]

Args: TypeAlias = Mapping[str, Array]
"""Every array that a target takes, by name: `x`, `params.W`, `p.W`, `layers.0.b`."""

Gradients: TypeAlias = Mapping[str, Any]
"""What a target returns as gradients, by the same names: an array, None, MISSING, or anything else that it is."""


class TargetError(ValueError):
    """The target, its inputs or its parameters are nothing that can be verified."""


class Malformed(Exception):
    """A target returned something of another form than its convention has; the text says what."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()
"""In place of a gradient that is not returned at all."""

LABELS = frozenset("y t target targets label labels y_true".split())
"""Arguments that are called so are what a prediction is compared with."""

DATA_NAMES = LABELS | {"mask", "lengths"}
"""Arguments that are called so are data, of which no gradient need be returned."""


class Session(Protocol):
    """A copy of the target that has seen nothing yet; it remembers what the target remembers."""

    def forward(self, args: Args) -> tuple[Any, Any]:
        """Return (y, context): y is a pytree of arrays, the context is for `backward`."""

    def backward(self, context: Any, dy: Any) -> Gradients:
        """Return the gradients of Σ dy ⊗ y, dy of y's structure."""


class Oracle(Protocol):
    """Exact gradients of a forward pass.

    Attributes:
        text: what it is, for the report: "jax.vjp of your forward pass, float64".
        resolution: the smallest relative error that it can see; 0 where rounding alone limits it.
        caveat: why the verdict can be no more than FAIL or INCONCLUSIVE; "" where the oracle is sound.
    """

    @property
    def text(self) -> str: ...

    @property
    def resolution(self) -> float: ...

    @property
    def caveat(self) -> str: ...

    def __call__(self, args: Args, dy: tuple[Array, ...]) -> Exact:
        """Return the outputs and the gradients at `args`, in float64."""


@dataclass(frozen=True)
class Exact:
    """The leaves of y and the gradient of every array of `wrt`, in float64.

    Attributes:
        uncertainty: of a gradient, the largest error of an entry, where more than rounding limits it.
    """

    y: tuple[Array, ...]
    grads: Mapping[str, Array]
    uncertainty: Mapping[str, float] = field(default_factory=dict)


Draw: TypeAlias = "tuple[Args, tuple[Array, ...], Exact]"
"""Arrays, a cotangent and what is exact there."""


@dataclass(frozen=True)
class Subject:
    """A target, as the stages of the verifier take it.

    Attributes:
        name: what the report calls it.
        args: an example of every array by name, float64 or integers.
        wrt: the names of the arrays whose gradients are judged.
        inputs: the names of the arrays that are arguments of the forward pass, in order; the others are parameters.
        start: makes a `Session`.
        pure: the forward pass on arrays of JAX's, or on `Traced` ones if its second argument is true; its result is a
            pytree. None where only `make_oracle` can tell.
        make_oracle: for a target that brings its own oracle, a function of the subject.
        contract: whether it follows tinynet's own contract, by which shape and dtype of a gradient are part of it.
        variants: the same target in other widths, by label.
        modes: the same target with one flag turned, by label.
        narrower: the same target with axes that many times shorter; None where its arrays alone say how long they are.
        parts: the layers inside a composite with what reaches them: (path, subject).
        reference: calls an independent forward pass with the arrays of the target.
        updates: the arrays that it may write into: running statistics, which are handed in.
        may_lack: the arrays for which no gradient need be returned (targets, masks).
        one_cache: whether the target keeps what one forward pass leaves on itself.
        depth: how many layers contribute rounding.
        code: the functions that compute y and the gradients, for the lines that ran.
        constants: numbers of the configuration, for names of factors.
        configuration: the attributes of the target that never change.
        settle: chooses among the places where gradients of a subject may be found, by exact values at a few draws.
        notes: how the target was read.
        library: "numpy", "jax" or "torch": whose arrays the target takes.
    """

    name: str
    args: Args
    wrt: tuple[str, ...]
    inputs: tuple[str, ...]
    start: Callable[[], Session]
    pure: Callable[[Mapping[str, Any], bool], Any] | None = None
    make_oracle: Callable[[Subject], Oracle] | None = None
    contract: bool = False
    variants: Callable[[np.random.Generator], list[tuple[str, Subject]]] = field(default=lambda rng: [])
    modes: Callable[[], list[tuple[str, Subject]]] = field(default=list)
    narrower: Callable[[int], Subject] | None = None
    parts: Callable[[], list[tuple[str, Subject]]] = field(default=list)
    reference: Callable[[Callable[..., Any], Args], Any] | None = None
    updates: frozenset[str] = frozenset()
    may_lack: frozenset[str] = frozenset()
    one_cache: bool = False
    depth: int = 1
    code: tuple[Callable[..., Any], ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    configuration: frozenset[str] = frozenset()
    settle: Callable[[Subject, Sequence[Draw]], Subject] | None = None
    notes: tuple[str, ...] = ()
    library: str = "numpy"

    def at(self, args: Args) -> Subject:
        """Return the same subject with other arrays."""
        return replace(self, args=args)

    def shapes(self) -> str:
        """Return the shapes of the inputs in a line: `x (2, 5, 4)`."""
        return ", ".join(f"{n} {tuple(self.args[n].shape)}" for n in self.inputs)

    @property
    def is_large(self) -> bool:
        """Whether each run of it takes long."""
        return sum(a.size for a in self.args.values()) > LARGE

    def judged_for(self, names: Collection[str]) -> Subject:
        """Return the same subject, and its variants, judged only for these of its gradients."""

        def variants(rng: np.random.Generator) -> list[tuple[str, Subject]]:
            narrowed = [(label, v.judged_for(names)) for label, v in self.variants(rng)]
            return [(label, v) for label, v in narrowed if v.wrt]

        return replace(self, wrt=tuple(n for n in self.wrt if n in names), variants=variants)

    def that_updates(self, names: Collection[str]) -> Subject:
        """Return the same subject, and its variants, that may write into these arrays, of which it has no gradient."""
        kept = self.judged_for([n for n in self.wrt if n not in names])

        def variants(rng: np.random.Generator) -> list[tuple[str, Subject]]:
            return [(label, replace(v, updates=frozenset(names))) for label, v in kept.variants(rng)]

        note = f"{', '.join(names)}: written into and without a gradient, as running statistics are"
        return replace(kept, updates=frozenset(names), variants=variants, notes=(*self.notes, note))


def shorter(length: int, divisor: int) -> int:
    """Return a length divided, where it divides evenly and leaves more than two."""
    return length // divisor if length % divisor == 0 and length > 2 * divisor else length


def shortened(a: Any, divisor: int) -> Any:
    """Return evenly spaced entries of an array along each axis that `shorter` shortens; whole numbers divided likewise.

    So what counts or selects entries stays in range.
    """
    if not isinstance(a, np.ndarray):
        return a
    kept = a[tuple(slice(None, None, k // shorter(k, divisor)) if k else slice(0) for k in a.shape)].copy()
    return kept // divisor if a.dtype.kind in "iu" and np.max(kept, initial=0) >= divisor else kept


def short(target: Any) -> str:
    """Name a target in a line."""
    name = getattr(target, "__qualname__", None) if callable(target) else None
    text = name.replace("<locals>.", "") if name else repr(target)
    if text == object.__repr__(target):  # which says where in memory it lies
        return type(target).__name__
    return text if len(text) <= 60 else f"{type(target).__name__}(…)"

"""The oracle: exact gradients of the target's own forward pass.

`jax.vjp` in float64, one `jax.jit` a shape, with 64-bit mode on for the length of a call and the user's own rules of
differentiation left out. A forward pass that branches in Python on its values is differentiated as it runs, without a
jit. What JAX cannot follow at all is differentiated numerically, to the resolution that differences have.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tinynet.verification.adapters.subject import Args, Array, Exact, Oracle, Subject
from tinynet.verification.execution import Hang, Watch, execute, full_precision, seed_generators
from tinynet.verification.jaxpr import Program, compiled_vjp, is_long, trace
from tinynet.verification.numerical import ENTRIES, NumericalOracle
from tinynet.verification.numpy_as_jax import explain, recorded, replayed
from tinynet.verification.probes.lines import closeness
from tinynet.verification.tolerance import COARSEST, JUMP, LONG_AS_IT_RUNS, LOOSER, LOST, PATIENCE, ROUNDINGS, largest

ERRORS = 4093
"""How many errors are drawn for all operations: a prime, so that no two rows of an array get the same ones."""
_ITERATED = 1e-12
"""How well a result is known, at best, that comes from a loop which JAX cannot follow back."""


def shapes_of(args: Args) -> tuple[Any, ...]:
    """Return what a compilation depends on."""
    return tuple((n, a.shape, a.dtype.str) for n, a in args.items())


@dataclass
class JaxOracle:
    """`jax.vjp` of a subject's forward pass, traced and compiled once for each set of shapes.

    Attributes:
        subject: whose forward pass it is.
        manners: whether the arrays have NumPy's manners while it is traced.
        eager: whether it is differentiated as it runs, since it branches on values.
        is_slow: whether it is then a loop of many operations; None before the first call.
    """

    subject: Subject
    watch: Watch
    manners: bool
    eager: bool = False
    is_slow: bool | None = None
    resolution: float = 0.0
    caveat: str = ""
    _programs: dict[Any, Program] = field(default_factory=dict)
    _compiled: dict[Any, Any] = field(default_factory=dict)
    _asked: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    _taken: set[Any] = field(default_factory=set)
    _refused: set[Any] = field(default_factory=set)

    @property
    def text(self) -> str:
        read, runs = ", NumPy read as JAX" if self.manners else "", " as it runs" if self.eager else ""
        return f"jax.vjp of your forward pass{read}{runs}, float64"

    @property
    def traced(self) -> bool:
        return bool(self._programs)

    def program(self, args: Args) -> Program:
        """Return the traced forward pass at the shapes of `args`, with the branches that it takes at their values.

        Raises:
            Exception: whatever JAX raises where it cannot be traced.
        """
        return self._traced(self._key(args), args)

    def _traced(self, key: tuple[Any, ...], args: Args) -> Program:
        if key not in self._programs:
            pure = self.subject.pure
            assert pure is not None
            seed_generators(self.subject.library)
            if self.eager:
                fixed = {n: a for n, a in args.items() if n not in self.subject.wrt}
                with replayed(key[-1]):
                    self._programs[key] = self.watch.call(lambda: trace(lambda a: pure({**a, **fixed}, True), args))
            else:
                self._programs[key] = self.watch.call(lambda: trace(lambda a: pure(a, self.manners), args))
        return self._programs[key]

    def _key(self, args: Args) -> tuple[Any, ...]:
        """Return what a trace depends on: shapes; where values are asked for, these, and what is not differentiated.

        Raises:
            Exception: whatever the target raises.
        """
        shapes = shapes_of(args)
        if not self.eager:
            return (shapes,)
        digests = {n: hashlib.blake2b(a.tobytes()).digest() for n, a in args.items()}
        place = (shapes, tuple(digests.values()))
        if place not in self._asked:
            pure, wrt = self.subject.pure, self.subject.wrt
            assert pure is not None
            seed_generators(self.subject.library)
            with jax.enable_x64(True), recorded() as answers:
                self.watch.call(lambda: pure({n: jnp.asarray(a) if n in wrt else a for n, a in args.items()}, True))
            self._asked[place] = tuple(answers)
        fixed = tuple(d for n, d in digests.items() if n not in self.subject.wrt)
        return shapes, fixed, self._asked[place]

    def __call__(self, args: Args, dy: tuple[Array, ...]) -> Exact:
        args64 = as_float64(args)
        if not any(np.size(d) for d in dy):  # of no output every gradient is 0
            return Exact(tuple(map(np.zeros_like, dy)), {n: np.zeros_like(args64[n]) for n in self.subject.wrt})
        key = self._key_of_trace(args64) if self.eager else self._key(args64)
        if key is None:
            return self._as_it_runs(args64, dy)
        return self._run(key, args64, dy)

    def _run(self, key: tuple[Any, ...], args: Args, dy: tuple[Array, ...], *noise: Array) -> Exact:
        """Run the compiled program of this key, one that rounds where `noise` is given."""
        dy = tuple(np.asarray(d, np.float64) for d in dy)
        place = key, bool(noise)
        if place not in self._compiled:
            self._compiled[place] = compiled_vjp(self._traced(key, args), self.subject.wrt, rounds=bool(noise))
            self._compiled[place](args, dy, *noise)  # compiles, which no watch counts
        call = self._compiled[place]
        y, grads = self.watch.call(lambda: call(args, dy, *noise))
        return Exact(tuple(map(np.asarray, y)), {n: np.asarray(g) for n, g in grads.items()})

    def _key_of_trace(self, args: Args) -> tuple[Any, ...] | None:
        """Return the key where the same branches were taken before, and make a program that is not long; else None."""
        try:
            key = self._key(args)
        except (Exception, Hang):
            return None
        if key not in self._taken or key in self._refused:
            self._taken.add(key)
            return None
        try:
            worth = not is_long(self._traced(key, args))
        except (Exception, Hang):
            worth = False
        if not worth:
            self._refused.add(key)
        return key if worth else None

    def with_rounding(self, args: Args, dy: tuple[Array, ...], unit: float, rng: np.random.Generator) -> Exact:
        """Return the same, computed with an error of up to ±unit in every operation.

        Raises:
            Exception: the forward pass cannot be compiled.
        """
        args64 = as_float64(args)
        return self._run(self._key(args64), args64, dy, unit * rng.uniform(-1.0, 1.0, ERRORS))

    def _as_it_runs(self, args: Args, dy: tuple[Array, ...]) -> Exact:
        pure, wrt = self.subject.pure, self.subject.wrt
        assert pure is not None

        def forward(*moving: Any) -> list[Any]:
            y = pure({**args, **dict(zip(wrt, moving, strict=True))}, self.manners)
            return list(map(jnp.asarray, jax.tree.leaves(y)))

        def run() -> Exact:
            seed_generators(self.subject.library)
            with jax.enable_x64(True):
                y, pull = jax.vjp(forward, *(jnp.asarray(args[n]) for n in wrt))
                cotangents = [jnp.asarray(d, v.dtype) for d, v in zip(dy, y, strict=True)]
                if self.is_slow is None:
                    self.is_slow = len(jax.make_jaxpr(pull)(cotangents).eqns) > LONG_AS_IT_RUNS
                grads = pull(cotangents)
            return Exact(tuple(map(np.asarray, y)), dict(zip(wrt, map(np.asarray, grads), strict=True)))

        return self.watch.call(run)


def find_oracle(subject: Subject, watch: Watch, dy: tuple[Array, ...]) -> Oracle:
    """Return the best oracle that there is for a subject: its own, JAX's, or numerical derivatives."""
    if subject.make_oracle is not None:
        return subject.make_oracle(subject)
    failures: list[BaseException] = []
    tried = [JaxOracle(subject, watch, m) for m in ((False, True) if subject.library == "numpy" else (False,))]
    for oracle in tried:
        try:
            oracle(subject.args, dy)
            return oracle
        except Exception as error:
            failures.append(error)
    close = closeness(subject)
    # A function of JAX's may hold rules of its own, which only a trace can leave out. A loop that ends when it is close
    # enough is followed back only where differences would take too long: its steps tell its limit's derivative roughly.
    many = any(subject.args[n].size > ENTRIES for n in subject.wrt)
    if subject.library == "numpy" and (not close or (many and LOOSER**2 * close <= COARSEST)):
        try:
            oracle = JaxOracle(subject, watch, manners=True, eager=True, resolution=LOOSER**2 * close)
            oracle(subject.args, dy)
            return oracle
        except Exception as error:
            failures.append(error)
        except Hang as error:  # the forward pass itself came back: what takes long is to follow it
            _check_patience(subject, watch)
            failures.append(error)
    pure = subject.pure
    loops = subject.library == "jax" or tried[0].traced  # JAX takes the forward pass, and not back
    compiled = jax.jit(lambda args: pure(args, False)) if loops and pure is not None else None

    def outputs(args: Args) -> tuple[Array, ...]:
        if compiled is not None:
            with full_precision():
                return watch.call(lambda: leaves_of(compiled(dict(args))))
        run = execute(subject, args, None, watch)
        if run.error is not None:
            raise run.error
        return leaves_of(run.y)

    why = explain(failures[0] if loops else failures[1], subject.name)
    return NumericalOracle(outputs, subject.wrt, why=why, relative=max(_ITERATED * loops, LOOSER * close))


def _check_patience(subject: Subject, watch: Watch) -> None:
    """Raise RuntimeError where differences would take too long: some ten calls an entry, at some thirty examples."""
    start = time.perf_counter()
    execute(subject, subject.args, None, watch)
    entries = sum(subject.args[n].size for n in subject.wrt)
    if 300 * entries * (time.perf_counter() - start) > PATIENCE:
        raise RuntimeError("it takes too long to follow back step by step; give fewer steps or smaller inputs=")


def leaves_of(y: Any) -> tuple[Array, ...]:
    """Return the arrays of an output: itself, or those of a tuple or dict, in JAX's order."""
    return tuple(np.asarray(leaf) for leaf in jax.tree.leaves(y))


def spread(
    oracle: Oracle, args: Args, dy: tuple[Array, ...], exact: Exact, unit: float, rng: np.random.Generator
) -> Exact:
    """Return how far y and each gradient move, at most, when every input moves by ±1 unit in its last place."""
    moved = [
        oracle(nudged(args, unit, rng), tuple(d * (1 + unit * _signs(np.shape(d), rng)) for d in dy))
        for _ in range(ROUNDINGS)
    ]
    return _of_each(lambda at, *others: np.max([np.abs(other - at) for other in others], axis=0), exact, *moved)


def _of_each(f: Callable[..., Array], *several: Exact) -> Exact:
    """Return f of each output, and of each gradient, of several results."""
    grads = {name: f(*(e.grads[name] for e in several)) for name in several[0].grads}
    return Exact(tuple(map(f, *(e.y for e in several))), grads)


def rounding(
    oracle: Oracle, args: Args, dy: tuple[Array, ...], exact: Exact, unit: float, rng: np.random.Generator
) -> Exact:
    """Return how far rounding inside the forward pass and its derivative moves y and the gradients.

    Where terms cancel, their rounding stays, which no movement of the inputs shows. What moves no further under an
    error 64 times as large jumps from one side of a tie to the other, and is none of it, unless y has lost its digits
    too, as log(1 − a) has where a is nearly 1.
    """

    def farthest(at: Array, *others: Array) -> Array:
        off = [np.nan_to_num(np.abs(other - at), nan=0.0, posinf=0.0) for other in others]
        return np.asarray(np.max(off, axis=0))

    nothing = _of_each(np.zeros_like, exact)
    if not isinstance(oracle, JaxOracle):
        return nothing
    try:
        if is_long(oracle.program(as_float64(args))):
            return nothing
        center = oracle.with_rounding(args, dy, 0.0, rng)
        near = _of_each(farthest, center, *(oracle.with_rounding(args, dy, unit, rng) for _ in range(ROUNDINGS)))
        far = _of_each(farthest, center, oracle.with_rounding(args, dy, 64 * unit, rng))
    except (Exception, Hang):
        return nothing

    sizes = [largest(y) for y in exact.y]
    if all(float(np.max(m, initial=0.0)) > LOST * unit * size > 0 for m, size in zip(near.y, sizes, strict=True)):
        return near

    def smooth(at: Array, nominal: Array, further: Array) -> Array:
        jumps = (at > JUMP * np.max(np.abs(nominal), initial=0.0)) & (further < 8 * at)
        return np.where(jumps, 0.0, at)

    return replace(_of_each(smooth, near, exact, far), y=near.y)


def nudged(args: Args, unit: float, rng: np.random.Generator) -> dict[str, Array]:
    """Move every floating-point number by ±1 unit, relative to itself."""
    return {
        n: a.astype(np.float64) * (1 + unit * _signs(a.shape, rng)) if a.dtype.kind == "f" else a
        for n, a in args.items()
    }


def as_float64(args: Args) -> dict[str, Array]:
    """Return the arrays with the floating-point ones in float64."""
    return {n: a.astype(np.float64, copy=False) if a.dtype.kind == "f" else a for n, a in args.items()}


def _signs(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.choice([-1.0, 1.0], shape)

"""The oracle: exact gradients of the target's own forward pass.

`jax.vjp` in float64, in one `jax.jit`, with 64-bit mode on for the length of a call. Where JAX cannot trace the forward
pass, two numerical derivatives are taken instead, the complex step and Richardson-extrapolated differences, and each
must confirm the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from tinynet.arrays import Params
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.trees import map_leaves
from tinynet.verification.subjects import Args, Subject
from tinynet.verification.tracing import explain, traceable

__all__ = ["ByKey", "Exact", "NumericalOracle", "Oracle", "compiled_backward", "loss_grads", "make_oracle"]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exact:
    """The output and the gradients, float64."""

    y: Float
    grads: dict[str, Float]


class Oracle:
    """`jax.vjp` of a subject's forward pass, compiled once for each set of shapes."""

    exact = True

    def __init__(self, subject: Subject) -> None:
        self._vjp = _compiled(ByKey(subject))

    def __call__(self, args: Args, dy: Any) -> Exact:
        """Return y and the gradients of every array of `wrt`, of E with ∂E/∂y = dy, computed in float64."""
        return self.evaluate(_as(np.float64, args), np.asarray(dy, np.float64))

    def evaluate(self, args: Args, dy: Any) -> Exact:
        """Do the same in the precision of `args`."""
        with jax.enable_x64(True):
            y, grads = self._vjp(args, dy)
        return Exact(np.asarray(y), {name: np.asarray(g) for name, g in grads.items()})

    def spread(self, args: Args, dy: Any, unit: float, rng: np.random.Generator) -> Exact:
        """Return how far y and each gradient move, at most, when every input moves by ±1 unit in its last place."""
        at = self(args, dy)
        moved = [
            self(_nudged(args, unit, rng), np.asarray(dy) * (1 + unit * _signs(np.shape(dy), rng))) for _ in range(6)
        ]
        return Exact(
            np.max([np.abs(m.y - at.y) for m in moved], axis=0),
            {name: np.max([np.abs(m.grads[name] - g) for m in moved], axis=0) for name, g in at.grads.items()},
        )


class NumericalOracle:
    """Derivatives of a forward pass that can only be called: complex step, confirmed by extrapolated differences.

    The complex step, Im f(x + ih) / h with h = 10⁻²⁰, is exact to rounding where the forward pass is real-analytic and
    takes complex numbers. Central differences at h, h/2, h/4, …, extrapolated (Richardson), give the same to about
    10⁻⁹ with an estimate of their own error. `disagreement` is set where they contradict each other, `unconfirmed`
    where the complex step does not apply: differences alone can show that a gradient is wrong, not that it is right.
    """

    exact = False

    def __init__(self, subject: Subject, reason: str) -> None:
        self._subject, self.reason, self.disagreement, self.unconfirmed = subject, reason, "", ""
        self._uncertainty: dict[str, Float] = {}

    def __call__(self, args: Args, dy: Any) -> Exact:
        y = np.asarray(self._forward(args), np.float64)
        grads = {}
        for name in self._subject.wrt:
            differences, error = self._richardson(args, dy, name)
            error = 10 * error + 1e-6 * max(1e-300, np.max(np.abs(differences), initial=0))
            step = self._complex_step(args, dy, name)
            if step is None:
                self.unconfirmed = f"the complex step does not apply to {name}, and differences alone prove nothing"
                grads[name], self._uncertainty[name] = differences, error
                continue
            self._uncertainty[name] = np.zeros_like(error)
            if np.any(np.abs(step - differences) > error):
                self.disagreement = f"the complex step and extrapolated differences disagree about {name}"
            grads[name] = step
        return Exact(y, grads)

    def _forward(self, args: Args) -> Any:
        with np.errstate(all="ignore"):
            return self._subject.session().forward(args)[0]

    def _complex_step(self, args: Args, dy: Any, name: str) -> Float | None:
        grad = np.empty(args[name].shape)
        for index in np.ndindex(grad.shape):
            moved = args[name].astype(np.complex128)
            moved[index] += 1e-20j
            try:
                y = np.asarray(self._forward({**args, name: moved}))
            except Exception:
                return None
            if y.dtype.kind != "c":
                return None
            grad[index] = np.sum(dy * y.imag) / 1e-20
        return grad

    def _richardson(self, args: Args, dy: Any, name: str) -> tuple[Float, Float]:
        grad, error = np.empty(args[name].shape), np.empty(args[name].shape)
        scale = 1e-3 * float(np.sqrt(np.mean(args[name] ** 2))) if args[name].size else 0.0
        for index in np.ndindex(grad.shape):
            table: list[list[float]] = []
            for row in range(6):
                # Small beside the entry itself, so that the steps do not cross a kink at zero.
                h = 0.05 * max(abs(float(args[name][index])), scale, 1e-30) * 2.0**-row
                table.append([self._difference(args, dy, name, index, h)])
                for k in range(row):
                    table[row].append(table[row][k] + (table[row][k] - table[row - 1][k]) / (4.0 ** (k + 1) - 1))
            grad[index], error[index] = table[-1][-1], abs(table[-1][-1] - table[-2][-1])
        return grad, error

    def _difference(self, args: Args, dy: Any, name: str, index: tuple[int, ...], h: float) -> float:
        ends = []
        for sign in (1, -1):
            moved = args[name].copy()
            moved[index] += sign * h
            ends.append(np.asarray(self._forward({**args, name: moved}), np.float64))
        return float(np.sum(dy * (ends[0] - ends[1])) / (2 * h))

    def spread(self, args: Args, dy: Any, unit: float, rng: np.random.Generator) -> Exact:
        """Return the error of the differences; 0 for the complex step, whose error is rounding."""
        y = np.asarray(self._forward(args), np.float64)
        return Exact(
            np.zeros_like(y), {n: self._uncertainty.get(n, np.zeros(args[n].shape)) for n in self._subject.wrt}
        )


def make_oracle(subject: Subject) -> Oracle | NumericalOracle:
    """Return an exact oracle: of the forward pass as it stands, or else with jax.numpy for NumPy; or a numerical one.

    Sets `subject.rebound` where the second way was needed.
    """
    failures = []
    for rebound in (False, True):
        subject.rebound = rebound
        try:
            shapes = tuple((n, a.shape, a.dtype.str) for n, a in sorted(_as(np.float64, subject.args).items()))
            _try_to_trace(ByKey(subject), shapes)
        except Exception as error:
            failures.append(error)
            continue
        return Oracle(subject)
    subject.rebound = False
    return NumericalOracle(subject, explain(failures[-1], subject.name))


def loss_grads(net: Layer, loss: Loss, params: Params, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Params, Any]:
    """Return ∂E/∂params and ∂E/∂x of E = loss(net(params, x), y) as NumPy arrays, by `jax.grad` in float64.

    64-bit mode is on for the length of the call only. NumPy's names in the code of `net` are read as jax.numpy's where
    JAX cannot trace it as it stands.

    Raises:
        Exception: whatever JAX raises where it cannot trace the forward pass either way.
    """

    def grads(net: Layer) -> tuple[Params, Any]:
        def E(params: Params, x: Any) -> Any:
            return loss.forward(net.forward(params, x)[0], y64)[0]

        dparams, dx = jax.jit(jax.grad(E, argnums=(0, 1)))(params64, x64)
        return map_leaves(np.asarray, dparams), np.asarray(dx)

    with jax.enable_x64(True):
        params64, x64, y64 = jax.tree.map(lambda a: jnp.asarray(a, "float64"), (params, x, y))
        try:
            return grads(net)
        except Exception:
            return grads(traceable(net))


def compiled_backward(subject: Subject, args: Args, dy: Any) -> Mapping[str, npt.NDArray[Any]]:
    """Run the target's own forward and backward pass under `jax.jit`, in 64-bit mode, and return its gradients.

    Raises:
        Exception: whatever JAX raises where the backward pass cannot be traced.
    """
    with jax.enable_x64(True):
        return {name: np.asarray(g) for name, g in _jitted_backward(ByKey(subject, subject.parts))(args, dy).items()}


class ByKey:
    """A subject that is equal to another if their forward passes are, and `also` what is given besides."""

    def __init__(self, subject: Subject, also: Any = None) -> None:
        self.subject = subject
        self.key = (subject.key, subject.wrt, subject.rebound, also) if subject.key is not None else (id(self),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByKey) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=256)
def _try_to_trace(by_key: ByKey, shapes: tuple[tuple[str, tuple[int, ...], str], ...]) -> None:
    with jax.enable_x64(True):
        jax.eval_shape(_traced(by_key.subject), {name: np.zeros(shape, dtype) for name, shape, dtype in shapes})


@functools.lru_cache(maxsize=256)
def _compiled(by_key: ByKey) -> Callable[[Args, Any], Any]:
    subject = by_key.subject
    pure = _traced(subject)

    def vjp(args: Mapping[str, Any], dy: Any) -> Any:
        floating = {name: args[name] for name in subject.wrt}
        y, pull = jax.vjp(lambda moving: pure({**args, **moving}), floating)
        return y, pull(dy.astype(y.dtype))[0]

    return jax.jit(vjp)


@functools.lru_cache(maxsize=256)
def _jitted_backward(by_key: ByKey) -> Callable[[Args, Any], Any]:
    subject = by_key.subject

    def backward(args: Args, dy: Any) -> Any:
        session = subject.session()
        _, context = session.forward(args)
        return {n: g for n, g in session.backward(context, dy).items() if n in subject.wrt}

    return jax.jit(backward)


def _traced(subject: Subject) -> Callable[[Mapping[str, Any]], Any]:
    return lambda args: jnp.asarray(subject.pure(args))


def _as(dtype: Any, args: Args) -> Args:
    return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in args.items()}


def _nudged(args: Args, unit: float, rng: np.random.Generator) -> Args:
    return {
        name: a.astype(np.float64) * (1 + unit * _signs(a.shape, rng)) if a.dtype.kind == "f" else a
        for name, a in args.items()
    }


def _signs(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return rng.choice([-1.0, 1.0], shape)

"""The exact gradient with one step of the chain rule replaced: what a wrong derivation inside a layer would give.

The forward pass is traced to a list of primitive operations. Two kinds of places are found in it:

* *activations*: a value `a` that is computed entry by entry from one array `z`, however it is written;
* *products*: matrix products, whose operands come back, transposed, in the backward pass.

`Instrumented` tells ∂E/∂a and δ = ∂E/∂z at each activation, and evaluates the vector-Jacobian product with another δ
there, or with another matrix in place of an operand of a product, while the forward values stay as they are:

    E := Σ dy ⊗ y + Σ C ⊗ z                  passes δ + C back from z
    y := stop(A B) + (A B̃ − stop(A B̃))      has the value A B and, by A, the derivative of A B̃
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax
from jax.extend import core

from tinynet.verification.oracle import ByKey
from tinynet.verification.subjects import Args, Subject

__all__ = ["Activation", "Instrumented", "Product", "instrumented"]

_ELEMENTWISE = frozenset(
    """
    abs add add_any and asinh atan cbrt clamp convert_element_type copy copy_p cos div eq erf erfc exp exp2 expm1 floor
    ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow round rsqrt select_n sign sin
    sqrt square stop_gradient sub tan tanh
    """.split()
)

_Operation = tuple[Any, Mapping[str, Any], tuple[Any, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Activation:
    """One activation of one evaluation: z, a = f(z), f′ as a function, and the cotangents da = ∂E/∂a, δ = ∂E/∂z.

    Both cotangents are those that pass through this activation; what else uses z is not in them.
    """

    place: int
    z: npt.NDArray[Any]
    a: npt.NDArray[Any]
    derivative: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    da: npt.NDArray[Any]

    @property
    def δ(self) -> npt.NDArray[Any]:
        """∂E/∂a ⊗ f′(z)."""
        return np.asarray(self.da * self.derivative(self.z))


@dataclass(frozen=True)
class Product:
    """One matrix product of one evaluation: its operands."""

    place: int
    operands: tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Instrumented:
    """A subject's forward pass at given shapes, with its activations and products laid open.

    Raises:
        Exception: whatever JAX raises where the forward pass cannot be traced or holds operations unknown here.
    """

    def __init__(self, subject: Subject, args: Args) -> None:
        self._wrt = subject.wrt
        with jax.enable_x64(True):
            closed = jax.make_jaxpr(lambda values: jnp.asarray(subject.pure(values)))(args)
            self._operations: list[_Operation] = []
            self._constants: dict[int, Any] = {}
            self._count = 0
            inputs = [self._new() for _ in closed.jaxpr.invars]
            # A dict is flattened in sorted key order.
            self._inputs = dict(zip(sorted(args), inputs, strict=True))
            (self._output,) = self._inline(closed.jaxpr, closed.consts, inputs)
            self._regions = self._find_activations()
            self._products = [i for i, op in enumerate(self._operations) if op[0].name == "dot_general"]
            self._derivatives = [self._derivative(*region) for region in self._regions]
            self._run = jax.jit(self._evaluate)
            self._vjp = jax.jit(self._pull)
            self._errors = jax.jit(self._pull_to_activations)

    def places(self, args: Args, dy: Any) -> tuple[list[Activation], list[Product]]:
        """Evaluate, and return what stands at each activation and product."""
        with jax.enable_x64(True):
            env = self._run(args)
            self._z = {k: env[root] for k, (root, _) in enumerate(self._regions)}
            at = {k: jnp.zeros_like(env[out]) for k, (_, out) in enumerate(self._regions)}
            das = self._errors(args, np.asarray(dy), at)
        activations = [
            Activation(k, np.asarray(env[root]), np.asarray(env[out]), self._derivatives[k], np.asarray(das[k]))
            for k, (root, out) in enumerate(self._regions)
        ]
        products = []
        for place in self._products:
            left, right = (np.asarray(self._read(env, operand)) for operand in self._operations[place][2])
            products.append(Product(place, (left, right)))
        return activations, products

    def vjp(
        self,
        args: Args,
        dy: Any,
        added: Mapping[int, npt.NDArray[Any]] | None = None,
        operands: Mapping[tuple[int, int], npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the gradients with C `added` to δ by activation, and `operands` by (product, side)."""
        # Zeros for the others: one compilation serves all.
        every = {k: np.zeros(z.shape) for k, z in self._z.items()} | dict(added) if added else {}
        with jax.enable_x64(True):
            grads = self._vjp(args, np.asarray(dy), every, dict(operands or {}))
        return {name: np.asarray(g) for name, g in grads.items()}

    def _new(self) -> int:
        self._count += 1
        return self._count

    def _inline(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Append the operations of `jaxpr`, calls resolved, and return what stands for its outputs."""
        env: dict[Any, Any] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self._new()
            self._constants[env[var]] = const

        def read(atom: Any) -> Any:
            return atom if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            inner = next((eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params), None)
            if inner is not None and eqn.primitive.name not in ("scan", "while", "cond"):
                body, inner_consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
                outs = self._inline(body, inner_consts, operands[: len(body.invars)])
            else:
                outs = [self._new() for _ in eqn.outvars]
                self._operations.append((eqn.primitive, eqn.params, tuple(operands), tuple(outs)))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _find_activations(self) -> list[tuple[int, int]]:
        """Pair each array z with the values computed from it alone, entry by entry, that something else then uses."""
        moving = set(self._inputs.values())
        root: dict[int, int] = {i: i for i in moving}
        for primitive, _, operands, outs in self._operations:
            from_inputs = [v for v in operands if isinstance(v, int) and v in moving]
            if not from_inputs:
                continue
            moving.update(outs)
            roots = {root[v] for v in from_inputs}
            alone = primitive.name in _ELEMENTWISE and len(roots) == 1
            root.update((out, roots.copy().pop() if alone else out) for out in outs)
        used: dict[int, None] = {}
        for _, _, operands, outs in self._operations:
            for v in operands:
                if isinstance(v, int) and v in moving and root.get(outs[0], outs[0]) != root[v]:
                    used[v] = None
        if isinstance(self._output, int):
            used[self._output] = None
        return [(root[v], v) for v in used if v in root and root[v] != v]

    def _read(self, env: Mapping[int, Any], atom: Any) -> Any:
        return env[atom] if isinstance(atom, int) else atom.val

    def _apply(self, env: dict[int, Any], operation: _Operation) -> None:
        primitive, params, operands, outs = operation
        result = primitive.bind(*(self._read(env, v) for v in operands), **params)
        env.update(zip(outs, result if primitive.multiple_results else (result,), strict=True))

    def _evaluate(
        self,
        args: Mapping[str, Any],
        offsets: Mapping[int, Any] = MappingProxyType({}),
        operands: Mapping[tuple[int, int], Any] = MappingProxyType({}),
    ) -> dict[int, Any]:
        """Evaluate every operation; `offsets` are added to the values of activations, by place."""
        env = dict(self._constants) | {self._inputs[name]: jnp.asarray(a) for name, a in args.items()}
        moved = {self._regions[place][1]: e for place, e in offsets.items()}
        for i, operation in enumerate(self._operations):
            self._apply(env, operation)
            for side in (0, 1):
                if (i, side) in operands:
                    self._replace_operand(env, operation, side, operands[i, side])
            for out in operation[3]:
                if out in moved:
                    env[out] = env[out] + moved[out]
        return env

    def _replace_operand(self, env: dict[int, Any], operation: _Operation, side: int, other: Any) -> None:
        primitive, params, atoms, (out,) = operation
        A, B = (self._read(env, v) for v in atoms)
        stop = lax.stop_gradient

        def product(a: Any, b: Any) -> Any:
            return primitive.bind(a, b, **params)

        moving_a = product(A, stop(other)) if side == 1 else product(A, stop(B))
        moving_b = product(stop(other), B) if side == 0 else product(stop(A), B)
        env[out] = stop(env[out]) + (moving_a - stop(moving_a)) + (moving_b - stop(moving_b))

    def _pull(
        self, args: Mapping[str, Any], dy: Any, added: Mapping[int, Any], operands: Mapping[tuple[int, int], Any]
    ) -> Any:
        def E(moving: Mapping[str, Any]) -> Any:
            env = self._evaluate({**args, **moving}, {}, operands)
            total = jnp.sum(dy * self._read(env, self._output))
            for place, C in added.items():
                total += jnp.sum(C * env[self._regions[place][0]])
            return total

        return jax.grad(E)({name: args[name] for name in self._wrt})

    def _pull_to_activations(self, args: Mapping[str, Any], dy: Any, at: Mapping[int, Any]) -> Any:
        def E(offsets: Mapping[int, Any]) -> Any:
            return jnp.sum(dy * self._read(self._evaluate(args, offsets), self._output))

        return jax.grad(E)(dict(at))

    def _derivative(self, root: int, out: int) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        """f′ of the activation from `root` to `out`, by forward mode through its operations."""

        def f(z: Any) -> Any:
            env = dict(self._constants) | {root: z}
            for operation in self._operations:
                if operation[3][0] in env or any(isinstance(v, int) and v not in env for v in operation[2]):
                    continue
                self._apply(env, operation)
            return env[out]

        compiled = jax.jit(lambda z: jax.jvp(f, (z,), (jnp.ones_like(z),))[1])

        def derivative(z: npt.NDArray[Any]) -> npt.NDArray[Any]:
            with jax.enable_x64(True):
                return np.asarray(compiled(jnp.asarray(z)))

        return derivative


def instrumented(subject: Subject, args: Args) -> Instrumented:
    """Lay open a forward pass; once for each set of shapes where it is known to be the same function.

    Raises:
        Exception: whatever JAX raises where the forward pass cannot be traced or holds operations unknown here.
    """
    shapes = tuple((name, a.shape, a.dtype.str) for name, a in sorted(args.items()))
    return _by_shapes(ByKey(subject), shapes)


@functools.lru_cache(maxsize=64)
def _by_shapes(by_key: ByKey, shapes: tuple[tuple[str, tuple[int, ...], str], ...]) -> Instrumented:
    args = {name: np.zeros(shape, dtype) for name, shape, dtype in shapes}
    return Instrumented(by_key.subject, args)

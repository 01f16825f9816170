"""The exact gradient with one step of the chain rule replaced: what a wrong derivation inside a layer would give.

The forward pass is traced to a list of primitive operations. Two kinds of places are found in it:

* *activations*: a value `a` that is computed entry by entry from one array `z`, however it is written;
* *products*: matrix products, whose operands come back, transposed, in the backward pass.

`Instrumented` evaluates the vector-Jacobian product with another factor in place of f′(z) at an activation, or with
another matrix in place of an operand of a product, while the forward values stay as they are:

    a := stop(a) + M ⊗ (z − stop(z))        has the value a and the derivative M
    y := stop(A B) + (A B̃ − stop(A B̃))      has the value A B and, by A, the derivative of A B̃
"""

from __future__ import annotations

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

from tinynet.verification.subjects import Args, Subject

__all__ = ["Activation", "Instrumented", "Product"]

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
    """One activation of one evaluation: z, a = f(z), and f′ as a function."""

    place: int
    z: npt.NDArray[Any]
    a: npt.NDArray[Any]
    derivative: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


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
            self._run = jax.jit(self._evaluate)
            self._vjp = jax.jit(self._pull)

    def places(self, args: Args) -> tuple[list[Activation], list[Product]]:
        """Evaluate, and return what stands at each activation and product."""
        with jax.enable_x64(True):
            env = self._run(args)
        activations = [
            Activation(i, np.asarray(env[root]), np.asarray(env[out]), self._derivative(root, out))
            for i, (root, out) in enumerate(self._regions)
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
        factors: Mapping[int, npt.NDArray[Any]] | None = None,
        operands: Mapping[tuple[int, int], npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the gradients with `factors` for f′(z) by activation, and `operands` by (product, side)."""
        with jax.enable_x64(True):
            grads = self._vjp(args, np.asarray(dy), dict(factors or {}), dict(operands or {}))
        return {name: np.asarray(g) for name, g in grads.items()}

    # the operations

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
        factors: Mapping[int, Any] = MappingProxyType({}),
        operands: Mapping[tuple[int, int], Any] = MappingProxyType({}),
    ) -> dict[int, Any]:
        env = dict(self._constants) | {self._inputs[name]: jnp.asarray(a) for name, a in args.items()}
        replaced = {self._regions[place][1]: (self._regions[place][0], M) for place, M in factors.items()}
        for i, operation in enumerate(self._operations):
            self._apply(env, operation)
            for side in (0, 1):
                if (i, side) in operands:
                    self._replace_operand(env, operation, side, operands[i, side])
            for out in operation[3]:
                if out in replaced:
                    z, M = env[replaced[out][0]], replaced[out][1]
                    env[out] = lax.stop_gradient(env[out]) + M * (z - lax.stop_gradient(z))
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
        self, args: Mapping[str, Any], dy: Any, factors: Mapping[int, Any], operands: Mapping[tuple[int, int], Any]
    ) -> Any:
        def y(moving: Mapping[str, Any]) -> Any:
            return self._read(self._evaluate({**args, **moving}, factors, operands), self._output)

        out, pull = jax.vjp(y, {name: args[name] for name in self._wrt})
        return pull(jnp.asarray(dy, out.dtype))[0]

    def _derivative(self, root: int, out: int) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        """f′ of the activation from `root` to `out`, by forward mode through its operations."""

        def f(z: Any) -> Any:
            env = dict(self._constants) | {root: z}
            for operation in self._operations:
                if operation[3][0] in env or any(isinstance(v, int) and v not in env for v in operation[2]):
                    continue
                self._apply(env, operation)
            return env[out]

        def derivative(z: npt.NDArray[Any]) -> npt.NDArray[Any]:
            with jax.enable_x64(True):
                return np.asarray(jax.jvp(f, (jnp.asarray(z),), (jnp.ones_like(z),))[1])

        return derivative

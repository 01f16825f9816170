"""Hypotheses about one step inside the target: another δ at an activation, another matrix in a product."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tinynet.verification.diagnosis.evidence import FAULTS, Array, Diagnosis, Evidence, explains, fit
from tinynet.verification.interventions import Activation, Instrumented, instrumented

__all__ = ["of_the_chain", "of_updated_params"]


def of_the_chain(failing: Sequence[Evidence], wrong: Sequence[str], only: bool = False) -> Diagnosis | None:
    """Another δ at one activation, or another matrix in one product; tried at the two most telling runs."""
    telling = sorted(failing, key=lambda e: (-len(e.wrong), -min(e.dy.size, 64)))
    runs = [e for e in telling if all(e.exact.grads[n].size for n in wrong)][:2]
    if not runs:
        return None
    try:
        inside = [(e, instrumented(e.subject, e.args)) for e in runs]
        places = [i.places(e.args, e.dy) for e, i in inside]
    except Exception:
        return None
    activations = [
        [(e, i, acts[k]) for (e, i), (acts, _) in zip(inside, places, strict=True)] for k in range(len(places[0][0]))
    ]
    for at in activations:
        for fault, transform in _WRONG_DELTA.items():
            if all(any(_gives(e, i, act, δ, wrong, only) for δ in transform(act, e)) for e, i, act in at):
                inside_it = "" if fault in _OF_DERIVATIVES else "in δ of an activation inside, "
                return Diagnosis(fault, tuple(wrong), inside_it + FAULTS[fault])
    for j in range(len(places[0][1])):
        for side in (0, 1):
            found = _of_a_product(inside, places, j, side, wrong, only)
            if found is not None:
                return found
    for at in activations:
        for fault, lines in _LINES_OF_DELTA.items():
            steps = [_step_along_a_line(e, i, act, lines(act), wrong, only) for e, i, act in at]
            if len(steps) > 1 and all(t and math.isclose(t, steps[0] or 0.0, rel_tol=1e-6) for t in steps):
                return Diagnosis(fault, tuple(wrong), f"{FAULTS[fault]}, at an activation inside ({steps[0]:.6g})")
    return None


def _gives(e: Evidence, inside: Instrumented, act: Activation, δ: Array, wrong: Sequence[str], only: bool) -> bool:
    if δ.shape != act.δ.shape or np.allclose(δ, act.δ, rtol=1e-12, atol=0):
        return False
    return explains(e, wrong, inside.vjp(e.args, e.dy, {act.place: δ - act.δ}), only)


def _step_along_a_line(
    e: Evidence,
    inside: Instrumented,
    act: Activation,
    lines: Iterable[tuple[Array, Array]],
    wrong: Sequence[str],
    only: bool,
) -> float | None:
    """The t for which δ = A + t B gives the user's gradients, for one of the pairs (A, B)."""
    for A, B in lines:
        start = inside.vjp(e.args, e.dy, {act.place: A - act.δ})
        end = inside.vjp(e.args, e.dy, {act.place: A + B - act.δ})
        t = fit([(np.asarray(e.got[n]), start[n], end[n]) for n in wrong])
        if t and explains(e, wrong, {n: start[n] + t * (end[n] - start[n]) for n in start}, only):
            return t
    return None


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z < 0, e, 1) / (1 + e))


def _derivatives(z: Array, a: Array) -> tuple[Array, ...]:
    """The derivatives of the activations in use, by z or, as people write them, by a."""
    return (
        a * (1 - a),
        a,
        1 - a,
        1 + a,
        1 - a * a,
        z * (1 - z),
        1 - z * z,
        1 - np.tanh(z) ** 2,
        _sigmoid(z) * _sigmoid(-z),
        _sigmoid(z),
        (z > 0).astype(z.dtype),
        (a > 0).astype(z.dtype),
        *(np.where(z > 0, 1.0, slope) for slope in (0.01, 0.1, 0.2, 0.3)),
        np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))),
        _sigmoid(z) * (1 + z * _sigmoid(-z)),
        np.exp(z),
        2 * z,
        np.cos(z),
        1 / (1 + z * z),
        1 / (1 + np.abs(z)) ** 2,
        np.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    )


_WRONG_DELTA: dict[str, Callable[[Activation, Evidence], Iterable[Array]]] = {
    "σ′ missing": lambda act, e: (act.da,),
    "sign": lambda act, e: (-act.δ,),
    "σ′ of the output": lambda act, e: (act.da * act.derivative(act.a),),
    "another activation's derivative": lambda act, e: (
        act.da * d for d in (*_derivatives(act.z, act.a), act.derivative(act.z) ** 2)
    ),
    "ignores dy": lambda act, e: (act.derivative(act.z),),
    "absolute value": lambda act, e: (np.abs(act.δ), np.abs(act.da) * act.derivative(act.z)),
    "zero": lambda act, e: (np.zeros_like(act.δ),),
    "scaled by 1/m": lambda act, e: (act.δ / e.m,),
    "scaled by m": lambda act, e: (act.δ * e.m,),
    "scaled by 2": lambda act, e: (act.δ * 2,),
    "scaled by 1/2": lambda act, e: (act.δ / 2,),
    "scaled by 1/n_out": lambda act, e: (act.δ / act.δ.shape[-1],) if act.δ.ndim else (),
    "shifted": lambda act, e: (np.roll(act.δ, s, axis) for axis in range(act.δ.ndim) for s in (1, -1)),
    "reversed": lambda act, e: (np.flip(act.δ, axis) for axis in range(act.δ.ndim)),
    "transpose": lambda act, e: (act.δ.T,) if act.δ.ndim == 2 else (),
    "one sample left out": lambda act, e: _rows_of(act.δ, keep=False),
    "only one sample used": lambda act, e: _rows_of(act.δ, keep=True),
}


_OF_DERIVATIVES = ("σ′ missing", "σ′ of the output", "another activation's derivative")


def _rows_of(δ: Array, keep: bool) -> Iterator[Array]:
    for i in (0, -1) if δ.ndim and len(δ) > 1 else ():
        changed = np.zeros_like(δ) if keep else δ.copy()
        changed[i] = δ[i] if keep else 0
        yield changed


def _clipping_lines(act: Activation) -> Iterator[tuple[Array, Array]]:
    """δ cut off at ±t is linear in t between two neighbouring |δ|."""
    size = np.abs(act.δ)
    for at in np.unique(size)[-40:-1]:
        yield np.where(size <= at, act.δ, 0.0), np.where(size > at, np.sign(act.δ), 0.0)


_LINES_OF_DELTA: dict[str, Callable[[Activation], Iterable[tuple[Array, Array]]]] = {
    "scaled by a constant": lambda act: ((np.zeros_like(act.δ), act.δ),),
    "constant offset": lambda act: ((act.δ, np.ones_like(act.δ)), (act.δ, act.derivative(act.z))),
    "clipped": _clipping_lines,
}


def _of_a_product(
    inside: Sequence[tuple[Evidence, Instrumented]],
    places: Sequence[tuple[list[Any], list[Any]]],
    j: int,
    side: int,
    wrong: Sequence[str],
    only: bool,
) -> Diagnosis | None:
    """The operand transposed, or moved along its own gradient as an update moves it."""
    transposed, updated = True, True
    for (e, inner), (_, products) in zip(inside, places, strict=True):
        operand = products[j].operands[side]
        key = (products[j].place, side)
        name = next((n for n in e.subject.wrt if _is_matrix(operand, e.args[n])), None)
        if name is None:
            return None
        square = operand.ndim == 2 and operand.shape[0] == operand.shape[1]
        transposed &= square and explains(e, wrong, inner.vjp(e.args, e.dy, None, {key: operand.T}), only)
        if updated:
            gradient = e.exact.grads[name]
            direction = gradient if operand.shape == gradient.shape and _same(operand, e.args[name]) else gradient.T
            moved = inner.vjp(e.args, e.dy, None, {key: operand + direction})
            step = fit([(np.asarray(e.got[n]), e.exact.grads[n], moved[n]) for n in wrong])
            updated = step is not None and step != 0
            if updated and step is not None:
                at = {n: g + step * (moved[n] - g) for n, g in e.exact.grads.items()}
                updated = explains(e, wrong, at, only)
    if transposed:
        return Diagnosis("W for Wᵀ", tuple(wrong), FAULTS["W for Wᵀ"])
    if updated:
        return Diagnosis("already updated W", tuple(wrong), FAULTS["already updated W"])
    return None


def of_updated_params(name: str, failing: Sequence[Evidence]) -> Diagnosis | None:
    """∂E/∂x as it is at parameters that have moved along their own gradient, the same step in every run."""
    steps = []
    for e in (e for e in failing if name in e.wrong):
        params = [n for n in e.subject.wrt if n not in e.subject.batched]
        if name not in e.subject.batched or not params:
            return None
        got, exact = np.asarray(e.got[name]), e.exact.grads

        def moved(t: float, e: Evidence = e, params: Sequence[str] = params) -> Array:
            there = {n: e.args[n] + t * e.exact.grads[n] for n in params}
            return e.vjp({**e.args, **there}, e.dy).grads[name]

        step = fit([(got, exact[name], moved(1.0))])
        if not step or not e.reproduces(name, moved(step)):
            return None
        steps.append(step)
    if len(steps) < 2 or not all(math.isclose(t, steps[0], rel_tol=1e-6) for t in steps):
        return None
    return Diagnosis("already updated W", (name,), FAULTS["already updated W"])


def _is_matrix(operand: Array, arg: Array) -> bool:
    return operand.ndim == 2 and arg.ndim == 2 and (_same(operand, arg) or _same(operand, arg.T))


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b))

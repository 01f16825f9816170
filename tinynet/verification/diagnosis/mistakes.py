"""The table of mistakes: what each does to what passes back through an edge.

A mistake is tried wherever it can be made: at an operation inside, at the output (where dy comes in), at an input (the
gradient that is returned). `array_mistakes` confuse an array, `rule_mistakes` the chain rule of one operation,
`activation_mistakes` the derivative of an activation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tinynet.verification.diagnosis.pool import STEPS, Get, Pool, without_ones
from tinynet.verification.diagnosis.primitives import UNARY, Array, evaluate, overwritten
from tinynet.verification.diagnosis.tape import BOTH, Passing


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        fault: a key of `tinynet.faults.FAULTS`.
        sentence: what is wrong; {text} is the forward's statement, {c} the number that was fitted.
        change: what passes instead of `Passing.right`, given the number c; None: nothing passes.
        fitted: "factor" if c is one, told as an expression; "decimal" if any number will do; "amount" if c is the same
            number in every run; else "".
    """

    fault: str
    sentence: str
    change: Callable[[Passing, float], Array | None]
    fitted: str = ""


CUT = Mistake("missing path", "the path through `{text}` is missing", lambda p, c: None)
SCALED = Mistake("scaled", "what passes back through `{text}` is multiplied by {c}", lambda p, c: c * p.right, "factor")
SCALED_SOMEHOW = replace(SCALED, fitted="decimal")
SIGN = Mistake("sign", "what passes back through `{text}` has the wrong sign", lambda p, c: -p.right)


def multiplied(mistake: Mistake) -> Mistake:
    """Return a mistake that comes with a number."""

    def change(p: Passing, c: float) -> Array | None:
        term = mistake.change(p, 0.0)
        return None if term is None else c * term

    return Mistake(mistake.fault, f"{mistake.sentence}, times {{c}}", change, "factor")


@dataclass(frozen=True)
class Transform:
    """What a mistake makes of an array: the exact one, a cotangent, or the operand of a product."""

    fault: str
    words: str
    of: Callable[[Array], Array]


def transforms(shape: tuple[int, ...], all_shifts: bool = False) -> Iterator[Transform]:
    """Yield what can be made of an array of this shape; axes are counted from the last."""
    axes = range(-len(shape), 0)
    for i, j in itertools.combinations(axes, 2):
        if shape[i] == shape[j] > 1:
            yield Transform("transpose", "transposed", partial(np.swapaxes, axis1=i, axis2=j))
    yield Transform("absolute value", "made positive", np.abs)
    for a in axes:
        n = shape[a]
        if n < 2:
            continue
        for step in (1, -1, *(range(2, n - 1) if all_shifts else ())):  # from the front or from the back
            yield Transform("shifted", f"shifted along axis {a}", partial(np.roll, shift=step, axis=a))
        for step in (1, -1):
            yield Transform("shifted", f"shifted along axis {a}", partial(_pushed, step=step, axis=a))
        for i, which in ((0, "first"), (-1, "last")):
            yield Transform(
                "another value", f"that of the {which} along axis {a} throughout", partial(_all_of, i=i, axis=a)
            )
        if n > 2:
            yield Transform("reversed", f"reversed along axis {a}", partial(np.flip, axis=a))
        if n % 2 == 0 and n > 2:
            yield Transform("halves swapped", f"with its halves swapped along axis {a}", partial(_swapped, axis=a))
        for parts in (parts for parts in (3, 4) if n % parts == 0 and n > parts):
            for i, j in itertools.combinations(range(parts), 2):
                words = f"with parts {i + 1} and {j + 1} of {parts} exchanged along axis {a}"
                yield Transform("exchanged gradients", words, partial(_exchanged, parts=parts, i=i, j=j, axis=a))
        summed = "summed over an axis" if sum(n > 1 for n in shape) > 1 else "summed over everything"
        yield Transform(summed, f"summed over axis {a}", partial(_spread, np.sum, axis=a))
        yield Transform("summed over an axis", f"averaged over axis {a}", partial(_spread, np.mean, axis=a))
    if sum(n > 1 for n in shape) > 1:
        yield Transform("summed over everything", "summed over everything", partial(_spread, np.sum, axis=None))
        yield Transform("reversed", "reversed along all axes", np.flip)
    if len(shape) > 2:
        yield Transform("reversed", "reversed along the last two axes", partial(np.flip, axis=(-2, -1)))


def samples(shape: tuple[int, ...]) -> Iterator[Transform]:
    """Yield what leaves out, or leaves, one entry along an axis; the first axis counts samples."""
    for a in range(-len(shape), 0):
        first = a == -len(shape)
        for i, which in ((0, "first"), (-1, "last")) if shape[a] > 1 else ():
            place = f"{which} sample" if first else f"{which} along axis {a}"
            fault = "one sample left out" if first else "rows left out"
            yield Transform(fault, f"taken without the {place}", partial(_kept, axis=a, i=i, there=False))
            fault = "only one sample used" if first else "rows left out"
            yield Transform(fault, f"taken of the {place} alone", partial(_kept, axis=a, i=i, there=True))


def _kept(t: Array, *, axis: int, i: int, there: bool) -> Array:
    """Leave the entries at one index along an axis, or all others; zeros stand for the rest."""
    shape = [1] * t.ndim
    shape[axis] = t.shape[axis]
    return np.asarray(t * ((np.arange(t.shape[axis]) == i % t.shape[axis]) == there).reshape(shape))


def _all_of(t: Array, *, i: int, axis: int) -> Array:
    return np.broadcast_to(np.take(t, [i], axis), t.shape)


def _pushed(t: Array, *, step: int, axis: int) -> Array:
    return _kept(np.roll(t, step, axis), axis=axis, i=0 if step > 0 else -1, there=False)


def _swapped(t: Array, *, axis: int) -> Array:
    return np.roll(t, t.shape[axis] // 2, axis)


def _exchanged(t: Array, *, parts: int, i: int, j: int, axis: int) -> Array:
    pieces = np.split(t, parts, axis)
    pieces[i], pieces[j] = pieces[j], pieces[i]
    return np.concatenate(pieces, axis)


def _spread(reduce: Callable[..., Any], t: Array, *, axis: int | None) -> Array:
    return np.broadcast_to(reduce(t, axis=axis, keepdims=True), t.shape)


Change = Callable[[Passing, float], Array | None]


def _passed(of: Callable[[Array], Array]) -> Change:
    return lambda p, c: of(p.right)


def _above(get: Get) -> Change:
    """What passes if another array comes from above."""
    return lambda p, c: get(p) if p.operation is None else p.by_rule(get(p))


def array_mistakes(p: Passing) -> Iterator[Mistake]:
    """Yield what can be done to what passes, and, before the chain rule of the operation, to what comes from above."""
    above = p.ct[0] if len(p.ct) == 1 else None
    if p.operation is not None and above is not None:
        moved = p.operation.name in ("pad", "concatenate", "slice")  # by as many places as were put before it
        for t in (*samples(above.shape), *transforms(above.shape, all_shifts=moved)):
            sentence = f"what comes back to `{{text}}` is {t.words}"
            yield Mistake(t.fault, sentence, _above(partial(_made_of_above, t.of)))
    if p.site.kind != "value" and len(p.ct) == 1:
        yield from _rolled_the_wrong_way(p)
        return
    for t in (*samples(p.right.shape), *transforms(p.right.shape)):
        yield Mistake(t.fault, f"what passes back through `{{text}}` is {t.words}", _passed(t.of))
    for bound in (1.0, 0.5, 0.1, 2.0, 5.0):
        sentence = f"what passes back through `{{text}}` is cut off at ±{bound:g}"
        yield Mistake("clipped", sentence, _passed(partial(np.clip, a_min=-bound, a_max=bound)))
    yield Mistake("ignores dy", "ones stand where dy belongs", _passed(np.ones_like))


def _rolled_the_wrong_way(p: Passing) -> Iterator[Mistake]:
    """What was moved forward by s places, and belongs back by s, moved forward again, is off by 2 s."""
    for axis in range(-p.right.ndim, 0):
        for step in (2, -2, 1, -1) if p.right.shape[axis] > 2 else ():
            sentence = f"what passes back through `{{text}}` is shifted along axis {axis}"
            yield Mistake("shifted", sentence, _passed(partial(np.roll, shift=step, axis=axis)))


def _made_of_above(of: Callable[[Array], Array], p: Passing) -> Array:
    return of(p.above)


def other_arrays(p: Passing, pool: Pool) -> Iterator[Mistake]:
    """Yield the cotangents and values that may stand where what comes from above belongs."""
    if p.ct[0] is not None and len(p.ct) == 1 and p.a is None:
        for name, get in pool.cotangents(p.site, np.shape(p.ct[0])):
            yield Mistake("another value", f"{name} stands where what comes back to `{{text}}` belongs", _above(get))


def rule_mistakes(p: Passing, pool: Pool) -> Iterator[Mistake]:
    """Yield the confusions of the chain rule of one operation."""
    op = p.operation
    if op is None or p.ct[0] is None or len(p.ct) != 1:
        return
    if p.site.key[0] == BOTH:
        sentence = "the operands of `{text}` are exchanged: each stands where the other one belongs"
        yield Mistake("operands swapped", sentence, lambda p, c: p.with_factors(p.x))
        return
    if op.name in UNARY and op.name not in ("neg", "copy", "copy_p", "real"):
        f, slopes = UNARY[op.name]
        yield Mistake("σ′ missing", "the derivative of `{text}` is left out", lambda p, c: p.with_factors())
        yield Mistake(
            "σ′ of the output",
            "the derivative of `{text}` is taken at its output",
            lambda p, c: p.with_factors(*slopes(f(p.x), f(f(p.x)))),
        )
        for name, get in pool.values(p.site, p.x.shape) if op.name in ("sqrt", "rsqrt", "exp", "log") else ():
            sentence = f"the derivative of `{{text}}` is that at {name}"
            yield Mistake("another value", sentence, _slope_of(slopes, get))
    if p.x.shape == np.shape(p.ct[0]) and not p.factors() and p.x.size <= 64:
        sentence = "each output of `{text}` passes what comes back to its own input alone"
        yield Mistake("off-diagonal terms missing", sentence, lambda p, c: _own_input_only(p))
    if op.name in ("reduce_max", "reduce_min"):
        sentence = "which entry is taken is left out at `{text}`: every one passes what comes back"
        yield Mistake("factor left out", sentence, partial(_of_entry, None))
        for i, which in ((0, "first"), (-1, "last")):
            sentence = f"the {which} entry passes what comes back to `{{text}}`, whichever was taken"
            yield Mistake("another value", sentence, partial(_of_entry, i))
    if op.name == "cumsum":
        sentence = "what comes back to `{text}` is added up from the start, where it belongs from the end"
        yield Mistake("reversed", sentence, lambda p, c: _by_the_operation_itself(p))
    if op.name == "gather" and p.k == 0:
        sentence = "of what comes back to one entry of `{text}` several times only the last is kept"
        yield Mistake("overwritten", sentence, lambda p, c: _overwritten(p))
    for words, kept in (("last", -1), ("first", 0)) if len(set(p.site.at)) > 1 else ():
        sentence = f"of what the steps of `{{text}}` pass back only that of the {words} is kept"
        yield Mistake("overwritten", sentence, _of_one_step(kept))
    overlap = op.name in ("slice", "dynamic_slice", "gather") and np.max(sum(n for _, n in _parts(p)), initial=0) > 1
    for words, later in (("last", 1), ("first", -1)) if overlap else ():
        sentence = f"of what the parts of `{{text}}` pass back to one entry only that of the {words} is kept"
        yield Mistake("overwritten", sentence, partial(_not_overwritten, later))
    for i, j in itertools.combinations(range(len(p.factors())), 2):
        sentence = "two factors of the derivative of `{text}` are left out"
        yield Mistake("factor left out", sentence, _two_left_out(i, j))
    other = p.tape.name_of(op.operands[1 - p.k]) if op.name == "mul" else ""
    for i, factor in enumerate(p.factors()):
        if np.size(factor) == 1 and abs(float(np.asarray(factor).item())) == 1.0:
            continue
        for of, fault, words in _OF_A_FACTOR:
            called = _short(factor) or f" {other}".rstrip()
            yield Mistake(fault, f"the factor{called} of `{{text}}` is {words}", _factor_changed(i, of))
        for name, get in pool.values(p.site, np.shape(factor)) if op.name in ("integer_pow", "square") else ():
            sentence = f"{name} stands where a factor of the derivative of `{{text}}` belongs"
            yield Mistake("another value", sentence, _factor_replaced(i, get))
    yield from _of_a_sum(p)
    if len(op.operands) == 2 and op.name in ("mul", "div", "dot_general"):
        yield from _of_a_product(p, pool)
    fault, words = ("ignores dy", "dy") if pool.is_dy(op.outs[0]) else ("factor left out", "what comes back")
    yield Mistake(fault, f"{words} is left out at `{{text}}`", _above(_ones))


_OF_A_FACTOR: Sequence[tuple[Callable[[Any], Any], str, str]] = (
    (np.ones_like, "factor left out", "left out"),
    (np.square, "factor taken twice", "taken twice"),
    (np.reciprocal, "another value", "divided by where it belongs as it is"),
    (np.abs, "absolute value", "made positive"),
)


def _own_input_only(p: Passing) -> Array:
    """Return what passes to each entry of the operand from the output's entry in the same place."""
    above, own = p.above, np.zeros(p.x.shape)
    for i in np.ndindex(*above.shape):
        alone = np.zeros(above.shape)
        alone[i] = above[i]
        own[i] = np.asarray(p.by_rule(alone))[i]
    return own


def _by_the_operation_itself(p: Passing) -> Array:
    """Return what a linear operation makes of what comes from above, where what is transposed to it belongs."""
    assert p.operation is not None
    return np.asarray(evaluate(p.operation.primitive, p.operation.params, [p.above])[0])


def _parts(p: Passing) -> Iterator[tuple[int, Array]]:
    """Yield the step of each part of the operand that a statement takes, and 1 where that part passes something."""
    for (i, k), step in zip(p.site.edges, p.site.at, strict=True):
        if p.tape.operations[i].operands[k] == p.into:
            outs = [np.ones(p.tape.values[out].shape) for out in p.tape.operations[i].outs]
            passed = p.tape.rule(i, k)(outs)
            yield step, np.zeros(p.x.shape, int) if passed is None else 1 * np.not_equal(passed, 0)


def _not_overwritten(later: int, p: Passing, _: float) -> Array:
    """Return what passes without the entries that a later part, or with −1 an earlier one, passes something to, too."""
    others = [part for step, part in _parts(p) if (step - p.step) * later > 0]
    return np.asarray(p.right * np.all([part == 0 for part in others], axis=0)) if others else p.right


def _of_entry(i: int | None, p: Passing, _: float) -> Array:
    """Return what comes from above, for each entry along the axes of an extremum, or for one of them alone."""
    assert p.operation is not None
    axes = tuple(p.operation.params["axes"])
    passed = np.broadcast_to(np.expand_dims(p.above, axes), p.x.shape)
    if i is not None:
        for axis in axes:
            passed = _kept(passed, axis=axis, i=i, there=True)
    return passed


def _of_one_step(kept: int) -> Change:
    return lambda p, c: p.right if p.step == p.site.at[kept] else None


def _slope_of(slopes: Callable[[Array, Array], tuple[Any, ...]], get: Get) -> Change:
    return lambda p, c: p.with_factors(*slopes(get(p), get(p)))


def _short(factor: Any) -> str:
    """Return a number as it may stand in the source, " 0.5"; "" for what is none, or was computed."""
    if np.size(factor) > 1:
        return ""
    number = float(np.asarray(factor).item())
    return f" {number:.4g}" if float(f"{number:.4g}") == number else ""


def _factor_replaced(i: int, get: Get) -> Change:
    return lambda p, c: p.with_factors(*(get(p) if j == i else f for j, f in enumerate(p.factors())))


def _factor_changed(i: int, of: Callable[[Any], Any]) -> Change:
    return lambda p, c: p.with_factors(*(of(np.asarray(f, float)) if j == i else f for j, f in enumerate(p.factors())))


def _two_left_out(i: int, j: int) -> Change:
    return lambda p, c: p.with_factors(*(f for n, f in enumerate(p.factors()) if n not in (i, j)))


def _ones(p: Passing) -> Array:
    return np.ones_like(p.above)


def _of_a_sum(p: Passing) -> Iterator[Mistake]:
    """Where the operand was repeated along axes, its cotangent is a sum over them: take it over another axis.

    Factors that have the operand's own shape may stand before that sum or after it.
    """
    above, shape = np.shape(p.above), p.x.shape
    given = p.factors()
    if not given or above == shape or len(above) != len(shape):
        return
    outside = [i for i, f in enumerate(given) if np.shape(f) == shape]
    sentence = "what comes back to `{text}` is not summed: each entry keeps its own"
    yield Mistake("off-diagonal terms missing", sentence, lambda p, c: math.prod(p.factors(), start=p.above))
    for n in range(len(outside) + 1):
        for axis in range(-len(above), 0):
            if above[axis] > 1 and shape[axis] == above[axis]:
                sentence = f"what comes back to `{{text}}` is summed over axis {axis}"
                yield Mistake("summed over the wrong axis", sentence, _summed_over(axis, outside[:n]))
        sentence = "what comes back to `{text}` is summed over all axes"
        yield Mistake("summed over everything", sentence, _summed_over(None, outside[:n]))


def _summed_over(axis: int | None, after: Sequence[int]) -> Change:
    return lambda p, c: _summed(p, axis, after)


def _summed(p: Passing, axis: int | None, after: Sequence[int]) -> Array:
    factors = p.factors()
    inner = math.prod((f for i, f in enumerate(factors) if i not in after), start=p.above)
    total = np.broadcast_to(inner.sum(axis=axis, keepdims=True), inner.shape)
    return math.prod((f for i, f in enumerate(factors) if i in after), start=np.asarray(total))


def _of_a_product(p: Passing, pool: Pool) -> Iterator[Mistake]:
    op = p.operation
    assert op is not None
    other = 1 - p.k
    factor, slot = p.operands()[other], op.operands[other]
    called = p.tape.name_of(slot)
    belongs = f"where {called + ', ' if called else ''}the other factor of `{{text}}`{',' if called else ''} belongs"
    if op.name == "dot_general":
        for i, j in itertools.combinations(range(-factor.ndim, 0), 2):
            if factor.shape[i] == factor.shape[j] > 1:
                turned = partial(_other_of, other, partial(np.swapaxes, axis1=i, axis2=j))
                yield Mistake("W for Wᵀ", "the other factor of `{text}` is used untransposed", _with(other, turned))
        sentence = "the other factor of `{text}` is left out"
        yield Mistake("factor left out", sentence, _with(other, partial(_other_of, other, np.ones_like)))
        for name, get in pool.values(p.site, factor.swapaxes(-1, -2).shape) if factor.ndim > 1 else ():
            what = f"{name}, transposed," if "`" in name else f"{name}.T".removesuffix(".T.T")
            yield Mistake("another value", f"{what} stands {belongs}", _with(other, partial(_turned, get)))
    for t in transforms(factor.shape) if factor.ndim else ():
        sentence = f"the other factor of `{{text}}` is {t.words}"
        yield Mistake("another value", sentence, _with(other, partial(_other_of, other, t.of)))
    for words, get in pool.at_other_steps(p.site, slot):
        sentence = f"the other factor of `{{text}}` is taken {words}"
        yield Mistake("another value", sentence, _with(other, get))
    for name, get in pool.values(p.site, factor.shape):
        yield Mistake("another value", f"{name} stands {belongs}", _with(other, get))
    if p.x.shape != factor.shape and op.name == "mul":
        sentence = "an operand of `{text}` stands where the other one belongs"
        yield Mistake("operands swapped", sentence, _with(other, partial(_own, other)))
    if slot in p.tape.cotangents and p.tape.moving[slot]:
        sentence = "the other factor of `{text}` had already been updated"
        yield Mistake("already updated W", sentence, partial(_updated, other), "amount")


def _with(other: int, get: Get) -> Change:
    """What passes if another array is the other operand of a product."""

    def change(p: Passing, _: float) -> Array | None:
        operands = p.operands()
        operands[other] = without_ones(get(p), operands[other].shape)
        if p.operation is not None and p.operation.operands[0] == p.operation.operands[1]:
            return p.with_factors(operands[other])
        return p.by_rule(operands=operands)

    return change


def _other_of(other: int, of: Callable[[Array], Array], p: Passing) -> Array:
    return of(p.operands()[other])


def _turned(get: Get, p: Passing) -> Array:
    return np.swapaxes(get(p), -1, -2)


def _own(other: int, p: Passing) -> Array:
    return np.broadcast_to(p.x, np.broadcast_shapes(p.x.shape, p.operands()[other].shape))


def _overwritten(p: Passing) -> Array:
    assert p.operation is not None
    return overwritten(p.operation.primitive, p.operation.params, p.operands(), p.above)


def _updated(other: int, p: Passing, c: float) -> Array | None:
    assert p.operation is not None
    change = c * p.tape.cotangents[p.operation.operands[other]]
    return _with(other, lambda p: p.operands()[other] + change)(p, c)


def activation_mistakes(p: Passing) -> Iterator[Mistake]:
    """Yield the confusions of f′(z), f however many operations it consists of."""
    if p.a is None:
        return
    slope = p.slope()
    for words, step in STEPS if len(set(p.site.at)) > 1 else ():
        sentence = f"the derivative of `{{text}}` is taken at the value {words}"
        yield Mistake("another value", sentence, _slope_of_step(step))
    if any(not np.array_equal(slope, p.slope(z)) for z in (-p.x, 2 * p.x + 1)):
        yield Mistake("σ′ missing", "the derivative of `{text}` is left out", lambda p, c: p.ct[0])
        sentence = "the derivative of `{text}` is taken twice"
        yield Mistake("factor taken twice", sentence, lambda p, c: p.right * p.slope())
        yield Mistake(
            "σ′ of the output",
            "the derivative of `{text}` is taken at its output a where it belongs at z",
            lambda p, c: p.above * p.slope(np.asarray(p.a)),
        )
        for words, derivative in DERIVATIVES:
            sentence = f"{words} stands where the derivative of `{{text}}` belongs"
            yield Mistake("another activation's derivative", sentence, _derived(derivative))


def _slope_of_step(step: Callable[[int, int], int]) -> Change:
    """What passes with the slope that an activation has at another step of its loop."""

    def change(p: Passing, _: float) -> Array:
        z, a = dict(zip(p.site.at, p.site.edges, strict=True))[step(p.step, p.site.steps)]
        return p.above * p.tape.slope(z, a)

    return change


def _derived(derivative: Callable[[Any, Any], Any]) -> Change:
    return lambda p, c: p.above * derivative(p.x, p.a)


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z < 0, e, 1) / (1 + e))


def _relu(slope: float) -> Callable[[Any, Any], Any]:
    return lambda z, a: np.where(z > 0, 1.0, slope)


DERIVATIVES: Sequence[tuple[str, Callable[[Any, Any], Any]]] = (
    ("a (1 − a)", lambda z, a: a * (1 - a)),
    ("a", lambda z, a: a),
    ("1 − a", lambda z, a: 1 - a),
    ("1 + a", lambda z, a: 1 + a),
    ("1 − a²", lambda z, a: 1 - a * a),
    ("(1 − a)²", lambda z, a: (1 - a) ** 2),
    ("z (1 − z)", lambda z, a: z * (1 - z)),
    ("1 − z²", lambda z, a: 1 - z * z),
    ("1 − tanh(z)²", lambda z, a: 1 - np.tanh(z) ** 2),
    ("tanh(z)", lambda z, a: np.tanh(z)),
    ("σ(z)", lambda z, a: _sigmoid(z)),
    ("σ(z) σ(−z)", lambda z, a: _sigmoid(z) * _sigmoid(-z)),
    ("−a²", lambda z, a: -a * a),
    ("1 + a²", lambda z, a: 1 + a * a),
    ("a (1 + a)", lambda z, a: a * (1 + a)),
    ("1 − 2a", lambda z, a: 1 - 2 * a),
    ("a²", lambda z, a: a * a),
    ("1/a", lambda z, a: 1 / a),
    ("1/z", lambda z, a: 1 / z),
    ("z", lambda z, a: z),
    ("2z", lambda z, a: 2 * z),
    ("exp(z)", lambda z, a: np.exp(z)),
    ("exp(−z)", lambda z, a: np.exp(-z)),
    ("cos(z)", lambda z, a: np.cos(z)),
    ("sin(z)", lambda z, a: np.sin(z)),
    ("ReLU′ of z", _relu(0.0)),
    ("ReLU′ of a", lambda z, a: (a > 0) * 1.0),
    *((f"the derivative of a leaky ReLU of slope {s}", _relu(s)) for s in (0.01, 0.1, 0.2, 0.3)),
    ("the derivative of ELU", lambda z, a: np.where(z > 0, 1.0, np.exp(np.minimum(z, 0)))),
    ("the derivative of SiLU", lambda z, a: _sigmoid(z) * (1 + z * _sigmoid(-z))),
    ("1/(1 + z²)", lambda z, a: 1 / (1 + z * z)),
    ("1/(1 + |z|)²", lambda z, a: 1 / (1 + np.abs(z)) ** 2),
    ("the density of the normal distribution", lambda z, a: np.exp(-z * z / 2) / math.sqrt(2 * math.pi)),
)

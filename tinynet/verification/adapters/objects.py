"""Objects that keep their parameters, cache and gradients on themselves.

A parameter is a float array reachable from the object that moves y when it is moved. A gradient is what backward
returns for it, or an array reachable after backward that backward made or changed; exact values decide between several.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from tinynet.verification.adapters.arguments import (
    LEARNING_RATE,
    Arguments,
    as_array,
    floats,
    other_side,
    read_arguments,
    signature_of,
    slots,
    spellings,
    turned,
    with_mappings,
)
from tinynet.verification.adapters.conventions import BACKPROP, Convention, first, of_methods, times_dy, y_and_cache
from tinynet.verification.adapters.generators import seed_own
from tinynet.verification.adapters.parts import fresh, put
from tinynet.verification.adapters.reachable import flags_in, keeping_arrays_of_its_class, others_in, reachable
from tinynet.verification.adapters.subject import (
    DATA_NAMES,
    MISSING,
    Args,
    Array,
    Draw,
    Exact,
    Gradients,
    Malformed,
    Subject,
    TargetError,
    short,
)
from tinynet.verification.copies import is_transpose, rebound
from tinynet.verification.execution import like, seed_generators, told
from tinynet.verification.numpy_as_jax import Traced, raw
from tinynet.verification.tolerance import CHOICE, largest

_NAMES = """
    forward/backward __call__/backward __call__/backprop forward/backprop fprop/bprop forward_pass/backward_pass
    forward_prop/backward_prop forward_propagation/backward_propagation feed_forward/back_propagate
    feedforward/backpropagate forward/grad forward/gradient __call__/grad __call__/gradient loss/gradient loss/backward
"""
METHODS = tuple((forward, backward) for forward, backward in (pair.split("/") for pair in _NAMES.split()))
"""The names that people give to the two passes, the likeliest first."""

_STATE = re.compile(r"running|moving|average|(^|_)ema($|_)|momentum|velocity", re.IGNORECASE)
_LARGE_STEP = 2.0**20  # so that rounding of the parameter hides nothing of the step
_RESETS = tuple("zero_grad zero_grads zero_gradients reset_grad clear_grads cleargrads flush_gradients".split())

_CONTAINERS = ("grads", "gradients", "grad", "dparams", "d", "g", "_grads", "_gradients")
_OF_CONTAINERS = tuple("d_{} {}_grads d{} {}_grad grad_{} grads_{} nabla_{} delta_{} g{}".split())


def methods_of(target: Any) -> tuple[str, str] | None:
    """Return the names of the forward and the backward method of an object; None if it has none."""
    return next((m for m in METHODS if all(callable(getattr(target, name, None)) for name in m)), None)


def adapt_object(
    target: Any, names: tuple[str, str], inputs: Any, params: Any, rng: np.random.Generator
) -> list[Subject]:
    """Return an object with a forward and a backward method, in each convention that it can be of, the likeliest first.

    `backward(dy)`; `forward(*args) -> (y, cache)` with `backward(dy, cache)` or `backward(cache, dy)`;
    `backward(dy, *args)` or `backward(*args, dy)`; `backward()` or `backward(*args)`, which dy multiplies; and
    `forward(*args) -> (y, backprop)` with `backprop(dy)`.

    Args:
        names: of the two methods, as `methods_of` finds them; twice the one where it returns (y, backprop).

    Raises:
        TargetError: no input that its forward accepts was found.
    """
    label = type(target).__name__
    arguments, arrays = _arguments(target, names[0], inputs, rng, label)
    y_of = functools.partial(_call, names[0], arguments, arrays)
    owner, declared = keeping_arrays_of_its_class(target), params
    if names[0] == names[1]:
        conventions = [replace(BACKPROP, usual=False)]
    else:
        outputs = len(y_of(fresh(owner)))
        conventions = of_methods(names[1], getattr(target, names[1]), arguments, outputs)
    readings = [_Places(owner, names, arguments, {}, c) for c in conventions]
    _check_that_one_runs(readings, arrays)
    if declared is None:
        owner = _with_arrays_of_floats(owner, readings, arrays)
        owner, declared = _find_params(owner, y_of, rng)
    paths = {f"self.{path}" if path in arrays else path: path for path in declared}
    held = dict(reachable(owner))
    for path in declared:
        if path not in held:
            raise TargetError(
                f"{label}: params= names {path!r}, which is no array of the object; it has {sorted(held)}"
            )
    values = {name: as_array(held[path] if params is None else declared[path], name) for name, path in paths.items()}
    readings = [_training(replace(r, owner=owner, params=paths), arrays) for r in readings]
    return [_subject(r, arrays | values) for r in readings]


def _subject(places: _Places, args: Args) -> Subject:
    owner, arguments, forward = places.owner, places.arguments, places.methods[0]
    unpack, held = places.convention.unpack, dict(reachable(owner))

    def pure(args: Mapping[str, Any], numpy_manners: bool) -> Any:
        made = {n: Traced(a) for n, a in args.items()} if numpy_manners else args
        instead = {id(held[path]): made[name] for name, path in places.params.items()}
        seed_own(owner)
        copied = rebound(owner, instead) if numpy_manners else fresh(owner, instead)
        return raw(unpack(arguments.call(getattr(copied, forward), made))[0])

    return Subject(
        name=type(owner).__name__,
        args=args,
        wrt=floats(args),
        inputs=tuple(n for n in args if n not in places.params),
        start=lambda: _ObjectSession(places),
        modes=lambda: [(flag, _subject(mode, args)) for flag, mode in _modes(places)],
        pure=pure,
        one_cache=True,
        code=tuple(f for n in places.methods if (f := getattr(type(owner), n, None)) is not None),
        reference=lambda f, args: arguments.call(f, args),
        settle=functools.partial(_settled, places),
        notes=places.convention.notes + places.notes,
    )


@dataclass(frozen=True)
class _Places:
    """Where things are on an object: its methods, its parameters by name, and where their gradients were found.

    Attributes:
        trains: whether backward moves the parameters itself, by a learning rate that is `_LARGE_STEP`.
        steps: whether these steps are the gradients, times that: of Adam's they are not.
        notes: what is worth knowing of it.
    """

    owner: Any
    methods: tuple[str, str]
    arguments: Arguments
    params: Mapping[str, str]
    convention: Convention
    grads: Mapping[str, str] = field(default_factory=dict)
    trains: bool = False
    steps: bool = True
    notes: tuple[str, ...] = ()


class _ObjectSession:
    """A copy of an object, made at the first call; `changed` has what its last backward pass made or wrote into."""

    def __init__(self, places: _Places) -> None:
        self.places, self.target = places, None

    def forward(self, args: Args) -> tuple[Any, Any]:
        p = self.places
        if self.target is None or p.trains:
            held = dict(reachable(p.owner))
            self.target = fresh(p.owner, {id(held[path]): np.array(args[name]) for name, path in p.params.items()})
        held = dict(reachable(self.target))
        for name, path in p.params.items():
            if held[path] is not args[name] and not np.array_equal(held[path], args[name]):
                held[path][...] = args[name]
        for reset in _RESETS:
            if callable(getattr(self.target, reset, None)):
                getattr(self.target, reset)()
        positional, keywords = p.arguments.filled(args)
        seed_own(self.target)
        y, rest = p.convention.unpack(getattr(self.target, p.methods[0])(*positional, **keywords))
        return y, (rest, (*positional, *keywords.values()))

    def backward(self, context: Any, dy: Any) -> Gradients:
        pool = self.pulled(context, dy)
        chosen = self.places.grads or first_places(self.places, pool)
        found = {name: pool.get(path, MISSING) for name, path in chosen.items()}
        for name, value in found.items():
            if isinstance(value, np.ndarray) and not chosen[name].startswith("return"):
                found[name] = value.copy()  # the object's own, which it may go on writing into
        return found

    def pulled(self, context: Any, dy: Any) -> dict[str, Any]:
        """Run backward and return everything that may be a gradient."""
        how, (rest, arguments) = self.places.convention, context
        before = {path: np.array(a) for each in (False, True) for path, a in reachable(self.target, numbers=each)}
        backward = getattr(self.target, self.places.methods[1])
        if how.rate:
            backward = functools.partial(backward, **{how.rate: _LARGE_STEP})
        pool = self.pool(how.pull(backward, rest, arguments, dy), before)
        if self.places.trains and self.places.steps:
            pool |= self.steps(before)
        return dict(times_dy(pool, dy)) if how.times else pool

    def steps(self, before: Mapping[str, Array]) -> dict[str, Array]:
        """Return how far backward moved each parameter that it moved, divided by the learning rate."""
        now = dict(reachable(self.target))
        moved = [p for p in self.places.params.values() if p in now and not np.array_equal(now[p], before[p])]
        for path in moved:
            if now[path].shape != before[path].shape:
                raise Malformed(f"backward changes the shape of {path}, from {before[path].shape} to {now[path].shape}")
        self.changed |= {_step_of(p) for p in moved}
        return {_step_of(p): (before[p] - now[p]) / before[p].dtype.type(_LARGE_STEP) for p in moved}

    def params_now(self) -> Args:
        if self.places.trains:
            return {}  # it writes into them on purpose
        held = dict(reachable(self.target))
        return {name: held[path] for name, path in self.places.params.items() if path in held}

    def pool(self, result: Any, before: Mapping[str, Array]) -> dict[str, Any]:
        """Return everything that may be a gradient: what was returned, and every array of the object's."""
        pool, held = dict(_leaves(with_mappings(result), "return")), reachable(self.target)
        params = {id(a) for path, a in held if path in self.places.params.values()}
        pool |= {path: a for path, a in held if id(a) not in params}
        for path, number in reachable(self.target, numbers=True):
            pool.setdefault(path, np.asarray(number))
        self.changed = {
            p for p, a in pool.items() if p not in before or not np.array_equal(before[p], a, equal_nan=True)
        }
        return pool


def first_places(places: _Places, pool: Mapping[str, Any]) -> dict[str, str]:
    """Return where the gradient of each array most likely is: by name where there are names, else by order."""
    inputs = [n for _, tree in places.arguments.parts() for n in slots(tree)]
    returned = [path for path in pool if path.startswith("return")]
    chosen: dict[str, str] = {}
    shapes = {path: np.shape(a) for path, a in reachable(places.owner)}
    holders = [path.rpartition(".")[0] for path in places.params.values()]
    for name in [*inputs, *places.params]:
        tail = _tail(name)
        spelt = (tail, *spellings(tail))
        path = next((r for r in returned if _tail(r) in spelt and not _tail(r).isdigit()), None)
        if path is not None:
            chosen[name] = path
    free = [r for r in returned if r not in chosen.values() and (_tail(r).isdigit() or r == "return" or not chosen)]
    unplaced = [n for n in inputs if n not in chosen]
    if len(free) < len(unplaced):
        unplaced.sort(key=DATA_NAMES.__contains__)  # of data there is no gradient
    for name in unplaced:
        if free:
            chosen[name] = free.pop(0)
    for name, path in places.params.items():
        if name not in chosen:
            alone = holders.count(path.rpartition(".")[0]) == 1  # where there are others, `grad` may be of any of them
            kept = [
                c
                for c in (*_candidates(path), _step_of(path))
                if c in pool and (alone or c not in _unnamed(path) or np.shape(pool[c]) == shapes[path])
            ]
            if kept:
                chosen[name] = kept[0]
            elif free:
                chosen[name] = free.pop(0)
    return chosen


def _step_of(path: str) -> str:
    return f"the step of {path}"


def _unnamed(path: str) -> tuple[str, ...]:
    """Return where the gradient of the main array of an object is kept, by names that do not say whose it is."""
    head, dot, tail = path.rpartition(".")
    main = tail in ("data", "value", "val", "w", "W", "weight")
    return tuple(f"{head}{dot}{name}" for name in ("grad", "gradient", "g", "_grad")) if main else ()


def _candidates(path: str) -> Iterator[str]:
    """Yield where an object keeps the gradient of a parameter, by the names people give."""
    head, dot, tail = path.rpartition(".")
    holder = head + dot
    for s in spellings(tail):
        yield holder + s
    yield from _unnamed(path)
    yield f"{path}.grad"
    containers = head.split(".") if head else []
    for i in reversed(range(len(containers) + 1)):  # `params.1.W` in `params.1.grads.W`, `params.grads.W`, `grads.1.W`
        upper, below = containers[:i], containers[i + 1 :]
        own = [n for c in containers[i : i + 1] for n in dict.fromkeys((c, c.removesuffix("s"), c.removesuffix("es")))]
        for grads in (*_CONTAINERS, *(form.format(name) for name in own for form in _OF_CONTAINERS)):
            for key in (tail, *spellings(tail)):
                yield ".".join([*upper, grads, *below, key])
    for s in spellings(tail):  # `params.W` in `dW`
        yield ".".join([*containers[:-1], s])


def _is_parallel(got: Any, exact: Array) -> bool:
    """Return whether an array is nearly a multiple of a gradient."""
    if np.shape(got) != exact.shape:
        return False
    a, g = np.asarray(got, np.float64).ravel(), exact.ravel()
    return bool(abs(np.vdot(a, g)) >= 0.9 * np.linalg.norm(a) * np.linalg.norm(g) > 0)


def _settled(places: _Places, subject: Subject, draws: Sequence[Draw]) -> Subject:
    """Choose where each gradient is: the likeliest place, or another of the same shape where the values are right."""
    tried = [_after_one_call(places, args, dy) for args, dy, _ in draws]
    pools, first = [pool for _, pool in tried], tried[0][1]
    changed = set.intersection(*(changed for changed, _ in tried))
    exact = [e.grads for _, _, e in draws]

    def holds(test: Callable[[Any, Array], bool], path: str, name: str) -> bool:
        return all(test(pool.get(path, MISSING), grads[name]) for pool, grads in zip(pools, exact, strict=True))

    chosen = {n: p for n, p in first_places(places, first).items() if n in subject.wrt}
    data = [n for n in subject.inputs if n in DATA_NAMES and n not in chosen]
    notes = []
    for name in (n for n in subject.wrt if n not in data):
        if holds(_fits, chosen.get(name, ""), name):
            continue
        right = [p for p in first if p in changed and holds(_fits, p, name)] if np.any(exact[0][name]) else []
        taken = [p for n, p in chosen.items() if n != name and _fits(first.get(p, MISSING), exact[0][n])]
        best = next((p for p in right if p not in taken), None)
        if best is None and name not in chosen and places.steps:  # the one that nearly points along it: it may be wrong
            free = [p for p in first if p in changed and p not in chosen.values()]
            alike = [p for p in free if holds(_is_parallel, p, name)]
            best = alike[0] if len(alike) == 1 else None
        if best is not None:
            chosen[name] = best
            if name not in subject.inputs or len(subject.inputs) > 1 or best != "return":
                notes.append(f"the gradient of {name} is read from {_told(best)}")
    if notes:
        chosen = _each_its_own(chosen, subject, first, draws[0][2])
    settled = replace(places, grads=chosen)
    again = _subject(settled, subject.args)
    subject = replace(subject, start=again.start, modes=again.modes, settle=None, notes=(*subject.notes, *notes))
    return _without_state(subject, settled)


def _without_state(subject: Subject, places: _Places) -> Subject:
    """Return a subject in which the arrays that forward writes, and that have no gradient, are constants."""
    lacking = {n: p for n, p in places.params.items() if n in subject.wrt and n not in places.grads}
    if not lacking:
        return subject
    written = _written(places, {n: a for n, a in subject.args.items() if n not in places.params})
    state = [n for n, path in lacking.items() if path in written]
    if not state:
        return subject
    places = replace(places, params={n: p for n, p in places.params.items() if n not in state})
    again = _subject(places, {n: a for n, a in subject.args.items() if n not in state})
    note = f"{', '.join(state)}: state, which the forward pass writes, and no parameter"
    wrt = tuple(n for n in subject.wrt if n not in state)
    return replace(again, wrt=wrt, make_oracle=subject.make_oracle, settle=None, notes=(*subject.notes, note))


def _written(places: _Places, arrays: Args) -> set[str]:
    """Return where the forward pass writes into arrays of the object, as it is called or with one flag turned."""
    written: set[str] = set()
    for mode in (places, *(mode for _, mode in _modes(places))):
        target = fresh(mode.owner)
        before = {path: np.array(a) for path, a in reachable(target)}
        try:
            _call(mode.methods[0], mode.arguments, arrays, target)
        except Exception:
            continue
        now = dict(reachable(target))
        written |= {p for p, a in before.items() if p in now and not np.array_equal(a, now[p], equal_nan=True)}
    return written


def _modes(places: _Places) -> Iterator[tuple[str, _Places]]:
    """Yield an object and a call with each flag of either turned, and which one it is."""
    owner, forward = places.owner, getattr(places.owner, places.methods[0])
    for label, arguments in turned(forward, places.arguments):
        yield label, replace(places, arguments=arguments)
    for path, value in flags_in(owner):
        if (other := other_side(value)) is not None:
            copied = fresh(owner)
            put(copied, path, other)
            yield f"{path}={other}", replace(places, owner=copied)


def _each_its_own(chosen: dict[str, str], subject: Subject, pool: Mapping[str, Any], exact: Exact) -> dict[str, str]:
    """Return the places with no two gradients in one: what does not fit there goes to a free place, or nowhere."""
    shared = [n for n, p in chosen.items() if list(chosen.values()).count(p) > 1]
    places = dict(chosen)
    for name in (n for n in shared if not _fits(pool[chosen[n]], exact.grads[n])):
        like = [p for p, a in pool.items() if p.startswith("return") and np.shape(a) == subject.args[name].shape]
        places[name] = next((p for p in like if p not in places.values()), "")
    return places


def _fits(got: Any, exact: Array) -> bool:
    try:
        a = np.asarray(got, np.float64)
    except (TypeError, ValueError):
        return False
    return a.shape == exact.shape and bool(np.allclose(a, exact, rtol=CHOICE, atol=CHOICE * largest(exact)))


def _told(path: str) -> str:
    return path.replace("return", "what backward returns", 1) if path.partition(".")[0] == "return" else path


def _with_arrays_of_floats(owner: Any, readings: Sequence[_Places], arrays: Args) -> Any:
    """Return an object with an array of floats for each number and array of integers of which backward leaves a
    gradient, by its name.

    Raises:
        TargetError: there is one of another array, as of complex numbers.
    """
    others = dict(reachable(owner, numbers=True) + others_in(owner))
    for reading in readings if others else ():
        try:
            changed, _ = _after_one_call(reading, arrays)
        except Exception:
            continue
        varied = [path for path in others if changed.intersection(_candidates(path))]
        if varied:
            owner = fresh(owner)
        for path in varied:
            value = others[path]
            if not isinstance(value, (float, np.generic, np.ndarray)) or np.asarray(value).dtype.kind not in "iuf":
                kind = f"{type(value).__module__}.{type(value).__name__} of {value.dtype}"
                raise TargetError(f"{path} is a {kind}, of which gradients are not judged; give arrays of floats")
            put(owner, path, np.asarray(value, np.float64))
        return owner
    return owner


def _after_one_call(
    places: _Places, args: Args, dy: tuple[Array, ...] | float = 1.0
) -> tuple[set[str], dict[str, Any]]:
    """Call forward and backward once, and return what backward changed, and everything that may be a gradient."""
    session = _ObjectSession(places)
    y, context = session.forward({n: a.copy() for n, a in args.items()})
    of_y = like(y, dy) if isinstance(dy, tuple) else jax.tree.map(lambda leaf: np.full_like(leaf, dy), y)
    pool = session.pulled(context, of_y)
    return session.changed, pool


def _training(places: _Places, arrays: Args) -> _Places:
    """Return how an object is read whose backward moves its parameters by a learning rate, its argument or its own."""
    if places.convention.rate:
        return replace(places, trains=True)
    rates = [path for path, _ in reachable(places.owner, numbers=True) if LEARNING_RATE.fullmatch(_tail(path))]

    def at(rate: float) -> _Places:
        owner = fresh(places.owner)
        for path in rates:
            put(owner, path, rate)
        return replace(places, owner=owner, trains=True)

    held = dict(reachable(places.owner))
    arrays = {**arrays, **{name: held[path] for name, path in places.params.items()}}

    def steps(rate: float, dy: float) -> dict[str, Array]:
        _, pool = _after_one_call(at(rate), arrays, dy)
        return {step: pool[step] for step in map(_step_of, places.params.values()) if step in pool}

    try:
        if not rates or steps(0.0, 1.0) or not (once := steps(_LARGE_STEP, 1.0)):
            return places
        twice = steps(_LARGE_STEP, 2.0)
    except Exception:
        return places
    plain = all(np.allclose(twice[path], 2 * step, rtol=CHOICE, atol=0) for path, step in once.items() if path in twice)
    note = f"backward moves the parameters itself, by {', '.join(rates)}"
    return replace(at(_LARGE_STEP), steps=plain, notes=(note,))


def _check_that_one_runs(readings: Sequence[_Places], arrays: Args) -> None:
    """Refuse a backward method that cannot be called in any of the conventions, all of which are guesses.

    None is a guess where backward takes dy alone, or as many arguments as forward returns or takes by these names.
    """
    owner, (_, method), arguments = readings[0].owner, readings[0].methods, readings[0].arguments
    backward = getattr(owner, method)
    needed = [p.name for p in signature_of(backward) if p.default is p.empty]
    names = [*arguments.names, *arguments.keywords]
    takes_dy_alone = all(r.convention.arity in (0, 1) for r in readings)
    if len(readings) == 1 or takes_dy_alone or names in (needed[1:], needed[:-1], needed):
        return
    tried = []
    for reading in readings:
        how = reading.convention
        try:
            _after_one_call(reading, arrays)
        except Malformed as error:
            tried.append(f"{how.text}: {error}")
        except Exception as error:
            if how.unpack is y_and_cache or how.text.endswith("…)"):
                return
            tried.append(f"{how.text}: {told(error)}")
        else:
            return
    raise TargetError(
        f"{short(backward)} takes {', '.join(needed)}, and cannot be called; tried {'; tried '.join(tried)}; give an "
        "object whose backward takes dy, or a pair of functions (forward, backward)"
    )


def _find_params(
    target: Any, y_of: Callable[[Any], list[Array]], rng: np.random.Generator
) -> tuple[Any, dict[str, Array]]:
    """Return the object, with weights that its first call makes, and the arrays that move y when they are moved."""
    used = fresh(target)
    y_of(used)
    before = {path for path, _ in reachable(target)}
    made = {path: a for path, a in reachable(used) if path not in before}
    owner = used if _moving(used, y_of, made, rng) else target
    held, ids = reachable(owner), {id(a) for _, a in reachable(owner)}
    own = {path: a for path, a in held if not (_STATE.search(path) or is_transpose(a, ids))}
    return owner, _moving(owner, y_of, own, rng)


def _moving(
    owner: Any, y_of: Callable[[Any], list[Array]], held: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """Return those of the arrays that move y when they are moved."""
    at_rest = y_of(fresh(owner)) if held else []
    moving = {}
    for path, a in held.items():
        if not a.size:
            continue
        for size in (0.1, 0.0):  # the second of the sign that it has, where no other is taken
            near = np.asanyarray(a + np.multiply(size + 0.1 * np.abs(a), rng.uniform(-1, 1, a.shape)), a.dtype)
            copied = fresh(owner, {id(a): near})
            if all(part is not near for _, part in reachable(copied)):
                raise TargetError(f"{path} is held where it cannot be moved; hold it in an attribute, a list or a dict")
            try:
                moved = y_of(copied)
            except Exception:
                continue
            pairs = zip(at_rest, moved, strict=False)
            if any(x.tobytes() != y.tobytes() for x, y in pairs) or len(at_rest) != len(moved):
                moving[path] = a
            break
    return moving


def _call(method: str, arguments: Arguments, arrays: Args, copied: Any) -> list[Array]:
    seed_generators("numpy")
    seed_own(copied)
    out = arguments.call(getattr(copied, method), {n: a.copy() for n, a in arrays.items()})
    return [np.asarray(v) for _, v in _leaves(first(out)[0], "")]


def _arguments(
    target: Any, method: str, inputs: Any, rng: np.random.Generator, label: str
) -> tuple[Arguments, dict[str, Array]]:
    forward = getattr(target, method)
    if inputs is not None:
        return read_arguments(forward, inputs, rng, name=label, integers=bool(reachable(target)))
    required = [p for p in signature_of(forward) if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(required) != 1:
        return read_arguments(forward, None, rng, name=label)
    widths = dict.fromkeys([n for _, a in reachable(target) for n in a.shape] + [3, 4])
    rows = [a.shape[0] for _, a in reachable(target) if a.ndim]
    indices = [rng.integers(0, max(rows), (5, 3))] if any(rows) else []
    shapes = [(5, n) for n in widths] + [(3, c, 7, 6) for c in widths] + [(5, 4, n) for n in widths]
    for x in [*map(rng.standard_normal, shapes), *indices]:
        arguments, arrays = read_arguments(forward, (x,), rng, name=label, integers=True)
        try:
            _call(method, arguments, arrays, fresh(target))
        except Exception as error:
            last = f"{told(error)} at {x.shape}"
        else:
            return arguments, arrays
    raise TargetError(f"{label}: no input shape that its {method} accepts was found ({last}); give inputs=x")


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from _leaves(part, f"{path}.{key}")
    elif isinstance(tree, (tuple, list)):
        for i, part in enumerate(tree):
            yield from _leaves(part, f"{path}.{i}")
    else:
        yield path, tree


def _tail(path: str) -> str:
    return path.rpartition(".")[2]

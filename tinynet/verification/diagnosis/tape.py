"""One run of a forward as a tape of operations, and the sweep back along it, in which mistakes can be put.

The tape is flat: of loops, branches and calls it holds the operations that ran. Each use of a value by an operation is
an edge; edges that one place in the source made (the steps of a loop) form a `Site`, since the mistake of a loop is
made in every step.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from tinynet.verification.diagnosis.primitives import (
    ELEMENTWISE,
    Array,
    Rule,
    evaluate,
    factors,
    push,
    rule,
    shaped,
)
from tinynet.verification.diagnosis.source import Line

Key = tuple[Any, ...]
Frames = tuple[tuple[Line, Any], ...]
"""The user's lines on the way to an operation, the innermost first, each with its function."""
Edge = tuple[int, int]
"""(operation, operand): a use. (−1, slot): all that passes back into a value. (z, a): an activation. (−1, j): dy[j]."""
Place = tuple[Any, ...]
"""Of an array in the forward: an input, what a statement or an operation makes, or what an operation is given."""
Use = tuple[Key, int]
"""A use by the key of the operation, the same in every run and in every step of a loop."""

BOTH = "both"
"""Begins the key of a site that holds both operands of a product."""
STEP, FIRST = "step", "first"
"""(STEP, FIRST) ends the key of the first step of a loop, (STEP, n) that of another, n < 0 counted from the last."""


@dataclass(frozen=True)
class Operation:
    """One operation as it ran: its operands and outputs are slots of the tape."""

    primitive: Any
    params: Mapping[str, Any]
    operands: tuple[int, ...]
    outs: tuple[int, ...]
    key: Key
    frames: Frames
    line: Line = Line("", 0)  # noqa: RUF009 - an immutable value

    @property
    def name(self) -> str:
        return str(self.primitive.name)


@dataclass(frozen=True)
class Site:
    """The edges that one place in the forward made, in the order in which they ran.

    Attributes:
        kind: "use" of an operand by an operation, "value" (all that passes back into it), "activation" (from the
            last use of a = f(z) to z in one step, however many operations f consists of), or "output" (the dy of a
            value that is used further, too).
        key: the same in every trace of the forward.
        order: where the last of them stands on the tape; later is nearer to the output.
        at, steps: in which step of a loop each edge is, and how many steps there are; h = 0 at the first has no edge.
    """

    kind: str
    key: Key
    edges: tuple[Edge, ...]
    line: Line
    order: int
    at: tuple[int, ...]
    steps: int

    @property
    def whole(self) -> bool:
        """Whether it holds the edges of every step, not those of a single one."""
        return self.key[-2:-1] != (STEP,)

    @property
    def carried(self) -> bool:
        """Whether it holds the uses of a value that goes into the output as well."""
        return bool(self.key[0] == "carried")


@dataclass(frozen=True)
class Passing:
    """What passes back through one edge in one sweep: all that a mistake can confuse.

    Attributes:
        step: which edge of its site it is.
        right: what the chain rule passes, given what came from above in this sweep.
        ct: what came from above, one array an output.
        cotangents: gives ∂E/∂(slot) in this sweep; None where nothing passes.
    """

    tape: Tape
    site: Site
    step: int
    edge: Edge
    right: Array
    ct: Sequence[Array | None]
    cotangents: Callable[[int], Array | None]

    @property
    def above(self) -> Array:
        """What came from above where there is one output."""
        return np.asarray(self.ct[0])

    @property
    def operation(self) -> Operation | None:
        return self.tape.operations[self.edge[0]] if self.site.kind == "use" else None

    @property
    def k(self) -> int:
        """Which operand of the operation it is."""
        return self.edge[1]

    @property
    def into(self) -> int:
        """The slot to which it is added."""
        return self.tape.into(self.site.kind, self.edge)

    @property
    def x(self) -> Array:
        """The value of the operand; z of an activation."""
        return self.tape.values[self.into]

    @property
    def a(self) -> Array | None:
        """The output of an activation."""
        return self.tape.values[self.edge[1]] if self.site.kind == "activation" else None

    def cotangent(self, slot: int) -> Array:
        """Return ∂E/∂(slot) as it is in this sweep.

        Raises:
            KeyError: nothing passes there, or it depends on what passes here.
        """
        if (found := self.cotangents(slot)) is None:
            raise KeyError(slot)
        return found

    def operands(self) -> list[Array]:
        return [self.tape.values[s] for s in self.operation.operands] if self.operation else []

    def by_rule(
        self, ct: Array | None = None, operands: Sequence[Array] | None = None, k: int | None = None
    ) -> Array | None:
        """Return what the chain rule would pass for another cotangent, from other operands, to another operand."""
        op = self.operation
        assert op is not None
        given = self.operands() if operands is None else list(operands)
        outs = [self.tape.values[s] for s in op.outs] if operands is None else evaluate(op.primitive, op.params, given)
        pull = rule(op.primitive, op.params, self.k if k is None else k, given, outs)
        return pull(self.ct if ct is None else [ct])

    def factors(self) -> tuple[Any, ...]:
        """Return the factors of the derivative of the operation; none unless it acts entry by entry."""
        op = self.operation
        if op is None or len(op.outs) != 1 or self.ct[0] is None:
            return ()
        return factors(op.primitive, op.params, self.k, self.operands(), [self.tape.values[op.outs[0]]])

    def with_factors(self, *given: Any) -> Array:
        """Return what passes if these are the factors of the derivative."""
        return shaped(math.prod(given, start=np.asarray(self.ct[0])), self.x.shape)

    def slope(self, z: Array | None = None) -> Array:
        """f′ of the activation, at another z if given."""
        return self.tape.slope(*self.edge, z)


Change = Callable[[Passing], Array | None]


@dataclass
class Tape:
    """The operations that move the output, the value of every slot, and where inputs and outputs are."""

    operations: list[Operation] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    moving: list[bool] = field(default_factory=list)
    beside: list[Operation] = field(default_factory=list)
    """Operations on which no output depends: what the forward computed for its cache alone."""
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: tuple[int, ...] = ()
    dy: tuple[Array, ...] = ()
    nothing: set[Edge] = field(default_factory=set)
    """Edges through which nothing passes in exact arithmetic (the max of a stable softmax): cut in every sweep."""
    cotangents: dict[int, Array] = field(default_factory=dict)
    """∂E/∂(slot) of the exact sweep."""
    rules: dict[Edge, Rule] = field(default_factory=dict)
    slopes: dict[Edge, Array] = field(default_factory=dict)

    def rule(self, i: int, k: int) -> Rule:
        """The chain rule of one edge, made once."""
        found = self.rules.get((i, k))
        if found is None:
            op = self.operations[i]
            outs = [self.values[s] for s in op.outs]
            with np.errstate(all="ignore"):
                found = rule(op.primitive, op.params, k, [self.values[s] for s in op.operands], outs)
            self.rules[i, k] = found
        return found

    def new(self, value: Any, moving: bool) -> int:
        self.values.append(np.asarray(value))
        self.moving.append(moving and self.values[-1].dtype.kind == "f")
        return len(self.values) - 1

    def into(self, kind: str, edge: Edge) -> int:
        """Return the slot to which what passes an edge is added."""
        i, k = edge
        if kind == "use":
            return self.operations[i].operands[k]
        return i if kind == "activation" else self.outputs[k] if kind == "output" else k

    @cached_property
    def users(self) -> Mapping[int, Sequence[Edge]]:
        """For each slot that moves its uses, the last first."""
        found: dict[int, list[Edge]] = {slot: [] for slot, moves in enumerate(self.moving) if moves}
        for i, op in reversed([*enumerate(self.operations)]):
            for k, slot in enumerate(op.operands):
                if self.moving[slot]:
                    found[slot].append((i, k))
        return found

    def sweep(self, changes: Mapping[Site, Change] | None = None) -> dict[int, Array]:
        """Return ∂E/∂(slot) of every slot into which something passes, with what passes each site changed.

        Raises:
            KeyError: a change asks for the cotangent of a value that depends on what it changes.
        """
        made = {
            (site.kind, edge): (site, step, change)
            for site, change in (changes or {}).items()
            for step, edge in zip(site.at, site.edges, strict=True)
        }
        activations: dict[int, list[int]] = defaultdict(list)
        for kind, (z, a) in made:
            if kind == "activation":
                activations[z].append(a)
        exact = self.cotangents if changes else {}
        below = functools.reduce(operator.or_, (self._depends[self.into(*one)] for one in made), 0)
        skipped = {a for of_z in activations.values() for a in of_z}
        below |= functools.reduce(operator.or_, (self._depends[a] & ~(1 << a) for a in skipped), 0)
        cts: dict[int, Array | None] = {}
        pending: set[int] = set()

        def passed(kind: str, edge: Edge, above: Sequence[Array | None]) -> Array | None:
            if (kind, edge) not in made:
                return self.rule(*edge)(above) if kind == "use" else above[0]
            site, step, change = made[kind, edge]
            passing = self._passing(site, step, edge, above, total)
            return change(passing) if passing else None

        def total(slot: int) -> Array | None:
            if exact and not below >> slot & 1:
                return exact.get(slot)
            if slot in pending:
                raise KeyError(slot)
            if slot in cts:
                return cts[slot]
            pending.add(slot)
            terms = [
                passed("output", (-1, j), [np.asarray(dy, np.float64)])
                for j, (out, dy) in enumerate(zip(self.outputs, self.dy, strict=True))
                if out == slot
            ]
            for i, k in self.users[slot]:
                above = [None if out in skipped else total(out) for out in self.operations[i].outs]
                if (i, k) not in self.nothing and any(ct is not None for ct in above):
                    terms.append(passed("use", (i, k), above))
            terms += [passed("activation", (slot, a), [total(a)]) for a in activations.get(slot, ())]
            there = [term for term in terms if term is not None]
            cts[slot] = passed("value", (-1, slot), [functools.reduce(operator.add, there)]) if there else None
            pending.remove(slot)
            return cts[slot]

        for slot in reversed([*self.users]):
            cts[slot] = total(slot)
        return {slot: ct for slot, ct in cts.items() if ct is not None}

    def _passing(
        self,
        site: Site,
        step: int,
        edge: Edge,
        above: Sequence[Array | None],
        cotangents: Callable[[int], Array | None],
    ) -> Passing | None:
        right = self.rule(*edge)(above) if site.kind == "use" else above[0]
        if right is None:
            return None
        right = right * self.slope(*edge) if site.kind == "activation" else right
        return Passing(self, site, step, edge, right, above, cotangents)

    def passings(self, site: Site) -> list[Passing]:
        """Return what passes each edge of a site when nothing is wrong, the last first."""
        found = []
        for step, edge in reversed([*zip(site.at, site.edges, strict=True)]):
            read = self.operations[edge[0]].outs if site.kind == "use" else (edge[1],)
            above = [self.cotangents.get(s) for s in read]
            if site.kind == "output":
                above = [np.asarray(self.dy[edge[1]], np.float64)]
            if any(c is not None for c in above) and (p := self._passing(site, step, edge, above, self.cotangents.get)):
                found.append(p)
        return found

    def carried(self, site: Site, cts: Mapping[int, Array], made: Mapping[Edge, Array]) -> list[Array]:
        """Return the sum of what the edges of a site pass in each step, the last first, where not `made` otherwise."""
        sums: dict[int, list[Array]] = defaultdict(list)
        for step, (i, k) in zip(site.at, site.edges, strict=True):
            term = made[i, k] if (i, k) in made else self.rule(i, k)([cts.get(s) for s in self.operations[i].outs])
            sums[step] += [] if term is None else [term]
        return [functools.reduce(operator.add, sums[step]) for step in sorted(sums, reverse=True) if sums[step]]

    def gradients(self, changes: Mapping[Site, Change] | None = None) -> dict[str, Array]:
        """Return ∂E/∂(input) by name."""
        found = self.sweep(changes)
        return {
            name: np.asarray(found[s]) if s in found else np.zeros(self.values[s].shape)
            for name, s in self.inputs.items()
            if self.moving[s]
        }

    def moved(
        self, along: Mapping[int, Array], until: int | None = None, at: Mapping[int, Array] | None = None
    ) -> dict[int, Array]:
        """Return by how much each slot moves as some slots move along arrays.

        Args:
            until: the last slot that is asked for.
            at: other values that these slots have.
        """
        found, values = dict(along), dict(at or {})
        for i, op in enumerate(self.operations):
            if until is not None and op.outs[0] > until:
                break
            moves = [found.get(s) if (i, k) not in self.nothing else None for k, s in enumerate(op.operands)]
            if all(m is None for m in moves) or not any(self.moving[s] for s in op.outs):
                continue
            given = [values.get(s, self.values[s]) for s in op.operands]
            outs = evaluate(op.primitive, op.params, given) if at else [self.values[s] for s in op.outs]
            values |= zip(op.outs, outs, strict=True) if at else ()
            found |= zip(op.outs, push(op.primitive, op.params, given, outs, moves), strict=True)
        return found

    @cached_property
    def places(self) -> Mapping[Place, tuple[tuple[int, ...], str]]:
        """For each place that an array has in the forward its slots, in the order of the steps, and its name."""
        found: dict[Place, list[int]] = {("input", name): [slot] for name, slot in self.inputs.items()}
        names: dict[Place, str] = {("input", name): name for name in self.inputs}
        called = {slot: name for name, slot in self.inputs.items()}
        every = [*self.operations, *self.beside]
        # Of a statement, and of those that call it, the operation that makes what it assigns.
        last = {line: op.key for op in every for line in (op.line, *(line for line, _ in op.frames))}
        for op in every:
            text = op.line.text()
            made = (line.target() for line, _ in op.frames[::-1] if last[line] == op.key)
            whole = next(filter(None, made), "") or f"the value of `{text}`"
            turned = called.get(op.operands[0]) if op.name == "transpose" else None
            part = f"{turned}.T" if turned else f"a part of `{text}`"
            for j, slot in enumerate(op.outs):
                # What a statement assigns may come from another operation where an axis has length 1.
                place = (op.line, "out", j) if last[op.line] == op.key else (op.key, "out", j)
                found.setdefault(place, []).append(slot)
                names.setdefault(place, whole if last[op.line] == op.key else part)
                called |= {} if "`" in names[place] else {slot: names[place]}
            for k, slot in enumerate(op.operands):
                found.setdefault((op.key, "in", k), []).append(slot)
                names.setdefault((op.key, "in", k), f"an operand of `{text}`")
        loops = [place for place in found if len(found[place]) > 1]
        ahead = {tuple(found[place][:-1]): names[place] for place in loops if "`" not in names[place]}
        for place in loops:
            if "`" in names[place] and (name := ahead.get(tuple(found[place][1:]))):
                names[place] = f"{name} of the step before"
        named = sorted(found, key=lambda place: "`" in names[place])  # what has a name of its own first
        return {place: (tuple(found[place]), names[place]) for place in named}

    def name_of(self, slot: int) -> str:
        """Return the name of a value; "" if it has none."""
        return next((name for slots, name in self.places.values() if slot in slots and "`" not in name), "")

    def operand_of(self, site: Site) -> str:
        """Return the name of the operand that a site is the use of; "" if it has none, or no other operand moves."""
        if site.kind != "use" or site.carried or site.key[0] == BOTH:
            return ""
        operands = [self.operations[i].operands for i, _ in site.edges]
        slots = tuple(self.operations[i].operands[k] for i, k in site.edges)
        if not all(sum(self.moving[s] for s in {*of}) > 1 for of in operands):
            return ""
        return next((name for kept, name in self.places.values() if kept == slots and "`" not in name), "")

    @cached_property
    def _depends(self) -> list[int]:
        """For each slot those that it is computed from, and itself, as the bits of a number."""
        found = [1 << s for s in range(len(self.values))]
        for op in self.operations:
            for out, s in itertools.product(op.outs, op.operands):
                found[out] |= found[s]
        return found

    def apart(self, site: Site) -> bool:
        """Return whether nothing that one edge of a site passes comes to another of them."""
        below = read = 0
        for i, k in site.edges:
            into = self.into(site.kind, (i, k))
            below |= self._depends[into] & ~(site.kind == "value" and 1 << into)
            for s in self.operations[i].outs if site.kind == "use" else [] if site.kind == "output" else [k]:
                read |= 1 << s
        return not below & read

    def uses(self) -> tuple[set[Use], set[Use]]:
        """Return the uses through which something passes, and those through which nothing does.

        Of what is used by operations whose own cotangents cancel (∂E/∂e of a softmax of one entry) neither can be said.
        """
        largest = max((float(np.max(np.abs(c), initial=0.0)) for c in self.cotangents.values()), default=0.0)
        terms: dict[int, list[tuple[Use, float]]] = defaultdict(list)
        for i, op in enumerate(self.operations):
            out = [self.cotangents.get(s) for s in op.outs]
            for k, slot in enumerate(op.operands):
                if self.moving[slot] and any(c is not None for c in out):
                    term = self.rule(i, k)(out)
                    size = 0.0 if term is None else float(np.max(np.abs(term), initial=0.0))
                    terms[slot].append(((op.key, k), size))
        passing, idle = set[Use](), set[Use]()
        for parts in terms.values():
            size = max(size for _, size in parts)
            if size > 1e-11 * largest:
                for use, own in parts:
                    (passing if own > 1e-11 * size else idle).add(use)
        return passing, idle

    def slope(self, z: int, a: int, at: Array | None = None) -> Array:
        """Return f′(z) of an activation, entry by entry; `at` another z."""
        nothing = np.zeros(self.values[a].shape)
        ones = {z: np.ones(self.values[z].shape)}
        if at is not None:
            return self.moved(ones, a, {z: at}).get(a, nothing)
        if (z, a) not in self.slopes:
            self.slopes[z, a] = self.moved(ones, a).get(a, nothing)
        return self.slopes[z, a]

    def sites(self) -> list[Site]:
        """Return every site; those of a loop as a whole, and each of its steps."""
        found: dict[tuple[str, Key], list[_Made]] = defaultdict(list)
        times: Counter[Key] = Counter()
        steps: list[int] = []
        for op in self.operations:
            steps.append(times[op.key])
            times[op.key] += 1
        roots = self._roots()
        made = [(i, op, (*op.key, j), slot) for i, op in enumerate(self.operations) for j, slot in enumerate(op.outs)]
        made = [one for one in made if self.moving[one[-1]]]
        shared = {key for _, _, key, slot in made if len(self.users[slot]) > 1 or slot in self.outputs}
        for name, slot in self.inputs.items():
            if self.users.get(slot):
                last = self.operations[self.users[slot][0][0]]
                found["value", ("value", "input", name)].append(_Made((-1, slot), last.line, 0, 0, 1))
        for i, op in enumerate(self.operations):
            for k, slot in enumerate(op.operands):
                if self.moving[slot]:
                    first = op.operands.index(slot)  # x · x: what is confused is confused in both
                    one = _Made((i, k), op.line, i, steps[i], times[op.key])
                    found["use", ("use", *op.key, first)].append(one)
                    if op.name == "mul" and self._alike(op):
                        found["use", (BOTH, *op.key)].append(one)
        for i, op, key, slot in made:
            used, out = [u for u, _ in reversed(self.users[slot])], slot in self.outputs
            here = partial(_Made, step=steps[i], steps=times[op.key])
            if used and out:
                edge = (-1, self.outputs.index(slot))
                found["output", ("output", *key)].append(here(edge, op.line.end(), len(self.operations)))
            if (used or out) and key in shared:
                found["value", ("value", *key)].append(here((-1, slot), op.line, i))
            on = [u for u in used if self.operations[u].name not in _PUTS]
            if 1 < len(on) < len(used):
                edges = [here((u, self.operations[u].operands.index(slot)), op.line, u) for u in on]
                found["use", ("carried", *key)] += edges
            branches = any(
                roots[self.operations[u].outs[0]] != roots[slot]
                or sum(self.moving[s] for s in self.operations[u].operands) > 1
                for u in used
            )
            if roots[slot] != slot and (branches or len(used) != 1 or out):
                found["activation", ("activation", *key)].append(here((roots[slot], slot), op.line, i))
        return [site for (kind, key), edges in found.items() for site in _steps(kind, key, edges, self.nothing)]

    def _alike(self, op: Operation) -> bool:
        """Return whether both operands of a product move, and could stand for one another."""
        a, b = op.operands
        return a != b and self.moving[a] and self.moving[b] and self.values[a].shape == self.values[b].shape

    def _roots(self) -> list[int]:
        """For each slot the slot z from which alone it is computed, entry by entry; itself where there is none."""
        roots = list(range(len(self.values)))
        for op in self.operations:
            (out, *others) = op.outs
            moving = {roots[s] for s in op.operands if self.moving[s]}
            if op.name in ELEMENTWISE and not others and len(moving) == 1:
                (z,) = moving
                if self.values[z].shape == self.values[out].shape:
                    roots[out] = z
        return roots


_PUTS = ("reshape", "concatenate", "stack", "broadcast_in_dim", "expand_dims", "squeeze", "scatter")
"""Operations that do no more with a value than put it into the output."""


class _Made(NamedTuple):
    """An edge, its line and its place on the tape, and in which step of how many it is."""

    edge: Edge
    line: Line
    order: int
    step: int
    steps: int


def _steps(kind: str, key: Key, made: Sequence[_Made], nothing: set[Edge]) -> list[Site]:
    """Return the site of these edges, and, where a loop made them, those of its single steps."""
    made = [one for one in made if kind != "use" or one.edge not in nothing]
    if not made:
        return []

    def site(key: Key, made: Sequence[_Made], last: _Made) -> Site:
        edges, at = tuple(one.edge for one in made), tuple(one.step for one in made)
        return Site(kind, key, edges, last.line, last.order, at, last.steps)

    n, at = made[0].steps, sorted({one.step for one in made})
    sites = [site(key, made, made[-1])]
    for step in at if n > 1 and key[0] != "carried" else ():
        if n <= 16 or step in (at[0], at[-1]):
            alone = [one for one in made if one.step == step]
            ends = (step - n, FIRST) if step == at[0] else (step - n,)
            sites += [site((*key, STEP, end), alone, alone[0]) for end in ends]
    return sites

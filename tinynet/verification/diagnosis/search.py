"""The search: which mistake at which edge reproduces the arrays that the target returned, in every run?

An edge is looked at if something passes from it into every gradient that is wrong, and into none that is right. A
mistake costs a few scalar products there (`Look`); the few that may be the one are put into a sweep of every run.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinynet.verification.diagnosis.evidence import Diagnosis, Spoilt, Wrong
from tinynet.verification.diagnosis.factors import express_in, told
from tinynet.verification.diagnosis.look import Look
from tinynet.verification.diagnosis.mistakes import (
    CUT,
    SCALED,
    SCALED_SOMEHOW,
    SIGN,
    Mistake,
    activation_mistakes,
    array_mistakes,
    multiplied,
    other_arrays,
    rule_mistakes,
)
from tinynet.verification.diagnosis.pool import Pool
from tinynet.verification.diagnosis.primitives import Array
from tinynet.verification.diagnosis.products import Factors, products
from tinynet.verification.diagnosis.recording import record, settle
from tinynet.verification.diagnosis.tape import BOTH, FIRST, STEP, Edge, Key, Passing, Site, Tape

Gradients = dict[str, Array]


class OutOfTime(Exception):
    """The seconds that naming may take are over."""


@dataclass
class Scene:
    """One run laid open: its tape, its sites, and the exact gradients."""

    run: Wrong
    tape: Tape
    sites: dict[Key, Site]
    exact: Gradients
    deadline: float
    _moves: dict[str, Mapping[int, Array]] = field(default_factory=dict)
    _passings: dict[Key, Sequence[Passing]] = field(default_factory=dict)
    _reach: dict[Key, set[str]] = field(default_factory=dict)
    _looks: dict[Any, Look] = field(default_factory=dict)

    @staticmethod
    def of(run: Wrong, tape: Tape, deadline: float) -> Scene | None:
        """Lay a run open; None where its tape gives other gradients than the oracle."""
        exact = tape.gradients()
        for name in run.wrt:
            if name not in exact or np.any(~(np.abs(exact[name] - run.exact[name]) <= 4 * run.tolerance[name])):
                return None
        return Scene(run, tape, {s.key: s for s in tape.sites()}, exact, deadline)

    def here(self, key: Key) -> Site | None:
        """Return what has this key in this run; where a loop has one step, that is the first and the last of them."""
        if key in self.sites or key[-1:] not in ((FIRST,), (-1,)):
            return self.sites.get(key)
        whole = self.sites.get(key[:-2])
        return whole if whole and len({*whole.at}) == 1 else None

    def check_time(self) -> None:
        """Raise OutOfTime if naming has taken too long."""
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def predict(self, sites: Iterable[Site], mistake: Mistake, c: float = 0.0) -> Gradients | None:
        """Return the gradients with a mistake made; None where it cannot be made in this run."""
        self.check_time()
        here = [site for s in sites if (site := self.here(s.key))]
        try:
            with np.errstate(all="ignore"):
                return self.tape.gradients(dict.fromkeys(here, lambda p: mistake.change(p, c))) if here else self.exact
        except _NOT_THERE:
            return None

    def spoilt(self, sites: Sequence[Site], mistake: Mistake, c: float) -> Spoilt:
        """Return what a mistake makes of the cotangents."""
        made: dict[Edge, Array] = {}

        def change(p: Passing) -> Array | None:
            term = mistake.change(p, c)
            made[p.edge] = np.zeros(p.right.shape) if term is None else term
            return term

        here = [site for s in sites if (site := self.here(s.key))]
        with np.errstate(all="ignore"):
            wrong = self.tape.sweep(dict.fromkeys(here, change))
        exact = self.tape.cotangents
        passed = [[p for p in self.passings(site) if p.edge in made] for site in here]
        terms = [([made[p.edge] for p in ps], [p.right for p in ps]) for ps in passed if mistake is not CUT]
        slots = [tuple(s for s in reversed(kept) if s in exact) for kept, _ in self.tape.places.values()]
        zeros = {s: np.zeros(np.shape(ct)) for s, ct in exact.items()}
        totals = [([(zeros | wrong)[s] for s in of], [exact[s] for s in of]) for of in dict.fromkeys(slots) if of]
        carried = [
            (self.tape.carried(site, wrong, made), self.tape.carried(site, exact, {}))
            for site in self.sites.values()
            if site.carried
        ]
        return Spoilt(self.run, (*terms, *totals, *carried))

    def flat(self, gradients: Mapping[str, Array], names: Sequence[str]) -> Array:
        """Return those that are wrong as one array, each relative to the largest entry of the exact one."""
        wrong = [n for n in names if n in self.run.wrong]
        sizes = {n: float(np.max(np.abs(self.exact[n]), initial=0.0)) or 1.0 for n in wrong}
        return np.concatenate([np.ravel(gradients[n]) / sizes[n] for n in wrong])

    def off(self, names: Sequence[str]) -> Gradients | None:
        """Return what the target's wrong gradients are off by; None where one has another shape."""
        wrong = [n for n in names if n in self.run.wrong]
        if any(np.shape(self.run.got[n]) != self.exact[n].shape for n in wrong):
            return None
        return {n: np.asarray(self.run.got[n], np.float64) - self.exact[n] for n in wrong}

    def passings(self, site: Site) -> Sequence[Passing]:
        """Return what passes each edge of a site when nothing is wrong, the last first."""
        if site.key not in self._passings:
            self._passings[site.key] = self.tape.passings(site)
        return self._passings[site.key]

    def reach(self, site: Site) -> set[str]:
        """Return the gradients into which something passes from a site."""
        if site.key not in self._reach:
            passings = self.passings(site)
            self._reach[site.key] = {name for name in self.run.wrt if any(self._passes(p, name) for p in passings)}
        return self._reach[site.key]

    def _passes(self, p: Passing, name: str) -> bool:
        if name not in self._moves:
            size = float(np.max(np.abs(self.exact[name]), initial=0.0)) or 1.0
            v = np.random.default_rng(0).standard_normal(self.exact[name].shape) / size
            self._moves[name] = self.tape.moved({self.tape.inputs[name]: v})
        moves = self._moves[name]
        terms = moves[p.into] * p.right if p.into in moves else np.zeros(())
        return bool(abs(terms.sum()) > 1e-8 + 1e-7 * np.abs(terms).sum())

    def fits(self, predicted: Gradients | None, names: Sequence[str], free: Sequence[str], only: bool = False) -> bool:
        """Return whether a prediction gives what the target returned; the gradients in `free` may be anything.

        With `only`, nothing is said of the gradients that are right. A run in which these are right does not exclude a
        mistake that cannot be made in it, as W for Wᵀ where W is not square.
        """
        wrong = [n for n in names if n in self.run.wrong]
        if predicted is None:
            return not wrong
        if not all(self.run.reproduces(n, predicted[n]) for n in wrong):
            return False
        right = [n for n in self.run.wrt if n not in self.run.wrong and n not in free and not only]
        return all(np.all(np.abs(predicted[n] - self.exact[n]) <= 4 * self.run.tolerance[n]) for n in right)

    def look(self, site: Site, names: Sequence[str]) -> Look | None:
        """Return how the wrong gradients look from a few directions where each edge of a site adds its own to them.

        Where the steps of a loop pass on to one another that is what the last of them alone reaches. None where there
        is no such thing.
        """
        off = self.off(names)
        if off is None:
            return None
        if (look := self._look(off)).apart(site):
            return look
        last = self.sites.get((*site.key, STEP, -1))
        if last is None or not look.apart(last):
            return None
        before = [(edge, at) for edge, at in zip(site.edges, site.at, strict=True) if edge not in last.edges]
        others = replace(site, edges=tuple(edge for edge, _ in before), at=tuple(at for _, at in before))
        by_last, by_others = (self._depends_on(one, off) for one in (last, others))
        seen = {n: by_last[n] & ~by_others[n] for n in off}
        return self._look(off, seen) if any(a.any() for a in seen.values()) else None

    def _depends_on(self, site: Site, names: Iterable[str]) -> Gradients:
        """Return which entries of these gradients are others if nothing passes a site."""
        self.check_time()
        cut = self.tape.gradients({site: lambda p: None})
        sizes = {n: float(np.max(np.abs(self.exact[n]), initial=0.0)) for n in names}
        return {n: np.abs(cut[n] - self.exact[n]) > 1e-12 * size for n, size in sizes.items()}

    def _look(self, off: Gradients, seen: Mapping[str, Array] | None = None) -> Look:
        key = (*off, *(a.tobytes() for a in (seen or {}).values()))
        if key not in self._looks:
            self._looks[key] = Look.of(self.tape, self.exact, off, seen)
        return self._looks[key]


@dataclass(frozen=True)
class _Spot:
    """A site where the mistake may be, what passes there, and how the wrong gradients look from there.

    Attributes:
        seen: what a look is had at; of a loop whose steps pass on to one another what the last of them passes.
        stages: which mistakes are made there, by the numbers of `_STAGES`.
    """

    site: Site
    passings: Sequence[Passing]
    look: Look | None
    seen: Sequence[Passing]
    stages: Collection[int]


@dataclass
class Search:
    """The runs laid open, the most telling one first."""

    scenes: list[Scene]

    @staticmethod
    def of(runs: Sequence[Wrong], deadline: float) -> Search:
        def telling(scene: Scene) -> tuple[float, ...]:
            arrays = [*scene.run.args.values(), *scene.run.dy]
            loops = any(site.key[-1] == FIRST for site in scene.sites.values())
            short = sum(n < 2 for a in arrays for n in np.shape(a))
            return -len(scene.run.wrong), short, not loops, sum(np.size(a) for a in arrays)

        tapes = []
        for run in runs:
            if time.monotonic() > deadline:
                raise OutOfTime
            if tape := record(run):
                tapes.append((run, tape))
        settle([tape for _, tape in tapes])
        return Search(sorted((s for run, tape in tapes if (s := Scene.of(run, tape, deadline))), key=telling))

    def allow(self, seconds: float) -> None:
        """Let it take some more seconds from now on."""
        for scene in self.scenes:
            scene.deadline = time.monotonic() + seconds

    def _telling(self, names: Sequence[str]) -> Scene | None:
        """Return the run in which most of these gradients are wrong; None if no run shows any of them."""
        scene = max(self.scenes, key=lambda s: len(s.run.wrong & {*names}), default=None)
        return scene if scene and scene.run.wrong & {*names} else None

    def _through(self, scene: Scene, names: Sequence[str], free: Sequence[str]) -> tuple[list[Site], list[Site]]:
        """Return where a mistake spoils all these gradients, the nearest to y first: no right one, and right ones too.

        Of the second it is assumed that what the right ones were computed from was not spoilt.
        """
        alone, beside = [], []
        for site in sorted(scene.sites.values(), key=lambda s: (not s.whole, -s.order, s.kind != "activation")):
            reach = scene.reach(site)
            if reach >= {n for n in names if n in scene.run.wrong}:
                if reach <= {*names, *free}:
                    alone.append(site)
                elif site.whole and (reach & scene.run.wrong) <= {*names, *free}:
                    beside.append(site)
        return alone, beside

    def _spots(self, scene: Scene, sites: Sequence[Site], names: Sequence[str], in_part: bool) -> list[_Spot]:
        """Look at these sites.

        Args:
            in_part: whether something else is wrong, too: then a site where there is nothing to see is not worth much.
        """
        found = []
        for site in sites:
            scene.check_time()
            passings, look = scene.passings(site), scene.look(site, names)
            seen = passings if look is None or look.apart(site) else [p for p in passings if p.step == passings[0].step]
            stages: Collection[int] = range(len(_STAGES))
            if site.key[1] == "input":
                stages = [_OTHER_ARRAYS]
            elif site.key[0] == BOTH:
                stages = [_RULE]
            elif look is None and in_part:
                stages = range(2)
            elif site.carried or not (site.whole or site.key[-1] in (FIRST, -1)):
                stages = range(3)
            found.append(_Spot(site, passings, look, seen, stages))
        return found

    def explain(self, names: Sequence[str], free: Sequence[str] = ()) -> Diagnosis | None:
        """Return one mistake at one site, or a simple one at several, that explains these gradients."""
        if (scene := self._telling(names)) is None:
            return None
        pool = Pool(scene.tape)
        for only, sites in enumerate(self._through(scene, names, free)):
            spots = self._spots(scene, sites, names, bool(only) or bool(free))
            numbered, somehow = [], []
            for number, stage in enumerate(_STAGES):
                if number == _OTHER_ARRAYS and not only and (d := self._several(scene, names, free)):
                    return d
                for spot in spots:
                    for mistake in stage(spot.passings[0], pool) if number in spot.stages else ():
                        c = self._multiple(spot, mistake)
                        if c is None:
                            continue
                        if mistake is SCALED:
                            somehow.append((spot.site, SCALED_SOMEHOW))
                        elif spot.look is not None and c != 1.0 and not mistake.fitted:
                            numbered.append((spot.site, multiplied(mistake)))
                        if (mistake.fitted or c == 1.0 or math.isnan(c)) and (
                            d := self._tried(spot.site, mistake, names, free, bool(only))
                        ):
                            return d
            for site, mistake in [*numbered, *somehow]:
                if d := self._tried(site, mistake, names, free, bool(only)):
                    return d
            if d := self._product(spots, pool, names, free, bool(only)):
                return d
        return None

    def _product(
        self, spots: Sequence[_Spot], pool: Pool, names: Sequence[str], free: Sequence[str], only: bool
    ) -> Diagnosis | None:
        """Return a product of two values at one site that explains these gradients, the simplest there is."""
        ranked: list[tuple[Any, Site, Mistake]] = []
        kept: Factors = {}
        for spot in spots:
            if spot.look is None or not spot.site.whole or spot.site.carried:
                continue
            self.scenes[0].check_time()
            try:
                made = list(products(spot.seen, pool, spot.look, kept))
            except _NOT_THERE:  # a value that one step has and another has not
                continue
            ranked += [((rank, len(ranked) + i), spot.site, mistake) for i, (rank, mistake) in enumerate(made)]
        for _, site, mistake in sorted(ranked, key=lambda one: one[0])[:16]:
            if d := self._tried(site, mistake, names, free, only):
                return d
        return None

    def _multiple(self, spot: _Spot, mistake: Mistake) -> float | None:
        """Return by what a mistake would have to be multiplied; NaN if a look cannot tell, None if it is another."""
        self.scenes[0].check_time()
        if spot.look is None or mistake.fitted == "amount":
            return math.nan
        try:
            with np.errstate(all="ignore"):
                return spot.look.multiple(spot.seen, [mistake.change(p, 1.0) for p in spot.seen])
        except _NOT_THERE:
            return None

    def _tried(
        self, site: Site, mistake: Mistake, names: Sequence[str], free: Sequence[str], only: bool = False
    ) -> Diagnosis | None:
        """Return a mistake if it explains these gradients in every run."""
        numbers: list[float] = []
        for scene in self.scenes:
            wrong = scene.run.wrong & {*names}
            if mistake.fitted and not wrong:
                continue
            c = self._fitted(scene, site, mistake, names) if mistake.fitted else 0.0
            if c is None or not scene.fits(scene.predict([site], mistake, c), names, free, only):
                return None
            numbers.append(c)
        if mistake.fitted == "amount":
            alike = all(math.isclose(c, numbers[0], rel_tol=1e-5) for c in numbers) and numbers[0]
            return self._said(names, [site], mistake, "", numbers[0]) if alike else None
        factor = ""
        if mistake.fitted:
            runs = [scene.run for scene in self.scenes if scene.run.wrong & {*names}]
            factor = express_in(runs, numbers, names, decimals=mistake.fitted == "decimal")
            one = mistake.fault != "scaled" and all(math.isclose(c, 1.0, rel_tol=1e-9) for c in numbers)
            if not factor and not one:
                return None
            factor = "" if one else factor
        if mistake.fault == "scaled" and (forgotten := self._left_out(mistake, numbers, names, free, only)):
            site, mistake = forgotten
        return self._said(names, [site], mistake, factor, numbers[0])

    def _left_out(
        self, mistake: Mistake, numbers: Sequence[float], names: Sequence[str], free: Sequence[str], only: bool
    ) -> tuple[Site, Mistake] | None:
        """Return where the forward multiplies by the number that, left out, scales these gradients as they are."""
        scenes = [scene for scene in self.scenes if scene.run.wrong & {*names}]
        for site in sorted(scenes[0].sites.values(), key=lambda s: -s.order):
            if site.kind != "use" or not site.whole or site.carried or site.key[0] == BOTH:
                continue
            seen = [(scene.here(site.key), scene, c) for scene, c in zip(scenes, numbers, strict=True)]
            if all(here and _divides(scene.passings(here), c) for here, scene, c in seen) and all(
                scene.fits(scene.predict([site], mistake, c), names, free, only) for _, scene, c in seen
            ):
                said = "the factor that `{text}` multiplies by is left out: what passes back there is multiplied by {c}"
                return site, replace(mistake, sentence=said)
        return None

    def _fitted(self, scene: Scene, site: Site, mistake: Mistake, names: Sequence[str]) -> float | None:
        """Return the c that comes nearest to what the target returned, by steps of the secant method."""
        if scene.off(names) is None:
            return None
        got = scene.flat(scene.run.got, names)

        def at(c: float) -> Array | None:
            predicted = scene.predict([site], mistake, c)
            flat = None if predicted is None else scene.flat(predicted, names)
            return None if flat is None or flat.shape != got.shape else flat

        c0, g0, c1, before = 0.0, at(0.0), 1.0, math.inf
        for _ in range(1 if len(site.at) == 1 else 12):
            g1 = at(c1)
            if g0 is None or g1 is None or c1 == c0:
                return None
            slope, off = (g1 - g0) / (c1 - c0), float(np.linalg.norm(got - g1))
            norm = float(np.vdot(slope, slope))
            if not norm > 0 or not math.isfinite(norm):
                return None
            c0, g0, c1 = c1, g1, c1 + float(np.vdot(slope, got - g1)) / norm
            before, slow = off, off > 0.9 * before
            if slow or abs(c1 - c0) <= 1e-14 * abs(c1):
                break
        return c1

    def _several(self, scene: Scene, names: Sequence[str], free: Sequence[str]) -> Diagnosis | None:
        """Return two paths that are multiplied by one number, or up to four that are missing, if that explains all."""
        if (off := scene.off(names)) is None:
            return None
        sites, steps = [], []
        for site in scene.sites.values():
            reach = scene.reach(site)
            path = site.whole and site.kind in ("use", "output") and site.key[0] != BOTH
            if path and reach and reach <= {*names, *free}:
                cut = scene.predict([site], CUT)
                if cut is not None:
                    sites.append(site)
                    steps.append(scene.flat(scene.exact, names) - scene.flat(cut, names))
        for chosen in _sets(np.asarray(steps), scene.flat(off, names)) if sites else ():
            if d := self._scaled_alike([sites[i] for i in chosen], names, free):
                return d
        return None

    def _scaled_alike(self, sites: Sequence[Site], names: Sequence[str], free: Sequence[str]) -> Diagnosis | None:
        """Return a mistake that multiplies what passes at several sites by the same number."""
        seen = [scene for scene in self.scenes if scene.run.wrong & {*names}]
        of: dict[int, float] = {}
        for scene in seen:
            cut, off = scene.predict(sites, CUT), scene.off(names)
            if cut is None or off is None:
                return None
            step = scene.flat(scene.exact, names) - scene.flat(cut, names)
            of[id(scene)] = 1 + float(step @ scene.flat(off, names)) / (float(step @ step) or math.nan)
        mistake, factor = SCALED, ""
        for simple, c in ((CUT, 0.0), (SIGN, -1.0)):
            mistake = simple if all(abs(number - c) < 1e-9 for number in of.values()) else mistake
        if mistake is SCALED and not (factor := express_in([s.run for s in seen], [*of.values()], names)):
            return None
        fit = all(
            scene.fits(scene.predict(sites, mistake, of.get(id(scene), 1.0)), names, free) for scene in self.scenes
        )
        return self._said(names, sites, mistake, factor, next(iter(of.values()))) if fit else None

    def _said(self, names: Sequence[str], sites: Sequence[Site], mistake: Mistake, factor: str, c: float) -> Diagnosis:
        """Put a mistake at one site, or a simple one at several, into words; c is its number in the first run."""
        first = max(sites, key=lambda s: s.order)
        if len(sites) > 1:
            texts = [f"`{site.line.text()}`" for site in sorted(sites, key=lambda site: site.order)]
            through = " and ".join(dict.fromkeys(texts))
            sentence = f"what passes back through {through} {_ALIKE[mistake.fault]}"
        else:
            sentence = mistake.sentence.replace("{text}", first.line.text() or "the output")
            of_run = next(scene for scene in self.scenes if scene.sites.get(first.key) is first)
            if (operand := of_run.tape.operand_of(first)) and operand not in names:
                sentence = sentence.replace("passes back through `", f"passes back to `{operand}` through `")
                sentence = sentence.replace("the path through `", f"the path from `{operand}` through `")
            sentence = sentence if factor else sentence.replace(", times {c}", "")
        scaled = factor if mistake.fault == "scaled" else ""
        spoilt = next(s for s in self.scenes if s.run.wrong & {*names}).spoilt(sites, mistake, c)
        return Diagnosis(tuple(names), mistake.fault, scaled, sentence.replace("{c}", told(factor)), first.line, spoilt)

    def smallest(self, names: Sequence[str], free: Sequence[str] = ()) -> list[Site]:
        """Return the site through which all passes that comes to these gradients, and no right one.

        It is the one nearest to the inputs. Of one gradient, where there is no such site, every use of its array.
        """
        if (scene := self._telling(names)) is None:
            return []
        for site in sorted(self._through(scene, names, free)[0], key=lambda s: s.order):
            told = site.key[1] != "input" and site.whole
            if len(names) == 1:  # that it passes through the output says nothing
                i, k = site.edges[-1]
                ends = {scene.tape.into(site.kind, (i, k)), k if site.kind == "activation" else None}
                told &= ends.isdisjoint(scene.tape.outputs)
            cut = scene.predict([site], CUT) if told else None
            if cut is not None and not any(cut[name].any() for name in names):
                return [site]
        return self._uses(names[0]) if len(names) == 1 else []

    def used_at(self, name: str) -> Site | None:
        """Return the use of an input that is nearest to the output."""
        return max(self._uses(name), key=lambda s: s.order, default=None)

    def _uses(self, name: str) -> list[Site]:
        """Return the uses of an input."""
        if not self.scenes:
            return []
        tape = self.scenes[0].tape
        uses = [s for s in self.scenes[0].sites.values() if s.kind == "use" and s.whole and not s.carried]
        return [s for s in uses if tape.into(s.kind, s.edges[-1]) == tape.inputs[name]]


def _divides(passings: Sequence[Passing], c: float) -> bool:
    """Return whether 1/c is a factor of the derivative wherever something passes."""
    return bool(passings) and all(
        any(np.size(f) == 1 and math.isclose(float(np.asarray(f).item()) * c, 1) for f in p.factors()) for p in passings
    )


_ALIKE = {"missing path": "is missing", "sign": "has the wrong sign", "scaled": "is multiplied by {c}"}
"""What may be done to what passes at several sites at once."""

_NOT_THERE = (IndexError, KeyError, RecursionError, ValueError, ZeroDivisionError)
"""What is raised where a mistake cannot be made: a value that another step or run has not, another shape."""


def _sets(steps: Array, off: Array) -> Iterator[Sequence[int]]:
    """Yield the pairs of steps whose sum is parallel to what the gradients are off by, then those that cancel it."""
    products, along, length = steps @ steps.T, steps @ off, float(off @ off)
    squares = np.add.outer(np.diag(products), np.diag(products)) + 2 * products
    both = np.add.outer(along, along)
    with np.errstate(all="ignore"):
        missed = length - both**2 / squares
    for i, j in np.argwhere(np.triu(missed <= 1e-9 * length, 1)):
        yield int(i), int(j)
    chosen: list[int] = []
    left = off
    while len(chosen) < 4:
        i = int(np.argmin(np.sum((left + steps) ** 2, axis=1)))
        if not float(np.sum((left + steps[i]) ** 2)) < float(np.sum(left**2)):
            return
        chosen.append(i)
        left = left + steps[i]
        yield chosen


_STAGES: Sequence[Callable[[Passing, Pool], Iterable[Mistake]]] = (
    lambda p, pool: [CUT],
    lambda p, pool: [SIGN],
    lambda p, pool: [SCALED],
    lambda p, pool: activation_mistakes(p),
    lambda p, pool: (m for m in rule_mistakes(p, pool) if m.fault not in ("factor taken twice", "another value")),
    lambda p, pool: (m for m in rule_mistakes(p, pool) if m.fault == "factor taken twice"),
    lambda p, pool: array_mistakes(p),
    other_arrays,
    lambda p, pool: (m for m in rule_mistakes(p, pool) if m.fault == "another value"),
)
"""The table in the order in which it is tried: what is simpler first."""
_RULE, _OTHER_ARRAYS = 4, 7
"""Of these stages: what is confused in a chain rule; what is tried at the gradients that are returned, too, and after
what may be done at several sites."""


def subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield all of them, then fewer and fewer, down to pairs."""
    for size in range(len(names), 1, -1):
        yield from itertools.combinations(names, size)

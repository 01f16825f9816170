"""The search: which mistake at which edge reproduces the arrays that the target returned, in every run?

An edge is looked at if cutting it changes every gradient that is wrong and none that is right. What its step would have
to be multiplied by comes from one projection; every other mistake of the table costs one sweep along the tape of one
run, and only what passes there is computed for the others.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinynet.verification.diagnosis.evidence import Diagnosis, Wrong
from tinynet.verification.diagnosis.factors import express_in
from tinynet.verification.diagnosis.look import Look
from tinynet.verification.diagnosis.mistakes import (
    CUT,
    SCALED,
    SCALED_SOMEHOW,
    SIGN,
    Mistake,
    Pool,
    activation_mistakes,
    array_mistakes,
    multiplied,
    rule_mistakes,
    scale_mistakes,
)
from tinynet.verification.diagnosis.primitives import Array, disturbed
from tinynet.verification.diagnosis.products import Rank, products
from tinynet.verification.diagnosis.tape import FIRST, Change, Key, Passing, Site, Tape, record

Gradients = dict[str, Array]


class OutOfTime(Exception):
    """The seconds that naming may take are over."""


@dataclass(frozen=True)
class Spot:
    """Where a mistake may be: at a site, and there only for what goes on through another one, nearer to the inputs.

    If it shows `only` in the wrong gradients, what the right ones were computed from was not spoilt.
    """

    site: Site
    through: Site | None = None
    only: bool = False


def _along(step: Array, off: Array) -> float | None:
    """Return what a step would have to be multiplied by to be off by that; None for a step of length 0."""
    length = float(step @ step)
    return 1 + float(step @ off) / length if length else None


def _nothing(p: Passing) -> None:
    """Cut an edge."""


def _one_more(place: int) -> Change:
    """Add 1 to one of the numbers that pass a site, counted through all its steps."""
    before = 0

    def change(p: Passing) -> Array:
        nonlocal before
        more = (np.arange(before, before + p.right.size) == place).reshape(p.right.shape)
        before += p.right.size
        return np.asarray(p.right + more)

    return change


@dataclass
class Scene:
    """One run laid open: its tape, its sites, and the gradients when each of them is cut."""

    run: Wrong
    tape: Tape
    sites: dict[Key, Site]
    exact: Gradients
    deadline: float
    cuts: dict[frozenset[Key], Gradients] = field(default_factory=dict)
    looks: dict[tuple[Any, ...], Look | None] = field(default_factory=dict)

    @staticmethod
    def of(run: Wrong, deadline: float) -> Scene | None:
        """Trace a run; None where that cannot be done, or where the tape gives other gradients than the oracle.

        Raises:
            OutOfTime: it is too late to begin.
        """
        if time.monotonic() > deadline:
            raise OutOfTime
        if run.forward is None:
            return None
        try:
            tape = record(run.forward, run.args, run.wrt, run.dy)
            exact = tape.gradients()
        except Exception:
            return None
        for name in run.wrt:
            if name not in exact or np.any(~(np.abs(exact[name] - run.exact[name]) <= 4 * run.tolerance[name])):
                return None
        return Scene(run, tape, {s.key: s for s in tape.sites()}, exact, deadline)

    def here(self, key: Key) -> Site | None:
        """Return what has this key in this run; where a loop has one step, that is the first and the last of them."""
        if key in self.sites or key[-1:] not in ((FIRST,), (-1,)):
            return self.sites.get(key)
        whole = self.sites.get(key[:-2])
        return whole if whole and whole.steps == 1 else None

    def predict(self, spot: Spot, mistake: Mistake, c: float = 0.0) -> Gradients | None:
        """Return the gradients with a mistake made; None where it cannot be made in this run."""
        site = self.here(spot.site.key)
        if site is None:
            return self.exact
        changes: dict[Site, Change] = {site: lambda p: mistake.change(p, c)}
        changed = self._sweep(changes)
        if spot.through is None or changed is None:
            return changed
        through = self.here(spot.through.key)
        if through is None:
            return self.exact
        # What goes on through the second edge, with the mistake and without.
        others, cut = self._sweep({**changes, through: _nothing}), self.cut([through])
        return others and {n: self.exact[n] + (changed[n] - others[n]) - (self.exact[n] - cut[n]) for n in changed}

    def _sweep(self, changes: Mapping[Site, Change]) -> Gradients | None:
        if time.monotonic() > self.deadline:
            raise OutOfTime
        try:
            with np.errstate(all="ignore"):
                return self.tape.gradients(changes)
        except (IndexError, KeyError, ValueError, ZeroDivisionError):
            return None

    def cut(self, sites: Sequence[Site]) -> Gradients:
        """Return the gradients with these sites cut; a site that this run does not have is nothing."""
        key = frozenset(s.key for s in sites)
        if key not in self.cuts:
            here = {site: _nothing for k in key if (site := self.here(k))}
            self.cuts[key] = (self._sweep(here) if here else None) or self.exact
        return self.cuts[key]

    def multiplied(self, sites: Sequence[Site], c: float) -> Gradients | None:
        """Return the gradients with what passes at these sites multiplied by c."""
        here = [site for s in sites if (site := self.here(s.key))]
        return self.cut(sites) if c == 0 or not here else self._sweep(dict.fromkeys(here, lambda p: c * p.right))

    def multiple(self, sites: Sequence[Site], names: Sequence[str]) -> float | None:
        """Return what these sites would have to be multiplied by to come nearest to what the target returned."""
        off = self.off(names)
        return None if off is None else _along(self.flat(self.exact, names) - self.flat(self.cut(sites), names), off)

    def flat(self, gradients: Mapping[str, Array], names: Sequence[str]) -> Array:
        """Return those that are wrong as one array, each relative to the largest entry of the exact one."""
        wrong = [n for n in names if n in self.run.wrong]
        sizes = {n: float(np.max(np.abs(self.exact[n]), initial=0.0)) or 1.0 for n in wrong}
        return np.concatenate([np.ravel(gradients[n]) / sizes[n] for n in wrong])

    def off(self, names: Sequence[str]) -> Array | None:
        """Return what the target's gradients are off by; None where one has another shape."""
        if any(np.shape(self.run.got[n]) != self.exact[n].shape for n in names if n in self.run.wrong):
            return None
        return self.flat(self.run.got, names) - self.flat(self.exact, names)

    def changed(self, spot: Spot) -> set[str]:
        """Return the gradients to which a spot contributes."""
        if spot.through is None:
            cut = self.cut([spot.site])
        else:
            a, b, both = self.cut([spot.site]), self.cut([spot.through]), self.cut([spot.site, spot.through])
            cut = {n: a[n] + b[n] - both[n] for n in a}
        return {n for n in self.run.wrt if self.differs(n, cut[n])}

    def differs(self, name: str, g: Array) -> bool:
        return bool(np.any(~(np.abs(g - self.exact[name]) <= 4 * self.run.tolerance[name])))

    def fits(self, predicted: Gradients | None, names: Sequence[str], free: Sequence[str], only: bool = False) -> bool:
        """Return whether a prediction gives what the target returned; the gradients in `free` may be anything.

        With `only`, nothing is said of the gradients that are right.
        """
        if predicted is None or not all(self.run.reproduces(n, predicted[n]) for n in names if n in self.run.wrong):
            return False
        return only or not any(
            self.differs(n, predicted[n]) for n in self.run.wrt if n not in self.run.wrong and n not in free
        )

    def reaches(self, spot: Spot, names: Sequence[str]) -> bool:
        """Return whether every entry that is wrong is one into which what passes the spot flows, be it 0 now."""
        moved = self._sweep({spot.site: lambda p: disturbed(p.right)}) or {}
        for n in {*names} & self.run.wrong & set(moved):
            if np.shape(self.run.got[n]) == self.exact[n].shape:
                off = np.abs(np.asarray(self.run.got[n]) - self.run.exact[n]) > 4 * self.run.tolerance[n]
                if np.any(off & (moved[n] == self.exact[n])):
                    return False
        return True

    def passings(self, site: Site) -> list[Passing]:
        """Return what passes each edge of a site when nothing is wrong, the last first."""
        seen: list[Passing] = []

        def look(p: Passing) -> Array:
            seen.append(p)
            return p.right

        self.tape.sweep({site: look})
        return seen

    def passing(self, site: Site) -> Passing | None:
        """Return what passes the last edge of a site when nothing is wrong."""
        return next(iter(self.passings(site)), None)

    def look(self, site: Site, names: Sequence[str]) -> Look | None:
        """Return how the wrong gradients look from a few directions where each edge of a site adds its own to them.

        Where the steps of a loop pass on to one another that is what the last of them alone reaches. None where there
        is no such thing.
        """
        key: tuple[Any, ...] = tuple(n for n in names if n in self.run.wrong)
        if key not in self.looks:
            shapes = self.off(key) is not None
            off = {n: np.asarray(self.run.got[n], np.float64) - self.exact[n] for n in key if shapes}
            self.looks[key] = Look.of(self.tape, self.exact, off) if shapes else None
        look = self.looks[key]
        if look is None or look.apart(site):
            return look
        off = {n: np.asarray(self.run.got[n], np.float64) - self.exact[n] for n in key}
        last = self.sites.get((*site.key, "step", -1))
        if last is None or not look.apart(last):
            return None
        key = (*key, site.key)
        if key not in self.looks:
            one, all_ = self.cut([last]), self.cut([site])
            size = {n: 1e-12 * float(np.max(np.abs(self.exact[n]))) for n in off}
            seen = {n: (np.abs(one[n] - all_[n]) <= size[n]) & (np.abs(one[n] - self.exact[n]) > size[n]) for n in off}
            there = any(a.any() for a in seen.values())
            self.looks[key] = Look.of(self.tape, self.exact, off, seen) if there else None
        return self.looks[key]

    def explains(self, site: Site, names: Sequence[str], most: int = 64) -> bool:
        """Return whether other numbers than the right ones could pass a site so that the wrong gradients come about.

        That says something only if they are fewer than the entries of these gradients; more than `most` are not tried.
        """
        off, n = self.off(names), self.numbers(site)
        if off is None or not n < off.size / 2 or n > most:
            return False
        columns = []
        for place in range(n):
            moved = self._sweep({site: _one_more(place)})
            if moved is None:
                return False
            columns.append(self.flat(moved, names) - self.flat(self.exact, names))
        effect = np.stack(columns, axis=1)
        size = float(np.max(np.abs(effect), initial=0.0)) or 1.0
        numbers = np.linalg.lstsq(effect / size, off, rcond=1e-12)[0]
        allowed = (
            1e-8 * np.max(np.abs(off))
            + self.flat({n: np.asarray(4 * self.run.tolerance[n]) for n in names}, names).max()
        )
        return bool(np.max(np.abs(effect / size @ numbers - off)) <= allowed)

    def numbers(self, site: Site) -> int:
        """Return how many numbers pass a site in all its steps."""
        return sum(np.size(p.right) for p in self.passings(site))


@dataclass(frozen=True)
class Found:
    """A mistake in one spot, or cuts in several, that explains some gradients."""

    names: tuple[str, ...]
    spots: tuple[Spot, ...]
    mistake: Mistake
    factor: str = ""
    amount: float = 0.0

    def diagnosis(self) -> Diagnosis:
        """Put it into words."""
        first = max((spot.site for spot in self.spots), key=lambda s: s.order)
        text = first.line.text()
        fault = "scaled" if self.factor else self.mistake.fault
        if len(self.spots) > 1:
            texts = [f"`{spot.site.line.text()}`" for spot in sorted(self.spots, key=lambda spot: spot.site.order)]
            through = " and ".join(dict.fromkeys(texts))
            sentence = f"what passes back through {through} {_ALIKE[self.mistake.fault].replace('{c}', self.factor)}"
        else:
            c = self.factor or f"{self.amount:.6g}"
            sentence = self.mistake.sentence.replace("{text}", text or "the output").replace("{c}", c)
            if self.spots[0].through is not None:
                sentence += f", on its way through `{self.spots[0].through.line.text()}`"
        return Diagnosis(self.names, fault, self.factor, sentence, first.line)


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

        return Search(sorted((s for r in runs if (s := Scene.of(r, deadline))), key=telling))

    def allow(self, seconds: float) -> None:
        """Let it take some more seconds from now on."""
        for scene in self.scenes:
            scene.deadline = time.monotonic() + seconds

    def spots(self, names: Sequence[str], free: Sequence[str], forked: bool) -> Iterator[list[Spot]]:
        """Yield where a mistake spoils all these gradients, the nearest to y first: first what spoils no right one."""
        scene = self.scenes[0]
        wrong = {n for n in names if n in scene.run.wrong}
        others = {*names, *free}
        sites = sorted(scene.sites.values(), key=lambda s: (not s.whole, -s.order, s.kind != "activation"))
        reach = {s: scene.changed(Spot(s)) for s in sites}
        if not forked:
            yield [Spot(s) for s in sites if reach[s] >= wrong and not reach[s] - others]
            yield [Spot(s, only=True) for s in sites if reach[s] >= wrong and reach[s] - others and s.whole]
            return
        sites = [s for s in sites if s.whole and reach[s] & wrong]
        forks = [s for s in sites if s.kind == "use" and _forks(scene.tape, s)]
        pairs = []
        for site, through in itertools.product(sites, forks):
            if site.order > through.order:
                spot = Spot(site, through)
                changed = scene.changed(spot)
                if changed >= wrong and not changed - others:
                    pairs.append(spot)
        yield pairs

    def one_spot(self, names: Sequence[str], free: Sequence[str] = (), forked: bool = False) -> Found | None:
        """Return one mistake in one spot that explains these gradients."""
        if not self.scenes:
            return None
        scene = self.scenes[0]
        pool = Pool(scene.tape)
        for spots in self.spots(names, free, forked):
            spots = [spot for spot in spots if spot.site.key[1] != "input" and scene.reaches(spot, names)]
            seen = [(spot, passings) for spot in spots if (passings := scene.passings(spot.site))]
            with_a_number: list[tuple[Spot, Mistake]] = []
            for number, stage in enumerate(_STAGES):
                for spot, numbered in with_a_number if number == len(_STAGES) - 1 else ():
                    if (found := self._tried(spot, numbered, names, free)) is not None:
                        return found
                for spot, passings in seen:
                    for mistake in stage(passings[0], pool) if number < 3 or not _simple(spot.site) else ():
                        likely = self._likely(spot, mistake, passings, names)
                        if likely is not None and likely is not mistake:
                            with_a_number.append((spot, likely))
                        elif likely is not None and (found := self._tried(spot, likely, names, free)) is not None:
                            return found
        return None

    def product(self, names: Sequence[str], free: Sequence[str] = ()) -> Found | None:
        """Return a product of two values in one spot that explains these gradients, the simplest there is."""
        if not self.scenes:
            return None
        scene = self.scenes[0]
        pool = Pool(scene.tape)
        for spots in self.spots(names, free, False):
            for spot in (spot for spot in spots if spot.site.key[1] == "input"):
                p = scene.passing(spot.site)
                for mistake in rule_mistakes(p, pool) if p else ():
                    if (found := self._tried(spot, mistake, names, free)) is not None:
                        return found
            ranked: list[tuple[Rank, int, Spot, Mistake]] = []
            for spot in spots:
                look = scene.look(spot.site, names) if spot.site.whole and spot.site.kind != "carried" else None
                passings = scene.passings(spot.site) if look and scene.reaches(spot, names) else []
                if time.monotonic() > scene.deadline:
                    raise OutOfTime
                if not passings or look is None:
                    continue
                try:
                    made = list(products(self._seen(look, spot, passings), pool, look))
                except (IndexError, KeyError, ValueError):  # a value that one step has and another has not
                    continue
                ranked += [(rank, len(ranked) + i, spot, mistake) for i, (rank, mistake) in enumerate(made)]
            for _, _, spot, mistake in sorted(ranked, key=lambda one: one[:2])[:16]:
                if (found := self._tried(spot, mistake, names, free)) is not None:
                    return found
        return None

    @staticmethod
    def _seen(look: Look, spot: Spot, passings: Sequence[Passing]) -> Sequence[Passing]:
        """Return what adds its own to what is seen: of a loop whose steps pass on to one another the last step."""
        return passings if look.apart(spot.site) else [p for p in passings if p.step == passings[0].step]

    def _likely(
        self, spot: Spot, mistake: Mistake, passings: Sequence[Passing], names: Sequence[str]
    ) -> Mistake | None:
        """Return a mistake, or a multiple of it, if it may be the one; None if a look at one run tells against it."""
        scene = self.scenes[0]
        look = scene.look(spot.site, names) if spot.through is None and mistake.fitted != "amount" else None
        if look is None:
            return mistake
        if time.monotonic() > scene.deadline:
            raise OutOfTime
        seen = self._seen(look, spot, passings)
        try:
            with np.errstate(all="ignore"):
                c = look.multiple(seen, [mistake.change(p, 1.0) for p in seen])
        except (IndexError, KeyError, ValueError, ZeroDivisionError):
            return None
        if c is None or c == 1.0 or mistake.fitted:
            return None if c is None else mistake
        if mistake.fault in _WITH_A_NUMBER:
            return multiplied(mistake)
        return mistake if math.isnan(c) else None

    def _tried(self, spot: Spot, mistake: Mistake, names: Sequence[str], free: Sequence[str]) -> Found | None:
        numbers, runs = [], [scene.run for scene in self.scenes if scene.run.wrong & set(names)]
        for scene in self.scenes:
            c: float | None = 0.0
            if mistake.fitted and scene.run.wrong & set(names):
                c = self._fitted(scene, spot, mistake, names)
                numbers.append(c)
            elif mistake.fitted:
                continue
            if c is None or not scene.fits(scene.predict(spot, mistake, c), names, free, spot.only):
                return None
        if not mistake.fitted:
            return Found(tuple(names), (spot,), mistake, self._left_out(spot, mistake, names))
        known = [c for c in numbers if c is not None]
        if mistake.fitted in ("factor", "decimal"):
            factor = express_in(runs, known, names, decimals=mistake.fitted == "decimal")
            one = all(math.isclose(c, 1.0, rel_tol=1e-9) for c in known) and mistake.fault != "scaled"
            if not factor and not one:
                return None
            sentence = mistake.sentence.replace(", times {c}", "" if one else ", times {c}").replace("{c}", factor)
            told = replace(mistake, sentence=sentence)
            return Found(tuple(names), (spot,), told, factor if mistake.fault == "scaled" else "")
        if all(math.isclose(c, known[0], rel_tol=1e-5) for c in known) and known[0]:
            return Found(tuple(names), (spot,), mistake, "", known[0])
        return None

    def _left_out(self, spot: Spot, mistake: Mistake, names: Sequence[str]) -> str:
        """Return the multiple that a factor left out, or taken twice, amounts to; "" where that is no simple number."""
        if mistake.fault not in ("factor left out", "factor taken twice", "another value"):
            return ""
        factors: list[float] = []
        runs: list[Wrong] = []
        for scene in self.scenes:
            here = scene.here(spot.site.key)
            for p in scene.passings(here) if here and scene.run.wrong & set(names) else ():
                wrong, scale = mistake.change(p, 0.0), float(np.vdot(p.right, p.right))
                if not scale:
                    continue
                if wrong is None or np.shape(wrong) != np.shape(p.right):
                    return ""
                runs.append(scene.run)
                factors.append(float(np.vdot(p.right, wrong)) / scale)
                if not np.allclose(wrong, factors[-1] * p.right, rtol=1e-9, atol=1e-12 * scale**0.5):
                    return ""
        return express_in(runs, factors, ())

    def _fitted(self, scene: Scene, spot: Spot, mistake: Mistake, names: Sequence[str]) -> float | None:
        """Return the c that comes nearest to what the target returned, by steps of the secant method."""
        off = scene.off(names)
        if off is None:
            return None
        exact = scene.flat(scene.exact, names)
        got = exact + off

        def at(c: float) -> Array | None:
            predicted = scene.predict(spot, mistake, c)
            flat = None if predicted is None else scene.flat(predicted, names)
            return None if flat is None or flat.shape != exact.shape else flat

        none = at(0.0)
        if none is None:
            return None
        if mistake in (SCALED, SCALED_SOMEHOW):
            step = exact - none
            last = scene.sites.get((*spot.site.key, "step", -1)) if len(spot.site.at) > 1 else None
            if last is not None:
                # Where only the last step of a loop contributes, c has not been raised to a power.
                once = scene.flat(scene.cut([last]), names)
                step = np.where(np.abs(once - none) <= 1e-12 * np.max(np.abs(exact)), step, 0.0)
            if (c := _along(step, off)) is not None:
                return c
        c0, g0, c1 = 0.0, none, 1.0
        for _ in range(1 if len(spot.site.at) == 1 else 12):
            g1 = at(c1)
            if g1 is None or c1 == c0:
                return None
            slope = (g1 - g0) / (c1 - c0)
            norm = float(np.vdot(slope, slope))
            if not norm > 0 or not math.isfinite(norm):
                return None
            c0, g0, c1 = c1, g1, c1 + float(np.vdot(slope, got - g1)) / norm
            if abs(c1 - c0) <= 1e-14 * abs(c1):
                break
        return c1

    def _cut_fits(self, sites: Sequence[Site], names: Sequence[str], free: Sequence[str]) -> bool:
        return all(scene.fits(scene.cut(sites), names, free) for scene in self.scenes)

    def several(self, names: Sequence[str], free: Sequence[str] = ()) -> Found | None:
        """Return two paths that are multiplied by one number, or up to four that are missing, if that explains all."""
        if not self.scenes:
            return None
        scene, sites = self.scenes[0], []
        for site in scene.sites.values():
            changed = scene.changed(Spot(site))
            if changed and changed <= {*names, *free} and site.whole and site.kind in ("use", "output"):
                sites.append(site)
        off, exact = scene.off(names), scene.flat(scene.exact, names)
        if not sites or off is None:
            return None
        steps = [exact - scene.flat(scene.cut([site]), names) for site in sites]
        for i, j in _pairs_along(np.asarray(steps), off):
            if (found := self._scaled_alike([sites[i], sites[j]], names, free)) is not None:
                return found
        chosen: list[int] = []
        for _ in range(4):
            left = off + sum(steps[i] for i in chosen)
            chosen.append(min(range(len(sites)), key=lambda i: float(np.sum((left + steps[i]) ** 2))))
            if not float(np.sum((left + steps[chosen[-1]]) ** 2)) < float(np.sum(left**2)):
                return None
            if self._fit_together([sites[i] for i in chosen], lambda scene: 0.0, names, free):
                return Found(tuple(names), tuple(Spot(sites[i]) for i in chosen), CUT)
        return None

    def _scaled_alike(self, sites: Sequence[Site], names: Sequence[str], free: Sequence[str]) -> Found | None:
        """Return a mistake that multiplies what passes at several sites by the same number."""
        seen = [scene for scene in self.scenes if scene.run.wrong & set(names)]
        numbers = [scene.multiple(sites, names) for scene in seen]
        spots = tuple(map(Spot, sites))
        if all(c is not None and abs(c) < 1e-9 for c in numbers):
            mistake, factor = CUT, ""
        elif all(c is not None and abs(c + 1) < 1e-9 for c in numbers):
            mistake, factor = SIGN, ""
        else:
            mistake, known = SCALED, [c for c in numbers if c is not None]
            factor = express_in([scene.run for scene in seen], known, names) if len(known) == len(seen) else ""
            if not factor:
                return None
        of = {id(scene): c for scene, c in zip(seen, numbers, strict=True)}
        fits = self._fit_together(sites, lambda scene: of.get(id(scene)), names, free)
        return Found(tuple(names), spots, mistake, factor) if fits else None

    def _fit_together(
        self,
        sites: Sequence[Site],
        number: Callable[[Scene], float | None],
        names: Sequence[str],
        free: Sequence[str],
    ) -> bool:
        return all(
            c is None or scene.fits(scene.multiplied(sites, c), names, free)
            for scene in self.scenes
            for c in [number(scene)]
        )

    def smallest(self, names: Sequence[str], free: Sequence[str] = ()) -> Site | None:
        """Return where the fewest numbers pass that, whatever they are, may have made these gradients what they are.

        Where there is no such site, return the one nearest to the inputs through which all these gradients and no right
        one pass.
        """
        spots = next(self.spots(names, free, False)) if self.scenes else []
        sites = [spot.site for spot in spots if spot.site.key[1] != "input"]
        try:
            for site in sorted(sites, key=lambda s: (self.scenes[0].numbers(s), -s.order)):
                if self.scenes[0].explains(site, names):
                    return site
        except OutOfTime:
            pass
        return min(sites, key=lambda s: s.order, default=None)

    def used_at(self, name: str) -> Site | None:
        """Return the use of an input that is nearest to the output."""
        if not self.scenes:
            return None
        tape = self.scenes[0].tape
        uses = [s for s in self.scenes[0].sites.values() if s.kind == "use" and _slot_of(tape, s) == tape.inputs[name]]
        return max(uses, key=lambda s: s.order) if uses else None


_ALIKE = {"missing path": "is missing", "sign": "has the wrong sign", "scaled": "is multiplied by {c}"}
"""What may be done to what passes at several sites at once."""


def _pairs_along(steps: Array, off: Array) -> Iterator[tuple[int, int]]:
    """Yield the pairs of steps whose sum is parallel to what the gradients are off by."""
    products, along, length = steps @ steps.T, steps @ off, float(off @ off)
    squares = np.add.outer(np.diag(products), np.diag(products)) + 2 * products
    both = np.add.outer(along, along)
    with np.errstate(all="ignore"):
        missed = length - both**2 / squares
    for i, j in np.argwhere(np.triu(missed <= 1e-9 * length, 1)):
        yield int(i), int(j)


def _simple(site: Site) -> bool:
    """Return whether only the simplest mistakes are made there: in a step of a loop that is no end of it."""
    return site.kind == "carried" or not (site.whole or site.key[-1] in (FIRST, -1))


_WITH_A_NUMBER = (
    "factor left out",
    "factor taken twice",
    "another value",
    "ignores dy",
    "summed over the wrong axis",
    "summed over everything",
)
"""Mistakes that may come with a number: what stands for the mean of a product is the sum of one of its factors."""

_STAGES: Sequence[Callable[[Passing, Pool], Iterable[Mistake]]] = (
    lambda p, pool: [CUT],
    lambda p, pool: [SIGN],
    lambda p, pool: [SCALED],
    lambda p, pool: activation_mistakes(p),
    lambda p, pool: (m for m in rule_mistakes(p, pool) if m.fault not in ("factor taken twice", "another value")),
    lambda p, pool: (m for m in rule_mistakes(p, pool) if m.fault == "factor taken twice"),
    lambda p, pool: array_mistakes(p),
    lambda p, pool: (m for m in rule_mistakes(p, pool) if m.fault == "another value"),
    scale_mistakes,
    lambda p, pool: [SCALED_SOMEHOW],
)
"""The table in the order in which it is tried: what is simpler first."""


def _forks(tape: Tape, site: Site) -> bool:
    """Return whether what passes the operation goes on through another operand as well."""
    operation = tape.operations[site.edges[-1][0]]
    return len({s for s in operation.operands if tape.moving[s]}) > 1


def _slot_of(tape: Tape, site: Site) -> int:
    i, k = site.edges[-1]
    return tape.operations[i].operands[k]


def subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield all of them, then fewer and fewer, down to pairs."""
    for size in range(len(names), 1, -1):
        yield from itertools.combinations(names, size)

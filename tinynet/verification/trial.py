"""One verification under way: what the probes share, and what they have found so far."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.verification.diagnosis import FAULTS, Diagnosis, Evidence, diagnose
from tinynet.verification.kinks import beyond_kinks
from tinynet.verification.location import line_of_error, line_of_gradient
from tinynet.verification.oracle import Exact, NumericalOracle, Oracle
from tinynet.verification.report import Finding, Probe
from tinynet.verification.runs import Hang, Run, Watchdog, call, is_nothing, problem_with
from tinynet.verification.subjects import Args, LayerSubject, LossSubject, Subject
from tinynet.verification.tolerance import bound, distance, unit_of

__all__ = ["HANG_SECONDS", "PROBES", "Array", "Stop", "Trial", "ratio_of", "told"]

Array = npt.NDArray[Any]

PROBES = (
    "forward",
    "state",
    "rectangular",
    "batch 1",
    "batch 2",
    "square",
    "width 1",
    "larger",
    "empty batch",
    "saturated",
    "huge",
    "tiny",
    "zeros and ties",
    "layout",
    "param_grads",
    "compiled",
    "float32",
)
"""Every probe, in the order in which they run; purity and types are looked at in each."""

HANG_SECONDS = 10.0


class Stop(Exception):
    """Nothing that follows could be trusted."""


class Trial:
    """The subject, its oracle, and the tools that every probe uses; findings and coverage grow as the probes run.

    `suspicions` are findings unless the probes of values can tell more. Where faults need not be `named`, "unknown" is
    the name of each whose values would have to be explained.
    """

    def __init__(
        self,
        subject: Subject,
        reference: Callable[..., Any] | None,
        dtypes: tuple[str, ...],
        seed: int,
        wanted: frozenset[str],
        watchdog: Watchdog,
        named: bool = True,
    ) -> None:
        self.subject, self.reference, self.dtypes, self.seed = subject, reference, dtypes, seed
        self.wanted, self.watchdog, self.named = wanted, watchdog, named
        self.rng = np.random.default_rng([seed, 1])
        self.findings: list[Finding] = []
        self.suspicions: list[Finding] = []
        self.coverage: list[Probe] = []
        self.reason = ""
        self.oracle: Oracle | NumericalOracle | None = None

    def shapes(self) -> list[tuple[str, Subject]]:
        subject = self.subject
        shapes: list[tuple[str, Subject]] = [("rectangular", subject)]
        if self.has_batch():
            shapes += [(f"batch {m}", subject.with_batch(m, self.rng)) for m in (1, 2)]
        if not isinstance(self.oracle, NumericalOracle):
            shapes += self.resized(subject)
        return [(probe, s) for probe, s in shapes if probe in self.wanted]

    def resized(self, subject: Subject) -> list[tuple[str, Subject]]:
        """The subject in other widths; none of them if its forward pass does not come back from one."""
        try:
            with self.watchdog.watching():
                return subject.resized(self.rng)
        except Hang:
            self.reason = "the forward pass does not come back from an input of another width"
            self.coverage.append(Probe("larger", skipped=self.reason))
            return []

    def may_refuse(self, probe: str) -> bool:
        """Whether the backward pass may raise: a function may hold a width of its own that its forward ignores."""
        return probe in ("square", "width 1", "larger") and not isinstance(self.subject, (LayerSubject, LossSubject))

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Leave out of the coverage what is only run to explain a fault."""
        recorded = len(self.coverage)
        try:
            yield
        finally:
            del self.coverage[recorded:]

    def has_batch(self) -> bool:
        return bool(self.subject.batched) and self.subject.args[self.subject.batched[0]].ndim > 1

    def evidence(
        self,
        probe: str,
        subject: Subject,
        *,
        dtype: str = "float64",
        args: Args | None = None,
        dy: Array | None = None,
        forgiving: bool = False,
        instead: Callable[[Subject, Args, Array], Run] | None = None,
    ) -> Evidence | None:
        """Run one probe and compare; None where there is nothing to compare, which the coverage then says.

        Args:
            forgiving: an error of the backward pass is a refusal, not a fault.
            instead: another way to get gradients than `backward`.
        """
        args = subject.args if args is None else args
        oracle = self.oracle_of(subject)
        if dy is None:
            try:
                dy = self.dy(subject).astype(dtype)
            except Exception as error:
                self.coverage.append(Probe(probe, dtype, skipped=f"the forward pass raises {told(error)}"))
                return None
        run = call(subject, args, dy, self.watchdog)
        if run.error is not None and not isinstance(run.error, Hang) and (run.stage == "forward" or forgiving):
            self.coverage.append(Probe(probe, dtype, skipped=f"the {run.stage} pass raises {told(run.error)}"))
            return None
        try:
            exact = oracle(args, dy)
        except Exception as error:
            self.coverage.append(Probe(probe, dtype, skipped=f"no oracle: {told(error)}"))
            return None
        if not self.is_finite(exact, probe, dtype):
            return None
        if isinstance(oracle, NumericalOracle):
            if oracle.disagreement:
                self.inconclusive(f"{oracle.disagreement}; {oracle.reason}")
            self.reason = oracle.unconfirmed and f"{oracle.unconfirmed}; {oracle.reason}"
        if instead is not None and run.error is None:
            run = instead(subject, args, dy)
        if run.error is not None:
            self.raised(run, probe)
            return None
        self.purity(run, probe)
        return self.compared(probe, subject, args, dy, exact, run, dtype)

    def compared(
        self, probe: str, subject: Subject, args: Args, dy: Array, exact: Exact, run: Run, dtype: str
    ) -> Evidence | None:
        if not self.is_finite(exact, probe, dtype):
            return None
        unit = unit_of(dtype)
        tolerance, ratios, wrong = {}, {}, set()
        spread: Exact | None = None
        malformed = False
        for name in subject.wrt:
            got, want = run.grads.get(name), exact.grads[name]
            if (
                got is not None
                and hasattr(got, "__array_namespace__")
                and not isinstance(got, (np.ndarray, np.generic))
            ):
                run.grads[name] = got = np.asarray(got)
            fault, explanation = problem_with(got, args[name])
            tolerance[name] = bound(want, unit=unit, depth=subject.depth)
            if fault and fault != "shape":
                malformed = True
                self.add(self.finding(Diagnosis(fault, (name,), explanation), probe=probe))
                continue
            got = np.asarray(got, np.float64)
            off = distance(got, want) if got.shape == want.shape else float("inf")
            if tolerance[name] < off < float("inf"):
                if spread is None:
                    spread = self.spread(subject, args, dy, exact, unit, dtype)
                at_most = float(np.max(spread.grads[name], initial=0))
                tolerance[name] = bound(want, unit=unit, spread=at_most, depth=subject.depth)
            ratios[name] = ratio_of(off, tolerance[name])
            if off > tolerance[name]:
                wrong.add(name)
        for name, got in run.grads.items():
            if name not in subject.args:
                explanation = f"a gradient that nothing corresponds to: expected {', '.join(subject.wrt)}"
                self.add(self.finding(Diagnosis("malformed", (name,), explanation), probe=probe))
            elif subject.args[name].dtype.kind != "f" and not is_nothing(got):
                explanation = f"{name} holds {args[name].dtype}, which does not vary: expected zeros, or None"
                self.add(self.finding(Diagnosis("malformed", (name,), explanation), probe=probe))
        self.coverage.append(Probe(probe, dtype, ratios=ratios))
        if malformed:
            return None
        vjp = self.oracle_of(subject)
        evidence = Evidence(
            probe,
            subject,
            args,
            dy,
            exact,
            run.grads,
            tolerance,
            frozenset(wrong),
            vjp,
            lambda factor: self.with_scaled_input(subject, args, dy, factor),
        )
        if wrong and isinstance(vjp, Oracle):
            wrong_still, note = beyond_kinks(evidence, self.rng)
            evidence = dataclasses.replace(evidence, wrong=wrong_still)
            if note:
                self.note(probe, note)
        return evidence

    def is_finite(self, exact: Exact, probe: str, dtype: str) -> bool:
        """Whether there is something to compare with; else the coverage says so."""
        finite = all(np.isfinite(g).all() for g in (exact.y, *exact.grads.values()))
        if not finite:
            self.coverage.append(Probe(probe, dtype, skipped="the exact values are not finite there"))
        return finite

    def with_scaled_input(self, subject: Subject, args: Args, dy: Array, factor: float) -> Evidence | None:
        name = subject.batched[0] if subject.batched else ""
        if not name or args[name].dtype.kind != "f":
            return None
        scaled = {**args, name: factor * args[name]}
        run = call(subject, scaled, dy, self.watchdog)
        if run.error is not None:
            return None
        with self.unrecorded():
            return self.compared("tiny", subject, scaled, dy, self.oracle_of(subject)(scaled, dy), run, "float64")

    def spread(self, subject: Subject, args: Args, dy: Array, exact: Exact, unit: float, dtype: str) -> Exact:
        oracle = self.oracle_of(subject)
        spread = oracle.spread(args, dy, unit, self.rng)
        if dtype == "float32" and isinstance(oracle, Oracle):
            lower = oracle.evaluate(args, dy)
            grads = {
                n: np.maximum(s, np.abs(np.asarray(lower.grads[n], np.float64) - exact.grads[n]))
                for n, s in spread.grads.items()
            }
            spread = Exact(spread.y, grads)
        return spread

    def raised(self, run: Run, probe: str) -> None:
        if isinstance(run.error, Hang):
            explanation = f"the {run.stage} pass does not come back within {HANG_SECONDS:g} s"
            self.add(self.finding(Diagnosis("hangs", self.subject.wrt, explanation), probe=probe))
            raise Stop
        assert run.error is not None
        fault = "malformed" if type(run.error).__name__ == "Malformed" else "raises"
        explanation = str(run.error) if fault == "malformed" else f"the {run.stage} pass raises {told(run.error)}"
        files = [f.__code__.co_filename for f in self.subject.code if hasattr(f, "__code__")]
        self.add(
            self.finding(
                Diagnosis(fault, self.subject.wrt, explanation), probe=probe, where=line_of_error(run.error, files)
            )
        )

    def diagnoses(self, evidence: Sequence[Evidence]) -> list[Diagnosis]:
        if self.named:
            return diagnose(evidence)
        wrong = {name for e in evidence for name in e.wrong}
        return [Diagnosis("unknown", tuple(n for n in self.subject.wrt if n in wrong), FAULTS["unknown"])]

    def report(self, d: Diagnosis, failing: Sequence[Evidence], shapes: int | None = None) -> None:
        e = next((e for e in failing if d.gradients[0] in e.wrong), failing[0])
        name = d.gradients[0]
        got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
        extent = f"at {len(failing)} of {shapes} shapes" if shapes else f"at probe {e.probe}"
        if got.shape == want.shape:
            bad = int((np.abs(got - want) > e.tolerance[name]).sum())
            extent = f"{bad} of {got.size} entries, {extent}"
        self.findings.append(
            self.finding(d, probe=e.probe, got=got, exact=want, tolerance=e.tolerance[name], extent=extent)
        )

    def purity(self, run: Run, probe: str) -> None:
        for name in run.mutated:
            role = "dy" if name == "dy" else "x" if name in self.subject.batched else "params"
            fault = f"mutates {role}"
            explanation = FAULTS[fault] if name in ("x", "dy") else f"{name} was written into"
            self.add(self.finding(Diagnosis(fault, (name,), explanation), probe=probe))
        for name, other in run.shared.items():
            if name in self.subject.wrt and not self.kept_by_design(name):
                explanation = f"the gradient is a view of {other}: writing into one changes the other"
                self.add(self.finding(Diagnosis("shares memory", (name,), explanation), probe=probe))

    def kept_by_design(self, name: str) -> bool:
        return self.subject.session().keeps_one_cache and name not in self.subject.batched

    def add(self, finding: Finding) -> None:
        if not any((f.fault, f.gradient) == (finding.fault, finding.gradient) for f in self.findings):
            self.findings.append(finding)

    def note(self, probe: str, note: str) -> None:
        self.coverage = [
            dataclasses.replace(p, note=note, ratios={n: min(r, 1.0) for n, r in p.ratios.items()})
            if p.name == probe
            else p
            for p in self.coverage
        ]

    def the_oracle(self) -> Oracle | NumericalOracle:
        assert self.oracle is not None
        return self.oracle

    def oracle_of(self, subject: Subject) -> Oracle | NumericalOracle:
        """The oracle of the subject in another width; the same one where only the arrays differ."""
        if isinstance(self.oracle, Oracle) and not subject.shares_forward(self.subject):
            subject.rebound = self.subject.rebound
            return Oracle(subject)
        return self.the_oracle()

    def dy(self, subject: Subject) -> Array:
        """A random cotangent of y's shape: normal, never all ones, which would hide what a sum hides."""
        with self.watchdog.watching():
            y, _ = subject.session().forward({n: a.copy() for n, a in subject.args.items()})
        dy = np.asarray(self.rng.standard_normal(np.shape(y)))
        return np.asarray(dy + np.sign(dy) * 0.1)

    def inconclusive(self, reason: str) -> None:
        self.reason = reason
        self.coverage.append(Probe("forward", skipped=reason))
        raise Stop

    def finding(
        self,
        d: Diagnosis,
        *,
        probe: str,
        got: Array | None = None,
        exact: Array | None = None,
        tolerance: float = 0.0,
        ratio: float | None = None,
        extent: str = "",
        where: str = "",
    ) -> Finding:
        subject = self.subject
        index: tuple[int, ...] | None = None
        value = expected = None
        if got is not None and exact is not None and got.shape == exact.shape and got.size:
            with np.errstate(all="ignore"):
                off = np.nan_to_num(np.abs(got - exact), nan=np.inf)
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
            value, expected = float(got[index]), float(exact[index])
            tolerance = tolerance or bound(exact, depth=subject.depth)
            ratio = ratio if ratio is not None else (float(off[index]) / tolerance if tolerance else float("inf"))
        spoilt = set(d.gradients)
        position = subject.wrt.index(d.gradients[0]) if d.gradients[0] in subject.wrt else 0
        return Finding(
            target=subject.name,
            gradient=d.gradients[0],
            fault=d.fault,
            explanation=d.explanation,
            also=d.gradients[1:],
            right=tuple(n for n in subject.wrt if n not in spoilt) if "y" not in spoilt else (),
            index=index,
            got=value,
            expected=expected,
            tolerance=tolerance,
            ratio=float("inf") if ratio is None else ratio,
            extent=extent,
            probe=probe,
            where=where or (line_of_gradient(subject.code, d.gradients[0], position) if "y" not in spoilt else ""),
            reproduce=self.reproduce(probe),
            got_array=None if got is None else np.array(got),
            expected_array=None if exact is None else np.array(exact),
        )

    def reproduce(self, probe: str) -> str:
        subject = self.subject
        if isinstance(subject, LayerSubject) and type(subject.layer).__module__ != "__main__":
            return f"tinynet verify '{type(subject.layer).__module__}:{subject.layer!r}' --seed {self.seed}"
        return f"tn.verify({subject.name}, seed={self.seed}, probes=[{probe!r}])"


def ratio_of(off: float, allowed: float) -> float:
    """Return an error in units of the tolerance."""
    return 0.0 if off == 0 else off / allowed if allowed else float("inf")


def told(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]

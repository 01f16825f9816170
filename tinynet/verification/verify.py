"""`verify`: run the target on every probe, hold it against the oracle, name what is wrong."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.layers import Layer, Sequential
from tinynet.losses import Loss
from tinynet.verification.diagnosis import FAULTS, Diagnosis, Evidence, diagnose
from tinynet.verification.location import line_of_error, line_of_gradient
from tinynet.verification.oracle import Exact, NumericalOracle, Oracle, compiled_backward, make_oracle
from tinynet.verification.report import Finding, Probe, Report, Verdict
from tinynet.verification.runs import LAYOUTS, Hang, Run, Watchdog, call, leave_no_trace, problem_with
from tinynet.verification.subjects import (
    Args,
    LayerSubject,
    Subject,
    TargetError,
    make_subject,
)
from tinynet.verification.tolerance import bound, distance, unit_of

__all__ = ["PROBES", "check", "check_vjp", "verify"]

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
    "tiny",
    "zeros and ties",
    "layout",
    "param_grads",
    "compiled",
    "float32",
)
"""Every probe, in the order in which they run; purity and types are looked at in each."""

HANG_SECONDS = 10.0


def verify(
    target: Any,
    *,
    inputs: Any = None,
    params: Any = None,
    loss: Loss | None = None,
    reference: Callable[..., Any] | None = None,
    dtype: str | Sequence[str] = ("float64", "float32"),
    seed: int = 0,
    probes: Iterable[str] | None = None,
) -> Report:
    """Hold the hand-derived gradients of `target` against the exact ones of its own forward pass.

    Args:
        target: a `Layer`, a `Loss`, a `Sequential` (layer by layer, then as the chain), an object with forward(x) and
            backward(dy) that keeps its state on itself, a function that returns (y, backprop), or a pair of functions
            (forward, backward) as `check_vjp` takes them.
        inputs: an array, a tuple of arrays (an argument each; (ŷ, y) for a loss), or the shape of x to fill at random.
        params: the parameters of a layer; drawn near its own initial ones if None.
        loss: verify E = loss(target(params, x), y) end to end.
        reference: an independent forward pass with the arguments of the target's: f(params, x) for a layer, f(ŷ, y) for
            a loss, else the function's own. What it returns must equal y.
        dtype: which number types to try.
        seed: of every random number.
        probes: only these, by name; all of `PROBES` if None.

    Returns:
        A report. It never raises for a fault of the target.

    Raises:
        TargetError: (a ValueError) target, inputs or params are nothing that can be verified.
    """
    wanted = _wanted(probes)
    dtypes = (dtype,) if isinstance(dtype, str) else tuple(dtype)
    for name in dtypes:
        if name not in ("float64", "float32"):
            raise TargetError(f'verify: dtype is {name!r}; expected "float64", "float32" or both')
    start = time.perf_counter()
    with leave_no_trace(), Watchdog(HANG_SECONDS) as watchdog:
        rng = np.random.default_rng(seed)
        with watchdog.watching():
            subject = _made(target, inputs, params, loss, rng)
        verification = _Verification(subject, reference, dtypes, seed, wanted, watchdog)
        report = verification.run()
    return dataclasses.replace(report, seconds=time.perf_counter() - start)


def check(target: Any, **options: Any) -> None:
    """Raise GradientError unless `verify(target, **options)` passes: the one line for a test."""
    verify(target, **options).raise_if_failed()


def check_vjp(forward: Callable[..., Any], backward: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Do as `check` for a pair of functions that know nothing of tinynet.

    Args:
        forward: forward(*args) -> y.
        backward: backward(args, dy) -> a gradient per argument, a tuple; args is a tuple.
        args: example arrays. The first axis of the first one counts samples.
        options: as for `verify`.
    """
    check((forward, backward), inputs=tuple(args) if args else None, **options)


def _made(target: Any, inputs: Any, params: Any, loss: Loss | None, rng: np.random.Generator) -> Subject:
    try:
        return make_subject(target, inputs, params, loss, rng)
    except TargetError:
        raise
    except Hang:
        raise TargetError("verify: the target did not come back while its input shape was looked for") from None
    except Exception as error:
        raise TargetError(f"verify: the target cannot be called: {type(error).__name__}: {error}") from error


def _wanted(probes: Iterable[str] | None) -> frozenset[str]:
    names = frozenset(PROBES if probes is None else probes)
    if unknown := names - set(PROBES):
        raise TargetError(f"verify: no probe {sorted(unknown)}; expected some of {', '.join(PROBES)}")
    return names


class _Stop(Exception):
    """Nothing that follows could be trusted."""


class _Verification:
    """One verification: the probes in order, what they showed, and the report."""

    def __init__(
        self,
        subject: Subject,
        reference: Callable[..., Any] | None,
        dtypes: tuple[str, ...],
        seed: int,
        wanted: frozenset[str],
        watchdog: Watchdog,
    ) -> None:
        self.subject, self.reference, self.dtypes, self.seed = subject, reference, dtypes, seed
        self.wanted, self.watchdog = wanted, watchdog
        self.rng = np.random.default_rng([seed, 1])
        self.findings: list[Finding] = []
        self.coverage: list[Probe] = []
        self.reason = ""
        self.oracle: Oracle | NumericalOracle | None = None

    # the course of it

    def run(self) -> Report:
        try:
            self._forward()
            if isinstance(self.subject, LayerSubject) and type(self.subject.layer) is Sequential:
                self._children(self.subject, self.subject.layer)
            self._state()
            self._values()
            if not self.findings:
                self._regimes()
                self._layouts()
                self._param_grads()
                self._compiled()
                self._float32()
        except _Stop:
            pass
        except Hang:
            self.reason = self.reason or f"a call did not come back within {HANG_SECONDS:g} s"
        done = {(p.name, p.dtype) for p in self.coverage}
        for name in PROBES:
            if not any(n == name or n.startswith(f"{name} (") for n, _ in done):
                why = (
                    "not asked for"
                    if name not in self.wanted
                    else "a fault was found before it"
                    if self.findings
                    else ""
                )
                self.coverage.append(Probe(name, skipped=why or "does not apply"))
        return Report(
            target=self.subject.name,
            verdict=self._verdict(),
            findings=tuple(self.findings),
            coverage=tuple(sorted(self.coverage, key=_place)),
            oracle=self._oracle_text(),
            reason=self.reason,
            seed=self.seed,
        )

    def _verdict(self) -> Verdict:
        if self.findings:
            return "FAIL"
        judged = any(p.ratios for p in self.coverage)
        if self.reason or not judged:
            self.reason = self.reason or "no gradient was compared"
            return "INCONCLUSIVE"
        return "PASS"

    def _oracle_text(self) -> str:
        if isinstance(self.oracle, NumericalOracle):
            return "against complex step and extrapolated differences of your forward"
        how = (
            "jax.vjp of your forward, NumPy rebound to jax.numpy" if self.subject.rebound else "jax.vjp of your forward"
        )
        return f"against {how}, float64" + ("; forward equals the reference" if self.reference else "")

    # the forward

    def _forward(self) -> None:
        """Before any gradient is judged: the forward pass runs, JAX and NumPy agree on it, and with the reference."""
        subject = self.subject
        dy0 = np.zeros(())
        first = call(subject, subject.args, dy0, self.watchdog)
        if first.error is not None and first.stage == "forward":
            self._inconclusive(f"the forward pass raises {type(first.error).__name__}: {first.error}")
        if not isinstance(first.y, np.ndarray) or first.y.dtype.kind != "f":
            given = type(first.y).__name__ if not isinstance(first.y, np.ndarray) else f"an array of {first.y.dtype}"
            self._inconclusive(f"the forward pass returns {given}; expected an array of floating-point numbers")
        if not np.isfinite(first.y).all():
            self._inconclusive("the forward pass gives an infinity or a NaN for these inputs; give others as inputs=")
        self.oracle = make_oracle(subject)
        try:
            exact = self.oracle(subject.args, np.ones(first.y.shape))
        except Exception as error:
            self._inconclusive(f"no oracle for the forward pass: {type(error).__name__}: {error}")
        if isinstance(self.oracle, NumericalOracle):
            self.coverage.append(Probe("forward", note=self.oracle.reason))
        self._compare_forward(first.y, exact, subject.args, "forward differs", "JAX")
        if self.reference is not None:
            self._compare_reference(self.reference, first.y, exact)
        if not isinstance(self.oracle, NumericalOracle):
            ratio = self._ratio_forward(first.y, exact, subject.args)
            self.coverage.append(Probe("forward", "float64", ratios={"y": ratio}))

    def _ratio_forward(self, y: Array, exact: Exact, args: Args) -> float:
        off = distance(y, exact.y) if y.shape == exact.y.shape else float("inf")
        allowed = bound(exact.y, depth=self.subject.depth)
        if off > allowed and np.isfinite(off):
            spread = self._oracle().spread(args, np.ones(y.shape), unit_of(np.float64), self.rng)
            allowed = bound(exact.y, spread=float(np.max(spread.y, initial=0)), depth=self.subject.depth)
        return _ratio(off, allowed)

    def _compare_forward(self, y: Array, exact: Exact, args: Args, fault: str, other: str) -> None:
        ratio = self._ratio_forward(y, exact, args)
        if ratio <= 1:
            return
        if y.shape != exact.y.shape:
            explanation = f"y has shape {y.shape} under NumPy and {exact.y.shape} under {other}"
            self.findings.append(self._finding(Diagnosis(fault, ("y",), explanation), probe="forward"))
        else:
            self.findings.append(
                self._finding(
                    Diagnosis(fault, ("y",), FAULTS[fault]), probe="forward", got=y, exact=exact.y, ratio=ratio
                )
            )
        raise _Stop

    def _compare_reference(self, reference: Callable[..., Any], y: Array, exact: Exact) -> None:
        args = self.subject.args
        try:
            if isinstance(self.subject, LayerSubject):
                out = reference(self.subject.params(args), args["x"])
            else:
                out = reference(*args.values())
            expected = np.asarray(out, np.float64)
        except Exception as error:
            self._inconclusive(f"reference= raises {type(error).__name__}: {error}")
        self._compare_forward(y, Exact(expected, exact.grads), args, "forward differs from the reference", "reference=")

    # children

    def _children(self, subject: LayerSubject, net: Sequential) -> None:
        """Verify each layer of a chain for itself, on what reaches it; a fault found there explains the chain's."""
        params, x = subject.params(subject.args), subject.args["x"]
        seen: set[Any] = set()
        for i, layer in enumerate(net.layers):
            y, _ = layer.forward(params[i], x)
            child = LayerSubject(layer, params[i], x)
            if child.key is None or (child.key, x.shape) not in seen:
                seen.add((child.key, x.shape))
                inner = _Verification(child, None, self.dtypes, self.seed, self.wanted, self.watchdog)
                report = inner.run()
                self.findings += [
                    dataclasses.replace(f, target=f"{self.subject.name}, layer {i}: {f.target}")
                    for f in report.findings
                ]
                if report.verdict == "INCONCLUSIVE":
                    self.reason = f"layer {i}, {child.name}: {report.reason}"
                worst = max((r for p in report.coverage for r in p.ratios.values()), default=0.0)
                self.coverage.append(Probe(f"layer {i}", ratios={child.name: worst}))
            x = np.asarray(y)
        if self.findings:
            raise _Stop

    # state

    def _state(self) -> None:
        """The same call twice; B after A; forward A, forward B, backward A; backward twice; nothing written, shared."""
        if "state" not in self.wanted:
            return
        A = self.subject
        B = A.with_args({n: self._other(n, a) for n, a in A.args.items()})
        dy = self._dy(A)
        runs = [call(A, A.args, dy, self.watchdog) for _ in range(3)]
        if any(r.error for r in runs):
            return  # the values say what is wrong
        exact = self._oracle()(A.args, dy)
        self._purity(runs[0], "state")
        if runs[0].mutated:
            return  # a second call would start from what the first one wrote
        self._repeats(runs, exact, "the same call, on a fresh copy of the target,")

        session = A.session()
        again = [call(A, A.args, dy, self.watchdog, session=session) for _ in range(3)]
        self._repeats(again, exact, "the same call on the same target")
        twice = call(A, A.args, dy, self.watchdog, session=session, context=again[-1].context)
        self._repeats([again[-1], twice], exact, "backward twice after one forward")
        self._shared_results([*again, twice], "state")

        for order in ("forward A, backward A, forward B, backward B", "forward A, forward B, backward A"):
            session = A.session()
            if order.endswith("backward B"):
                call(A, A.args, dy, self.watchdog, session=session)
                run, at = call(B, B.args, dy, self.watchdog, session=session), B
            elif session.keeps_one_cache:
                continue
            else:
                first = call(A, A.args, dy, self.watchdog, session=session)
                call(B, B.args, dy, self.watchdog, session=session)
                run, at = call(A, A.args, dy, self.watchdog, session=session, context=first.context), A
            alone = call(at, at.args, dy, self.watchdog)
            changed = [n for n in A.wrt if self._differ(run.grads.get(n), alone.grads.get(n), exact.grads[n])]
            if run.error is None and alone.error is None and changed:
                self._stateful("stale cache", changed, f"{FAULTS['stale cache']}: {order}", run, alone)
        self.coverage.append(Probe("state"))

    def _repeats(self, runs: Sequence[Run], exact: Exact, what: str) -> None:
        first, second, last = runs[0], runs[1], runs[-1]
        for run in runs:
            if run.error is not None:
                text = f"{what} raises {type(run.error).__name__} the second time: {run.error}"
                self._stateful("stale cache", list(self.subject.wrt), text, run, first)
        changed = [n for n in self.subject.wrt if self._differ(second.grads.get(n), first.grads.get(n), exact.grads[n])]
        changed += [
            n
            for n in self.subject.wrt
            if n not in changed and self._differ(last.grads.get(n), first.grads.get(n), exact.grads[n])
        ]
        if not changed:
            return
        # What each call adds, if it adds: the first result, or the exact one.
        grows = [
            any(
                not self._differ(_minus(second.grads[n], first.grads[n]), step, exact.grads[n])
                for step in (np.asarray(first.grads[n]), exact.grads[n])
            )
            for n in changed
        ]
        if all(grows):
            self._stateful("accumulates", changed, f"{FAULTS['accumulates']}: {what}", second, first)
        fault = "mutates its cache" if what.startswith("backward") else "not deterministic"
        self._stateful(fault, changed, f"{what} gives another result" + _how(fault), second, first)

    def _stateful(self, fault: str, names: Sequence[str], explanation: str, run: Run, other: Run) -> None:
        got, expected = run.grads.get(names[0]), other.grads.get(names[0])
        arrays = isinstance(got, np.ndarray) and isinstance(expected, np.ndarray) and got.shape == expected.shape
        self.findings.append(
            self._finding(
                Diagnosis(fault, tuple(names), explanation),
                probe="state",
                got=got if arrays else None,
                exact=expected if arrays else None,
            )
        )
        raise _Stop

    def _differ(self, a: Any, b: Any, scale: Array) -> bool:
        """Whether two results differ by more than the order of a threaded sum explains."""
        if not (hasattr(a, "dtype") and hasattr(b, "dtype")):
            return type(a) is not type(b)
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            return True
        if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            return False
        return a.dtype.kind == "f" and distance(a, b) > 8 * unit_of(a.dtype) * float(
            np.max(np.abs(scale), initial=0) + np.max(np.abs(np.nan_to_num(a)), initial=0)
        )

    def _other(self, name: str, a: Array) -> Array:
        if name in self.subject.batched and a.dtype.kind == "f" and a.ndim:
            return a * (1 + 0.5 * self.rng.standard_normal(a.shape))
        return a

    def _purity(self, run: Run, probe: str) -> None:
        for name in run.mutated:
            role = "dy" if name == "dy" else "x" if name in self.subject.batched else "params"
            fault = f"mutates {role}"
            explanation = FAULTS[fault] if name in ("x", "dy") else f"{name} was written into"
            self._add_once(self._finding(Diagnosis(fault, (name,), explanation), probe=probe))
        for name, other in run.shared.items():
            if name in self.subject.wrt and not self._kept_by_design(name):
                explanation = f"the gradient is a view of {other}: writing into one changes the other"
                self._add_once(self._finding(Diagnosis("shares memory", (name,), explanation), probe=probe))

    def _shared_results(self, runs: Sequence[Run], probe: str) -> None:
        for name in self.subject.wrt:
            results = [g for r in runs if isinstance(g := r.grads.get(name), np.ndarray) and g.size]
            pairs = [(a, b) for i, a in enumerate(results) for b in results[:i] if np.shares_memory(a, b)]
            if pairs and not self._kept_by_design(name):
                explanation = (
                    "the gradient shares memory with that of an earlier call: an internal buffer is handed out"
                )
                self._add_once(self._finding(Diagnosis("shares memory", (name,), explanation), probe=probe))

    def _kept_by_design(self, name: str) -> bool:
        return self.subject.session().keeps_one_cache and name not in self.subject.batched

    def _add_once(self, finding: Finding) -> None:
        if not any((f.fault, f.gradient) == (finding.fault, finding.gradient) for f in self.findings):
            self.findings.append(finding)

    # values

    def _values(self) -> None:
        """Every entry of every gradient, at several shapes; what is wrong there is diagnosed."""
        plain = [e for probe, subject in self._shapes() if (e := self._evidence(probe, subject)) is not None]
        wrong = [e for e in plain if e.wrong]
        if not wrong:
            if not self.findings:
                self._empty_batch()
            return
        several = [e for e in plain if e.m > 1 and e.dy.ndim]
        if all(e.m == 1 for e in wrong) and several:
            only = Diagnosis("wrong only at batch 1", tuple(sorted(set().union(*(e.wrong for e in wrong)))), "")
            self._report_evidence(dataclasses.replace(only, explanation=FAULTS[only.fault]), wrong)
            return
        self._diagnose(plain)

    def _shapes(self) -> list[tuple[str, Subject]]:
        subject = self.subject
        shapes: list[tuple[str, Subject]] = [("rectangular", subject)]
        if self._has_batch():
            shapes += [(f"batch {m}", subject.with_batch(m, self.rng)) for m in (1, 2)]
        if not isinstance(self.oracle, NumericalOracle):
            shapes += subject.resized(self.rng)
        return [(probe, s) for probe, s in shapes if probe in self.wanted]

    def _has_batch(self) -> bool:
        return bool(self.subject.batched) and self.subject.args[self.subject.batched[0]].ndim > 1

    def _empty_batch(self) -> None:
        if "empty batch" not in self.wanted or not self._has_batch() or isinstance(self.oracle, NumericalOracle):
            return
        fault = "wrong only on an empty batch"
        evidence = self._evidence("empty batch", self.subject.with_batch(0, self.rng), forgiving=True)
        self.findings = [dataclasses.replace(f, fault=fault) for f in self.findings]
        if evidence is not None and evidence.wrong:
            self._report_evidence(Diagnosis(fault, tuple(sorted(evidence.wrong)), FAULTS[fault]), [evidence])

    def _evidence(
        self,
        probe: str,
        subject: Subject,
        *,
        dtype: str = "float64",
        args: Args | None = None,
        dy: Array | None = None,
        forgiving: bool = False,
        grads: str = "backward",
    ) -> Evidence | None:
        """Run one probe and compare; None where there is nothing to compare, which the coverage then says."""
        args = subject.args if args is None else args
        oracle = self._oracle_of(subject)
        if dy is None:
            try:
                dy = self._dy(subject)
            except Exception as error:
                self.coverage.append(Probe(probe, dtype, skipped=f"the forward pass raises {_told(error)}"))
                return None
        run = call(subject, args, dy, self.watchdog)
        if run.error is not None and not isinstance(run.error, Hang) and (run.stage == "forward" or forgiving):
            self.coverage.append(Probe(probe, dtype, skipped=f"the {run.stage} pass raises {_told(run.error)}"))
            return None
        try:
            exact = oracle(args, dy)
        except Exception as error:
            self.coverage.append(Probe(probe, dtype, skipped=f"no oracle: {_told(error)}"))
            return None
        if not all(np.isfinite(g).all() for g in (exact.y, *exact.grads.values())):
            self.coverage.append(Probe(probe, dtype, skipped="the exact values are not finite there"))
            return None
        if isinstance(oracle, NumericalOracle) and oracle.disagreement:
            self.reason = f"{oracle.disagreement}; {oracle.reason}"
        if grads == "param_grads" and run.error is None:
            run = self._run_param_grads(subject, args, dy)
        if run.error is not None:
            self._raised(run, probe)
            return None
        self._purity(run, probe)
        return self._compared(probe, subject, args, dy, exact, run, dtype)

    def _compared(
        self, probe: str, subject: Subject, args: Args, dy: Array, exact: Exact, run: Run, dtype: str
    ) -> Evidence | None:
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
                self._add_once(self._finding(Diagnosis(fault, (name,), explanation), probe=probe))
                continue
            got = np.asarray(got, np.float64)
            if not np.isfinite(got).all():
                malformed = True
                explanation = f"{int((~np.isfinite(got)).sum())} of {got.size} entries are infinite or NaN"
                self._add_once(self._finding(Diagnosis("non-finite", (name,), explanation), probe=probe))
                continue
            off = distance(got, want) if got.shape == want.shape else float("inf")
            if tolerance[name] < off < float("inf"):
                if spread is None:
                    spread = self._spread(subject, args, dy, exact, unit, dtype)
                at_most = float(np.max(spread.grads[name], initial=0))
                tolerance[name] = bound(want, unit=unit, spread=at_most, depth=subject.depth)
            ratios[name] = _ratio(off, tolerance[name])
            if off > tolerance[name]:
                wrong.add(name)
        for name in run.grads:
            if name not in subject.args:
                explanation = f"a gradient that nothing corresponds to: expected {', '.join(subject.wrt)}"
                self._add_once(self._finding(Diagnosis("malformed", (name,), explanation), probe=probe))
        self.coverage.append(Probe(probe, dtype, ratios=ratios))
        if malformed:
            return None
        vjp = self._oracle_of(subject)
        return Evidence(
            probe,
            subject,
            args,
            dy,
            exact,
            run.grads,
            tolerance,
            frozenset(wrong),
            vjp,
            lambda factor: self._scaled_input(subject, args, dy, factor),
        )

    def _scaled_input(self, subject: Subject, args: Args, dy: Array, factor: float) -> Evidence | None:
        name = subject.batched[0] if subject.batched else ""
        if not name or args[name].dtype.kind != "f":
            return None
        scaled = {**args, name: factor * args[name]}
        run = call(subject, scaled, dy, self.watchdog)
        if run.error is not None:
            return None
        return self._compared("tiny", subject, scaled, dy, self._oracle_of(subject)(scaled, dy), run, "float64")

    def _spread(self, subject: Subject, args: Args, dy: Array, exact: Exact, unit: float, dtype: str) -> Exact:
        oracle = self._oracle_of(subject)
        spread = oracle.spread(args, dy, unit, self.rng)
        if dtype == "float32" and isinstance(oracle, Oracle):
            lower = oracle.evaluate(args, dy)
            grads = {
                n: np.maximum(s, np.abs(np.asarray(lower.grads[n], np.float64) - exact.grads[n]))
                for n, s in spread.grads.items()
            }
            spread = Exact(spread.y, grads)
        return spread

    def _raised(self, run: Run, probe: str) -> None:
        if isinstance(run.error, Hang):
            explanation = f"the {run.stage} pass does not come back within {HANG_SECONDS:g} s"
            self._add_once(self._finding(Diagnosis("hangs", self.subject.wrt, explanation), probe=probe))
            raise _Stop
        assert run.error is not None
        fault = "malformed" if type(run.error).__name__ == "Malformed" else "raises"
        explanation = str(run.error) if fault == "malformed" else f"the {run.stage} pass raises {_told(run.error)}"
        files = [f.__code__.co_filename for f in self.subject.code if hasattr(f, "__code__")]
        self._add_once(
            self._finding(
                Diagnosis(fault, self.subject.wrt, explanation), probe=probe, where=line_of_error(run.error, files)
            )
        )

    def _diagnose(self, plain: Sequence[Evidence]) -> None:
        raised = [f for f in self.findings if f.fault in ("raises", "malformed")]
        diagnoses = diagnose(plain)
        if raised and all(d.fault != "unknown" for d in diagnoses):
            # It raises where the shapes do not fit, and the mistake has a name where they do.
            self.findings = [f for f in self.findings if f not in raised]
        for d in diagnoses:
            self._report_evidence(d, [e for e in plain if any(n in e.wrong for n in d.gradients)], len(plain))

    def _report_evidence(self, d: Diagnosis, failing: Sequence[Evidence], shapes: int | None = None) -> None:
        e = next((e for e in failing if d.gradients[0] in e.wrong), failing[0])
        name = d.gradients[0]
        got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
        extent = f"at {len(failing)} of {shapes} shapes" if shapes else f"at probe {e.probe}"
        if got.shape == want.shape:
            bad = int((np.abs(got - want) > e.tolerance[name]).sum())
            extent = f"{bad} of {got.size} entries, {extent}"
        self.findings.append(
            self._finding(d, probe=e.probe, got=got, exact=want, tolerance=e.tolerance[name], extent=extent)
        )

    # regimes, layouts, types

    def _regimes(self) -> None:
        for probe, change in _REGIMES.items():
            if probe not in self.wanted:
                continue
            if probe == "zeros and ties" and isinstance(self.oracle, NumericalOracle):
                self.coverage.append(Probe(probe, skipped="differences say nothing at a kink"))
                continue
            subject = self.subject
            name = subject.batched[0] if subject.batched else subject.wrt[0]
            if subject.args[name].dtype.kind != "f":
                self.coverage.append(Probe(probe, skipped=f"{name} holds no floating-point numbers"))
                continue
            changed = subject.with_args({**subject.args, name: change(subject.args[name])})
            evidence = self._evidence(probe, changed)
            if evidence is None or not evidence.wrong:
                continue
            remaining = self._beyond_kinks(evidence) if probe == "zeros and ties" else self._beyond_rounding(evidence)
            if remaining:
                self._report_evidence(
                    Diagnosis(_ONLY_IN[probe], tuple(sorted(remaining)), FAULTS[_ONLY_IN[probe]]), [evidence]
                )

    def _beyond_kinks(self, e: Evidence) -> set[str]:
        """The gradients that are not between the one-sided ones, at a kink."""
        oracle, remaining = self._oracle(), set()
        sides = []
        for _ in range(8):
            moved = {
                n: a + 1e-7 * self.rng.choice([-1.0, 1.0], a.shape)
                if n in e.subject.batched and a.dtype.kind == "f"
                else a
                for n, a in e.args.items()
            }
            sides.append(oracle(moved, e.dy).grads)
        for sign in (-1.0, 1.0):
            moved = {
                n: a + sign * 1e-7 if n in e.subject.batched and a.dtype.kind == "f" else a for n, a in e.args.items()
            }
            sides.append(oracle(moved, e.dy).grads)
        conventions = []
        for name in e.wrong:
            got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
            every = np.stack([*(s[name] for s in sides), want])
            slack = 1e-5 * float(np.max(np.abs(every), initial=0))
            low, high = every.min(axis=0) - slack, every.max(axis=0) + slack
            off = np.abs(got - want) > e.tolerance[name]
            kink = (high - low) > 4 * slack
            if np.any(off & ~kink) or np.any((got < low) | (got > high)):
                remaining.add(name)
            elif name in e.subject.batched:
                i = tuple(np.argwhere(off)[0])
                d = e.dy[i] if e.dy.shape == got.shape and e.dy[i] else 1.0
                conventions.append(f"at a kink the layer's slope is {got[i] / d:.3g}, JAX's {want[i] / d:.3g}")
        if conventions and not remaining:
            self._note("zeros and ties", conventions[0])
        return remaining

    def _beyond_rounding(self, e: Evidence) -> set[str]:
        """The gradients that are off by more than rounding an activation explains (1 − a where a ≈ 1)."""
        remaining = set()
        usual = self._oracle()(self.subject.args, e.dy)
        for name in e.wrong:
            got, want = np.asarray(e.got[name], np.float64), e.exact.grads[name]
            if got.shape != want.shape or distance(got, want) > bound(usual.grads[name], depth=2 * e.subject.depth):
                remaining.add(name)
            else:
                digits = -np.log10(max(distance(got, want) / float(np.max(np.abs(want))), 1e-17))
                self._note(e.probe, f"{name} keeps {digits:.0f} of 16 digits where the layer is saturated")
        return remaining

    def _note(self, probe: str, note: str) -> None:
        self.coverage = [
            dataclasses.replace(p, note=note, ratios={n: min(r, 1.0) for n, r in p.ratios.items()})
            if p.name == probe
            else p
            for p in self.coverage
        ]

    def _layouts(self) -> None:
        """The same numbers in other layouts; then broadcast arrays, whose numbers repeat."""
        if "layout" not in self.wanted:
            return
        subject, dy = self.subject, self._dy(self.subject)
        for label, lay_out in LAYOUTS.items():
            run = call(subject, {n: lay_out(a) for n, a in subject.args.items()}, lay_out(dy), self.watchdog)
            if run.error is not None and run.stage == "backward" and label == "read-only":
                text = f"the backward pass writes into an array that was handed in: {_told(run.error)}"
                role = "dy" if "dy" in line_of_error(run.error, []) else "x"
                self._add_once(self._finding(Diagnosis(f"mutates {role}", self.subject.wrt, text), probe="layout"))
                return
            if self._layout_is_wrong(label, subject, {n: lay_out(a) for n, a in subject.args.items()}, lay_out(dy)):
                return
        if self._has_batch():
            name = subject.batched[0]
            args = {**subject.args, name: np.broadcast_to(subject.args[name][:1].copy(), subject.args[name].shape)}
            wide = np.broadcast_to(dy[:1].copy(), dy.shape) if dy.ndim else dy
            self._layout_is_wrong("broadcast", subject, args, wide)

    def _layout_is_wrong(self, label: str, subject: Subject, args: Args, dy: Array) -> bool:
        evidence = self._evidence("layout", subject, args=args, dy=dy)
        last = self.coverage[-1]
        self.coverage[-1] = dataclasses.replace(last, name=f"layout ({label})")
        if evidence is None or not evidence.wrong:
            return bool(self.findings)
        if label == "broadcast" and not self._beyond_kinks(evidence):
            return False
        text = f"{FAULTS['wrong only for a layout']}: {label}"
        self._report_evidence(Diagnosis("wrong only for a layout", tuple(sorted(evidence.wrong)), text), [evidence])
        return True

    def _param_grads(self) -> None:
        subject = self.subject
        if "param_grads" not in self.wanted or not isinstance(subject, LayerSubject) or len(subject.args) < 2:
            return
        if type(subject.layer).param_grads is Layer.param_grads:
            self.coverage.append(Probe("param_grads", skipped="it is backward's own"))
            return
        evidence = self._evidence("param_grads", subject, grads="param_grads")
        if evidence is not None and evidence.wrong:
            for d in diagnose([evidence]):
                self._report_evidence(
                    dataclasses.replace(d, explanation=f"in param_grads, {d.explanation}"), [evidence]
                )

    def _run_param_grads(self, subject: Subject, args: Args, dy: Array) -> Run:
        session: Any = subject.session()
        try:
            _, context = session.forward({n: a.copy() for n, a in args.items()})
            grads = session.param_grads(context, dy.copy())
        except Exception as error:
            return Run(error=error, stage="param_grads")
        return Run(grads={"x": self._oracle()(args, dy).grads.get("x"), **grads})

    def _compiled(self) -> None:
        """The backward pass under jax.jit, where it can be traced."""
        subject = self.subject
        if "compiled" not in self.wanted or isinstance(self.oracle, NumericalOracle):
            return
        dy = self._dy(subject)
        try:
            run = Run(grads=dict(compiled_backward(subject, subject.args, dy)))
        except Exception as error:
            self.coverage.append(Probe("compiled", skipped=f"JAX cannot trace the backward pass: {_told(error)}"))
            return
        evidence = self._compared(
            "compiled", subject, subject.args, dy, self._oracle()(subject.args, dy), run, "float64"
        )
        if evidence is not None and evidence.wrong:
            names = tuple(sorted(evidence.wrong))
            self._report_evidence(Diagnosis("compiled differs", names, FAULTS["compiled differs"]), [evidence])

    def _float32(self) -> None:
        if "float32" not in self.dtypes or "float32" not in self.wanted or isinstance(self.oracle, NumericalOracle):
            return
        for _, subject in [s for s in self._shapes() if s[0] in ("rectangular", "batch 1", "larger")]:
            args = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in subject.args.items()}
            dy = self._dy(subject).astype(np.float32)
            evidence = self._evidence("float32", subject, dtype="float32", args=args, dy=dy)
            if evidence is not None and evidence.wrong:
                for d in diagnose([evidence]):
                    self._report_evidence(d, [evidence])
                return
            if self.findings:
                return

    # small pieces

    def _oracle(self) -> Oracle | NumericalOracle:
        assert self.oracle is not None
        return self.oracle

    def _oracle_of(self, subject: Subject) -> Oracle | NumericalOracle:
        """The oracle of the subject in another width; the same one where only the arrays differ."""
        if isinstance(self.oracle, Oracle) and not subject.shares_forward(self.subject):
            subject.rebound = self.subject.rebound
            return Oracle(subject)
        return self._oracle()

    def _dy(self, subject: Subject) -> Array:
        """A random cotangent of y's shape: normal, never all ones, which would hide what a sum hides."""
        with self.watchdog.watching():
            y, _ = subject.session().forward({n: a.copy() for n, a in subject.args.items()})
        dy = np.asarray(self.rng.standard_normal(np.shape(y)))
        return np.asarray(dy + np.sign(dy) * 0.1)

    def _inconclusive(self, reason: str) -> None:
        self.reason = reason
        self.coverage.append(Probe("forward", skipped=reason))
        raise _Stop

    def _finding(
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
            reproduce=self._reproduce(probe),
            got_array=None if got is None else np.array(got),
            expected_array=None if exact is None else np.array(exact),
        )

    def _reproduce(self, probe: str) -> str:
        subject = self.subject
        if isinstance(subject, LayerSubject) and type(subject.layer).__module__ != "__main__":
            return f"tinynet verify '{type(subject.layer).__module__}:{subject.layer!r}' --seed {self.seed}"
        return f"tn.verify({subject.name}, seed={self.seed}, probes=[{probe!r}])"


_REGIMES: dict[str, Callable[[Array], Array]] = {
    "saturated": lambda x: 6 * x,
    "tiny": lambda x: 1e-3 * x,
    "zeros and ties": lambda x: np.round(x) + 0.0,
}

_ONLY_IN = {
    "saturated": "wrong only when saturated",
    "tiny": "wrong only for small inputs",
    "zeros and ties": "wrong only at kinks",
}


def _ratio(off: float, allowed: float) -> float:
    return 0.0 if off == 0 else off / allowed if allowed else float("inf")


def _place(probe: Probe) -> int:
    name = probe.name.partition(" (")[0]
    return PROBES.index(name) if name in PROBES else len(PROBES)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]


def _minus(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    return a - b if a.shape == b.shape and a.dtype.kind == "f" else a


def _how(fault: str) -> str:
    return ": the first backward pass wrote into the cache" if fault == "mutates its cache" else " each time"

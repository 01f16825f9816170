"""`verify`: run the target on every probe, hold it against the oracle, name what is wrong."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinynet.layers import Sequential
from tinynet.losses import Loss
from tinynet.verification.oracle import NumericalOracle
from tinynet.verification.probes.forward import probe_forward
from tinynet.verification.probes.layouts import probe_layouts
from tinynet.verification.probes.regimes import probe_regimes
from tinynet.verification.probes.state import probe_state
from tinynet.verification.probes.types import probe_compiled, probe_float32, probe_param_grads
from tinynet.verification.probes.values import probe_values
from tinynet.verification.report import Probe, Report, Verdict
from tinynet.verification.runs import Hang, Watchdog, leave_no_trace
from tinynet.verification.subjects import LayerSubject, Subject, TargetError, make_subject
from tinynet.verification.trial import HANG_SECONDS, PROBES, Stop, Trial

__all__ = ["PROBES", "check", "check_vjp", "verify"]


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
    named: bool = True,
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
        named: look for the name of what is wrong; without it a verdict of FAIL comes many times faster.

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
        report = _run(Trial(subject, reference, dtypes, seed, wanted, watchdog, named))
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


def _run(trial: Trial) -> Report:
    """Run the probes in order; what is found early explains what comes later, which is then left out."""
    try:
        probe_forward(trial)
        if isinstance(trial.subject, LayerSubject) and type(trial.subject.layer) is Sequential:
            _probe_layers(trial, trial.subject, trial.subject.layer)
        probe_state(trial)
        probe_values(trial)
        trial.findings = trial.findings or trial.suspicions
        if not trial.findings:
            probe_regimes(trial)
            probe_layouts(trial)
            probe_param_grads(trial)
            probe_compiled(trial)
            probe_float32(trial)
    except Stop:
        pass
    except Hang:
        trial.reason = trial.reason or f"a call did not come back within {HANG_SECONDS:g} s"
    done = {(p.name, p.dtype) for p in trial.coverage}
    for name in PROBES:
        if not any(n == name or n.startswith(f"{name} (") for n, _ in done):
            why = "a fault was found before it" if trial.findings else "does not apply"
            trial.coverage.append(Probe(name, skipped=why if name in trial.wanted else "not asked for"))
    return Report(
        target=trial.subject.name,
        verdict=_verdict(trial),
        findings=tuple(trial.findings),
        coverage=tuple(sorted(trial.coverage, key=_place)),
        oracle=_oracle_text(trial),
        reason=trial.reason,
        seed=trial.seed,
    )


def _verdict(trial: Trial) -> Verdict:
    if trial.findings:
        return "FAIL"
    judged = any(p.ratios for p in trial.coverage if p.name not in ("forward", "empty batch"))
    if trial.reason or not judged:
        trial.reason = trial.reason or "no gradient was compared"
        return "INCONCLUSIVE"
    return "PASS"


def _oracle_text(trial: Trial) -> str:
    if isinstance(trial.oracle, NumericalOracle):
        return "against complex step and extrapolated differences of your forward"
    how = "jax.vjp of your forward, NumPy rebound to jax.numpy" if trial.subject.rebound else "jax.vjp of your forward"
    return f"against {how}, float64" + ("; forward equals the reference" if trial.reference else "")


def _probe_layers(trial: Trial, subject: LayerSubject, net: Sequential) -> None:
    """Verify each layer of a chain for itself, on what reaches it; a fault found there explains the chain's."""
    params, x = subject.params(subject.args), subject.args["x"]
    seen: set[Any] = set()
    for i, layer in enumerate(net.layers):
        child = LayerSubject(layer, params[i], x)
        y, _ = child.session().forward({name: a.copy() for name, a in child.args.items()})
        known = (child.key, child.parts, x.shape)
        if child.key is None or known not in seen:
            seen.add(known)
            report = _run(Trial(child, None, trial.dtypes, trial.seed, trial.wanted, trial.watchdog, trial.named))
            trial.findings += [
                dataclasses.replace(f, target=f"{trial.subject.name}, layer {i}: {f.target}") for f in report.findings
            ]
            if report.verdict == "INCONCLUSIVE":
                trial.reason = f"layer {i}, {child.name}: {report.reason}"
            worst = max((r for p in report.coverage for r in p.ratios.values()), default=0.0)
            trial.coverage.append(Probe(f"layer {i}", ratios={child.name: worst}))
        x = np.asarray(y)
    if trial.findings:
        raise Stop


def _place(probe: Probe) -> int:
    name = probe.name.partition(" (")[0]
    return PROBES.index(name) if name in PROBES else len(PROBES)

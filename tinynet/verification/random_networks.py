"""The probe "random networks": end to end on E, and when one fails, the smallest that does."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tinynet.layers import Layer, Sequential
from tinynet.losses import SquaredError
from tinynet.testing.strategies import Network, networks
from tinynet.verification.report import GradientError, Probe, Report
from tinynet.verification.verify import verify

__all__ = ["activations_among", "verify_networks"]


def verify_networks(
    activations: Iterable[Layer], *, count: int = 50, seed: int = 0, step: Callable[[], object] = lambda: None
) -> Report:
    """Verify ∂E/∂params and ∂E/∂x of `count` random networks, E = ½ Σ (ŷ − y)².

    Args:
        activations: what may follow an affine map.
        count: how many networks.
        seed: of the networks and of their arrays.
        step: called after each network.

    Returns:
        A report on them all, or, if one fails, that on the smallest network that fails, which names the guilty layer.

    Raises:
        ImportError: hypothesis is not installed.
    """
    strategy = networks(tuple(activations))  # says what to install
    import hypothesis

    ratios = {"x": 0.0, "params": 0.0}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def each(network: Network) -> None:
        report = verify(
            network.net,
            loss=SquaredError(),
            inputs=network.shape,
            dtype="float64",
            seed=seed,
            probes=("rectangular",),
        )
        step()
        report.raise_if_failed()
        for name, ratio in ((n, r) for p in report.coverage if p.name == "rectangular" for n, r in p.ratios.items()):
            key = name.partition("[")[0]
            ratios[key] = max(ratios[key], ratio)

    try:
        each()
    except GradientError as error:
        return error.report
    return Report(
        target=f"{count} random networks with SquaredError(reduction='sum')",
        verdict="PASS",
        findings=(),
        coverage=(Probe("rectangular", "float64", ratios=ratios),),
        oracle="against jax.vjp of their forwards, float64",
        seed=seed,
    )


def activations_among(targets: Iterable[object]) -> list[Layer]:
    """Return the layers among `targets`, instances or classes, without parameters that keep the shape of any (m, n)."""
    return [layer for layer in map(_instance, dict.fromkeys(targets)) if layer is not None and _keeps_shape(layer)]


def _instance(target: object) -> Layer | None:
    if isinstance(target, type) and issubclass(target, Layer):
        try:
            return target()
        except TypeError:
            return None
    return target if isinstance(target, Layer) and not isinstance(target, Sequential) else None


def _keeps_shape(layer: Layer) -> bool:
    try:
        if layer.init(np.random.default_rng(0)):
            return False
        return all(np.shape(layer.forward({}, np.ones(shape))[0]) == shape for shape in ((1, 1), (2, 3), (7, 16)))
    except Exception:
        return False

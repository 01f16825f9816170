"""The probe "random networks": end to end on E, and when one fails, the smallest that does."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tinynet.arrays import Array, Params
from tinynet.layers import Layer, Sequential
from tinynet.losses import SquaredError
from tinynet.testing.strategies import Network, networks
from tinynet.trees import map_leaves
from tinynet.verification.adapters.contract import layer_subject
from tinynet.verification.comparison import Comparison, compare
from tinynet.verification.execution import Watch
from tinynet.verification.oracle import JaxOracle, find_oracle
from tinynet.verification.report import Probe, Report
from tinynet.verification.tolerance import HANG_SECONDS
from tinynet.verification.verify import verify

LOSS = SquaredError("sum")


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

    worst = {"x": 0.0, "params": 0.0}
    found: list[Report] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def each(network: Network) -> None:
        c = _compared(network.net, *_arrays(network, seed))
        step()
        if c.wrong or c.form:
            # Rounding may explain the first; from there on it is a matter of finding a smaller one.
            if not found and not (report := _verified(network, seed)).ok:
                found.append(report)
            if found:
                raise _WrongError(network)
        for name, ratio in c.ratios.items():
            of = name.partition(".")[0]
            worst[of] = max(worst[of], ratio)

    try:
        with _nothing_left_behind():
            each()
    except _WrongError as error:
        smallest = _verified(error.network, seed)
        return found[0] if smallest.ok else smallest
    return Report(
        target=f"{count} random networks with {LOSS}",
        verdict="PASS",
        findings=(),
        coverage=(Probe("rectangular", "float64", ratios=worst),),
        oracle="against jax.grad of their forwards, float64",
        seed=seed,
    )


class _WrongError(Exception):
    """This network has a wrong gradient."""

    def __init__(self, network: Network) -> None:
        super().__init__(str(network))
        self.network = network


def _verified(network: Network, seed: int) -> Report:
    params, x, y = _arrays(network, seed)
    return verify(
        network.net, loss=LOSS, params=params, inputs=(x, y), dtype="float64", seed=seed, probes=("rectangular",)
    )


def _arrays(network: Network, seed: int) -> tuple[Params, Array, Array]:
    """Draw parameters, none of them 0 as an initial bias is, an input and a target."""
    rng = np.random.default_rng(seed)
    params = map_leaves(lambda p: p + 0.3 * rng.standard_normal(p.shape), network.net.init(rng, np.float64))
    x = rng.standard_normal(network.shape)
    y_hat, _ = network.net.forward(params, x)
    return params, x, rng.random(y_hat.shape)


def _compared(net: Sequential, params: Params, x: Array, y: Array) -> Comparison:
    """Compare ∂E/∂x and ∂E/∂params at these arrays."""
    subject, dy = layer_subject(net, x, params, loss=LOSS, y=y), (np.ones(()),)
    form, oracle = subject.start(), find_oracle(subject, Watch(HANG_SECONDS), dy)
    grads, exact = form.backward(form.forward(subject.args)[1], *dy), oracle(subject.args, dy)
    rng = np.random.default_rng(0)
    return compare(subject, grads=grads, probe="rectangular", oracle=oracle, dy=dy, rng=rng, usual={}, exact=exact)


@contextlib.contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Keep hypothesis from making its folder in the user's."""
    from hypothesis.configuration import set_hypothesis_home_dir

    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


def activations_among(targets: Iterable[object]) -> list[Layer]:
    """Return the layers among `targets`, instances or classes, without parameters that keep the shape of any (m, n).

    Those whose forward pass JAX cannot trace are not among them: there is no exact gradient of a network with one.
    """
    layers = [layer for layer in map(_instance, dict.fromkeys(targets)) if layer is not None]
    return [layer for layer in layers if _keeps_shape(layer) and _can_be_traced(layer)]


def _instance(target: object) -> Layer | None:
    if isinstance(target, type) and issubclass(target, Layer):
        try:
            return target()
        except Exception:
            return None
    return target if isinstance(target, Layer) and not isinstance(target, Sequential) else None


def _keeps_shape(layer: Layer) -> bool:
    try:
        if layer.init(np.random.default_rng(0)):
            return False
        return all(np.shape(layer.forward({}, np.ones(shape))[0]) == shape for shape in ((1, 1), (2, 3), (7, 16)))
    except Exception:
        return False


def _can_be_traced(layer: Layer) -> bool:
    x = np.ones((2, 3))
    return isinstance(find_oracle(layer_subject(layer, x, {}), Watch(HANG_SECONDS), (x,)), JaxOracle)

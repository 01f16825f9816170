"""The same numbers in other layouts of memory; then broadcast arrays, whose numbers repeat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinynet.verification.adapters.subject import Array
from tinynet.verification.bench import Bench
from tinynet.verification.examples import Example
from tinynet.verification.execution import LAYOUTS, execute
from tinynet.verification.observations import Observed
from tinynet.verification.probes.state import mutation
from tinynet.verification.probes.values import compared, raised


def probe_layout(b: Bench, seen: Observed) -> Observed:
    """Run the target on each layout; not where its values are wrong in any."""
    if "float64" not in b.settings.dtypes or any(c.wrong for c in seen.comparisons):
        return seen
    for label, lay_out in LAYOUTS.items():
        subject = b.subject.at({n: lay_out(a) for n, a in b.subject.args.items()})
        e = Example("layout", subject, tuple(map(lay_out, b.dy)), label)
        ran = execute(subject, subject.args, e.dy, b.watch)
        if ran.error is not None:
            seen += raised(b, e, ran, seen, "float64")
            continue
        if subject.library == "numpy":
            seen += Observed(faults=tuple(mutation(subject, ran, "layout")))
        seen += compared(b, e, subject, e.dy, ran, seen, "float64")
    for e in _broadcast(b):
        ran = execute(e.subject, e.subject.args, e.dy, b.watch)
        if ran.error is None:
            seen += compared(b, e, e.subject, e.dy, ran, seen, "float64")
    return seen


def _broadcast(b: Bench) -> Iterator[Example]:
    """Yield the first sample in place of each, with dy by sample and with one dy everywhere, as a sum gives it."""
    batch = b.batch
    if batch is None or b.subject.library != "numpy":
        return

    def repeated(a: Array, axis: int) -> Array:
        return np.broadcast_to(np.take(a, [0], axis=axis).copy(), a.shape)

    many = batch.axes.keys() - batch.places
    args = {n: repeated(a, batch.axes[n]) if n in many else a for n, a in b.subject.args.items()}
    by_sample = tuple(d if k is None else repeated(d, k) for d, k in zip(b.dy, batch.outputs, strict=True))
    everywhere = tuple(np.broadcast_to(d.ravel()[:1].reshape((1,) * d.ndim), d.shape) for d in b.dy)
    for dy in (by_sample, everywhere):
        yield Example("layout", b.subject.at(args), dy, "broadcast")

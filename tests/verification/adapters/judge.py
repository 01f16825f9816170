"""What the adapters' tests share: the gradients of a subject beside its oracle's."""

import jax
import numpy as np

from tinynet.verification.execution import Watch
from tinynet.verification.oracle import find_oracle


def errors(subject, seed=0, scale=1.0):
    """Return by name how far each gradient is off, relative to the largest exact entry; inf for another form."""
    rng = np.random.default_rng(seed)
    args = {n: a * scale if a.dtype.kind == "f" else a for n, a in subject.args.items()}
    session = subject.start()
    y, context = session.forward({n: a.copy() for n, a in args.items()})
    leaves, structure = jax.tree.flatten(y)
    dy = [rng.standard_normal(np.shape(leaf)) for leaf in leaves]
    got = session.backward(context, jax.tree.unflatten(structure, [d.copy() for d in dy]))
    exact = find_oracle(subject, Watch(30), tuple(dy))(args, tuple(dy))
    assert len(leaves) == len(exact.y)
    for mine, theirs in zip(leaves, exact.y, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)
    return {n: off(got[n], exact.grads[n]) for n in subject.wrt}


def off(got, exact):
    if not isinstance(got, np.ndarray) or got.shape != exact.shape:
        return np.inf
    assert np.max(np.abs(exact)) > 1e-6
    return np.max(np.abs(got - exact)) / np.max(np.abs(exact))

"""The settings of a run: what decides its bits, as a file can hold it, and equal only for the same run.

What has no name is compared by value: data by all of their bytes, a schedule that is a function by its numbers, an
Optax transformation by its updates for fixed gradients.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import tinynet
from tinynet.arrays import Params
from tinynet.optimizers import ReduceOnPlateau
from tinynet.training.batches import Batch, release
from tinynet.trees import leaves, leaves_with_paths, map_leaves, parts

if TYPE_CHECKING:
    from tinynet.training.callbacks import EarlyStopping

STEPS = sorted({*range(100), *(round(1.05**k) for k in range(95, 300))})
"""The updates at which schedules are compared: the first hundred, then each twentieth part further, to two million."""

_AT_ONCE = 2**24


def settings_of_optimizer(optimizer: Any, params: Params) -> dict[str, Any]:
    """Return what decides the updates that an optimizer makes of gradients by `params`."""
    return {
        "optimizer": "an Optax transformation" if is_optax(optimizer) else optimizer,
        "schedules of optimizer": _schedules(optimizer),
        "updates by optimizer": _updates(optimizer, params) if is_optax(optimizer) else None,
    }


def monitored(optimizer: Any, early_stopping: EarlyStopping | None = None) -> set[str]:
    """Return the names of the numbers in the history that training depends on."""
    watching = [optimizer, *(part for _, part, _ in parts(optimizer))]
    names = {part.monitor for part in watching if isinstance(part, ReduceOnPlateau)}
    return names if early_stopping is None else names | {early_stopping.monitor}


def versions(engine: str) -> dict[str, str]:
    """Return the versions of what computes: with others, the last bits of a result may differ."""
    packages = ("numpy", "jax", "jaxlib") if engine == "jax" else ("numpy",)
    return {"tinynet": tinynet.__version__, **{name: importlib.metadata.version(name) for name in packages}}


def fingerprint(*trees: Any) -> str:
    """Return a text that differs where a structure, shape, dtype or byte differs."""
    digest = hashlib.sha256()
    _update(digest, trees)
    return digest.hexdigest()


def chained(batches: Iterator[Batch], chain: list[str]) -> Iterator[Batch]:
    """Yield the batches; append, for each, a text that differs where it or one before it differs."""
    digest = hashlib.sha256()
    for batch in batches:
        _update(digest, batch)
        chain.append(digest.hexdigest())
        yield batch


def is_optax(optimizer: object) -> bool:
    """Return whether `optimizer` has the form of an Optax transformation."""
    return isinstance(optimizer, tuple) and hasattr(optimizer, "init") and hasattr(optimizer, "update")


def _update(digest: Any, tree: Any) -> None:
    for path, leaf in leaves_with_paths(tree):
        digest.update(path.encode())
        if leaf is None:
            digest.update(b"none")
            continue
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape};".encode())
        rows = np.atleast_1d(array)
        step = max(1, _AT_ONCE // max(1, rows[:1].nbytes))
        for i in range(0, len(rows), step):
            digest.update(np.ascontiguousarray(rows[i : i + step]).reshape(-1).view(np.uint8))
            release(array)


def _schedules(optimizer: Any) -> dict[str, list[str]]:
    """Return the numbers of each schedule that is a function in the fields of an optimizer, to six digits."""
    functions = [(path, part) for path, part, _ in parts(optimizer) if callable(part) and not is_dataclass(part)]
    return {"".join(f'["{k}"]' if isinstance(k, str) else f"[{k}]" for k in path): _numbers(f) for path, f in functions}


def _numbers(schedule: Callable[[Any], Any]) -> list[str]:
    try:
        return [f"{float(schedule(np.int32(step))):.6g}" for step in STEPS]
    except Exception:  # no schedule, but a user's function that takes something else; its name is compared
        return []


def _updates(optimizer: Any, params: Params) -> list[str]:
    """Return the sizes, to five digits, of updates that an Optax transformation makes of fixed gradients.

    The first three, of each parameter; and, as schedules may differ later, the first one of all of them together where
    the integers of the state, which count updates, are each of `STEPS`. Two rows and columns do for these; where the
    transformation fits the shapes of the parameters alone it is the whole of them, at each tenth step.
    """
    import jax
    from jax import numpy as jnp

    def gradients(params: Params) -> Params:
        return map_leaves(lambda p: 0.1 * jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)

    def counted(step: Any, leaf: Any) -> Any:
        return step if leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer) else leaf

    def sizes_at(steps: list[int], params: Params) -> list[float]:
        def size(step: Any) -> Any:
            state = jax.tree.map(lambda leaf: counted(step, jnp.asarray(leaf)), optimizer.init(params))
            updates, _ = optimizer.update(gradients(params), state, params)
            return jnp.sqrt(sum((update * update).sum() for update in leaves(updates)))

        return list(jax.jit(lambda steps: jax.lax.map(size, steps))(np.array(steps)).tolist())

    with jax.enable_x64(any(np.asarray(p).dtype == np.float64 for p in leaves(params))):
        params = map_leaves(jnp.asarray, params)
        update, state, sizes = jax.jit(optimizer.update), optimizer.init(params), []
        for _ in range(3):
            updates, state = update(gradients(params), state, params)
            sizes += [float(np.linalg.norm(np.asarray(update, np.float64))) for update in leaves(updates)]
        try:
            sizes += sizes_at(STEPS, map_leaves(lambda p: p[(slice(2),) * p.ndim], params))
        except Exception:  # whatever it raises where the shapes are others
            sizes += sizes_at(STEPS[::10], params)
    return [f"{size:.5g}" for size in sizes]

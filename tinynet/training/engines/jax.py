"""The JAX engine: an epoch is one compiled `lax.scan` over the hand-derived backward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tinynet.arrays import Array, Params
from tinynet.gradients import value_and_grads
from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.training.batches import Batch, Batches
from tinynet.training.engines import Carry, Losses, OnStep
from tinynet.training.engines.processes import Processes
from tinynet.training.engines.sampling import differences, get, replaced
from tinynet.trees import leaves, map_leaves

__all__ = ["JaxEngine"]

_STACKED_BYTES = 32 * 2**20


@dataclass(frozen=True)
class JaxEngine:
    """Training compiled by XLA.

    Data in memory go to the device once, and batches are gathered there in the order drawn on the host, so that the
    results are those of the NumPy engine. Other data are sent some batches at a time.

    Args:
        net, loss: what to train, and on what.
        optimizer: tinynet's or an Optax transformation.
        mesh: the devices that share each batch, along its axis "data"; parameters are on all of them.
        dtype: of the parameters.
        grads: (net, loss, params, x, y, weights=…, dE=…) -> (E, dparams).
    """

    stops_anywhere: ClassVar[bool] = False

    net: Layer
    loss: Loss
    optimizer: Any
    mesh: Any = None
    dtype: Any = np.float32
    grads: Callable[..., tuple[Array, Params]] = value_and_grads

    def __post_init__(self) -> None:
        if self.mesh is None:
            return
        if not isinstance(self.mesh, Mesh) or "data" not in self.mesh.axis_names:
            raise ValueError(f'fit: mesh is {self.mesh!r}; expected a jax.sharding.Mesh with an axis "data"')
        n = len(self._processes_of_mesh)
        if 1 < n < jax.process_count():
            raise ValueError(
                f"fit: mesh has devices of {n} of the {jax.process_count()} processes; expected all of them, or one"
            )

    @cached_property
    def processes(self) -> Processes:
        return Processes(several=len(self._processes_of_mesh) > 1)

    @property
    def _processes_of_mesh(self) -> set[int]:
        return set() if self.mesh is None else {device.process_index for device in self.mesh.devices.flat}

    @contextmanager
    def session(self) -> Iterator[None]:
        """Use 64 bits where the parameters do; products of float32 are products of float32, unless JAX was told else.

        On GPUs and TPUs JAX would round their operands to fewer bits.
        """
        precision = jax.config.jax_default_matmul_precision or "float32"  # type: ignore[attr-defined]
        with jax.enable_x64(np.dtype(self.dtype).itemsize == 8), jax.default_matmul_precision(precision):
            yield

    def start(self, params: Params) -> Carry:
        place = partial(_on_all_devices, self.mesh)
        params = map_leaves(place, params)
        return params, jax.tree.map(place, self.optimizer.init(params))

    def copy(self, carry: Carry) -> Carry:
        return jax.tree.map(jnp.copy, carry)  # type: ignore[no-any-return]

    def resume(self, carry: Carry, params: Params, state: Any) -> Carry:
        place = partial(_on_all_devices, self.mesh)
        # A file has tuples for the named tuples of Optax; the leaves are the same.
        like = jax.tree.structure(carry[1])
        return map_leaves(place, params), jax.tree.unflatten(like, map(place, jax.tree.leaves(state)))

    def state(self, carry: Carry) -> Any:
        return jax.tree.map(np.asarray, carry[1])

    def params(self, carry: Carry) -> Params:
        return map_leaves(np.asarray, carry[0])

    def epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None = None
    ) -> tuple[Carry, Losses]:
        if isinstance(batches, Batches) and batches.in_memory and on_step is None:
            return self._resident_epoch(carry, batches, rng)
        return self._fed_epoch(carry, batches, rng, on_step)

    def _resident_epoch(self, carry: Carry, batches: Batches, rng: np.random.Generator) -> tuple[Carry, Losses]:
        """Run the whole batches as one scan over rows of indices, and the shorter last one after it."""
        m, size = batches.m, batches.size
        data = self._resident(batches)
        order = np.arange(m) if batches.order is None else batches.order
        whole = m // size
        losses: Losses = []
        for rows in (order[: whole * size].reshape(whole, size), order[whole * size :].reshape(1, -1)):
            if rows.size:
                draws = self._draw(rng, len(rows))
                carry, E = self._program.scan_rows(
                    carry, data, _on_all_devices(self.mesh, rows.astype(np.int32)), draws
                )
                losses += [(loss, rows.shape[1]) for loss in np.asarray(E, float).tolist()]
        return carry, losses

    def _fed_epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None
    ) -> tuple[Carry, Losses]:
        losses: Losses = []
        for stack in _stacks(batches, 1 if on_step else None):
            data = jax.tree.map(lambda *parts: _on_all_devices(self.mesh, np.stack(parts)), *stack)
            carry, E = self._program.scan_batches(carry, data, self._draw(rng, len(stack)))
            losses += [(loss, len(stack[0][0])) for loss in np.asarray(E, float).tolist()]
            if on_step and self.processes.any(on_step(len(losses) - 1, losses[-1][0], carry[0], *stack[0][:2])):
                break
        return carry, losses

    def _draw(self, rng: np.random.Generator, n: int) -> Array:
        """Draw the numbers of `n` batches as the NumPy engine does."""
        random = self._program.random
        drawn = (
            [[get(net, path) for path in random] for net in (self.net.sample(rng) for _ in range(n))] if random else []
        )
        whole = all(isinstance(number, int) for row in drawn for number in row)
        return _on_all_devices(self.mesh, np.array(drawn, np.uint32 if whole else self.dtype).reshape(n, len(random)))

    def _resident(self, batches: Batches) -> Batch:
        """Return the data on the device; they are the same arrays in every epoch."""
        if self._placed.get("host") is not batches.x:
            data = jax.tree.map(partial(_on_all_devices, self.mesh), (batches.x, batches.y, batches.weights))
            self._placed.update(host=batches.x, data=data)
        return self._placed["data"]  # type: ignore[no-any-return]

    @cached_property
    def _program(self) -> _Program:
        return _Program(self.net, self.loss, self.optimizer, self.mesh, self.grads)

    @cached_property
    def _placed(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class _Program:
    """What is compiled; equal programs, of one `fit` or of several, are compiled once."""

    net: Layer
    loss: Loss
    optimizer: Any
    mesh: Any
    grads: Callable[..., tuple[Array, Params]]

    @partial(jax.jit, static_argnames="self", donate_argnames="carry")
    def scan_rows(self, carry: Carry, data: Batch, order: Array, draws: Array) -> tuple[Carry, Array]:
        """Make an update for each row of indices in `order`."""

        def step(carry: Carry, inputs: Any) -> tuple[Carry, Array]:
            rows, drawn = inputs
            batch = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
            return self._step(carry, batch, drawn)

        return jax.lax.scan(step, carry, (order, draws))

    @partial(jax.jit, static_argnames="self", donate_argnames="carry")
    def scan_batches(self, carry: Carry, data: Batch, draws: Array) -> tuple[Carry, Array]:
        """Make an update for each batch in a stack of them."""
        return jax.lax.scan(lambda carry, inputs: self._step(carry, *inputs), carry, (data, draws))

    def _step(self, carry: Carry, batch: Batch, drawn: Array) -> tuple[Carry, Array]:
        params, state = carry
        x, y, weights = jax.tree.map(partial(_split_over_devices, self.mesh), batch)
        net = self.net
        if self.random:
            net = net.sample(np.random.default_rng(0))
            for i, path in enumerate(self.random):
                net = replaced(net, path, drawn[i])
        if isinstance(self.optimizer, Optimizer):
            dE, rule = self.optimizer.scaled()
            E, grads = self.grads(net, self.loss, params, x, y, weights=weights, dE=dE)
            return _same_on_all_devices(self.mesh, (rule.step(params, grads, state), E))
        E, grads = self.grads(net, self.loss, params, x, y, weights=weights)
        updates, state = self.optimizer.update(grads, state, params)
        return _same_on_all_devices(self.mesh, ((jax.tree.map(jnp.add, params, updates), state), E))

    @cached_property
    def random(self) -> tuple[Any, ...]:
        """Where the network has a number that is drawn anew for each batch."""
        drawn = (self.net.sample(np.random.default_rng(seed)) for seed in range(4))
        return tuple(sorted({path for net in drawn for path in differences(self.net, net)}, key=str))


def _on_all_devices(mesh: Any, a: Array) -> Array:
    """Copy `a` to the default device, or to every device of `mesh`."""
    if mesh is None:
        return jnp.array(a)
    host = np.asarray(a)
    return jax.make_array_from_callback(host.shape, _sharding(mesh), lambda part: host[part])


def _split_over_devices(mesh: Any, a: Array) -> Array:
    """Give each device of `mesh` its share of the rows of `a`; a last batch that cannot be shared equally stays."""
    if mesh is None or len(a) % mesh.shape["data"]:
        return a
    return _constrained(a, _sharding(mesh, "data"))


def _same_on_all_devices(mesh: Any, tree: tuple[Carry, Array]) -> tuple[Carry, Array]:
    return tree if mesh is None else _constrained(tree, _sharding(mesh))


def _sharding(mesh: Any, *axes: str) -> NamedSharding:
    # XLA places what a step computes: the mesh's own axis types would ask the layers to do it.
    return NamedSharding(Mesh(mesh.devices, mesh.axis_names), PartitionSpec(*axes))  # type: ignore[no-untyped-call]


def _constrained(tree: Any, sharding: NamedSharding) -> Any:
    return jax.lax.with_sharding_constraint(tree, sharding)  # type: ignore[no-untyped-call]


def _stacks(batches: Iterable[Batch], most: int | None) -> Iterator[list[Batch]]:
    """Group batches of one shape that follow each other, up to 32 MiB or `most` of them at a time."""
    for _, run in itertools.groupby(batches, lambda batch: [a.shape for a in leaves(batch) if a is not None]):
        first = next(run)
        size = sum(a.nbytes for a in leaves(first) if a is not None)
        n = most or max(1, _STACKED_BYTES // size)
        run = itertools.chain([first], run)
        while stack := list(itertools.islice(run, n)):
            yield stack

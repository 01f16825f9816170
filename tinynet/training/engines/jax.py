"""The JAX engine: an epoch is one compiled `lax.scan` over the hand-derived backward pass."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, partial, reduce
from typing import Any, ClassVar, TypeAlias

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
from tinynet.training.engines import Carry, Losses, OnStep, TrainingState
from tinynet.training.engines.processes import Processes
from tinynet.trees import leaves, map_leaves

Path: TypeAlias = tuple[str | int, ...]
"""Field names and tuple indices that lead from a layer to a number in it."""

Draws: TypeAlias = tuple[Array, tuple[tuple[Array, ...], ...]]
"""For each of several batches, which of the sampled networks it has; for each network, the numbers at its paths."""

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

    def start(self, params: Params, state: TrainingState | None = None) -> Carry:
        place = partial(_on_all_devices, self.mesh)
        params = map_leaves(place, params)
        first = jax.tree.map(place, self.optimizer.init(params))
        if state is None:
            return Carry(params, first)
        leaves_of = jax.tree.leaves(state.optimizer)  # a file has tuples for the named tuples of Optax
        if [np.shape(leaf) for leaf in leaves_of] != [leaf.shape for leaf in jax.tree.leaves(first)]:
            raise ValueError("fit: state.optimizer is not a state of this optimizer on these parameters")
        return Carry(params, jax.tree.unflatten(jax.tree.structure(first), map(place, leaves_of)))

    def copy(self, carry: Carry) -> Carry:
        return jax.tree.map(jnp.copy, carry)  # type: ignore[no-any-return]

    def params(self, carry: Carry) -> Params:
        return map_leaves(np.asarray, carry.params)

    def state(self, carry: Carry) -> TrainingState:
        return TrainingState(*jax.tree.map(np.asarray, (carry.optimizer, carry.layers)))

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
                rows = _on_all_devices(self.mesh, rows.astype(np.int32))
                carry, E = self._program.scan_rows(carry, data, rows, draws)
                losses += [(loss, int(rows.shape[1])) for loss in np.asarray(E, float).tolist()]
        return carry, losses

    def _fed_epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None
    ) -> tuple[Carry, Losses]:
        losses: Losses = []
        for stack in _stacks(batches, 1 if on_step else None):
            data = jax.tree.map(lambda *parts: _on_all_devices(self.mesh, np.stack(parts)), *stack)
            draws = self._draw(rng, len(stack))
            carry, E = self._program.scan_batches(carry, data, draws)
            losses += [(loss, len(stack[0][0])) for loss in np.asarray(E, float).tolist()]
            if on_step and self.processes.any(on_step(len(losses) - 1, losses[-1][0], carry.params, *stack[0][:2])):
                break
        return carry, losses

    def _draw(self, rng: np.random.Generator, n: int) -> Draws:
        """Sample the network of `n` batches as the NumPy engine does."""
        place = partial(_on_all_devices, self.mesh)
        return jax.tree.map(place, self._samples.draw(rng, n))  # type: ignore[no-any-return]

    def _resident(self, batches: Batches) -> Batch:
        """Return the data on the device; they are the same arrays in every epoch."""
        if self._placed.get("host") is not batches.x:
            data = jax.tree.map(partial(_on_all_devices, self.mesh), (batches.x, batches.y, batches.weights))
            self._placed.update(host=batches.x, data=data)
        return self._placed["data"]  # type: ignore[no-any-return]

    @cached_property
    def _samples(self) -> _Samples:
        return _Samples(self.net, self.dtype)

    @property
    def _program(self) -> _Program:
        return _Program(self._samples.nets(), self.loss, self.optimizer, self.mesh, self.grads)

    @cached_property
    def _placed(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class _Program:
    """The functions that are compiled; equal programs, of one `fit` or of several, are compiled once."""

    nets: tuple[_Sampled, ...]
    loss: Loss
    optimizer: Any
    mesh: Any
    grads: Callable[..., tuple[Array, Params]]

    @partial(jax.jit, static_argnames="self", donate_argnames="carry")
    def scan_rows(self, carry: Carry, data: Batch, order: Array, draws: Draws) -> tuple[Carry, Array]:
        """Make an update for each row of indices in `order`."""

        def step(carry: Carry, inputs: Any) -> tuple[Carry, Array]:
            rows, drawn = inputs
            batch = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
            return self._step(carry, batch, drawn)

        return jax.lax.scan(step, carry, (order, draws))

    @partial(jax.jit, static_argnames="self", donate_argnames="carry")
    def scan_batches(self, carry: Carry, data: Batch, draws: Draws) -> tuple[Carry, Array]:
        """Make an update for each batch in a stack of them."""
        return jax.lax.scan(lambda carry, inputs: self._step(carry, *inputs), carry, (data, draws))

    def _step(self, carry: Carry, batch: Batch, draws: Draws) -> tuple[Carry, Array]:
        batch = jax.tree.map(partial(_split_over_devices, self.mesh), batch)
        which, numbers = draws
        updates = [partial(self._update, net.of(drawn)) for net, drawn in zip(self.nets, numbers, strict=True)]
        stepped = updates[0](carry, batch) if len(updates) == 1 else jax.lax.switch(which, updates, carry, batch)
        return _same_on_all_devices(self.mesh, stepped)

    def _update(self, net: Layer, carry: Carry, batch: Batch) -> tuple[Carry, Array]:
        params, state, layers = carry
        x, y, weights = batch
        if isinstance(self.optimizer, Optimizer):
            dE, rule = self.optimizer.scaled()
            E, grads = self.grads(net, self.loss, params, x, y, weights=weights, dE=dE)
            params, state = rule.step(params, grads, state)
        else:
            E, grads = self.grads(net, self.loss, params, x, y, weights=weights)
            updates, state = self.optimizer.update(grads, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return Carry(params, state, layers), E


@dataclass(frozen=True)
class _Sampled:
    """A sampled network but for the numbers in it that are drawn anew for each batch, which stand at `paths`."""

    net: Layer
    paths: tuple[Path, ...]

    def of(self, numbers: tuple[Any, ...]) -> Layer:
        """Return the network with these numbers, which may be tracers: no check of the layers runs."""
        return reduce(_with_number, zip(self.paths, numbers, strict=True), self.net)

    def blank(self) -> _Sampled:
        """Return the same for all that differ in these numbers only."""
        return _Sampled(self.of((0,) * len(self.paths)), self.paths)


class _Samples:
    """The networks that `net.sample` has given so far: one `_Sampled` each for those that differ in numbers only."""

    _MOST = 64

    def __init__(self, net: Layer, dtype: Any) -> None:
        self.net, self.dtype = net, dtype
        self._index: dict[Any, int] = {}
        self._first: list[tuple[Layer, dict[Path, Any]]] = []
        self._varying: list[set[Path]] = []
        for seed in range(4):  # so that the first batches show already which numbers vary
            self._note(net.sample(np.random.default_rng(seed)))

    def nets(self) -> tuple[_Sampled, ...]:
        """Return them; a program is compiled for these."""
        paths = [tuple(sorted(varying, key=str)) for varying in self._varying]
        return tuple(_Sampled(net, where).blank() for (net, _), where in zip(self._first, paths, strict=True))

    def draw(self, rng: np.random.Generator, n: int) -> Draws:
        """Sample the networks of `n` batches."""
        drawn = [self._note(self.net.sample(rng)) for _ in range(n)]
        which = np.array([i for i, _ in drawn], np.int32)
        numbers = []
        for i, sampled in enumerate(self.nets()):
            of_batch = [found if index == i else self._first[i][1] for index, found in drawn]
            numbers.append(tuple(self._column([found[path] for found in of_batch]) for path in sampled.paths))
        return which, tuple(numbers)

    def _note(self, sampled: Layer) -> tuple[int, dict[Path, Any]]:
        """Return which of the networks this one is, and the numbers in it."""
        numbers: dict[Path, Any] = {}
        structure = _structure(sampled, self.net, (), numbers)
        if structure not in self._index:
            if len(self._index) == self._MOST:
                raise ValueError(
                    f"fit: sample() has given more than {self._MOST} networks that differ in more than numbers; "
                    'engine="jax" compiles each of them; use engine="numpy", or let sample() draw a number'
                )
            self._index[structure] = len(self._first)
            self._first.append((sampled, numbers))
            self._varying.append(set())
        i = self._index[structure]
        first = self._first[i][1]
        self._varying[i] |= {path for path, number in numbers.items() if number != first[path]}
        return i, numbers

    def _column(self, numbers: list[Any]) -> Array:
        whole = all(isinstance(number, (int, np.integer)) for number in numbers)
        return np.array(numbers, (np.uint32 if min(numbers) >= 0 else np.int32) if whole else self.dtype)


def _structure(sampled: Any, net: Any, path: Path, numbers: dict[Path, Any]) -> Any:
    """Return what tells `sampled` from others drawn from `net`, but for numbers, which are entered by their path."""
    if sampled is net:
        return None
    if isinstance(sampled, (int, float, np.integer, np.floating)) and not isinstance(sampled, bool):
        numbers[path] = sampled
        return "number"
    if isinstance(sampled, tuple):
        parts = net if isinstance(net, tuple) and len(net) == len(sampled) else (None,) * len(sampled)
        return tuple(_structure(*pair, (*path, i), numbers) for i, pair in enumerate(zip(sampled, parts, strict=True)))
    if is_dataclass(sampled):
        before = net if type(net) is type(sampled) else None
        names = [field.name for field in fields(sampled)]
        return type(sampled), tuple(
            _structure(getattr(sampled, name), getattr(before, name, None), (*path, name), numbers) for name in names
        )
    return sampled


def _with_number(tree: Any, at: tuple[Path, Any]) -> Any:
    """Return `tree` with a number at a path."""
    path, number = at
    if not path:
        return number
    key, rest = path[0], (path[1:], number)
    if isinstance(key, int):
        return (*tree[:key], _with_number(tree[key], rest), *tree[key + 1 :])
    changed = copy.copy(tree)
    object.__setattr__(changed, key, _with_number(getattr(tree, key), rest))  # the dataclass is frozen
    return changed


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

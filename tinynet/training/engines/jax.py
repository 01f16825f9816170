"""The JAX engine: an epoch is one compiled `lax.scan` over the hand-derived backward pass."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tinynet.arrays import Array, Cache, Params, State
from tinynet.gradients import backpropagate, check_like_params
from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.losses import Loss
from tinynet.optimizers import Optimizer
from tinynet.training.batches import Batch, Batches, arrays_in, count
from tinynet.training.engines import Carry, Losses, OnStep, TrainingState, first_layers_state
from tinynet.training.engines.processes import Processes
from tinynet.training.engines.templates import Attributes, Draws, SampledNetworks, Template, traced
from tinynet.trees import leaves, map_leaves

_STACKED_BYTES = 4 * 2**20
"""Some copies of as much are held at a time; more is hardly faster."""


@dataclass(frozen=True)
class JaxEngine:
    """Training compiled by XLA.

    Data in memory go to the device once, and batches are gathered there in the order drawn on the host, so that the
    results are those of the NumPy engine. Other data are sent some batches at a time.

    Args:
        optimizer: tinynet's or an Optax transformation.
        mesh: the devices that share each batch, along its axis "data"; parameters are on all of them.
        dtype: of the parameters.
        backpropagate: (net, loss, params, x, y, weights=…, dE=…, state=…) -> (E, dparams, cache).
    """

    stops_anywhere: ClassVar[bool] = False

    net: Layer
    loss: Loss
    optimizer: Any
    mesh: Any = None
    dtype: Any = np.float32
    backpropagate: Callable[..., tuple[Array, Params, Cache]] = backpropagate

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
        """Use the precision of the parameters; say what to do where a program cannot be compiled."""
        with precision(self.dtype):
            try:
                yield
            except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
                error.add_note(
                    'engine="jax" compiles layers and losses: take functions from tinynet.namespace(x) where it says '
                    'numpy now, `where` for an `if` on values, and no float() or int() of an array; or engine="numpy"'
                )
                raise

    def start(self, params: Params, state: TrainingState | None = None) -> Carry:
        self._attributes  # noqa: B018
        params, layers = self._placed((params, first_layers_state(self.net, self.dtype, state)))
        first = self._placed(self.optimizer.init(params))
        if state is None:
            return Carry(params, first, layers)
        given = jax.tree.leaves(state.optimizer)  # a file has tuples for the named tuples of Optax
        if [np.shape(leaf) for leaf in given] != [leaf.shape for leaf in jax.tree.leaves(first)]:
            raise ValueError("fit: state.optimizer is not a state of this optimizer on these parameters")
        return Carry(params, jax.tree.unflatten(jax.tree.structure(first), self._placed(given)), layers)

    def observe(self, carry: Carry, row: Mapping[str, float]) -> Carry:
        if not isinstance(self.optimizer, Optimizer):
            return carry
        return carry._replace(optimizer=self._placed(self.optimizer.observe(carry.optimizer, row)))

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
        """Run batches that are rows of indices, in one scan for all that have as many samples."""
        data, losses = self._resident(batches), list[tuple[float, int]]()
        for part in self._indices([batches]):
            draws = self._draw(rng, part.shape[1])
            carry, E = self._program.scan_rows(carry, data, self._placed(part[0]), draws, self.numbers)
            self._attributes.check_unchanged()
            losses += [(loss, part.shape[2]) for loss in np.asarray(E, float).tolist()]
        return carry, losses

    def epoch_of_runs(
        self, carry: Carry, batches: Sequence[Batches], rngs: Sequence[np.random.Generator], numbers: Any
    ) -> tuple[Carry, list[Losses]]:
        """Run an epoch of several runs at once, each with its own `batches` of the same data, generator and numbers.

        Every array of `carry` and `numbers` has the runs as its first axis.
        """
        data = self._resident(batches[0])
        losses: list[Losses] = [[] for _ in batches]
        for part in self._indices(batches):
            for rng in rngs:  # so that all templates are known before the first numbers are drawn
                self._samples.draw(copy.deepcopy(rng), part.shape[1])
            draws = stacked([self._samples.draw(rng, part.shape[1]) for rng in rngs])
            carry, E = self._program.scan_rows_of_runs(carry, data, part, draws, numbers)
            self._attributes.check_unchanged()
            for of_run, Es in zip(losses, np.asarray(E, float).tolist(), strict=True):
                of_run += [(loss, part.shape[2]) for loss in Es]
        return carry, losses

    def _indices(self, batches: Sequence[Batches]) -> Iterator[Array]:
        """Yield (runs, n, size) indices of the whole batches of each run, then those of the shorter last one.

        They are cut into parts of as many batches as networks may be drawn for at a time.
        """
        m, size, runs = batches[0].m, batches[0].size, len(batches)
        orders = np.stack([np.arange(m) if b.order is None else b.order for b in batches]).astype(np.int32)
        whole = m // size
        for rows in (orders[:, : whole * size].reshape(runs, whole, size), orders[:, whole * size :][:, None]):
            n = self._samples.at_once(rows.shape[1], runs)
            if rows.size:
                yield from np.split(rows, range(n, rows.shape[1], n), axis=1)

    def _fed_epoch(
        self, carry: Carry, batches: Iterable[Batch], rng: np.random.Generator, on_step: OnStep | None
    ) -> tuple[Carry, Losses]:
        losses: Losses = []
        for stack in _stacks(batches, 1 if on_step else None):
            self._check_targets(carry, stack)
            data = self._placed(jax.tree.map(lambda *parts: np.stack(parts), *stack))
            draws, lr = self._draw(rng, len(stack)), self._learning_rate(carry) if on_step else None
            carry, E, grads = self._program.scan_batches(carry, data, draws, self.numbers, on_step is not None)
            self._attributes.check_unchanged()
            losses += [(loss, count(stack[0][0])) for loss in np.asarray(E, float).tolist()]
            if on_step is None:
                continue
            grads = jax.tree.map(lambda g: g[0], grads)
            net = self._samples.last
            stops = on_step(len(losses) - 1, losses[-1][0], carry.params, *stack[0][:2], grads, net, lr)
            if self.processes.any(stops):
                break
        return carry, losses

    def _check_targets(self, carry: Carry, stack: Sequence[Batch]) -> None:
        """Raise unless the loss takes each y of batches of one shape: a compiled program cannot see what is in it."""
        params, _, layers = carry
        shapes = forward.eval_shape(self.net, params, layers, stack[0][0])  # type: ignore[no-untyped-call]
        y_hat = jax.tree.map(lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), shapes)
        for _, y, _ in stack:
            self.loss.check(y_hat, y)

    def _learning_rate(self, carry: Carry) -> float | None:
        return self.optimizer.learning_rate(carry.optimizer) if isinstance(self.optimizer, Optimizer) else None

    def _draw(self, rng: np.random.Generator, n: int) -> Draws:
        """Sample the network of `n` batches as the NumPy engine does."""
        return self._placed(self._samples.draw(rng, n))  # type: ignore[no-any-return]

    def _placed(self, tree: Any) -> Any:
        return jax.tree.map(partial(_on_all_devices, self.mesh), tree)

    def _resident(self, batches: Batches) -> Batch:
        """Return the data on the device; they are the same arrays in every epoch."""
        if self._held.get("host") is not batches.x:
            self._held.update(host=batches.x, data=self._placed((batches.x, batches.y, batches.weights)))
        return self._held["data"]  # type: ignore[no-any-return]

    @cached_property
    def _samples(self) -> SampledNetworks:
        return SampledNetworks(self.net, self.dtype)

    @cached_property
    def _attributes(self) -> Attributes:
        return Attributes(self.net, self.loss, self.optimizer)

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """Return the numbers of the optimizer that programs are not compiled for."""
        return tuple(number for _, number in traced(self.optimizer))

    @property
    def _program(self) -> Program:
        optimizer = Template.without(self.optimizer, tuple(path for path, _ in traced(self.optimizer)))
        return Program(self._samples.templates(), self.loss, optimizer, self.mesh, self.backpropagate)

    @cached_property
    def _held(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Program:
    """The functions that are compiled; equal programs, of one `fit` or of several, are compiled once.

    Each call has the `numbers` that the template of the optimizer lacks.
    """

    nets: tuple[Template, ...]
    loss: Loss
    optimizer: Template
    mesh: Any
    backpropagate: Callable[..., tuple[Array, Params, Cache]]

    @partial(jax.jit, static_argnames="self", donate_argnames="carry")
    def scan_rows(
        self, carry: Carry, data: Batch, order: Array, draws: Draws, numbers: tuple[Any, ...]
    ) -> tuple[Carry, Array]:
        """Make an update for each row of indices in `order`."""

        def step(carry: Carry, inputs: Any) -> tuple[Carry, Array]:
            rows, drawn = inputs
            batch = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
            carry, E, _ = self._step(carry, batch, drawn, numbers)
            return carry, E

        return jax.lax.scan(step, carry, (order, draws))

    @partial(jax.jit, static_argnames="self", donate_argnames="carry")
    def scan_rows_of_runs(
        self, carry: Carry, data: Batch, order: Array, draws: Draws, numbers: tuple[Any, ...]
    ) -> tuple[Carry, Array]:
        """Do as `scan_rows` for several runs on the same data; all other arrays have the runs as their first axis."""
        of_runs = jax.vmap(self.scan_rows, in_axes=(0, None, 0, 0, 0))
        return of_runs(carry, data, order, draws, numbers)  # type: ignore[no-any-return]

    @partial(jax.jit, static_argnames=("self", "with_grads"), donate_argnames="carry")
    def scan_batches(
        self, carry: Carry, data: Batch, draws: Draws, numbers: tuple[Any, ...], with_grads: bool = False
    ) -> tuple[Carry, Array, Params]:
        """Make an update for each batch in a stack of them; with the losses, return the gradients if asked for."""

        def step(carry: Carry, inputs: Any) -> tuple[Carry, tuple[Array, Params]]:
            batch, drawn = inputs
            carry, E, grads = self._step(carry, batch, drawn, numbers)
            return carry, (E, grads if with_grads else None)

        carry, (E, grads) = jax.lax.scan(step, carry, (data, draws))
        return carry, E, grads

    def _step(self, carry: Carry, batch: Batch, draws: Draws, numbers: tuple[Any, ...]) -> tuple[Carry, Array, Params]:
        batch = jax.tree.map(partial(_split_over_devices, self.mesh), batch)
        which, drawn = draws
        optimizer = self.optimizer.of(numbers)
        nets = [net.of(part) for net, part in zip(self.nets, drawn, strict=True)]
        updates = [partial(self._update, net, optimizer) for net in nets]
        stepped = updates[0](carry, batch) if len(updates) == 1 else jax.lax.switch(which, updates, carry, batch)
        return stepped if self.mesh is None else _constrained(stepped, _sharding(self.mesh))

    def _update(self, net: Layer, optimizer: Any, carry: Carry, batch: Batch) -> tuple[Carry, Array, Params]:
        params, state, layers = carry
        x, y, weights = batch
        dE, rule = optimizer.scaled() if isinstance(optimizer, Optimizer) else (1.0, optimizer)
        E, grads, cache = self.backpropagate(net, self.loss, params, x, y, weights=weights, dE=dE, state=layers)
        check_like_params("gradient of", grads, params)
        if isinstance(rule, Optimizer):
            stepped, state = rule.step(params, grads, state)
        else:
            updates, state = rule.update(grads, state, params)
            stepped = jax.tree.map(jnp.add, params, updates)
        check_like_params("update of", stepped, params)
        if leaves(layers):
            layers = net.update_state(layers, cache)
        return Carry(stepped, state, layers), E, jax.tree.map(lambda g: g / dE, grads)


def stacked(trees: Sequence[Any]) -> Any:
    """Return one tree of the arrays of several, stacked along a new first axis."""
    return jax.tree.map(lambda *arrays: jnp.asarray(np.stack(arrays)), *trees)  # NumPy compiles nothing for that


@contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """Use 64 bits where `dtype` does; products of float32 are products of float32, unless JAX was told else.

    On GPUs and TPUs JAX would round their operands to fewer bits.
    """
    product = jax.config.jax_default_matmul_precision or "float32"  # type: ignore[attr-defined]
    with jax.enable_x64(np.dtype(dtype).itemsize == 8), jax.default_matmul_precision(product):
        yield


@partial(jax.jit, static_argnames="net")
def forward(net: Layer, params: Params, state: State, x: Any) -> Any:
    """Return ŷ of the network that evaluates."""
    return forward_with_state(net, params, x, state)[0]


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


def _sharding(mesh: Any, *axes: str) -> NamedSharding:
    # XLA places what a step computes: the mesh's own axis types would ask the layers to do it.
    return NamedSharding(Mesh(mesh.devices, mesh.axis_names), PartitionSpec(*axes))  # type: ignore[no-untyped-call]


def _constrained(tree: Any, sharding: NamedSharding) -> Any:
    return jax.lax.with_sharding_constraint(tree, sharding)  # type: ignore[no-untyped-call]


def _stacks(batches: Iterable[Batch], most: int | None) -> Iterator[list[Batch]]:
    """Group batches of one shape that follow each other, up to `_STACKED_BYTES` or `most` of them at a time."""
    for _, run in itertools.groupby(batches, lambda batch: [a.shape for a in arrays_in(batch)]):
        first = next(run)
        size = sum(a.nbytes for a in arrays_in(first))
        n = most or max(1, _STACKED_BYTES // max(1, size))
        run = itertools.chain([first], run)
        while stack := list(itertools.islice(run, n)):
            yield stack

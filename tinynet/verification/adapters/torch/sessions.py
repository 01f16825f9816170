"""A run of a PyTorch target: NumPy arrays in and out, its own backward pass between."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np
import torch

from tinynet.verification.adapters.subject import MISSING, Args, Array, Gradients

Call: TypeAlias = Callable[[Mapping[str, torch.Tensor]], Any]
"""A forward pass of tensors by name."""


@dataclass
class TorchSession:
    """A copy of a target, run on tensors that share the memory of the arrays.

    Attributes:
        call: the forward pass.
        wrt: the arrays that require a gradient.
        device: where it runs.
        cloned: whether it writes into its inputs, which PyTorch forbids for leaves: then it gets copies.
        hooks: functions that change the gradients of parameters, by name.
        function: the Function that the target is, else None.
        order: the names of the arrays among its arguments, "" for a constant.
    """

    call: Call
    wrt: tuple[str, ...]
    device: torch.device
    cloned: bool = False
    hooks: Mapping[str, tuple[Callable[[Any], Any], ...]] = field(default_factory=dict)
    function: Any = None
    order: tuple[str, ...] = ()

    def forward(self, args: Args) -> tuple[Any, Any]:
        """Return y as arrays, and the tensors of it and of the arguments."""
        leaves = {name: to_tensor(a, self.device).requires_grad_(name in self.wrt) for name, a in args.items()}
        for name, hooks in self.hooks.items():
            for hook in hooks if name in self.wrt else ():
                leaves[name].register_hook(hook)
        with same_draws(self.device), one_thread(), torch.enable_grad():
            out = self.call({n: t.clone() if self.cloned else t for n, t in leaves.items()})
        return to_arrays(out), (out, leaves)

    def backward(self, context: Any, dy: Any) -> Gradients:
        """Return what the target's backward pass gives, None where that is nothing.

        An output whose dy is all zeros is not used, so that a Function may be given None for it.
        """
        out, leaves = context
        asked = [leaves[name] for name in self.wrt]
        outs = [t for t in tensors_of(out) if is_differentiable(t)]
        dys = [to_tensor(np.asarray(d), self.device) for d in jax.tree.leaves(dy)]
        if not outs:
            return dict.fromkeys(self.wrt)
        used = [(o, d) for o, d in zip(outs, dys, strict=True) if torch.any(d)] or list(zip(outs, dys, strict=True))
        try:
            with one_thread():
                some, given = zip(*used, strict=True)
                grads = torch.autograd.grad(some, asked, given, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            if self.function is None or "returned an in" not in str(error):  # an invalid gradient, an incorrect number
                raise
            return self._as_returned(out, dys, leaves)
        whole = [
            torch.zeros_like(t) if g is None and len(used) < len(outs) else g for t, g in zip(asked, grads, strict=True)
        ]
        return {name: None if g is None else to_array(g) for name, g in zip(self.wrt, whole, strict=True)}

    def _as_returned(self, out: Any, dys: list[torch.Tensor], leaves: Mapping[str, torch.Tensor]) -> Gradients:
        """Return what the Function's backward pass returned, which PyTorch refuses to pass on."""
        given = iter(dys)
        outs = out if isinstance(out, tuple) else (out,)
        node = next(o for o in outs if is_differentiable(o)).grad_fn
        returned = node.apply(*(next(given) if is_differentiable(o) else None for o in outs))
        entries = returned if isinstance(returned, tuple) else (returned,)
        found = {n: found for n, found in zip(self.order, entries, strict=False) if n in self.wrt}
        return {n: _as_passed_on(found.get(n, MISSING), leaves[n]) for n in self.wrt}


def to_tensor(array: Array, device: torch.device) -> torch.Tensor:
    """Return a tensor that shares the memory of the array where PyTorch can do so."""
    array = np.asarray(array)  # of no axis, sums and products are NumPy's numbers
    shareable = array.flags.writeable and all(s >= 0 for s in array.strides) and array.dtype.isnative
    return torch.from_numpy(array if shareable else array.astype(array.dtype.newbyteorder("="))).to(device)


def to_array(tensor: torch.Tensor) -> Array:
    """Return an array that shares the memory of the tensor where NumPy can do so."""
    tensor = tensor.detach().cpu()
    numbers: Array = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).resolve_conj().resolve_neg().numpy()
    return numbers


def to_arrays(out: Any) -> Any:
    """Return a result with an array for each tensor that can be differentiated, and without everything else."""
    if isinstance(out, torch.Tensor):
        return to_array(out) if is_differentiable(out) else None
    parts = _parts_of(out)
    if isinstance(parts, dict):
        return {key: to_arrays(part) for key, part in parts.items() if _has_arrays(part)}
    return type(parts)(to_arrays(part) for part in parts if _has_arrays(part)) if parts is not None else None


def tensors_of(out: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a result, in the order of the leaves of a pytree."""
    if isinstance(out, torch.Tensor):
        yield out
    parts = _parts_of(out)
    for part in [parts[key] for key in sorted(parts)] if isinstance(parts, dict) else parts or ():
        yield from tensors_of(part)


def is_differentiable(out: Any) -> bool:
    """Return whether a part of a result is a tensor with a gradient."""
    return isinstance(out, torch.Tensor) and out.requires_grad


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: on small arrays others only wait, on a busy machine a hundred times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has_arrays(out: Any) -> bool:
    return any(map(is_differentiable, tensors_of(out)))


@contextlib.contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Draw the same random numbers in every forward pass, and leave the generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _as_passed_on(gradient: Any, leaf: torch.Tensor) -> Any:
    """Return a gradient summed over the axes along which its tensor was repeated, as PyTorch does where that is so."""
    if not isinstance(gradient, torch.Tensor):
        return gradient
    try:
        return to_array(gradient.sum_to_size(leaf.shape))
    except RuntimeError:
        return to_array(gradient)


def _parts_of(out: Any) -> dict[str, Any] | list[Any] | tuple[Any, ...] | None:
    if isinstance(out, Mapping):
        return {str(key): part for key, part in out.items()}
    if isinstance(out, (tuple, list)):
        return list(out) if isinstance(out, list) else tuple(out)
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        return {f.name: getattr(out, f.name) for f in dataclasses.fields(out)}
    return None

"""Backward passes by hand that are plain functions of tensors: arrays become tensors on the way in, and again out."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import torch

from tinynet.verification.adapters.arguments import mapped, read_arguments
from tinynet.verification.adapters.conventions import returns_backprop, value_and_gradient
from tinynet.verification.adapters.functions import adapt_closure, adapt_pair, adapt_value_and_gradient
from tinynet.verification.adapters.objects import methods_of
from tinynet.verification.adapters.subject import Oracle, Subject, TargetError, short
from tinynet.verification.adapters.torch.oracle import choose_oracle
from tinynet.verification.adapters.torch.sessions import one_thread, tensors_of, to_array, to_tensor
from tinynet.verification.adapters.torch.targets import as_arrays, is_function


def adapt_by_hand(target: Any, inputs: Any, rng: np.random.Generator) -> list[Subject] | None:
    """Return the readings of a pair of functions of tensors, or of one that returns (y, backprop) or (E, gradient).

    None of anything else, or where `inputs` holds no tensor.

    Raises:
        TargetError: it is an object with a backward pass, which may keep tensors.
    """
    device = next((t.device for t in tensors_of(inputs)), None)
    if device is None or isinstance(target, torch.nn.Module) or is_function(target):
        return None
    given = as_arrays(inputs)
    if names := methods_of(target):
        if not all(isinstance(inspect.getattr_static(target, n), staticmethod) for n in names):
            raise TargetError(
                f"{short(target)}: an object that may keep tensors is not read; give a torch.autograd.Function, a pair "
                "of functions (forward, backward), or code and arrays of NumPy's"
            )
        target = tuple(getattr(target, n) for n in names)
    if isinstance(target, (tuple, list)) and len(target) == 2 and all(map(callable, target)):
        found = adapt_pair(_of_arrays(target[0], device), _of_arrays(target[1], device), given, rng)
    elif inspect.isroutine(target):
        function, target = _of_arrays(target, device), (target,)
        arguments, arrays = read_arguments(function, given, rng, name=short(target[0]))
        out = arguments.call(function, {n: a.copy() for n, a in arrays.items()})
        _, gradient = value_and_gradient(out) or (None, None)
        if returns_backprop(out):
            found = [adapt_closure(function, out, given, rng)]
        elif {np.shape(g) for g in jax.tree.leaves(gradient)} & {a.shape for a in arrays.values()}:
            found = [adapt_value_and_gradient(function, given, rng)]
        else:
            return None
    else:
        return None
    return [_by_autograd(replace(s, code=tuple(target)), device, rng) for s in found]


def _of_arrays(f: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Return a function of tensors as one of arrays; given tensors, it is as it was."""

    @functools.wraps(f)
    def of_arrays(*args: Any, **options: Any) -> Any:
        if any(True for _ in tensors_of((args, options))):
            return f(*args, **options)
        with one_thread():
            return mapped(arrays, f(*mapped(tensors, args), **mapped(tensors, options)))

    def tensors(leaf: Any) -> Any:
        return to_tensor(np.asarray(leaf), device) if isinstance(leaf, (np.ndarray, np.generic)) else leaf

    def arrays(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return to_array(leaf)
        return _of_arrays(leaf, device) if inspect.isroutine(leaf) else leaf

    with contextlib.suppress(TypeError, ValueError):  # of a builtin function it may be unknown
        of_arrays.__signature__ = inspect.signature(f)  # type: ignore[attr-defined]
    return of_arrays


def _by_autograd(subject: Subject, device: torch.device, rng: np.random.Generator) -> Subject:
    """Return a subject whose oracle is PyTorch's autograd through its forward pass."""

    def forward(tensors: Any) -> Any:
        assert subject.pure is not None
        return subject.pure(tensors, False)

    def make_oracle(s: Subject) -> Oracle:
        return choose_oracle(s, lambda: forward, device, rng).oracle(s.wrt)

    return replace(
        subject,
        make_oracle=make_oracle,
        modes=lambda: [(label, _by_autograd(mode, device, rng)) for label, mode in subject.modes()],
        library="torch",
    )

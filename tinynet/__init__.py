"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinynet.gradients import value_and_grads
from tinynet.layers import Layer, Linear, Sequential, Sigmoid
from tinynet.losses import Loss, SquaredError
from tinynet.optimizers import SGD, Optimizer
from tinynet.training import DivergenceError, FitResult, fit

if TYPE_CHECKING:
    from tinynet.bridges.jax import to_custom_vjp
    from tinynet.bridges.torch import to_torch
    from tinynet.files import FileError, load, save
    from tinynet.interrupts import Interrupted
    from tinynet.verification import Finding, GradientError, Report, TargetError, check, check_vjp, verify

__all__ = [
    "SGD",
    "DivergenceError",
    "FileError",
    "Finding",
    "FitResult",
    "GradientError",
    "Interrupted",
    "Layer",
    "Linear",
    "Loss",
    "Optimizer",
    "Report",
    "Sequential",
    "Sigmoid",
    "SquaredError",
    "TargetError",
    "check",
    "check_vjp",
    "fit",
    "load",
    "save",
    "to_custom_vjp",
    "to_torch",
    "value_and_grads",
    "verify",
]
__version__ = "0.1.0"

_LATE = {
    "FileError": "files",
    "Finding": "verification",
    "GradientError": "verification",
    "Interrupted": "interrupts",
    "Report": "verification",
    "TargetError": "verification",
    "check": "verification",
    "check_vjp": "verification",
    "load": "files",
    "save": "files",
    "to_custom_vjp": "bridges.jax",
    "to_torch": "bridges.torch",
    "verify": "verification",
}
"""Public names whose modules are imported when they are first asked for, so that `import tinynet` stays quick."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f"tinynet.{_LATE[name]}"), name)
    raise AttributeError(f"module 'tinynet' has no attribute {name!r}")

"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

from typing import TYPE_CHECKING, Any

from tinynet.gradients import value_and_grads
from tinynet.layers import Layer, Linear, Sequential, Sigmoid
from tinynet.losses import Loss, SquaredError
from tinynet.optimizers import SGD, Optimizer
from tinynet.training import DivergenceError, FitResult, fit

if TYPE_CHECKING:
    from tinynet.verification import Finding, GradientError, Report, TargetError, check, check_vjp, verify

__all__ = [
    "SGD",
    "DivergenceError",
    "Finding",
    "FitResult",
    "GradientError",
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
    "value_and_grads",
    "verify",
]
__version__ = "0.1.0"

# What imports JAX is imported when it is first asked for.
_LATER = dict.fromkeys(
    ("Finding", "GradientError", "Report", "TargetError", "check", "check_vjp", "verify"), "tinynet.verification"
)


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'tinynet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)

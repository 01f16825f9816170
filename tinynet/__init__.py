"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

from typing import TYPE_CHECKING, Any

from tinynet.gradients import value_and_grads
from tinynet.layers import Layer, Linear, Sequential, Sigmoid
from tinynet.losses import Loss, SquaredError
from tinynet.optimizers import SGD, Optimizer

if TYPE_CHECKING:
    from tinynet.callbacks import EarlyStopping
    from tinynet.training import DivergenceError, FitResult, fit

__all__ = [
    "SGD",
    "DivergenceError",
    "EarlyStopping",
    "FitResult",
    "Layer",
    "Linear",
    "Loss",
    "Optimizer",
    "Sequential",
    "Sigmoid",
    "SquaredError",
    "fit",
    "value_and_grads",
]
__version__ = "0.1.0"

# Imported when first asked for: `import tinynet` costs little more than `import numpy`.
_WHERE = {
    "DivergenceError": "tinynet.training",
    "EarlyStopping": "tinynet.callbacks",
    "FitResult": "tinynet.training",
    "fit": "tinynet.training",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'tinynet' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

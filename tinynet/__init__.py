"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

from tinynet.gradients import value_and_grads
from tinynet.layers import Layer, Linear, Sequential, Sigmoid
from tinynet.losses import Loss, SquaredError
from tinynet.optimizers import SGD, Optimizer
from tinynet.training import DivergenceError, FitResult, fit

__all__ = [
    "SGD",
    "DivergenceError",
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

"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from tinynet import initializers
from tinynet.gradients import value_and_grads
from tinynet.layers import (
    GELU,
    AvgPool2d,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tinynet.losses import BinaryCrossEntropy, Huber, Loss, SoftmaxCrossEntropy, SquaredError
from tinynet.optimizers import SGD, Adam, AdamW, ClipByGlobalNorm, Nesterov, Optimizer, WeightDecay
from tinynet.schedules import CosineDecay, ExponentialDecay, Warmup
from tinynet.summarizing import summary
from tinynet.tracing import trace
from tinynet.training import DivergenceError, FitResult, fit

if TYPE_CHECKING:
    from tinynet import plot

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "BinaryCrossEntropy",
    "ClipByGlobalNorm",
    "Conv2d",
    "CosineDecay",
    "DivergenceError",
    "Dropout",
    "Embedding",
    "ExponentialDecay",
    "FitResult",
    "Flatten",
    "Huber",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MaxPool2d",
    "Nesterov",
    "Optimizer",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "SquaredError",
    "Tanh",
    "Warmup",
    "WeightDecay",
    "fit",
    "initializers",
    "plot",
    "summary",
    "trace",
    "value_and_grads",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is slow to import when it is first asked for."""
    if name == "plot":
        return importlib.import_module("tinynet.plot")
    raise AttributeError(f"module 'tinynet' has no attribute {name!r}")

"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

from importlib import import_module
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

if TYPE_CHECKING:
    from tinynet import plot
    from tinynet.bridges.jax import to_custom_vjp
    from tinynet.bridges.torch import to_torch
    from tinynet.callbacks import EarlyStopping
    from tinynet.files import FileError, load, save
    from tinynet.interrupts import Interrupted
    from tinynet.training import DivergenceError, FitResult, fit
    from tinynet.verification import Finding, GradientError, Report, TargetError, check, check_vjp, verify

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
    "EarlyStopping",
    "Embedding",
    "ExponentialDecay",
    "FileError",
    "Finding",
    "FitResult",
    "Flatten",
    "GradientError",
    "Huber",
    "Interrupted",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MaxPool2d",
    "Nesterov",
    "Optimizer",
    "ReLU",
    "Report",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "SquaredError",
    "Tanh",
    "TargetError",
    "Warmup",
    "WeightDecay",
    "check",
    "check_vjp",
    "fit",
    "initializers",
    "load",
    "plot",
    "save",
    "summary",
    "to_custom_vjp",
    "to_torch",
    "trace",
    "value_and_grads",
    "verify",
]
__version__ = "0.1.0"

_LATE = {
    "DivergenceError": "training",
    "EarlyStopping": "callbacks",
    "FileError": "files",
    "Finding": "verification",
    "FitResult": "training",
    "GradientError": "verification",
    "Interrupted": "interrupts",
    "Report": "verification",
    "TargetError": "verification",
    "check": "verification",
    "check_vjp": "verification",
    "fit": "training",
    "load": "files",
    "save": "files",
    "to_custom_vjp": "bridges.jax",
    "to_torch": "bridges.torch",
    "verify": "verification",
}
"""Public names whose modules are imported when they are first asked for, so that `import tinynet` stays quick."""


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("tinynet.plot")
    if name in _LATE:
        return getattr(import_module(f"tinynet.{_LATE[name]}"), name)
    raise AttributeError(f"module 'tinynet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

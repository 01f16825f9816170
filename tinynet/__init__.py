"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinynet import initializers, plot
    from tinynet.arrays import namespace, scan
    from tinynet.bridges.jax import to_custom_vjp
    from tinynet.bridges.torch import to_torch
    from tinynet.files.container import FileError, load, save
    from tinynet.gradients import value_and_grads
    from tinynet.inspection import trace
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
    from tinynet.optimizers.schedules import CosineDecay, ExponentialDecay, Warmup
    from tinynet.summarizing import summary
    from tinynet.training.callbacks import EarlyStopping
    from tinynet.training.fit import DivergenceError, FitResult, fit
    from tinynet.training.interruptions import Interrupted
    from tinynet.trees import map_leaves
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
    "map_leaves",
    "namespace",
    "plot",
    "save",
    "scan",
    "summary",
    "to_custom_vjp",
    "to_torch",
    "trace",
    "value_and_grads",
    "verify",
]
__version__ = "0.1.0"

_NAMES_OF = {
    "arrays": "namespace scan",
    "trees": "map_leaves",
    "layers": "GELU AvgPool2d Conv2d Dropout Embedding Flatten Layer LayerNorm LeakyReLU Linear MaxPool2d ReLU "
    "Residual Sequential SiLU Sigmoid Softmax Softplus Tanh",
    "losses": "BinaryCrossEntropy Huber Loss SoftmaxCrossEntropy SquaredError",
    "optimizers": "SGD Adam AdamW ClipByGlobalNorm Nesterov Optimizer WeightDecay",
    "optimizers.schedules": "CosineDecay ExponentialDecay Warmup",
    "gradients": "value_and_grads",
    "training.fit": "DivergenceError FitResult fit",
    "training.callbacks": "EarlyStopping",
    "inspection": "trace",
    "summarizing": "summary",
    "verification": "Finding GradientError Report TargetError check check_vjp verify",
    "files.container": "FileError load save",
    "training.interruptions": "Interrupted",
    "bridges.jax": "to_custom_vjp",
    "bridges.torch": "to_torch",
}
"""Which module each public name is in. A module is imported when the first of its names is asked for, so that
`import tinynet` is quick, and JAX is not imported by whoever needs none of it."""

_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(f"tinynet.{_MODULE_OF[name]}"), name)
    elif name in ("initializers", "plot"):
        value = import_module(f"tinynet.{name}")
    else:
        raise AttributeError(f"module 'tinynet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

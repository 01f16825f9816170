"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

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
from tinynet.training import DivergenceError, FitResult, fit

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
    "value_and_grads",
]
__version__ = "0.1.0"

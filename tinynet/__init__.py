"""tinynet: neural networks whose gradients are derived by hand and proven against JAX."""

from tinynet.gradients import value_and_grads
from tinynet.layers import GELU, Layer, LeakyReLU, Linear, ReLU, Sequential, Sigmoid, SiLU, Softmax, Softplus, Tanh
from tinynet.losses import BinaryCrossEntropy, Huber, Loss, SoftmaxCrossEntropy, SquaredError
from tinynet.optimizers import SGD, Adam, AdamW, ClipByGlobalNorm, Nesterov, Optimizer, WeightDecay
from tinynet.schedules import CosineDecay, ExponentialDecay, Warmup
from tinynet.training import DivergenceError, FitResult, fit

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "ClipByGlobalNorm",
    "CosineDecay",
    "DivergenceError",
    "ExponentialDecay",
    "FitResult",
    "Huber",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Loss",
    "Nesterov",
    "Optimizer",
    "ReLU",
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
    "value_and_grads",
]
__version__ = "0.1.0"

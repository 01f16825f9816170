"""Optimizers: how gradients change parameters. Pure `init`/`update` pairs on pytrees; one idea a file."""

from tinynet.optimizers.adam import Adam, AdamW
from tinynet.optimizers.learning_rate import LearningRate, Schedule
from tinynet.optimizers.optimizer import Optimizer
from tinynet.optimizers.schedules import CosineDecay, ExponentialDecay, Warmup
from tinynet.optimizers.sgd import SGD, Nesterov
from tinynet.optimizers.transforms import ClipByGlobalNorm, WeightDecay

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ClipByGlobalNorm",
    "CosineDecay",
    "ExponentialDecay",
    "LearningRate",
    "Nesterov",
    "Optimizer",
    "Schedule",
    "Warmup",
    "WeightDecay",
]

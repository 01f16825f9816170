"""Optimizers: how gradients change parameters. Pure `init`/`update` pairs on pytrees; one idea a file."""

from tinynet.optimizers.accumulate import Accumulate
from tinynet.optimizers.adam import Adam, AdamW
from tinynet.optimizers.average import AverageWeights
from tinynet.optimizers.groups import Groups
from tinynet.optimizers.learning_rate import LearningRate, Schedule
from tinynet.optimizers.optimizer import Optimizer
from tinynet.optimizers.plateau import ReduceOnPlateau
from tinynet.optimizers.schedules import CosineDecay, ExponentialDecay, Warmup
from tinynet.optimizers.sgd import SGD, Nesterov
from tinynet.optimizers.transforms import ClipByGlobalNorm, WeightDecay

__all__ = [
    "SGD",
    "Accumulate",
    "Adam",
    "AdamW",
    "AverageWeights",
    "ClipByGlobalNorm",
    "CosineDecay",
    "ExponentialDecay",
    "Groups",
    "LearningRate",
    "Nesterov",
    "Optimizer",
    "ReduceOnPlateau",
    "Schedule",
    "Warmup",
    "WeightDecay",
]

"""Training: `fit`, its arguments, batches, callbacks, checkpoints, and the engines that run an epoch."""

from tinynet.training.callbacks import EarlyStopping
from tinynet.training.engines import TrainingState
from tinynet.training.fit import FitResult, fit
from tinynet.training.interruptions import DivergenceError, Interrupted

__all__ = ["DivergenceError", "EarlyStopping", "FitResult", "Interrupted", "TrainingState", "fit"]

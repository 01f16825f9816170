"""Training: `fit`, its arguments, batches, callbacks, checkpoints, and the engines that run an epoch."""

from tinynet.training.callbacks import EarlyStopping
from tinynet.training.checkpoints import load_state
from tinynet.training.engines import TrainingState
from tinynet.training.evaluation import evaluate, predict
from tinynet.training.fit import FitResult, fit
from tinynet.training.headway import NoHeadwayWarning
from tinynet.training.interruptions import DivergenceError, Interrupted
from tinynet.training.sweep import SweepResult, sweep

__all__ = [
    "DivergenceError",
    "EarlyStopping",
    "FitResult",
    "Interrupted",
    "NoHeadwayWarning",
    "SweepResult",
    "TrainingState",
    "evaluate",
    "fit",
    "load_state",
    "predict",
    "sweep",
]

"""Losses: E = loss(ŷ, y), a scalar, and its gradient ∂E/∂ŷ; one idea a file."""

from tinynet.losses.binary_cross_entropy import BinaryCrossEntropy
from tinynet.losses.huber import Huber
from tinynet.losses.info_nce import InfoNCE
from tinynet.losses.loss import Loss, Reduction
from tinynet.losses.softmax_cross_entropy import SoftmaxCrossEntropy
from tinynet.losses.squared_error import SquaredError

__all__ = ["BinaryCrossEntropy", "Huber", "InfoNCE", "Loss", "Reduction", "SoftmaxCrossEntropy", "SquaredError"]

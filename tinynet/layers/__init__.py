"""Layers: one idea a file, each a pure function with its derivation beside it."""

from tinynet.layers.activations import Sigmoid
from tinynet.layers.gelu import GELU
from tinynet.layers.layer import Layer
from tinynet.layers.linear import Linear
from tinynet.layers.relu import LeakyReLU, ReLU
from tinynet.layers.sequential import Sequential
from tinynet.layers.silu import SiLU
from tinynet.layers.softmax import Softmax
from tinynet.layers.softplus import Softplus
from tinynet.layers.tanh import Tanh

__all__ = [
    "GELU",
    "Layer",
    "LeakyReLU",
    "Linear",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]

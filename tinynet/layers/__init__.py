"""Layers: one idea a file, each a pure function with its derivation beside it."""

from tinynet.layers.activations import Sigmoid
from tinynet.layers.layer import Layer
from tinynet.layers.linear import Linear
from tinynet.layers.sequential import Sequential

__all__ = ["Layer", "Linear", "Sequential", "Sigmoid"]

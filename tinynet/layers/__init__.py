"""Layers: one idea a file, each a pure function with its derivation beside it."""

from tinynet.layers.add import Add
from tinynet.layers.attention import MultiHeadAttention
from tinynet.layers.batch_norm import BatchNorm
from tinynet.layers.concatenate import Concatenate
from tinynet.layers.conv1d import Conv1d
from tinynet.layers.conv2d import Conv2d
from tinynet.layers.dropout import Dropout
from tinynet.layers.embedding import Embedding
from tinynet.layers.flatten import Flatten
from tinynet.layers.gelu import GELU
from tinynet.layers.gru import GRU
from tinynet.layers.layer import Layer
from tinynet.layers.layer_norm import LayerNorm
from tinynet.layers.linear import Linear
from tinynet.layers.lstm import LSTM
from tinynet.layers.pooling import AvgPool2d, MaxPool2d
from tinynet.layers.relu import LeakyReLU, ReLU
from tinynet.layers.residual import Residual
from tinynet.layers.rms_norm import RMSNorm
from tinynet.layers.rnn import RNN
from tinynet.layers.sequential import Sequential
from tinynet.layers.shared import Shared
from tinynet.layers.sigmoid import Sigmoid
from tinynet.layers.silu import SiLU
from tinynet.layers.softmax import Softmax
from tinynet.layers.softplus import Softplus
from tinynet.layers.tanh import Tanh
from tinynet.layers.tied import Tied

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "Concatenate",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "MultiHeadAttention",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "Shared",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "Tied",
]

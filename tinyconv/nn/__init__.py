"""Layers with weights, and modules made of layers, with PyTorch's names, defaults and keys."""

from tinyconv.nn.activation import LeakyReLU, LogSoftmax, ReLU, ReLU6, Sigmoid, Softmax, Tanh
from tinyconv.nn.conv import Conv2d
from tinyconv.nn.dropout import Dropout
from tinyconv.nn.linear import Linear
from tinyconv.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, NLLLoss
from tinyconv.nn.merge import Add, Concatenate, Multiply, Subtract
from tinyconv.nn.model import Model
from tinyconv.nn.module import Module, Parameter, Sequential
from tinyconv.nn.norm import BatchNorm1d, BatchNorm2d
from tinyconv.nn.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyconv.nn.shape import Flatten, Fold, Identity, Unfold
from tinyconv.nn.symbolic import Input, SymbolicTensor

__all__ = [
    "AdaptiveAvgPool2d",
    "Add",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Concatenate",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Fold",
    "Identity",
    "Input",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "Model",
    "Module",
    "Multiply",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Subtract",
    "SymbolicTensor",
    "Tanh",
    "Unfold",
]

"""Layers with weights, and modules made of layers, with PyTorch's names, defaults and keys."""

from tinyconv.nn.activation import LeakyReLU, LogSoftmax, ReLU, ReLU6, Sigmoid, Softmax, Tanh
from tinyconv.nn.conv import Conv2d
from tinyconv.nn.dropout import Dropout
from tinyconv.nn.linear import Linear
from tinyconv.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, NLLLoss
from tinyconv.nn.module import Module, Parameter, Sequential
from tinyconv.nn.norm import BatchNorm1d, BatchNorm2d
from tinyconv.nn.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyconv.nn.shape import Flatten, Fold, Identity, Unfold

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Fold",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "Module",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Unfold",
]

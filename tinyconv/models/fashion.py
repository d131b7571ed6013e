"""A small network for Fashion-MNIST, put together by the functional API."""

from __future__ import annotations

from tinyconv import nn
from tinyconv.errors import ShapeError


def fashion(num_classes: int = 10, size: int = 28, in_channels: int = 1) -> nn.Model:
    """Convolutions of 16, 32 and 64 channels, a residual branch of two more, one linear layer.

    Takes (N, in_channels, size, size) for any size from 4; 28x28 is 11.0 million multiply-adds.
    Raises ShapeError for a smaller size. The branch is the basic block of He et al., "Deep Residual
    Learning for Image Recognition", 2016.
    """
    if size < 4:
        raise ShapeError(f"fashion: size {size} found, its two poolings need at least 4")
    images = nn.Input((in_channels, size, size))
    x = nn.ReLU()(_convolution(images, 16))
    x = nn.ReLU()(_convolution(x, 32))
    x = nn.MaxPool2d(2)(x)
    x = nn.ReLU()(_convolution(x, 64))
    x = nn.MaxPool2d(2)(x)
    branch = nn.ReLU()(_convolution(x, 64))
    branch = _convolution(branch, 64)
    x = nn.ReLU()(x + branch)
    x = nn.Dropout(0.4)(nn.Flatten()(x))
    return nn.Model(images, nn.Linear(x.shape[1], num_classes)(x))


def _convolution(x: nn.SymbolicTensor, channels: int) -> nn.SymbolicTensor:
    """A 3x3 convolution that keeps height and width, and batch norm."""
    x = nn.Conv2d(x.shape[1], channels, 3, padding=1, bias=False)(x)
    return nn.BatchNorm2d(channels)(x)

"""The network for horses and humans."""

from __future__ import annotations

from itertools import pairwise

from tinyconv import nn
from tinyconv.errors import ShapeError


def horses(num_classes: int = 2, size: int = 96, in_channels: int = 3) -> nn.Sequential:
    """Five times convolution 3x3, batch norm, ReLU and max pool; then the mean of each map.

    Takes (N, in_channels, size, size) for any size from 32: global average pooling leaves 256
    values, whatever the size, and a dropout before the linear layer holds them loosely, as few
    individuals ask for. Raises ShapeError for a smaller size.
    """
    if size < 32:
        raise ShapeError(f"horses: size {size} found, its five poolings need at least 32")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((in_channels, 16, 32, 64, 128, 256)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256, num_classes),
    )

"""The network for horses and humans."""

from __future__ import annotations

from itertools import pairwise

from tinyconv import nn
from tinyconv.errors import ShapeError


def horses(num_classes: int = 2, size: int = 64, in_channels: int = 3) -> nn.Sequential:
    """Five times convolution 3x3, batch norm, ReLU and max pool; then 128 units and the classes.

    Takes (N, in_channels, size, size) for any size from 32. Small, and with dropout before both
    linear layers, because the few individuals of the data set are soon known by heart. Raises
    ShapeError for a smaller size.
    """
    if size < 32:
        raise ShapeError(f"horses: size {size} found, its five poolings need at least 32")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((in_channels, 16, 32, 64, 64, 64)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * (size // 32) ** 2, 128),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(128, num_classes),
    )

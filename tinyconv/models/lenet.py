"""LeNet-style networks for small grey images."""

from __future__ import annotations

from tinyconv import nn
from tinyconv.functional import conv_output_size


def lenet_mnist(num_classes: int = 10, size: int = 28, in_channels: int = 1) -> nn.Sequential:
    """Two 5x5 convolutions with ReLU and max pooling, then 120, 84 and num_classes units.

    Takes (N, in_channels, size, size); 28x28 leaves 16 maps of 4x4. Raises ShapeError for a size of
    which nothing is left (below 16). Source: LeCun et al., 1998, with ReLU and max pooling.
    """
    side = size
    for kernel_size, stride in ((5, 1), (2, 2), (5, 1), (2, 2)):
        side = conv_output_size(side, kernel_size, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side**2, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )

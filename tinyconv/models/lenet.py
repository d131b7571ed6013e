"""LeNet-5: as it was published in 1998, and its usual modern form for small grey images."""

from __future__ import annotations

from typing import Any

import tinyconv.functional as F
from tinyconv import nn
from tinyconv.errors import ShapeError
from tinyconv.functional import conv_output_size
from tinyconv.nn.module import Parameter
from tinyconv.tensor import Tensor


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


class Subsampling(nn.Module):
    """y = w mean(2x2 window) + b, with a coefficient w and a bias b for each map, both learned.

    (N, C, H, W) -> (N, C, H // 2, W // 2). Source: LeCun et al., 1998, section II.B, layers S2 and
    S4; the sum of the four pixels there is a mean here, so that w begins at 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weight = Parameter([[[1.0]]] * channels)
        self.bias = Parameter([[[0.0]]] * channels)

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool2d(x, 2) * self.weight + self.bias

    def extra_repr(self) -> str:
        return str(self.channels)


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x / 3), which maps 1 to 1 and -1 to -1 (LeCun et al., 1998, appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x * (2 / 3)) * 1.7159


def lenet5(num_classes: int = 10, size: int = 32, in_channels: int = 1) -> nn.Sequential:
    """The LeNet-5 of 1998: C1 6@5x5, S2, C3 16@5x5, S4, C5 120@5x5, F6 84, output.

    Takes (N, in_channels, size, size) for any size from 32, at which C5 sees the whole image;
    larger maps are flattened before F6. As in the paper: trainable subsampling (`Subsampling`) and
    `ScaledTanh`. Unlike there: C3 sees all maps of S2 instead of a table of 60 of the 96 pairs, and
    the output is linear, for softmax cross-entropy, instead of radial basis functions. Raises
    ShapeError for a smaller size. Source: LeCun et al., Gradient-based learning applied to document
    recognition, 1998.
    """
    if size < 32:
        raise ShapeError(f"lenet5: size {size} found, its layers need at least 32")
    side = size
    for kernel_size, stride in ((5, 1), (2, 2), (5, 1), (2, 2), (5, 1)):
        side = conv_output_size(side, kernel_size, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5),
        Subsampling(6),
        ScaledTanh(),
        nn.Conv2d(6, 16, 5),
        Subsampling(16),
        ScaledTanh(),
        nn.Conv2d(16, 120, 5),
        ScaledTanh(),
        nn.Flatten(),
        nn.Linear(120 * side**2, 84),
        ScaledTanh(),
        nn.Linear(84, num_classes),
    )

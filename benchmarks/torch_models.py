"""The networks for PyTorch, with the keys of tinyconv's state dictionaries."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def create(name: str, options: dict[str, Any]) -> nn.Module:
    """The network that `name` and `options` mean in a workload."""
    return nn.Conv2d(**options) if name == "conv" else globals()[name](**options)


def _block(C: int, O: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(C, O, 3, padding=padding)
    return [convolution, nn.BatchNorm2d(O), nn.ReLU(), nn.MaxPool2d(2)]


def catdog(size: int) -> nn.Module:
    """As tinyconv.models.catdog."""
    widths = (3, 32, 64, 128, 256, 256)
    layers = [layer for C, O in pairwise(widths) for layer in _block(C, O, 1)]
    return nn.Sequential(
        *layers[:-1], nn.Flatten(), nn.Linear(256 * (size // 16) ** 2, 256), nn.Tanh(),
        nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 32), nn.Tanh(), nn.Linear(32, 2),
    )  # fmt: skip


def catdog_notebook(size: int) -> nn.Module:
    """As tinyconv.models.catdog_notebook."""
    widths = (3, 64, 128, 256, 256, 512, 512)
    layers = [layer for C, O in pairwise(widths) for layer in _block(C, O, 0)]
    for _ in widths[1:]:
        size = (size - 2) // 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(512 * size**2, 512), nn.ReLU(),
        nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 2),
    )  # fmt: skip


class Repeat(nn.Module):
    """One block several times in a row, with the same weights each time."""

    def __init__(self, block: nn.Module, times: int) -> None:
        super().__init__()
        self.block = block
        self.times = times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            x = self.block(x)
        return x


def catdog_wide(size: int) -> nn.Module:
    """As tinyconv.models.catdog_wide."""

    def block(C: int, O: int) -> list[nn.Module]:
        convolution = nn.Conv2d(C, O, 3, padding=1)
        return [convolution, nn.ReLU(), nn.BatchNorm2d(O), nn.MaxPool2d(2)]

    shared = Repeat(nn.Sequential(*block(512, 512)), 4)
    last = nn.Linear(512 * (size // 64) ** 2, 2)
    return nn.Sequential(*block(3, 64), *block(64, 512), shared, nn.Flatten(), last)


def lenet_mnist(size: int) -> nn.Module:
    """As tinyconv.models.lenet_mnist."""
    side = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * side**2, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


class _SamePadded(nn.Conv2d):
    """TensorFlow's "same": as many outputs as input / stride rounded up, the odd row at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max(0, kernel - (size % stride or stride))
            around += [total // 2, (total + 1) // 2]
        padding = 0, 0
        if around[0] == around[1] and around[2] == around[3]:  # without a padded copy
            padding, around = (around[2], around[0]), []
        x = F.pad(x, around) if around else x
        return F.conv2d(x, self.weight, None, self.stride, padding, 1, self.groups)


class _InvertedResidual(nn.Module):
    def __init__(self, C: int, O: int, kernel: int, stride: int, times: int) -> None:
        super().__init__()
        if times > 1:
            self._expand_conv = nn.Conv2d(C, C * times, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(C * times, 1e-3, 0.01)
        wide = C * times
        self._depthwise_conv = _SamePadded(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, 1e-3, 0.01)
        self._project_conv = nn.Conv2d(wide, O, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(O, 1e-3, 0.01)
        self.wide, self.residual = times > 1, stride == 1 and C == O

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.wide else x
        h = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(h)))))
        return h + x if self.residual else h


class _EfficientNetLite0(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self._conv_stem = _SamePadded(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, 1e-3, 0.01)
        widths = [32, 16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]
        kernels = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
        shrinking = (1, 3, 5, 11)
        self._blocks = nn.ModuleList(
            _InvertedResidual(C, O, kernels[i], 1 + (i in shrinking), 6 if i else 1)
            for i, (C, O) in enumerate(pairwise(widths))
        )
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, 1e-3, 0.01)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(self._dropout(x.mean((2, 3))))


def efficientnet_lite0(size: int, num_classes: int = 1000) -> nn.Module:
    """As tinyconv.models.efficientnet_lite0; any size."""
    return _EfficientNetLite0(num_classes)


def vgg16(size: int, num_classes: int = 1000) -> nn.Module:
    """As tinyconv.models.vgg16, with torchvision's keys; any size."""
    features: list[nn.Module] = []
    C = 3
    for O in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        features += [nn.Conv2d(C, O, 3, padding=1), nn.ReLU()] if O else [nn.MaxPool2d(2)]
        C = O or C
    classifier = nn.Sequential(
        nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, num_classes),
    )  # fmt: skip
    layers = [("features", nn.Sequential(*features)), ("avgpool", nn.AdaptiveAvgPool2d(7))]
    return nn.Sequential(OrderedDict([*layers, ("flat", nn.Flatten()), ("classifier", classifier)]))


def blocks(size: int, channels: int) -> nn.Module:
    """As tinyconv_side.blocks."""
    last = nn.Linear(channels * (size // 4) ** 2, 2)
    return nn.Sequential(
        *_block(3, channels, 1), *_block(channels, channels, 1), nn.Flatten(), last
    )

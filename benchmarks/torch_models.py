"""The networks for PyTorch, with the keys of tinyconv's state dictionaries."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
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


def blocks(size: int, channels: int) -> nn.Module:
    """As tinyconv_side.blocks."""
    last = nn.Linear(channels * (size // 4) ** 2, 2)
    return nn.Sequential(
        *_block(3, channels, 1), *_block(channels, channels, 1), nn.Flatten(), last
    )

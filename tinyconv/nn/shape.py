"""Layers that move values without changing them."""

from __future__ import annotations

from typing import Any

import tinyconv.functional as F
from tinyconv.nn.module import Module
from tinyconv.tensor import Tensor


class Flatten(Module):
    """The axes from start_dim to end_dim as one; by default all but the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        return F.flatten(x, self.start_dim, self.end_dim)


class Identity(Module):
    """The input itself."""

    def forward(self, x: Any) -> Tensor:
        return x


class Unfold(Module):
    """Every window as a column; see F.unfold."""

    def __init__(
        self, kernel_size: F.Size, dilation: F.Size = 1, padding: F.Size = 0, stride: F.Size = 1
    ) -> None:
        super().__init__()
        self.settings = (kernel_size, dilation, padding, stride)

    def forward(self, x: Any) -> Tensor:
        return F.unfold(x, *self.settings)


class Fold(Module):
    """Columns back to an image, overlaps added; see F.fold."""

    def __init__(
        self,
        output_size: F.Size,
        kernel_size: F.Size,
        dilation: F.Size = 1,
        padding: F.Size = 0,
        stride: F.Size = 1,
    ) -> None:
        super().__init__()
        self.settings = (output_size, kernel_size, dilation, padding, stride)

    def forward(self, x: Any) -> Tensor:
        return F.fold(x, *self.settings)

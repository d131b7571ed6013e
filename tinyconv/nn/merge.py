"""Layers that join several tensors into one."""

from __future__ import annotations

from typing import Any

import tinyconv.functional as F
from tinyconv.nn.module import Module
from tinyconv.tensor import Tensor


class Add(Module):
    """a + b, as a layer: what + of symbolic tensors stands for."""

    def forward(self, a: Any, b: Any) -> Tensor:
        return a + b


class Subtract(Module):
    """a - b, as a layer: what - of symbolic tensors stands for."""

    def forward(self, a: Any, b: Any) -> Tensor:
        return a - b


class Multiply(Module):
    """a * b element by element, as a layer: what * of symbolic tensors stands for."""

    def forward(self, a: Any, b: Any) -> Tensor:
        return a * b


class Concatenate(Module):
    """Any number of tensors one after another along dim, by default the channels; see F.cat."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Any) -> Tensor:
        return F.cat(tensors, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"

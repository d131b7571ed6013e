"""The dropout layer."""

from __future__ import annotations

from typing import Any

import tinyconv.functional as F
from tinyconv.nn.module import Module
from tinyconv.tensor import Tensor


class Dropout(Module):
    """In training each value is 0 with probability p, else divided by 1 - p; see F.dropout.

    `inplace` is taken for PyTorch's sake and changes nothing.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p: {p} found, expected a probability from 0 to 1")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"

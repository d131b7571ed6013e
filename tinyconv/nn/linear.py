"""The fully connected layer."""

from __future__ import annotations

from typing import Any

import tinyconv.functional as F
from tinyconv.nn.init import uniform_fan_in
from tinyconv.nn.module import Module
from tinyconv.tensor import Tensor


class Linear(Module):
    """y = x weight^T + bias: (..., in_features) -> (..., out_features).

    weight (out_features, in_features), bias (out_features,).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = uniform_fan_in((out_features, in_features), in_features)
        self.register_parameter(
            "bias", uniform_fan_in((out_features,), in_features) if bias else None
        )

    def forward(self, x: Any) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        no_bias = ", bias=False" if self.bias is None else ""
        return f"{self.in_features}, {self.out_features}{no_bias}"

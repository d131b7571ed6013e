"""The convolution layer."""

from __future__ import annotations

from typing import Any, Literal

import tinyconv.functional as F
from tinyconv.nn.init import uniform_fan_in
from tinyconv.nn.module import Module
from tinyconv.tensor import Tensor


class Conv2d(Module):
    """2-D convolution, (N, in_channels, H, W) -> (N, out_channels, OH, OW); see F.conv2d.

    weight (out_channels, in_channels / groups, KH, KW), bias (out_channels,). Raises ValueError
    where channels do not divide by groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: F.Size,
        stride: F.Size = 1,
        padding: F.Size | Literal["valid", "same"] = 0,
        dilation: F.Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: {groups} does not divide {in_channels} input and {out_channels} "
                "output channels"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = F._pair("kernel_size", kernel_size, 1)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        KH, KW = self.kernel_size
        fan_in = in_channels // groups * KH * KW
        self.weight = uniform_fan_in((out_channels, in_channels // groups, KH, KW), fan_in)
        self.register_parameter("bias", uniform_fan_in((out_channels,), fan_in) if bias else None)

    def forward(self, x: Any) -> Tensor:
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        settings = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
            if getattr(self, name) != default:
                settings.append(f"{name}={getattr(self, name)!r}")
        if self.bias is None:
            settings.append("bias=False")
        return ", ".join(settings)

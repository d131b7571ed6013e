"""Batch normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy

import tinyconv.functional as F
from tinyconv.errors import ShapeError
from tinyconv.nn.module import Module, Parameter
from tinyconv.op import run
from tinyconv.ops.update import CountStep
from tinyconv.recorder import recorder
from tinyconv.tensor import Tensor


class _BatchNorm(Module):
    dimensions: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        ones, zeros = (make(num_features, numpy.float32) for make in (numpy.ones, numpy.zeros))
        self.register_parameter("weight", Parameter(ones) if affine else None)
        self.register_parameter("bias", Parameter(zeros) if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros.copy() if tracked else None)
        self.register_buffer("running_var", ones.copy() if tracked else None)
        self.register_buffer("num_batches_tracked", numpy.array(0) if tracked else None)

    def forward(self, x: Any) -> Tensor:
        if len(x.shape) not in self.dimensions or x.shape[1] != self.num_features:
            raise ShapeError(f"input has shape {tuple(x.shape)}, expected {self.layout()}")
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            run(CountStep(), self.num_batches_tracked)
            if momentum is None:  # the plain mean over all batches so far
                if record := recorder():
                    record.value_read("the number of batches so far, for momentum=None")
                momentum = 1 / int(self.num_batches_tracked)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum or 0.0,
            self.eps,
        )

    def layout(self) -> str:
        """The shapes of input that the layer takes, for its error message."""
        raise TypeError(f"{type(self).__name__} defines no layout")

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W) over N, H and W; see F.batch_norm.

    momentum is the weight of the new batch in the running statistics (Keras's is 1 minus that);
    None takes the plain mean of all batches.
    """

    dimensions = (4,)

    def layout(self) -> str:
        return f"(N, {self.num_features}, H, W)"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) over N, or of (N, C, L) over N and L; see BatchNorm2d."""

    dimensions = (2, 3)

    def layout(self) -> str:
        return f"(N, {self.num_features}) or (N, {self.num_features}, L)"

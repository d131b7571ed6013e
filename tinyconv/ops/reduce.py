"""Sums, means, maxima and minima over axes."""

import math
from dataclasses import dataclass

from tinyconv.op import Op


@dataclass(frozen=True)
class Reduction(Op):
    """What all reductions share: the axes `dim` (None: all of them), and whether they stay as 1."""

    dim: tuple[int, ...] | None = None
    keepdim: bool = False

    def _unreduced(self, a, shape):
        """The reduced array `a` with all axes of x's shape, those that were reduced being 1."""
        ndim = len(shape)
        axes = range(ndim) if self.dim is None else [axis % ndim for axis in self.dim]
        return a.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)))


@dataclass(frozen=True)
class Sum(Reduction):
    """y = sum of x over dim"""

    def forward(self, xp, x):
        return xp.sum(x, axis=self.dim, keepdims=self.keepdim), (x.shape,)

    def backward(self, xp, gy, saved, needs):
        (shape,) = saved
        return (xp.broadcast_to(self._unreduced(gy, shape), shape),)


@dataclass(frozen=True)
class Mean(Reduction):
    """y = mean of x over dim"""

    def forward(self, xp, x):
        return xp.mean(x, axis=self.dim, keepdims=self.keepdim), (x.shape,)

    def backward(self, xp, gy, saved, needs):
        (shape,) = saved
        share = self._unreduced(gy, shape) * (gy.size / math.prod(shape))
        return (xp.broadcast_to(share, shape),)


@dataclass(frozen=True)
class Amax(Reduction):
    """y = largest x over dim;  equal maxima share the gradient evenly"""

    def forward(self, xp, x):
        y = xp.amax(x, axis=self.dim, keepdims=self.keepdim)
        return y, (x, y)

    def backward(self, xp, gy, saved, needs):
        x, y = saved
        chosen = (x == self._unreduced(y, x.shape)).astype(gy.dtype)
        equals = chosen.sum(axis=self.dim, keepdims=True)
        return (self._unreduced(gy, x.shape) * chosen / equals,)


@dataclass(frozen=True)
class Amin(Amax):
    """y = smallest x over dim;  equal minima share the gradient evenly"""

    def forward(self, xp, x):
        y = xp.amin(x, axis=self.dim, keepdims=self.keepdim)
        return y, (x, y)

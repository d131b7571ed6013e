"""Sums, means, maxima and minima over axes."""

from dataclasses import dataclass

from tinyconv.op import Op


@dataclass(frozen=True)
class Reduction(Op):
    """What all reductions share: the axes `dim` (None: all of them), and whether they stay as 1."""

    dim: tuple[int, ...] | None = None
    keepdim: bool = False

    def _kept(self, a, x):
        """The reduced array `a` with the axes of x, those that were reduced being 1."""
        axes = range(x.ndim) if self.dim is None else [axis % x.ndim for axis in self.dim]
        return a.reshape(tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


@dataclass(frozen=True)
class Sum(Reduction):
    """y = sum of x over dim"""

    def forward(self, xp, x):
        return xp.sum(x, axis=self.dim, keepdims=self.keepdim), (x,)

    def backward(self, xp, gy, saved, needs):
        (x,) = saved
        return (xp.broadcast_to(self._kept(gy, x), x.shape),)


@dataclass(frozen=True)
class Mean(Reduction):
    """y = mean of x over dim"""

    def forward(self, xp, x):
        return xp.mean(x, axis=self.dim, keepdims=self.keepdim), (x,)

    def backward(self, xp, gy, saved, needs):
        (x,) = saved
        share = self._kept(gy, x) * (gy.size / x.size)
        return (xp.broadcast_to(share, x.shape),)


@dataclass(frozen=True)
class Amax(Reduction):
    """y = largest x over dim;  equal maxima share the gradient evenly"""

    def forward(self, xp, x):
        y = xp.amax(x, axis=self.dim, keepdims=self.keepdim)
        return y, (x, y)

    def backward(self, xp, gy, saved, needs):
        return (_to_extremes(xp, self, gy, *saved),)


@dataclass(frozen=True)
class Amin(Reduction):
    """y = smallest x over dim;  equal minima share the gradient evenly"""

    def forward(self, xp, x):
        y = xp.amin(x, axis=self.dim, keepdims=self.keepdim)
        return y, (x, y)

    def backward(self, xp, gy, saved, needs):
        return (_to_extremes(xp, self, gy, *saved),)


def _to_extremes(xp, op, gy, x, y):
    chosen = (x == op._kept(y, x)).astype(gy.dtype)
    return op._kept(gy, x) * chosen / chosen.sum(axis=op.dim, keepdims=True)

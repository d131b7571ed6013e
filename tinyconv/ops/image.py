"""From a photo's bytes to the numbers that a network takes."""

from dataclasses import dataclass
from typing import Any

from tinyconv.op import Op


@dataclass(frozen=True)
class NormalizeImage(Op):
    """y[n,c,h,w] = (x[n,h,w,c] / 255 - mean[c]) / std[c]

    x uint8 (N, H, W, C), as photos are decoded -> y (N, C, H, W) of dtype, as networks take them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: Any

    def forward(self, xp, x):
        mean, std = (xp.asarray(v, self.dtype).reshape(-1, 1, 1) for v in (self.mean, self.std))
        y = xp.ascontiguousarray(x.transpose(0, 3, 1, 2)).astype(self.dtype)
        y *= 1 / (255 * std)
        y -= mean / std
        return y, ()


@dataclass(frozen=True)
class Gather(Op):
    """y[i] = x[indices[i]]: the images of a batch, x (M, ...), indices int64 (N,) -> y (N, ...)"""

    def forward(self, xp, x, indices):
        return x.take(indices, axis=0), ()

"""From a photo's bytes to the numbers that a network takes."""

from dataclasses import dataclass

from tinyconv.op import Op


@dataclass(frozen=True)
class NormalizeImage(Op):
    """y[n,c,h,w] = (x[n,h,w,c] / 255 - mean[c]) / std[c]

    x uint8 (N, H, W, C), as photos are decoded -> y float32 (N, C, H, W), as networks take them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def forward(self, xp, x):
        mean, std = (xp.asarray(v, xp.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
        y = xp.ascontiguousarray(x.transpose(0, 3, 1, 2)).astype(xp.float32)
        y *= 1 / (255 * std)
        y -= mean / std
        return y, ()

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
        scale = 1 / (255 * xp.asarray(self.std, xp.float32))
        shift = xp.asarray(self.mean, xp.float32) / xp.asarray(self.std, xp.float32)
        y = x.astype(xp.float32) * scale - shift
        return xp.ascontiguousarray(y.transpose(0, 3, 1, 2)), ()

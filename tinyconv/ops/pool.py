"""Max pooling, average pooling and adaptive average pooling."""

from dataclasses import dataclass

from tinyconv.op import Op
from tinyconv.ops.window import Window


@dataclass(frozen=True)
class MaxPool2d(Op):
    """y[n,c,i,j] = the largest x in window (i, j); the gradient goes to that pixel alone.

    x (N, C, H, W) -> y (N, C, OH, OW). The border counts as -inf. Of equal values the first in the
    window (row by row) wins; NaN beats every number, as in PyTorch.
    """

    window: Window

    def forward(self, xp, x):
        N, C, H, W = x.shape
        KH, KW = self.window.kernel
        OH, OW = self.window.output_size(H, W)
        padded = self.window.pad(xp, x, -xp.inf)
        y = xp.full((N, C, OH, OW), -xp.inf, x.dtype)
        # winner: position u * KW + v of the maximum; from the start a pixel of the image, so that
        # a window of nothing but -inf does not send its gradient into the border.
        winner = xp.empty((N, C, OH, OW), xp.uint8 if KH * KW <= 256 else xp.int32)
        winner[:] = self._first_inside(xp, OH, 0)[:, None] * KW + self._first_inside(xp, OW, 1)
        for u, v, pixels in self.window.offsets(OH, OW):
            candidate = padded[pixels]
            better = (candidate > y) | xp.isnan(candidate)
            xp.copyto(winner, u * KW + v, where=better)
            xp.maximum(y, candidate, out=y)
        return y, (winner, x.shape)

    def backward(self, xp, gy, saved, needs):
        winner, (N, C, H, W) = saved
        KW = self.window.kernel[1]
        padded = xp.zeros((N, C, *self.window.padded_size(H, W)), gy.dtype)
        for u, v, pixels in self.window.offsets(*gy.shape[2:]):
            padded[pixels] += xp.where(winner == u * KW + v, gy, 0)
        return (self.window.unpad(padded, H, W),)

    def _first_inside(self, xp, size, axis):
        """For each window along an axis: its first kernel position that is not in the border."""
        starts = xp.arange(size) * self.window.stride[axis] - self.window.padding[axis]
        return xp.maximum(0, -(starts // self.window.dilation[axis]))


@dataclass(frozen=True)
class AvgPool2d(Op):
    """y[n,c,i,j] = sum of x over window (i, j), divided by the window's number of pixels.

    x (N, C, H, W) -> y (N, C, OH, OW). With count_include_pad the border's zeros count as pixels,
    but never what a last window of ceil_mode hangs over it; divisor_override replaces the count.
    """

    window: Window
    count_include_pad: bool = True
    divisor_override: int | None = None

    def forward(self, xp, x):
        H, W = x.shape[2:]
        OH, OW = self.window.output_size(H, W)
        padded = self.window.pad(xp, x, 0)
        y = sum(padded[pixels] for _, _, pixels in self.window.offsets(OH, OW))
        return y / self._divisor(xp, H, W, x.dtype), (x.shape,)

    def backward(self, xp, gy, saved, needs):
        N, C, H, W = saved[0]
        share = gy / self._divisor(xp, H, W, gy.dtype)
        padded = xp.zeros((N, C, *self.window.padded_size(H, W)), gy.dtype)
        for _, _, pixels in self.window.offsets(*gy.shape[2:]):
            padded[pixels] += share
        return (self.window.unpad(padded, H, W),)

    def _divisor(self, xp, H, W, dtype):
        """Pixels in each window, an array (OH, OW)."""
        if self.divisor_override is not None:
            return xp.asarray(self.divisor_override, dtype)
        counts = []
        for axis, (n, size) in enumerate(zip((H, W), self.window.output_size(H, W), strict=True)):
            p = self.window.padding[axis]
            start = xp.arange(size) * self.window.stride[axis] - p
            end = xp.minimum(start + self.window.kernel[axis], n + p)
            if not self.count_include_pad:
                start, end = xp.maximum(start, 0), xp.minimum(end, n)
            counts.append(end - start)
        return (counts[0][:, None] * counts[1]).astype(dtype)


@dataclass(frozen=True)
class AdaptiveAvgPool2d(Op):
    """y[n,c,i,j] = mean of x over rows floor(i*H/OH) to ceil((i+1)*H/OH), columns alike.

    x (N, C, H, W) -> y (N, C, OH, OW) for any H and W. Source: PyTorch, AdaptiveAveragePooling.
    """

    output_size: tuple[int, int]

    def forward(self, xp, x):
        y = xp.empty((*x.shape[:2], *self.output_size), x.dtype)
        for i, j, region in self._regions(*x.shape[2:]):
            y[:, :, i, j] = x[region].mean(axis=(2, 3))
        return y, (x.shape,)

    def backward(self, xp, gy, saved, needs):
        gx = xp.zeros(saved[0], gy.dtype)
        for i, j, region in self._regions(*gx.shape[2:]):
            rows, columns = gx[region].shape[2:]
            gx[region] += gy[:, :, i, j, None, None] / (rows * columns)
        return (gx,)

    def _regions(self, H, W):
        OH, OW = self.output_size
        for i in range(OH):
            rows = slice(i * H // OH, -(-(i + 1) * H // OH))
            for j in range(OW):
                columns = slice(j * W // OW, -(-(j + 1) * W // OW))
                yield i, j, (slice(None), slice(None), rows, columns)

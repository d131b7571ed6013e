"""2-D convolution as one matrix product over im2col, and unfold and fold, its two halves."""

from dataclasses import dataclass

from tinyconv.op import Op
from tinyconv.ops.window import Window, col2im, im2col


@dataclass(frozen=True)
class Conv2d(Op):
    """y[n,o,i,j] = b[o] + sum_cuv w[o,c,u,v] * x[n,c, i*stride + u*dilation - padding, ...]

    x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None -> y (N, O, OH, OW). With groups, the
    channels are cut into as many parts, and output part g sees input part g only. Deep learning's
    "convolution" is a cross-correlation: the kernel is not flipped.

    With im2col it is y = w columns, so that gw = gy columns^T, and gx is w^T gy, each entry added
    back to its pixel by col2im. The columns take about KH*KW times the memory of x. It is computed
    in w's dtype; y has x's.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def forward(self, xp, x, w, b):
        G, N, O = self.groups, len(x), len(w)
        window = self._window(w)
        OH, OW = window.output_size(*x.shape[2:])
        columns = im2col(xp, x, window).reshape(G, w[0].size, N * OH * OW)
        y = w.reshape(G, O // G, -1) @ columns.astype(w.dtype, copy=False)  # (G, O/G, N*OH*OW)
        if b is not None:
            y += b.reshape(G, O // G, 1)
        y = y.reshape(O, N, OH, OW).swapaxes(0, 1)
        return xp.ascontiguousarray(y, x.dtype), (x, w)

    def backward(self, xp, gy, saved, needs):
        x, w = saved
        G, (N, O, OH, OW) = self.groups, gy.shape
        window = self._window(w)
        gx = gw = gb = None
        gy = gy.swapaxes(0, 1).reshape(G, O // G, N * OH * OW).astype(w.dtype, copy=False)
        if needs[0]:
            columns = w.reshape(G, O // G, -1).swapaxes(1, 2) @ gy
            gx = col2im(xp, columns, x.shape, window).astype(x.dtype, copy=False)
        if needs[1]:
            columns = im2col(xp, x, window).reshape(G, w[0].size, N * OH * OW)
            columns = columns.astype(w.dtype, copy=False)
            gw = (gy @ columns.swapaxes(1, 2)).reshape(w.shape)
        if needs[2]:
            gb = gy.sum(axis=2).reshape(O)
        return gx, gw, gb

    def _window(self, w):
        return Window(w.shape[2:], self.stride, self.padding, self.dilation)


@dataclass(frozen=True)
class Unfold(Op):
    """x (N, C, H, W) -> (N, C*KH*KW, OH*OW), one column for each window: im2col with a gradient."""

    window: Window

    def forward(self, xp, x):
        return _by_image(im2col(xp, x, self.window), len(x)), (x.shape,)

    def backward(self, xp, gy, saved, needs):
        (shape,) = saved
        return (col2im(xp, gy.swapaxes(0, 1), shape, self.window),)


@dataclass(frozen=True)
class Fold(Op):
    """columns (N, C*KH*KW, OH*OW) -> (N, C, H, W), overlaps added: col2im with a gradient."""

    output_size: tuple[int, int]
    window: Window

    def forward(self, xp, columns):
        KH, KW = self.window.kernel
        shape = (len(columns), columns.shape[1] // (KH * KW), *self.output_size)
        return col2im(xp, columns.swapaxes(0, 1), shape, self.window), ()

    def backward(self, xp, gy, saved, needs):
        return (_by_image(im2col(xp, gy, self.window), len(gy)),)


def _by_image(columns, N):
    """The matrix (C*KH*KW, N*OH*OW) as one matrix (C*KH*KW, OH*OW) for each image."""
    return columns.reshape(len(columns), N, -1).swapaxes(0, 1)

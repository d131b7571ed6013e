"""Windows that slide over an image: what convolution, pooling, unfold and fold have in common."""

from dataclasses import dataclass

from tinyconv.errors import ShapeError


def conv_output_size(n, kernel_size, stride=1, padding=0, dilation=1, ceil_mode=False):
    """Positions of a window along an axis: floor((n + 2p - d(k - 1) - 1) / s) + 1.

    All arguments are in pixels along one axis. With ceil_mode (pooling) the division rounds up: a
    last window may hang over the end, as long as it starts inside the image or its left padding.
    Raises ShapeError where no window fits.
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016.
    """
    reach = dilation * (kernel_size - 1) + 1
    room = n + 2 * padding - reach
    size = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (size - 1) * stride >= n + padding:
        size -= 1
    if size < 1:
        raise ShapeError(
            f"a window of {reach} pixels (kernel_size {kernel_size}, dilation {dilation}) does not "
            f"fit into {n} pixels with padding {padding}: the output would have size {size}"
        )
    return size


@dataclass(frozen=True)
class Window:
    """Kernel size, stride, padding and dilation, each (rows, columns) in pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    def output_size(self, H, W):
        """(OH, OW): how often the window fits along each axis, see conv_output_size."""
        return tuple(
            conv_output_size(n, k, s, p, d, self.ceil_mode)
            for n, k, s, p, d in zip(
                (H, W), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def padded_size(self, H, W):
        """Height and width of the image with its border, wide enough for every window."""
        sizes = []
        for axis, (n, size) in enumerate(zip((H, W), self.output_size(H, W), strict=True)):
            k, s, d = self.kernel[axis], self.stride[axis], self.dilation[axis]
            sizes.append(max(n + 2 * self.padding[axis], (size - 1) * s + d * (k - 1) + 1))
        return tuple(sizes)

    def pad(self, xp, x, value):
        """x (N, C, H, W) with its border, filled with `value`."""
        N, C, H, W = x.shape
        size = self.padded_size(H, W)
        if size == (H, W):
            return x
        padded = xp.full((N, C, *size), value, x.dtype)
        self.unpad(padded, H, W)[:] = x
        return padded

    def unpad(self, padded, H, W):
        """The image (N, C, H, W) inside of its border (a view)."""
        ph, pw = self.padding
        return padded[:, :, ph : ph + H, pw : pw + W]

    def offsets(self, OH, OW):
        """For each kernel position (u, v): the padded image's rows and columns that it meets.

        Position (u, v) of window (i, j) lies on pixel (i * stride + u * dilation, the same for j),
        so all windows' pixels at (u, v) are one strided slice.
        """
        (KH, KW), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        for u in range(KH):
            for v in range(KW):
                rows = slice(u * dh, u * dh + OH * sh, sh)
                columns = slice(v * dw, v * dw + OW * sw, sw)
                yield u, v, (slice(None), slice(None), rows, columns)


def im2col(xp, x, window):
    """Every window of x as one column of a matrix: (N, C, H, W) -> (C*KH*KW, N*OH*OW)."""
    N, C, H, W = x.shape
    KH, KW = window.kernel
    OH, OW = window.output_size(H, W)
    padded = window.pad(xp, x, 0).swapaxes(0, 1)  # (C, N, ...): channels become rows
    columns = xp.empty((C, KH, KW, N, OH, OW), x.dtype)
    for u, v, pixels in window.offsets(OH, OW):
        columns[:, u, v] = padded[pixels]
    return columns.reshape(C * KH * KW, N * OH * OW)


def col2im(xp, columns, shape, window):
    """The transpose of im2col: each entry is added to the pixel that it was copied from.

    `columns` (C*KH*KW, N*OH*OW), `shape` the image's (N, C, H, W). Pixels that no window met stay
    zero; within one (u, v) no pixel occurs twice, so the sum needs no atomics and has one order.
    """
    N, C, H, W = shape
    KH, KW = window.kernel
    OH, OW = window.output_size(H, W)
    columns = columns.reshape(C, KH, KW, N, OH, OW)
    padded = xp.zeros((C, N, *window.padded_size(H, W)), columns.dtype)
    for u, v, pixels in window.offsets(OH, OW):
        padded[pixels] += columns[:, u, v]
    return xp.ascontiguousarray(window.unpad(padded, H, W).swapaxes(0, 1))

"""Convolution with any window as matrix products on the image as it lies, without im2col.

With the channels last, what a window sees of one row of pixels is one contiguous run of KW*C
numbers, and the run of the next window begins stride*C numbers later. So the rows of im2col's
matrix are all there already, overlapping; a product only has to be told where they begin:

    forward   y (OW, O) = sum over u of runs (OW, KW*C) times w[u] (KW*C, O)
    weights   gw[u] (KW*C, O) = sum over rows and images of runs^T times gy (OW, O)
    input     gy (OW, O) times w[u]^T (O, KW*C) = runs, each added to the pixels it was read from
              (of windows of one pixel: a convolution of gy with w^T)

Images are done in strips of rows that stay in the second-level cache. Where there is padding, the
strip is copied into a wider one, of which each thread has its own: that is all the memory it takes.

With few output channels most of a vector would be empty. Then `group` pixels side by side share
it: their outputs lie together, as the group * O outputs of one wider window, whose weights are zero
where a pixel's own window does not reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyconv.kernels.cpu.jit import F32, INT, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last, contiguous
from tinyconv.kernels.cpu.pool import past_cache
from tinyconv.kernels.cpu.product import multiply, multiply_and_finish
from tinyconv.kernels.cpu.simd import (
    LANES,
    broadcast,
    load,
    load_first,
    nowhere,
    offset,
    prefetch,
    store,
    store_first,
    transpose,
)
from tinyconv.kernels.cpu.when import float32
from tinyconv.kernels.fused import PaddedConv2d
from tinyconv.op import register
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.window import Window

# Columns of a matrix that lie together, because a product goes through them together.
PANEL = 2 * LANES

_STRIP = 48_000  # numbers of a strip: some 200 KB of the second-level cache
_PIXELS = 14  # rows of a product's largest block
_ROWS = 4  # of its smallest
_CHANNELS = 16  # whose weights are put in another order together
_FEW_PIXELS = 128  # for which laying out the weights takes as long as the product, or nearly
_LAYING_OUT = 0.3  # nanoseconds for each weight
_PER_NANOSECOND = 40  # multiplications with addition that one core does

# The sum over so many pixels is kept apart before it joins the others: one long sum would lose
# digits of what is added late.
APART = 4096


class Sizes(NamedTuple):
    """Settings and sizes of a convolution, in the order in which kernels take them."""

    H: int
    W: int
    C: int
    O: int
    KH: int
    KW: int
    OH: int
    OW: int
    sh: int
    sw: int
    ph: int
    pw: int
    dh: int
    dw: int
    wide: int  # pixels in a row of the image with its border

    @classmethod
    def of(cls, op: Conv2d, x: np.ndarray, w: np.ndarray) -> Sizes:
        """Raises ShapeError where no window fits into the image."""
        _, C, H, W = x.shape
        O, _, KH, KW = w.shape
        (ph, pw), (top, left), (bottom, right) = op.padding, (0, 0), (0, 0)
        if isinstance(op, PaddedConv2d):
            (top, left), (bottom, right) = op.before, op.after
        OH, OW = Window((KH, KW), op.stride, op.padding, op.dilation).output_size(
            top + H + bottom, left + W + right
        )
        ph, pw, (sh, sw), (dh, dw) = ph + top, pw + left, op.stride, op.dilation
        wide = max(pw + W, (OW - 1) * sw + (KW - 1) * dw + 1)  # what windows see
        return cls(H, W, C, O, KH, KW, OH, OW, sh, sw, ph, pw, dh, dw, wide)

    def border(self, rows: int) -> int:
        """Numbers of the strip with its border that `rows` rows of outputs see."""
        if self.wide == self.W and self.ph == 0 and self._seen(self.OH) <= self.H:
            return 1  # it is never copied
        return self._seen(rows) * self.row

    def _seen(self, rows: int) -> int:
        """How many rows of the image with its border `rows` rows of outputs see."""
        return (rows - 1) * self.sh + (self.KH - 1) * self.dh + 1

    @property
    def row(self) -> int:
        """Numbers in a row of the image with its border."""
        return self.wide * self.C

    def turned(self) -> Sizes | None:
        """Those of the convolution of gy that gives gx, None where it is none."""
        ph, pw = (self.KH - 1) * self.dh - self.ph, (self.KW - 1) * self.dw - self.pw
        if self.sh > 1 or self.sw > 1 or min(ph, pw) < 0:
            return None
        wide = max(pw + self.OW, self.W + (self.KW - 1) * self.dw)
        C, O, (H, W, OH, OW) = self.C, self.O, (self.H, self.W, self.OH, self.OW)
        return self._replace(H=OH, W=OW, C=O, O=C, OH=H, OW=W, ph=ph, pw=pw, wide=wide)

    def run(self, group: int) -> int:
        """Numbers that the windows of `group` pixels side by side see in one row."""
        return (self.KW + (group - 1) * self.sw) * self.C

    @property
    def pointwise(self) -> bool:
        """Whether each pixel is multiplied by itself: rows and images do not matter."""
        same = (self.OH, self.OW) == (self.H, self.W)
        return same and (self.KH, self.KW, self.sh, self.sw, self.ph, self.pw) == (1, 1, 1, 1, 0, 0)

    def nanoseconds(self, pixels: int) -> float:
        """What one direction takes on one thread for so many pixels of outputs, roughly."""
        return pixels * self.KH * self.KW * self.C * max(self.O, LANES) / _PER_NANOSECOND


@jit
def bordered(x, n, first, rows, H, W, C, ph, pw, wide, border):
    """Pointer to `rows` rows of image n, from row `first` of the image with its zeros around it.

    They are copied into `border`; rows without any zeros are used where they lie.
    """
    if wide == W and first >= ph and first - ph + rows <= H:
        return offset(x, (n * H + first - ph) * W * C)
    for row in range(rows):
        h = first + row - ph
        to = offset(border, row * wide * C)
        if 0 <= h < H:
            source = offset(x, (n * H + h) * W * C)
            for k in range(pw * C):
                to[k] = 0
            for k in range(W * C):
                to[pw * C + k] = source[k]
            for k in range((pw + W) * C, wide * C):
                to[k] = 0
        else:
            for k in range(wide * C):
                to[k] = 0
    return border


def rows_of_strip(numbers: int, most: int) -> int:
    """How many rows of so many numbers make a strip."""
    return max(1, min(most, _STRIP // numbers))


def _steps(rows: int, columns: int) -> int:
    """How long a product takes for one row of b: its blocks of rows are filled up."""
    return -(-rows // _ROWS) * _ROWS * -(-columns // LANES) + 1


def _group(sizes: Sizes, steps: Callable[[int, int], int]) -> int:
    """How many pixels best share a vector.

    steps(pixels, group) is what the pixels of a row take that are done so many at a time.
    """
    if sizes.dw > 1:  # neighbours have nothing in common
        return 1
    most = max(1, min(sizes.OW, PANEL // sizes.O))
    return min(range(1, most + 1), key=lambda g: steps(sizes.OW // g, g) + steps(sizes.OW % g, 1))


def _forward(op, xp, x, w, b):
    return float32(xp, x, w, b) and op.groups == 1 and x.shape[1] == w.shape[1]


def _backward(op, xp, gy, saved, needs):
    return float32(xp, gy, *saved) and op.groups == 1


# Forward ------------------------------------------------------------------------------------------


@register(Conv2d, "forward", _forward)
@register(PaddedConv2d, "forward", _forward)
def direct_convolution(op, xp, x, w, b):
    """Conv2d forward."""
    return convolve(op, x, w, Finish.of(w, b)), (x, w)


class Finish(NamedTuple):
    """What is done to a convolution's sums for each output: clip(sum * scale + bias + residual).

    scale and bias (O,), limits (2,): what to clip to, or None; residual (N, O, OH, OW) or None.
    """

    scale: np.ndarray
    bias: np.ndarray
    limits: np.ndarray | None = None
    residual: np.ndarray | None = None

    def last(self, y: np.ndarray) -> tuple[Any, ...]:
        """limits and residual (y where there is none), and whether there are any."""
        residual = y if self.residual is None else channels_last(self.residual)
        limits = self.bias if self.limits is None else self.limits
        return limits, residual, self.limits is not None, self.residual is not None

    @classmethod
    def of(cls, w: np.ndarray, b: np.ndarray | None) -> Finish:
        """Nothing but the bias of a convolution."""
        ones, zeros = np.ones(len(w), np.float32), np.zeros(len(w), np.float32)
        return cls(ones, zeros if b is None else contiguous(b))


def convolve(op: Conv2d, x: np.ndarray, w: np.ndarray, finish: Finish) -> np.ndarray:
    """The convolution with what follows it, in one pass."""
    sizes, pixels = Sizes.of(op, x, w), len(x) * x.shape[2] * x.shape[3]
    if sizes.pointwise and pixels <= _FEW_PIXELS and sizes.O >= PANEL:
        return _convolved_few(channels_last(x), w, finish, sizes)
    packed, bias, group = _packed(w, finish, sizes)
    return _convolved(channels_last(x), packed, finish._replace(bias=bias), sizes, group)


def _convolved(x, packed, finish, sizes, group):
    """The convolution of memory x (N, H, W, C), weights and bias being laid out."""
    y = empty((len(x), sizes.OH, sizes.OW, sizes.O))
    pixels = len(x) * sizes.OH * sizes.OW
    if sizes.pointwise:
        sizes = sizes._replace(H=1, W=pixels, OH=1, OW=pixels, wide=pixels)
        unit, rows = _PIXELS, 1
        strip = unit * rows_of_strip(unit * sizes.C, pixels)
    else:
        unit, rows = sizes.OW, rows_of_strip(sizes.sh * sizes.row, sizes.OH)
        strip = unit * rows
    items = -(-pixels // unit)
    parts = parts_for(items, sizes.nanoseconds(pixels))
    size = sizes.border(rows)
    past = once_past_cache(y) and group == 1 and (sizes.dw == 1 or sizes.KH == 1)
    launch(
        _convolve, x, packed, finish.bias, *finish.last(y), y, empty((parts, size)), *sizes,
        pixels, unit, strip, size, group, past, items=items, parts=parts,
    )  # fmt: skip
    return as_images(y)


def _convolved_few(x, w, finish, sizes):
    """A pointwise convolution of memory x (N, H, W, C) with few pixels."""
    y, pixels = empty((*x.shape[:3], sizes.O)), x.size // sizes.C
    items = -(-sizes.O // PANEL)
    parts = parts_for(items, sizes.nanoseconds(pixels) + w.size * _LAYING_OUT)
    launch(
        _convolve_few, x, contiguous(w), finish.scale, finish.bias, *finish.last(y), y,
        empty((parts, sizes.C, PANEL)), sizes.C, sizes.O, pixels, items=items, parts=parts,
    )  # fmt: skip
    return as_images(y)


def once_past_cache(y: np.ndarray) -> bool:
    """Whether y (.., O), each number written once, is best written past the cache."""
    aligned = y.ctypes.data % (4 * LANES) == 0 and y.shape[-1] % LANES == 0
    return past_cache(y) and aligned


def _packed(w, finish, sizes):
    """Weights and bias as _convolve takes them, and the number of pixels that share a vector."""
    group = _group(sizes, lambda pixels, g: _steps(pixels, g * sizes.O) * sizes.run(g))
    outputs, run = group * sizes.O, sizes.run(group)
    vectors = -(-sizes.O // LANES)
    packed = empty((-(-outputs // PANEL), sizes.KH, run, min(PANEL, outputs)))
    bias = empty((outputs,))
    launch(
        _pack, contiguous(w), finish.scale, finish.bias, packed, bias,
        sizes.C, sizes.O, sizes.KH, sizes.KW, sizes.sw, group,
        items=vectors, parts=parts_for(vectors, w.size * _LAYING_OUT),
    )  # fmt: skip
    return packed, bias, group


@kernel
def _pack(
    w: F32, scale: F32, b: F32, packed: F32, bias: F32, C: INT, O: INT, KH: INT, KW: INT, sw: INT,
    group: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """packed (panels, KH, run, width): w scaled, the outputs last; items are vectors of outputs."""
    run, width = (KW + (group - 1) * sw) * C, min(PANEL, group * O)
    window, size = KH * KW, KH * run * width
    for item in range(begin, end):
        o = item * LANES
        lanes = min(O - o, LANES)
        for pixel in range(group):
            column = pixel * O + o
            to = offset(packed, column // PANEL * size + column % PANEL)
            for l in range(lanes):
                bias[column + l] = b[o + l]
            if group > 1:
                for k in range(KH * run):
                    for l in range(lanes):
                        to[k * width + l] = 0
            if window == 1:
                pack_matrix(w, scale, o, lanes, C, offset(to, pixel * sw * C * width), width)
                continue
            for c in range(C):
                for u in range(KH):
                    for v in range(KW):
                        source = offset(w, ((o * C + c) * KH + u) * KW + v)
                        at = (u * run + (pixel * sw + v) * C + c) * width
                        if lanes == LANES:  # unrolled
                            for l in range(LANES):
                                to[at + l] = source[l * C * window] * scale[o + l]
                        else:
                            for l in range(lanes):
                                to[at + l] = source[l * C * window] * scale[o + l]


@jit
def pack_matrix(w, scale, o, lanes, C, to, width):
    """to[c width + l] = w[(o + l) C + c] * scale[o + l] for c < C, l < lanes."""
    whole = C // LANES * LANES if lanes == LANES else 0
    for c in range(0, whole, LANES):
        for l in range(LANES):  # of the next vector: processors foresee no such pattern
            prefetch(w, (o + LANES + l) * C + c)
        transpose(offset(w, o * C + c), C, offset(to, c * width), width, offset(scale, o))
    for c in range(whole, C):
        for l in range(lanes):
            to[c * width + l] = w[(o + l) * C + c] * scale[o + l]


@kernel
def _convolve_few(
    x: F32, w: F32, scale: F32, bias: F32, limits: F32, residual: F32, clips: INT, adds: INT,
    y: F32, panels: F32, C: INT, O: INT, pixels: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """y (pixels, O) from x (pixels, C); items are panels of outputs.

    The weights of each are laid out just before they are used, and never leave the cache.
    """
    panel = offset(panels, part * C * PANEL)
    for item in range(begin, end):
        o = item * PANEL
        columns = min(PANEL, O - o)
        for l in range(0, columns, LANES):
            pack_matrix(w, scale, o + l, min(LANES, columns - l), C, offset(panel, l), PANEL)
        multiply_and_finish(
            x, C, 0, 1, panel, 0, PANEL, offset(bias, o), 0, offset(y, o), O, 1, C, pixels, columns,
            offset(residual, o), adds, limits if clips else nowhere(), 0, 0,
        )  # fmt: skip


@kernel
def _convolve(
    x: F32, w: F32, bias: F32, limits: F32, residual: F32, clips: INT, adds: INT,
    y: F32, borders: F32,
    H: INT, W: INT, C: INT, O: INT,
    KH: INT, KW: INT, OH: INT, OW: INT, sh: INT, sw: INT, ph: INT, pw: INT, dh: INT, dw: INT,
    wide: INT, pixels: INT, unit: INT, strip: INT, size: INT, group: INT, past: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """y (pixels, O) from x (N, H, W, C), up to `strip` pixels at a time; items: `unit` pixels."""
    row = wide * C
    run = (KW + (group - 1) * sw) * C
    width = min(PANEL, group * O)
    border = offset(borders, part * size)
    pointwise = KH * KW * sh * sw * group == 1  # what one product reads lies in one piece
    # With dilation a window's pixels in a row are apart: they take the place of its rows.
    if dw == 1:
        steps, outer, ao, bo = 1, KH, dh * row, run * width
    else:
        steps, outer, ao, bo = KH, KW, dw * C, C * width
    first, last = begin * unit, min(end * unit, pixels)
    while first < last:
        n = first // (OH * OW)
        image = n * OH * OW
        top = (first - image) // OW
        stop = min(first + strip, last, image + OH * OW)
        rows = ((stop - 1 - image) // OW - top) * sh + (KH - 1) * dh + 1
        a = bordered(x, n, top * sh, rows, H, W, C, ph, pw, wide, border)
        for together in (group, 1):
            for o in range(0, together * O, PANEL):
                pixel, i, j = first, 0, (first - image) % OW
                while pixel < stop:
                    rest = min(stop - pixel, OW - j)
                    beside = together if rest >= together else 1
                    count = rest // beside
                    inner = (KW + (beside - 1) * sw) * C if dw == 1 else C
                    c, cr = offset(y, pixel * O + o), beside * O
                    s, sr = offset(bias, o), 0
                    for u in range(steps):
                        final = u == steps - 1
                        multiply_and_finish(
                            offset(a, (i * sh + u * dh) * row + j * sw * C), beside * sw * C, ao, 1,
                            offset(w, o * KH * run + u * KW * bo), bo, width,
                            s, sr, c, cr, outer, inner, count, min(PANEL, beside * O - o),
                            offset(residual, pixel * O + o), adds and final,
                            limits if clips and final else nowhere(), past, pointwise and o == 0,
                        )  # fmt: skip
                        s, sr = c, cr
                    pixel, j = pixel + count * beside, j + count * beside
                    if j == OW:
                        i, j = i + 1, 0
            # Infinity times a zero weight has reached a neighbour: once more, pixel by pixel.
            if together == 1 or finite(offset(y, first * O), (stop - first) * O):
                break
        first = stop


@jit
def finite(y, count):
    """Whether all of y's numbers are: infinity times zero is NaN, as NaN times zero."""
    total = np.float32(0)
    for k in range(count):
        total += y[k] * np.float32(0)
    return total == 0


# Backward -----------------------------------------------------------------------------------------


@register(Conv2d, "backward", _backward)
@register(PaddedConv2d, "backward", _backward)
def direct_convolution_backward(op, xp, gy, saved, needs):
    """Conv2d backward."""
    x, w = saved
    N, sizes = len(x), Sizes.of(op, x, w)
    if sizes.pointwise:  # all images as one: longer sums, larger blocks
        N, sizes = 1, sizes._replace(H=N * sizes.H, OH=N * sizes.OH)
    gy = channels_last(gy)
    gx = gw = gb = None
    if needs[0]:
        gx = _input_gradient(gy, w, x.shape, N, sizes)
    if needs[1] or needs[2]:
        gw, gb = _weight_gradient(channels_last(x), gy, w.shape, N, sizes)
    return gx, gw if needs[1] else None, gb if needs[2] else None


def _weight_gradient(x, gy, shape, N, sizes):
    """gw (O, C, KH, KW) and gb (O,) from x (N, H, W, C) and gy (N, OH, OW, O)."""
    C, O, KH, KW = sizes.C, sizes.O, sizes.KH, sizes.KW
    group = _group(sizes, lambda pixels, g: pixels * _steps(sizes.run(g), g * O))
    outputs, run = group * O, sizes.run(group)
    items = N * sizes.OH
    parts = parts_for(items, sizes.nanoseconds(N * sizes.OH * sizes.OW))
    rows = rows_of_strip(sizes.sh * sizes.row + sizes.OW * O, sizes.OH)
    size = sizes.border(rows)
    levels = 2 if items * sizes.OW > parts * APART else 1
    sums = empty((parts, levels, KH * run + 1, outputs))
    launch(
        _correlate, x, gy, sums, empty((parts, size)), *sizes,
        levels, rows, size, group, items=items, parts=parts,
    )  # fmt: skip
    gw, gb = empty(shape), empty((O,))
    blocks = -(-C // _CHANNELS)
    collecting = parts_for(blocks, sums.size)
    launch(
        _collect, sums, gw, gb, empty((collecting, _CHANNELS * KH * KW, LANES)),
        parts, levels, C, O, KH, KW, sizes.sw, group, items=blocks, parts=collecting,
    )  # fmt: skip
    return gw, gb


@kernel
def _correlate(
    x: F32, gy: F32, sums: F32, borders: F32, H: INT, W: INT, C: INT, O: INT,
    KH: INT, KW: INT, OH: INT, OW: INT, sh: INT, sw: INT, ph: INT, pw: INT, dh: INT, dw: INT,
    wide: INT, levels: INT, strip: INT, size: INT, group: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """sums (parts, levels, KH * run + 1, group * O) of x times gy, last row of gy; items: rows.

    The second level, where there is one, is the sum over the latest pixels.
    """
    row = wide * C
    run, outputs = (KW + (group - 1) * sw) * C, group * O
    count = (KH * run + 1) * outputs
    total = offset(sums, part * levels * count)
    latest = offset(total, (levels - 1) * count)
    border = offset(borders, part * size)
    for k in range(levels * count):
        total[k] = 0
    pixels, first = 0, begin
    while first < end:
        n, i = first // OH, first % OH
        rows = min(strip, OH - i, end - first)
        seen = (rows - 1) * sh + (KH - 1) * dh + 1
        a = bordered(x, n, i * sh, seen, H, W, C, ph, pw, wide, border)
        j = 0
        while j < OW:
            beside = group if OW - j >= group else 1
            ak, times = beside * sw * C, (OW - j) // beside
            b, bo, columns = offset(gy, (first * OW + j) * O), OW * O, beside * O
            # A run is in one piece only without dilation.
            taps, height = (1, (KW + (beside - 1) * sw) * C) if dw == 1 else (KW, C)
            whole = height // _ROWS * _ROWS
            for v in range(taps):
                at = offset(a, (j * sw + v * dw) * C)
                for u in range(KH):
                    c = offset(latest, (u * run + v * C) * outputs)
                    multiply(
                        offset(at, u * dh * row), 1, sh * row, ak, b, bo, columns,
                        c, outputs, c, outputs, rows, times, whole, columns,
                    )  # fmt: skip
                for k in range(whole, height):  # what is left over, that of all u together
                    c, cr = offset(latest, (v * C + k) * outputs), run * outputs
                    multiply(
                        offset(at, k), dh * row, sh * row, ak, b, bo, columns,
                        c, cr, c, cr, rows, times, KH, columns,
                    )  # fmt: skip
            j += times * beside
        sums_of_gy, strip_of_gy = offset(latest, KH * run * outputs), offset(gy, first * OW * O)
        groups = rows * OW // group
        add_rows(sums_of_gy, strip_of_gy, groups, outputs)
        add_rows(sums_of_gy, offset(strip_of_gy, groups * outputs), rows * OW - groups * group, O)
        first += rows
        pixels += rows * OW
        if levels == 2 and (pixels >= APART or first == end):
            pixels = 0
            for k in range(count):
                total[k] += latest[k]
                latest[k] = 0


@jit
def add_rows(y, x, rows, columns):
    """y (columns,) += the sum of the rows of x (rows, columns); four sums run side by side."""
    for l in range(0, columns, LANES):
        lanes = min(columns - l, LANES)
        a = load_first(y, l, lanes)
        b = c = d = broadcast(np.float32(0))
        first = rows % 4
        for r in range(first):
            a = a + load_first(x, r * columns + l, lanes)
        for r in range(first, rows, 4):
            a = a + load_first(x, r * columns + l, lanes)
            b = b + load_first(x, (r + 1) * columns + l, lanes)
            c = c + load_first(x, (r + 2) * columns + l, lanes)
            d = d + load_first(x, (r + 3) * columns + l, lanes)
        store_first(y, l, (a + b) + (c + d), lanes)


@kernel
def _collect(
    sums: F32, gw: F32, gb: F32, scratch: F32, parts: INT, levels: INT, C: INT, O: INT, KH: INT,
    KW: INT, sw: INT, group: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gw (O, C, KH, KW) and gb (O,) from all parts' sums; items: blocks of channels."""
    run, outputs = (KW + (group - 1) * sw) * C, group * O
    size = levels * (KH * run + 1) * outputs
    window = KH * KW
    block = offset(scratch, part * _CHANNELS * window * LANES)
    for o in range(0, O, LANES):
        lanes = min(O - o, LANES)
        for item in range(begin, end):
            first = item * _CHANNELS
            channels = min(C - first, _CHANNELS)
            for c in range(channels):
                for u in range(KH):
                    for v in range(KW):
                        at = (u * run + v * C + first + c) * outputs + o
                        total = _sum(sums, at, parts, size, group, sw * C * outputs + O, lanes)
                        store(block, ((c * KH + u) * KW + v) * LANES, total)
            for l in range(lanes):
                to = offset(gw, ((o + l) * C + first) * window)
                for k in range(channels * window):
                    to[k] = block[k * LANES + l]
        if begin == 0:
            at = KH * run * outputs + o
            store_first(gb, o, _sum(sums, at, parts, size, group, O, lanes), lanes)


@jit
def _sum(sums, at, parts, size, group, step, lanes):
    """The sum of the vectors sums[at + part * size + pixel * step]."""
    total = load_first(sums, at, lanes)
    for k in range(1, parts * group):
        total = total + load_first(sums, at + k // group * size + k % group * step, lanes)
    return total


def _input_gradient(gy, w, shape, N, sizes):
    """gx (N, C, H, W) from gy (N, OH, OW, O)."""
    C, O, KH, KW = sizes.C, sizes.O, sizes.KH, sizes.KW
    run = KW * C
    width = min(PANEL, run)
    turned = empty((KH, -(-run // PANEL), O, width))
    launch(
        _turn, contiguous(w), turned, C, O, KH, KW,
        items=O, parts=parts_for(O, turned.size * 2),
    )  # fmt: skip
    if sizes.pointwise:  # a product again, with the weights transposed
        finish = Finish.of(w[0], None)
        opposite = sizes._replace(H=shape[2], OH=shape[2], C=O, O=C)
        return _convolved(gy, turned, finish, opposite, group=1)
    gx = empty((shape[0], shape[2], shape[3], C))
    items = N * sizes.H
    parts = parts_for(items, sizes.nanoseconds(N * sizes.OH * sizes.OW))
    rows = rows_of_strip(sizes.W * C + sizes.OW * O // sizes.sh, sizes.H)
    block = _PIXELS * max(1, min(_STRIP // (_PIXELS * run), -(-rows * sizes.OW // _PIXELS)))
    size = PANEL + block * run
    launch(
        _spread, gy, turned, gx, empty((parts, size)), *sizes,
        rows, block, size, items=items, parts=parts,
    )  # fmt: skip
    return as_images(gx)


@kernel
def _turn(w: F32, turned: F32, C: INT, O: INT, KH: INT, KW: INT, part: INT, begin: INT, end: INT):
    """turned (KH, panels, O, width): w with its windows' runs (KW, C) last; items are outputs."""
    run = KW * C
    width = min(PANEL, run)
    for o in range(begin, end):
        for u in range(KH):
            for v in range(KW):
                source = offset(w, (o * C * KH + u) * KW + v)
                c = 0
                while c < C:  # as many as go into one panel
                    panel, at = (v * C + c) // PANEL, (v * C + c) % PANEL
                    count = min(C - c, PANEL - at)
                    row = (u * ((run + PANEL - 1) // PANEL) + panel) * O + o
                    for k in range(count):
                        turned[row * width + at + k] = source[(c + k) * KH * KW]
                    c += count


@kernel
def _spread(
    gy: F32, w: F32, gx: F32, scratch: F32, H: INT, W: INT, C: INT, O: INT,
    KH: INT, KW: INT, OH: INT, OW: INT, sh: INT, sw: INT, ph: INT, pw: INT, dh: INT, dw: INT,
    wide: INT, strip: INT, block: INT, size: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gx (N, H, W, C) from gy (N, OH, OW, O), `block` pixels of gy at a time; items: rows of gx.

    A strip of gx takes from every row of gy what belongs to it: no two write to the same row.
    """
    run = KW * C
    width, panels = min(PANEL, run), (run + PANEL - 1) // PANEL
    taps = KW if dw == 1 else 1  # of a run that are in one piece in the image
    zeros = offset(scratch, part * size)
    runs = offset(zeros, PANEL)
    for k in range(PANEL):
        zeros[k] = 0
    first = begin
    while first < end:
        n, top = first // H, first % H
        rows = min(strip, H - top, end - first)
        image, gradient = offset(gx, n * H * W * C), offset(gy, n * OH * OW * O)
        for k in range(top * W * C, (top + rows) * W * C):
            image[k] = 0
        for u in range(KH):
            # Row i of gy adds to row i sh + shift of gx.
            shift = u * dh - ph
            pixel = max(0, -((shift - top) // sh)) * OW
            stop = min(OH, (top + rows - 1 - shift) // sh + 1) * OW
            while pixel < stop:
                count = min(block, stop - pixel)
                for p in range(panels):
                    multiply(
                        offset(gradient, pixel * O), O, 0, 1,
                        offset(w, (u * panels + p) * O * width), 0, width, zeros, 0,
                        offset(runs, p * PANEL), run, 1, O, count, min(PANEL, run - p * PANEL),
                    )  # fmt: skip
                first_i, last_i = pixel // OW, (pixel + count - 1) // OW
                for piece in range(0, KW, taps):
                    # Column by column: neighbours in a row add to the same numbers, and would wait.
                    for j in range(OW):
                        l = j * sw - pw + piece * dw
                        skip = max(0, -l)
                        length = (min(taps, W - l) - skip) * C
                        for i in range(first_i, last_i + 1):
                            k = i * OW + j - pixel
                            if 0 <= k < count:
                                to = ((i * sh + shift) * W + l + skip) * C
                                source = offset(runs, k * run + (piece + skip) * C)
                                _add(offset(image, to), source, length)
                pixel += count
        first += rows


@jit
def _add(y, x, count):
    """y[:count] += x[:count]"""
    k = 0
    while k + LANES <= count:
        store(y, k, load(y, k) + load(x, k))
        k += LANES
    if k < count:
        lanes = count - k
        store_first(y, k, load_first(y, k, lanes) + load_first(x, k, lanes), lanes)

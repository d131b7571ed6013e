"""Pooling over channels-last images: every result is written once, whole vectors of channels.

Max pooling forward also normalises and rectifies what it compares, as that costs next to nothing
beside reading x: norm.py uses it for the chain norm + ReLU + pool, without a pool too (windows of
one pixel). Backward, each pixel of gx collects what its windows send it, so that no two threads
write to the same place and a border needs no padded copy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tinyconv.kernels.cpu import when
from tinyconv.kernels.cpu.activation import limits
from tinyconv.kernels.cpu.choose import (
    load_lanes,
    store_lanes,
    stream_lanes,
    where_equal,
    where_greater,
    where_inside,
)
from tinyconv.kernels.cpu.jit import F32, I64, INT, U8, kernel
from tinyconv.kernels.cpu.launch import empty, launch, launch_python, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last
from tinyconv.kernels.cpu.simd import LANES, broadcast, multiply_add
from tinyconv.kernels.fused import ReLUPool
from tinyconv.op import register
from tinyconv.ops.activation import ReLU
from tinyconv.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyconv.ops.window import Window

# Nanoseconds for each number of x on one thread, about what memory takes.
_FORWARD_COST, _BACKWARD_COST = 0.3, 0.5

_PIXEL = Window((1, 1))


def past_cache(x):
    """Whether a result is so large that it is best written past the cache."""
    return x.nbytes >= 2**25


# Max pooling --------------------------------------------------------------------------------------


@kernel
def _best_in_windows(
    y: F32, winner: U8, x: F32, mean: F32, scale: F32, bias: F32, limits: F32,
    rows: I64, columns: I64, counts: I64, offsets: I64, positions: F32, kinds: INT, K: INT,
    C: INT, H: INT, W: INT, OH: INT, OW: INT,
    relu_first: INT, pooled: INT, past_cache: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """See best_in_windows and, for the tables, _windows; items are the rows of y."""
    low = broadcast(np.float32(0 if relu_first else -np.inf))
    # Starting from 0 is ReLU: what is not above 0 leaves the first pixel the winner.
    start, high = broadcast(limits[0]), broadcast(limits[1])
    nan = broadcast(np.float32(np.nan))  # a limit that nothing reaches
    for row in range(begin, end):
        n, i = row // OH, row % OH
        for j in range(OW):
            kind = rows[2 * i + 1] * kinds + columns[2 * j + 1]
            first, last = kind * K, kind * K + counts[kind]
            at = ((n * H + rows[2 * i]) * W + columns[2 * j]) * C
            to = (row * OW + j) * C
            for c in range(0, C, LANES):
                lanes = min(C - c, LANES)
                m, s = load_lanes(mean, c, lanes), load_lanes(scale, c, lanes)
                b = load_lanes(bias, c, lanes)
                best, position = start, broadcast(positions[first])
                for k in range(first, last):
                    value = load_lanes(x, at + offsets[k] + c, lanes)
                    value = multiply_add(where_greater(value, low, value, low) - m, s, b)
                    position = where_greater(value, best, broadcast(positions[k]), position)
                    best = where_greater(value, best, value, best)
                if not pooled:
                    best = where_inside(best, nan, high, best, high)
                stream_lanes(y, to + c, best, lanes, past_cache)
                if pooled:
                    store_lanes(winner, to + c, position, lanes)


def best_in_windows(x, window, vectors, relu_first=False, relu_last=None):
    """y (N, OH, OW, C) and winner of max pooling (max(x, 0) - mean) * scale + bias, memory both.

    x (N, H, W, C); vectors: mean, scale, bias (C,). relu_first: with the max(x, 0) above, else x
    itself; relu_last: a ReLU or (without a window) ReLU6 that y goes through. Without a window
    (None) every pixel stays, and winner is None.
    """
    N, H, W, C = x.shape
    pooled = window is not None
    rows, columns, counts, offsets, positions = _windows(window or _PIXEL, H, W, C)
    y = empty((N, len(rows), len(columns), C))
    winner = empty(y.shape, np.uint8) if pooled else None
    launch(
        _best_in_windows,
        y, winner if pooled else np.empty(1, np.uint8), x, *vectors, limits(relu_last),
        rows, columns, counts, offsets, positions, *offsets.shape[1:], C, H, W, *y.shape[1:3],
        relu_first, pooled, past_cache(y),
        items=N * len(rows), parts=parts_for(N * len(rows), x.size * _FORWARD_COST),
    )  # fmt: skip
    return y, winner


@lru_cache
def _windows(window, H, W, C):
    """Which pixels the windows on an image meet: a list for each kind of window.

    Windows that lose the same kernel rows and columns to the border are of one kind.
    -> rows (OH, 2): the image row of kernel row 0, and the kind; columns (OW, 2) alike;
    counts (row kinds, column kinds): pixels inside the image; offsets (.., KH * KW): where they lie
    in memory behind the window's pixel 0; positions (.., KH * KW): their u * KW + v.
    """
    (KH, KW), (DH, DW) = window.kernel, window.dilation
    u, v = np.divmod(np.arange(KH * KW), KW)
    OH, OW = window.output_size(H, W)
    rows, rows_met = _along(window, 0, H, OH, u)
    columns, columns_met = _along(window, 1, W, OW, v)
    met = rows_met[:, None] & columns_met
    positions = np.argsort(~met, axis=-1, kind="stable")  # those inside first
    offsets = (u * DH * W + v * DW) * C
    return rows, columns, met.sum(-1), offsets[positions], positions.astype(np.float32)


def _along(window, axis, n, size, u):
    """Start and kind of the windows along an axis; for each kind, which of positions u it meets."""
    start = np.arange(size) * window.stride[axis] - window.padding[axis]
    pixels = start[:, None] + u * window.dilation[axis]
    met, kind = np.unique((pixels >= 0) & (pixels < n), axis=0, return_inverse=True)
    return np.stack([start, kind.reshape(-1)], axis=1), met


@kernel
def _collect_maxima(
    gx: F32, gy: F32, y: F32, winner: U8, rows: I64, columns: I64,
    C: INT, H: INT, W: INT, OH: INT, OW: INT, KH: INT, KW: INT, rectified: INT, past_cache: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gx = the sum of gy over the windows that a pixel has won; items are the rows of gx.

    rows (H, KH): the window whose kernel row u lies on row h, or -1; columns (W, KW) alike.
    """
    zero = broadcast(np.float32(0))
    for row in range(begin, end):
        n, h = row // H, row % H
        for w in range(W):
            for c in range(0, C, LANES):
                lanes = min(C - c, LANES)
                total = zero
                for u in range(KH):
                    i = rows[h * KH + u]
                    if i < 0:
                        continue
                    for v in range(KW):
                        j = columns[w * KW + v]
                        if j < 0:
                            continue
                        at = ((n * OH + i) * OW + j) * C + c
                        g = load_lanes(gy, at, lanes)
                        if rectified:
                            g = where_greater(load_lanes(y, at, lanes), zero, g, zero)
                        here = broadcast(np.float32(u * KW + v))
                        g = where_equal(load_lanes(winner, at, lanes), here, g, zero)
                        total = total + g
                stream_lanes(gx, (row * W + w) * C + c, total, lanes, past_cache)


@kernel
def _spread_maxima(
    gx: F32, gy: F32, y: F32, winner: U8, C: INT, H: INT, W: INT, OH: INT, OW: INT,
    KH: INT, KW: INT, rectified: INT, past_cache: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """As _collect_maxima for windows side by side; items are the rows of windows of each image.

    What no window meets at the lower and right edge is set to 0 with the last ones.
    """
    zero = broadcast(np.float32(0))
    for row in range(begin, end):
        n, i = row // OH, row % OH
        top = (n * H + i * KH) * W * C
        for j in range(OW):
            at, to = (row * OW + j) * C, top + j * KW * C
            for c in range(0, C, LANES):
                lanes = min(C - c, LANES)
                g, won = load_lanes(gy, at + c, lanes), load_lanes(winner, at + c, lanes)
                if rectified:
                    g = where_greater(load_lanes(y, at + c, lanes), zero, g, zero)
                for u in range(KH):
                    for v in range(KW):
                        here = broadcast(np.float32(u * KW + v))
                        share = where_equal(won, here, g, zero)
                        stream_lanes(gx, to + (u * W + v) * C + c, share, lanes, past_cache)
        for u in range(KH):
            for k in range(OW * KW * C, W * C):
                gx[top + u * W * C + k] = 0
        if i == OH - 1:
            for k in range(KH * W * C, (H - i * KH) * W * C):
                gx[top + k] = 0


def side_by_side(window):
    """Whether windows neither overlap nor leave gaps between them, and all lie inside the image."""
    tiles = window.stride == window.kernel and window.dilation == (1, 1)
    return tiles and window.padding == (0, 0) and not window.ceil_mode


def _collect(gy, y, winner, shape, window):
    """gx (N, C, H, W) of max pooling; y is None where it was not rectified."""
    N, C, H, W = shape
    OH, OW = gy.shape[2:]
    (KH, KW), gy, rectified = window.kernel, channels_last(gy), y is not None
    gx = empty((N, H, W, C))
    if side_by_side(window):
        launch(
            _spread_maxima,
            gx, gy, channels_last(y) if rectified else gy, bytes_channels_last(winner),
            C, H, W, OH, OW, KH, KW, rectified, past_cache(gx),
            items=N * OH, parts=parts_for(N * OH, gx.size * _BACKWARD_COST),
        )  # fmt: skip
        return as_images(gx)
    launch(
        _collect_maxima,
        gx, gy, channels_last(y) if rectified else gy, bytes_channels_last(winner),
        _windows_over(window, 0, H, OH), _windows_over(window, 1, W, OW),
        C, H, W, OH, OW, KH, KW, rectified, past_cache(gx),
        items=N * H, parts=parts_for(N * H, gx.size * _BACKWARD_COST),
    )  # fmt: skip
    return as_images(gx)


@lru_cache
def _windows_over(window, axis, n, size):
    """(n, k): the window whose kernel position u lies on pixel h along an axis, -1 for none."""
    k, s, p, d = (
        field[axis] for field in (window.kernel, window.stride, window.padding, window.dilation)
    )
    start = np.arange(n)[:, None] + p - d * np.arange(k)
    i = start // s
    return np.where((start % s == 0) & (i >= 0) & (i < size), i, -1)


def bytes_channels_last(winner):
    """As channels_last for uint8. Kernels make winners like that, the reference does not."""
    view = winner.transpose(0, 2, 3, 1)
    if view.flags.c_contiguous:
        return view
    memory = empty(view.shape, np.uint8)
    launch_python(np.copyto, memory, view)
    return memory


def pools(window):
    """Whether the kernels know such windows: a byte holds the winner, each meets the image."""
    (KH, KW), padding = window.kernel, window.padding
    inside = padding == (0, 0) or window.dilation == (1, 1)
    return KH * KW <= 256 and inside and 2 * padding[0] <= KH and 2 * padding[1] <= KW


def _pools_images(op, xp, x):
    return when.float32(xp, x) and x.ndim == 4 and pools(op.window)


def _pools_gradient(op, xp, gy, saved, needs):
    winner, _ = saved
    return when.float32(xp, gy) and pools(op.window) and winner.dtype == np.uint8


@register(MaxPool2d, "forward", _pools_images)
def max_pool(op, xp, x):
    """One pass over x that writes y and winner."""
    C = x.shape[1]
    y, winner = best_in_windows(channels_last(x), op.window, _identity(C))
    return as_images(y), (as_images(winner), x.shape)


@register(MaxPool2d, "backward", _pools_gradient)
def max_pool_gradient(op, xp, gy, saved, needs):
    """One pass over gx."""
    winner, shape = saved
    return (_collect(gy, None, winner, shape, op.window),)


def _pools_rectified(op, xp, x):
    return _pools_images(op.pool, xp, x)


def _pools_rectified_gradient(op, xp, gy, saved, needs):
    y, winner, shape = saved
    return when.float32(xp, y) and _pools_gradient(op.pool, xp, gy, (winner, shape), needs)


@register(ReLUPool, "forward", _pools_rectified)
def fused_relu_pool(op, xp, x):
    """As max_pool: ReLU is where the comparison starts from."""
    C = x.shape[1]
    y, winner = best_in_windows(channels_last(x), op.pool.window, _identity(C), relu_last=ReLU())
    y, winner = as_images(y), as_images(winner)
    return y, (y, winner, x.shape)


@register(ReLUPool, "backward", _pools_rectified_gradient)
def fused_relu_pool_gradient(op, xp, gy, saved, needs):
    """One pass over gx, with nothing where y is 0."""
    y, winner, shape = saved
    return (_collect(gy, y, winner, shape, op.pool.window),)


def _identity(C):
    """mean, scale and bias that leave values as they are."""
    return np.zeros(C, np.float32), np.ones(C, np.float32), np.zeros(C, np.float32)


# Average pooling ----------------------------------------------------------------------------------


@kernel
def _average(
    y: F32, x: F32, rows: I64, columns: I64, row_share: F32, column_share: F32,
    C: INT, H: INT, W: INT, OH: INT, OW: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """y = sum of x over rows[i] and columns[j] * row_share[i] * column_share[j].

    rows (OH, 2), columns (OW, 2): the first pixel and one past the last. Items are the rows of y.
    """
    for row in range(begin, end):
        n, i = row // OH, row % OH
        for j in range(OW):
            share = broadcast(row_share[i] * column_share[j])
            for c in range(0, C, LANES):
                lanes = min(C - c, LANES)
                total = broadcast(np.float32(0))
                for h in range(rows[2 * i], rows[2 * i + 1]):
                    line = broadcast(np.float32(0))  # fewer numbers in a row to lose digits in
                    for w in range(columns[2 * j], columns[2 * j + 1]):
                        line = line + load_lanes(x, ((n * H + h) * W + w) * C + c, lanes)
                    total = total + line
                store_lanes(y, (row * OW + j) * C + c, total * share, lanes)


@kernel
def _share_out(
    gx: F32, gy: F32, rows: I64, columns: I64, row_share: F32, column_share: F32,
    C: INT, H: INT, W: INT, OH: INT, OW: INT, past_cache: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gx = sum of gy over windows rows[h] and columns[w], each times its row and column share.

    rows (H, 2), columns (W, 2): the first window and one past the last. Items are the rows of gx.
    """
    for row in range(begin, end):
        n, h = row // H, row % H
        for w in range(W):
            for c in range(0, C, LANES):
                lanes = min(C - c, LANES)
                total = broadcast(np.float32(0))
                for i in range(rows[2 * h], rows[2 * h + 1]):
                    for j in range(columns[2 * w], columns[2 * w + 1]):
                        g = load_lanes(gy, ((n * OH + i) * OW + j) * C + c, lanes)
                        total = multiply_add(g, broadcast(row_share[i] * column_share[j]), total)
                stream_lanes(gx, (row * W + w) * C + c, total, lanes, past_cache)


def _averages(x, rows, columns):
    """y (N, C, OH, OW): the means of x over regions; rows and columns are (spans, shares)."""
    x = channels_last(x)
    N, H, W, C = x.shape
    OH, OW = len(rows[0]), len(columns[0])
    y = empty((N, OH, OW, C))
    launch(
        _average, y, x, rows[0], columns[0], rows[1], columns[1], C, H, W, OH, OW,
        items=N * OH, parts=parts_for(N * OH, x.size * _FORWARD_COST),
    )  # fmt: skip
    return as_images(y)


def _averages_gradient(gy, shape, rows, columns):
    """gx of _averages for x of this shape (N, C, H, W)."""
    N, C, H, W = shape
    OH, OW = gy.shape[2:]
    gx = empty((N, H, W, C))
    launch(
        _share_out, gx, channels_last(gy), _spans_over(rows[0], H), _spans_over(columns[0], W),
        rows[1], columns[1], C, H, W, OH, OW, past_cache(gx),
        items=N * H, parts=parts_for(N * H, gx.size * _BACKWARD_COST),
    )  # fmt: skip
    return as_images(gx)


def _spans_over(spans, n):
    """For each of n pixels: the first span over it, one past the last. Spans move on, both ends."""
    pixels = np.arange(n)
    first = np.searchsorted(spans[:, 1], pixels, side="right")
    return np.stack([first, np.searchsorted(spans[:, 0], pixels, side="right")], axis=1)


@lru_cache
def _window_spans(op, shape):
    """Rows and columns of AvgPool2d's windows on images of a shape, as _averages takes them."""
    window, axes = op.window, []
    for axis, (n, size) in enumerate(zip(shape, window.output_size(*shape), strict=True)):
        p = window.padding[axis]
        start = np.arange(size) * window.stride[axis] - p
        end = np.minimum(start + window.kernel[axis], n + p)
        spans = np.stack([np.maximum(start, 0), np.minimum(end, n)], axis=1)
        pixels = end - start if op.count_include_pad else spans[:, 1] - spans[:, 0]
        if op.divisor_override is not None:
            pixels = np.full(size, op.divisor_override if axis == 0 else 1)
        axes.append((spans, (1 / pixels).astype(np.float32)))
    return axes


@lru_cache
def _grid_spans(op, shape):
    """Rows and columns of AdaptiveAvgPool2d's regions, alike."""
    axes = []
    for n, size in zip(shape, op.output_size, strict=True):
        i = np.arange(size)
        spans = np.stack([i * n // size, -(-(i + 1) * n // size)], axis=1)
        axes.append((spans, (1 / (spans[:, 1] - spans[:, 0])).astype(np.float32)))
    return axes


def _averages_windows(op, xp, x):
    window = op.window
    fits = all(2 * p <= k for p, k in zip(window.padding, window.kernel, strict=True))
    return when.float32(xp, x) and x.ndim == 4 and window.dilation == (1, 1) and fits


def _averages_windows_gradient(op, xp, gy, saved, needs):
    return _averages_windows(op, xp, gy)


def _averages_grid(op, xp, x):
    return when.float32(xp, x) and x.ndim == 4


def _averages_grid_gradient(op, xp, gy, saved, needs):
    return _averages_grid(op, xp, gy)


@register(AvgPool2d, "forward", _averages_windows)
def avg_pool(op, xp, x):
    """One pass over y, which adds up its windows."""
    return _averages(x, *_window_spans(op, x.shape[2:])), (x.shape,)


@register(AvgPool2d, "backward", _averages_windows_gradient)
def avg_pool_gradient(op, xp, gy, saved, needs):
    """One pass over gx, which adds up its shares."""
    return (_averages_gradient(gy, saved[0], *_window_spans(op, saved[0][2:])),)


@register(AdaptiveAvgPool2d, "forward", _averages_grid)
def adaptive_avg_pool(op, xp, x):
    """As avg_pool: regions are windows of many sizes."""
    return _averages(x, *_grid_spans(op, x.shape[2:])), (x.shape,)


@register(AdaptiveAvgPool2d, "backward", _averages_grid_gradient)
def adaptive_avg_pool_gradient(op, xp, gy, saved, needs):
    """As avg_pool_gradient."""
    return (_averages_gradient(gy, saved[0], *_grid_spans(op, saved[0][2:])),)

"""Batch norm, alone or with the ReLU and the max pool beside it, in as few passes as there can be.

In training forward reads x twice: for the statistics of the channels, and to normalise, rectify
and pool it at once, so that only the pooled map and one byte for each of its pixels are written.
Backward reads x twice as well: for the sums that the gradients need, and to write gx; what arrives
at a pixel of x through pool and ReLU is worked out on the way. Memory is what such ops wait for,
and a pass for each of them would move it several times as often.

Arrays (N, C) are images of one pixel. Images of few channels are seen as fewer and wider pixels,
`fold` of a row as one, so that the loops over channels are long enough for whole vectors.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu import when
from tinyconv.kernels.cpu.activation import limits_of_gradient
from tinyconv.kernels.cpu.choose import (
    load_lanes,
    store_lanes,
    stream_lanes,
    where_equal,
    where_greater,
    where_inside,
)
from tinyconv.kernels.cpu.jit import F32, F64, I64, INT, U8, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last, contiguous
from tinyconv.kernels.cpu.pool import (
    best_in_windows,
    bytes_channels_last,
    past_cache,
    pools,
    side_by_side,
)
from tinyconv.kernels.cpu.simd import LANES, broadcast, multiply_add, offset
from tinyconv.kernels.fused import NormReLUPool
from tinyconv.op import register
from tinyconv.ops.activation import ReLU, ReLU6
from tinyconv.ops.norm import BatchNorm

# Nanoseconds for each number of x on one thread, about what memory takes.
_READ_COST, _WRITE_COST = 0.25, 0.5

# Numbers in a wide pixel at most.
_WIDE = 256

# Sums in float32 are added to those in float64 after so many pixels, before they lose digits.
_BLOCK = 128

# Pixels that the shift of a channel is the mean of.
_SAMPLES = 256


def _fold(W, C):
    """How many pixels of a row to take as one."""
    return max((k for k in range(1, _WIDE // C + 1) if W % k == 0), default=1)


@jit
def _add_block(sums, block, count):
    """sums += block, which becomes zero; `count` numbers."""
    for c in range(count):
        sums[c] += block[c]
        block[c] = 0


# Forward ------------------------------------------------------------------------------------------


@kernel
def _moments(
    sums: F64, scratch: F32, x: F32, C: INT, fold: INT, P: INT, relu_first: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """Sums of d and of d * d for each channel, d = x - shift; x (P, fold * C), items are its rows.

    sums (parts, 2, fold * C), scratch (parts, 3, fold * C): the third row is the shift, near the
    mean and the same in all parts. Without it the digits of a small variance beside a large mean
    would be lost.
    """
    width = C * fold
    low = broadcast(np.float32(0 if relu_first else -np.inf))
    sums, block = offset(sums, part * 2 * width), offset(scratch, part * 3 * width)
    squares, shift = offset(block, width), offset(block, 2 * width)
    for c in range(2 * width):
        sums[c] = 0
        block[c] = 0

    samples = min(P, _SAMPLES)
    for k in range(samples):
        at = k * P // samples * width
        for c in range(0, width, LANES):
            lanes = min(width - c, LANES)
            value = load_lanes(x, at + c, lanes)
            value = where_greater(value, low, value, low) + load_lanes(block, c, lanes)
            store_lanes(block, c, value, lanes)
    for c in range(C):
        mean = np.float32(0)
        for k in range(fold):
            mean += block[k * C + c]
            block[k * C + c] = 0
        mean /= np.float32(samples * fold)
        for k in range(fold):  # infinity minus infinity would hide an infinite mean
            shift[k * C + c] = mean if abs(mean) < np.inf else np.float32(0)

    for first in range(begin, end, _BLOCK):
        for p in range(first, min(first + _BLOCK, end)):
            for c in range(0, width, LANES):
                lanes = min(width - c, LANES)
                value = load_lanes(x, p * width + c, lanes)
                d = where_greater(value, low, value, low) - load_lanes(shift, c, lanes)
                store_lanes(block, c, load_lanes(block, c, lanes) + d, lanes)
                square = multiply_add(d, d, load_lanes(squares, c, lanes))
                store_lanes(squares, c, square, lanes)
        _add_block(sums, block, 2 * width)


@kernel
def _statistics(
    mean: F32, inverse_std: F32, scale: F32, running_mean: F32, running_var: F32, weight: F32,
    settings: F64, sums: F64, scratch: F32, C: INT, fold: INT, n: INT, parts: INT, running: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """mean, 1 / std and weight / std of the batch, and the running statistics moved.

    From what _moments has summed up; without that (parts = 0) the running statistics are taken.
    settings: momentum, eps. Items are the channels, all of them.
    """
    momentum, eps = settings[0], settings[1]
    width = C * fold
    for c in range(begin, end):
        if parts:
            total = square = 0.0
            for k in range(parts):
                for at in range(k * 2 * width + c, (k * 2 + 1) * width, C):
                    total += sums[at]
                    square += sums[at + width]
            d = total / n
            m, var = scratch[2 * width + c] + d, square / n - d * d
            if var < 0:  # by rounding
                var = 0.0
            if running:
                running_mean[c] += momentum * (m - running_mean[c])
                running_var[c] += momentum * (var * (n / (n - 1)) - running_var[c])
        else:
            m, var = np.float64(running_mean[c]), np.float64(running_var[c])
        mean[c] = m
        inverse_std[c] = 1 / np.sqrt(var + eps)
        scale[c] = inverse_std[c] * weight[c]


@kernel
def _repeat(wide: F32, x: F32, C: INT, part: INT, begin: INT, end: INT):
    """wide (rows, C) = x (C,) in each row; items are the rows."""
    for row in range(begin, end):
        for c in range(C):
            wide[row * C + c] = x[c]


def _repeated(x, times):
    if times == 1:
        return x
    wide = empty((times, x.size))
    launch(_repeat, wide, x, x.size, items=times)
    return wide.reshape(-1)


def _normalise(
    norm, x, weight, bias, running_mean, running_var, window=None, relu_first=False, relu_last=None
):
    """y, mean, inverse_std, winner for x as memory (N, H, W, C); y and winner are memory too."""
    N, H, W, C = x.shape
    weight = np.ones(C, np.float32) if weight is None else contiguous(weight)
    bias = np.zeros(C, np.float32) if bias is None else contiguous(bias)
    fold, parts = _fold(W, C), 0
    sums, scratch = np.zeros(1), np.zeros(1, np.float32)
    if norm.training:
        P = N * H * W // fold
        parts = parts_for(P, x.size * _READ_COST)
        sums, scratch = empty((parts, 2, fold * C), np.float64), empty((parts, 3, fold * C))
        launch(_moments, sums, scratch, x, C, fold, P, relu_first, items=P, parts=parts)
    mean, inverse_std, scale = empty((C,)), empty((C,)), empty((C,))
    running = running_mean is not None
    launch(
        _statistics,
        mean, inverse_std, scale, running_mean if running else mean,
        running_var if running else mean, weight, np.array([norm.momentum, norm.eps]),
        sums, scratch, C, fold, N * H * W, parts, running,
        items=C,
    )  # fmt: skip
    if window is not None:
        fold = 1
    y, winner = best_in_windows(
        x.reshape(N, H, W // fold, fold * C), window,
        [_repeated(vector, fold) for vector in (mean, scale, bias)], relu_first, relu_last,
    )  # fmt: skip
    return y if fold == 1 else y.reshape(x.shape), mean, inverse_std, winner


# Backward -----------------------------------------------------------------------------------------


@kernel
def _gradient_sums(
    sums: F64, scratch: F32, gy: F32, y: F32, winner: U8, x: F32, mean: F32, offsets: I64,
    C: INT, H: INT, W: INT, OH: INT, OW: INT, KH: INT, KW: INT,
    relu_first: INT, relu_last: INT, pooled: INT, limits: F32,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """Sums over the map of the gradient g behind the norm, and of g * (x - mean).

    sums (parts, 2, C), scratch (parts, 2, C); offsets (KH * KW,): where a window's pixels lie in
    memory. Items are the rows of gy: where no gradient arrives there is nothing to add, so the loop
    is over the pixels of gy and looks up the winners.
    """
    zero, high = broadcast(np.float32(0)), broadcast(limits[1])
    low = broadcast(np.float32(0 if relu_first else -np.inf))
    sums, block = offset(sums, part * 2 * C), offset(scratch, part * 2 * C)
    for c in range(2 * C):
        sums[c] = 0
        block[c] = 0
    products, pixels = offset(block, C), 0
    for row in range(begin, end):
        line = (row // OH * H + row % OH * KH) * W
        for j in range(OW):
            at = (row * OW + j) * C
            for c in range(0, C, LANES):
                lanes = min(C - c, LANES)
                pixel = (line + j * KW) * C + c
                value = load_lanes(x, pixel, lanes)
                if pooled:
                    position = load_lanes(winner, at + c, lanes)
                    for k in range(KH * KW):
                        candidate = load_lanes(x, pixel + offsets[k], lanes)
                        value = where_equal(position, broadcast(np.float32(k)), candidate, value)
                d = where_greater(value, low, value, low) - load_lanes(mean, c, lanes)
                g = load_lanes(gy, at + c, lanes)
                if relu_last:
                    g = where_inside(load_lanes(y, at + c, lanes), zero, high, g, zero)
                product = multiply_add(g, d, load_lanes(products, c, lanes))
                store_lanes(products, c, product, lanes)
                store_lanes(block, c, load_lanes(block, c, lanes) + g, lanes)
        pixels += OW
        if pixels >= _BLOCK or row == end - 1:
            _add_block(sums, block, 2 * C)
            pixels = 0


@kernel
def _coefficients(
    gweight: F32, gbias: F32, coefficients: F32, sums: F64, weight: F32, inverse_std: F32,
    C: INT, fold: INT, n: INT, parts: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gweight, gbias, and s, a, b of gx = s * g - a - b * (x - mean), each (fold, C) in a row.

    Items are the channels, all of them.
    """
    width = C * fold
    for c in range(begin, end):
        total = product = 0.0
        for k in range(parts):
            for at in range(k * 2 * width + c, (k * 2 + 1) * width, C):
                total += sums[at]
                product += sums[at + width]
        product *= inverse_std[c]
        gweight[c], gbias[c] = product, total
        scale = inverse_std[c] * weight[c]
        for k in range(fold):
            at = k * C + c
            coefficients[at] = scale
            coefficients[at + width] = scale * total / n
            coefficients[at + 2 * width] = scale * inverse_std[c] * product / n


@kernel
def _gradient(
    gx: F32, gy: F32, y: F32, winner: U8, x: F32, mean: F32, coefficients: F32,
    C: INT, H: INT, W: INT, OH: INT, OW: INT, KH: INT, KW: INT,
    training: INT, relu_first: INT, relu_last: INT, pooled: INT, limits: F32, past_cache: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gx = s * g - a - b * (x - mean), in evaluation s * g; items are the rows of gx.

    g is what arrives from y: gy at the winners where ReLU let them through, else 0.
    """
    zero, high = broadcast(np.float32(0)), broadcast(limits[1])
    low = broadcast(np.float32(0 if relu_first else -np.inf))
    for row in range(begin, end):
        i, u = row % H // KH, row % H % KH
        windows = OW if i < OH else 0
        j = v = 0
        for w in range(W):
            here = broadcast(np.float32(u * KW + v))
            at, to = ((row // H * OH + i) * OW + j) * C, (row * W + w) * C
            for c in range(0, C, LANES):
                lanes = min(C - c, LANES)
                g = zero
                if j < windows:
                    g = load_lanes(gy, at + c, lanes)
                    if relu_last:
                        g = where_inside(load_lanes(y, at + c, lanes), zero, high, g, zero)
                    if pooled:
                        g = where_equal(load_lanes(winner, at + c, lanes), here, g, zero)
                g = g * load_lanes(coefficients, c, lanes)
                if training or relu_first:
                    value = load_lanes(x, to + c, lanes)
                    if training:
                        d = where_greater(value, low, value, low) - load_lanes(mean, c, lanes)
                        g = g - load_lanes(coefficients, C + c, lanes)
                        g = g - d * load_lanes(coefficients, 2 * C + c, lanes)
                    if relu_first:
                        g = where_greater(value, zero, g, zero)
                stream_lanes(gx, to + c, g, lanes, past_cache)
            v += 1
            if v == KW:
                j, v = j + 1, 0


def _normalise_gradient(
    norm, gy, x, weight, mean, inverse_std, needs,
    y=None, winner=None, window=None, relu_first=False, relu_last=None,
):  # fmt: skip
    """gx, gweight, gbias; gy, x, y, winner are memory, y counts where there is a relu_last."""
    N, H, W, C = x.shape
    pooled, rectified = winner is not None, relu_last is not None
    limits = limits_of_gradient(relu_last or ReLU())
    weight = np.ones(C, np.float32) if weight is None else contiguous(weight)
    mean, inverse_std = contiguous(mean), contiguous(inverse_std)
    fold, (KH, KW) = (1, window.kernel) if pooled else (_fold(W, C), (1, 1))
    OH, OW, W, width = gy.shape[1], gy.shape[2] // fold, W // fold, C * fold
    wide_mean = _repeated(mean, fold)
    y, winner = y if rectified else gy, winner if pooled else np.empty(1, np.uint8)
    sizes = width, H, W, OH, OW, KH, KW

    parts, sums = 0, np.zeros(1)
    if norm.training or needs[1] or needs[2]:
        parts = parts_for(N * OH, x.size * _READ_COST)
        sums, scratch = empty((parts, 2, width), np.float64), empty((parts, 2, width))
        offsets = np.add.outer(np.arange(KH) * W, np.arange(KW)) * width
        launch(
            _gradient_sums, sums, scratch, gy, y, winner, x, wide_mean, offsets, *sizes,
            relu_first, rectified, pooled, limits, items=N * OH, parts=parts,
        )  # fmt: skip
    gweight, gbias, coefficients = empty((C,)), empty((C,)), empty((3, width))
    launch(
        _coefficients, gweight, gbias, coefficients, sums, weight, inverse_std,
        C, fold, x.size // C, parts, items=C,
    )  # fmt: skip
    gx = None
    if needs[0]:
        gx = empty(x.shape)
        launch(
            _gradient, gx, gy, y, winner, x, wide_mean, coefficients, *sizes,
            norm.training, relu_first, rectified, pooled, limits, past_cache(gx),
            items=N * H, parts=parts_for(N * H, x.size * _WRITE_COST),
        )  # fmt: skip
    return gx, gweight if needs[1] else None, gbias if needs[2] else None


# The ops ------------------------------------------------------------------------------------------


def _normalises(norm, xp, x, weight, bias, running_mean, running_var):
    vectors = [v for v in (weight, bias, running_mean, running_var) if v is not None]
    running = [v for v in (running_mean, running_var) if v is not None]
    return (
        when.float32(xp, x, *vectors)
        and x.ndim in (2, 4)
        and all(v.shape == (x.shape[1],) for v in vectors)
        and all(v.flags.c_contiguous and v.flags.writeable for v in running)
        and (len(running) == 2 or (norm.training and not running))
        and not (norm.training and x.size == x.shape[1])  # no variance: the reference says so
    )


def _normalises_images(op, xp, x, *vectors):
    return x.ndim == 4 and _normalises(op.norm, xp, x, *vectors) and _apart(op)


def _apart(op):
    """Whether each pixel is in one window of a max pool, or there is none; ReLU6 stands alone."""
    if op.relu6:
        return op.pool is None and not op.relu_first
    return op.pool is None or (side_by_side(op.pool.window) and pools(op.pool.window))


def _normalises_gradient(norm, xp, gy, saved, needs):
    x = saved[0]
    return when.float32(xp, gy, *saved) and x.ndim in (2, 4)


def _normalises_images_gradient(op, xp, gy, saved, needs):
    return when.float32(xp, gy, *saved[:-1]) and _apart(op)  # the last one is the winner


def _memory(x):
    """x (N, C) or (N, C, H, W) as memory (N, H, W, C)."""
    return channels_last(x) if x.ndim == 4 else contiguous(x).reshape(len(x), 1, 1, -1)


def _shaped(memory, x):
    """Memory (N, H, W, C) in the shape of x, which may be (N, C)."""
    return as_images(memory) if x.ndim == 4 else memory.reshape(x.shape)


def _kept(memory, x):
    """x, or the copy of it that was made to compute on."""
    return x if np.may_share_memory(memory, x) else _shaped(memory, x)


@register(BatchNorm, "forward", _normalises)
def batch_norm(op, xp, x, weight, bias, running_mean, running_var):
    """Statistics of x, then y: two passes over x."""
    memory = _memory(x)
    y, mean, inverse_std, _ = _normalise(op, memory, weight, bias, running_mean, running_var)
    return _shaped(y, x), (_kept(memory, x), weight, mean, inverse_std)


@register(BatchNorm, "backward", _normalises_gradient)
def batch_norm_gradient(op, xp, gy, saved, needs):
    """Sums over gy and x, then gx: two passes over both."""
    x, weight, mean, inverse_std = saved
    gx, *others = _normalise_gradient(op, _memory(gy), _memory(x), weight, mean, inverse_std, needs)
    return gx if gx is None else _shaped(gx, x), *others, None, None


def _relu_last(op):
    return None if op.relu_first else ReLU6() if op.relu6 else ReLU()


@register(NormReLUPool, "forward", _normalises_images)
def fused_norm_relu_pool(op, xp, x, weight, bias, running_mean, running_var):
    """Statistics of x, then y and winner: two passes over x."""
    memory, window = channels_last(x), None if op.pool is None else op.pool.window
    y, mean, inverse_std, winner = _normalise(
        op.norm, memory, weight, bias, running_mean, running_var,
        window, op.relu_first, _relu_last(op),
    )  # fmt: skip
    y, winner = as_images(y), None if winner is None else as_images(winner)
    return y, (_kept(memory, x), weight, mean, inverse_std, y, winner)


@register(NormReLUPool, "backward", _normalises_images_gradient)
def fused_norm_relu_pool_gradient(op, xp, gy, saved, needs):
    """Sums over gy and x, then gx: two passes over x."""
    x, weight, mean, inverse_std, y, winner = saved
    gx, *others = _normalise_gradient(
        op.norm, channels_last(gy), channels_last(x), weight, mean, inverse_std, needs,
        None if op.relu_first else channels_last(y),
        None if winner is None else bytes_channels_last(winner),
        None if op.pool is None else op.pool.window, op.relu_first, _relu_last(op),
    )  # fmt: skip
    return gx if gx is None else as_images(gx), *others, None, None

"""Dropout in one pass: random numbers, the scale of each element and the product.

The numbers are those of the reference, bit for bit: number i of the stream is a hash of i, so that
any thread can draw any of them.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.elementwise import elementwise, is_channels_last, product
from tinyconv.kernels.cpu.jit import F32, I64, INT, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last, contiguous
from tinyconv.kernels.cpu.when import float32
from tinyconv.op import register
from tinyconv.ops.dropout import Dropout


def _of_float32(op, xp, x, stream):
    as_made = stream.dtype == np.uint64 and stream.flags.c_contiguous
    return float32(xp, x) and as_made and stream.flags.writeable


def _of_float32_backward(op, xp, gy, saved, needs):
    return float32(xp, gy, *saved)


@register(Dropout, "forward", _of_float32)
def dropout_in_one_pass(op, xp, x, stream):
    """Numbers are drawn in the order of x's indices (n, c, p), p being a pixel."""
    turned = is_channels_last(x)
    flat = channels_last(x) if turned else contiguous(x)
    N = len(x) if x.ndim else 1
    C = x.shape[1] if turned else x.size // N
    P = x.size // (N * C)
    y, scale = empty(flat.shape), empty(flat.shape)
    settings = np.array([op.p, 1 / (1 - op.p) if op.p < 1 else 0], np.float32)
    words = stream.view(np.int64)
    launch(
        _draw, y, scale, flat, words, settings, C, P,
        items=N * P, parts=parts_for(N * P, 2 * x.size),
    )  # fmt: skip
    launch(_move_on, words, x.size)
    return (as_images(y), (as_images(scale),)) if turned else (y, (scale,))


@register(Dropout, "backward", _of_float32_backward)
def dropout_backward(op, xp, gy, saved, needs):
    """gx = gy * scale"""
    return elementwise(product, gy, saved[0]), None


@kernel
def _draw(
    y: F32, scale: F32, x: F32, stream: I64, settings: F32, C: INT, P: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """Items are rows of x (N, P, C), which lies like that in memory."""
    p, factor = settings[0], settings[1]
    seed, position = _mix(np.uint64(stream[0])), np.uint64(stream[1])
    for row in range(begin, end):
        first = row // P * C * P + row % P + 1
        for c in range(C):
            z = (position + np.uint64(first + c * P)) * np.uint64(0x9E3779B97F4A7C15)
            uniform = np.float32(np.int64(_mix(z ^ seed) >> np.uint64(40))) * np.float32(2**-24)
            kept = factor if uniform >= p else np.float32(0)
            scale[row * C + c] = kept
            y[row * C + c] = x[row * C + c] * kept


@jit
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def _move_on(stream: I64, size: INT, part: INT, begin: INT, end: INT):
    stream[1] += size

"""Depthwise convolution, a window of its own for each channel: groups equal to the channels.

There is no sum over channels and so no matrix product. With the channels last, the sums over a
window are element by element, whole vectors of channels at a time. Where each input channel has
several outputs (a channel multiplier), it is first repeated as often, and its gradients added up.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.direct import (
    APART,
    Finish,
    Sizes,
    add_rows,
    bordered,
    finite,
    once_past_cache,
    rows_of_strip,
)
from tinyconv.kernels.cpu.jit import F32, INT, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last, contiguous
from tinyconv.kernels.cpu.simd import (
    LANES,
    load,
    load_first,
    multiply_add,
    nowhere,
    offset,
    store,
    store_first,
)
from tinyconv.kernels.cpu.taps import PIXELS, taps, taps_of_few
from tinyconv.kernels.cpu.when import float32
from tinyconv.kernels.fused import PaddedConv2d
from tinyconv.op import register
from tinyconv.ops.conv import Conv2d

_PER_NANOSECOND = 10  # multiplications with addition that one core does


def _depthwise(op, xp, x, w):
    C, O = x.shape[1], len(w)
    return float32(xp, x, w) and op.groups == C and w.shape[1] == 1 and O % C == 0


def _forward(op, xp, x, w, b):
    return _depthwise(op, xp, x, w) and float32(xp, b)


def _backward(op, xp, gy, saved, needs):
    return _depthwise(op, xp, *saved) and float32(xp, gy)


def _nanoseconds(N, sizes):
    return N * sizes.OH * sizes.OW * sizes.C * sizes.KH * sizes.KW / _PER_NANOSECOND


@jit
def _add_products(y, a, b, count):
    """y[:count] += a[:count] * b[:count]"""
    k = 0
    while k + LANES <= count:
        store(y, k, multiply_add(load(a, k), load(b, k), load(y, k)))
        k += LANES
    if k < count:
        lanes = count - k
        left, right = load_first(a, k, lanes), load_first(b, k, lanes)
        store_first(y, k, multiply_add(left, right, load_first(y, k, lanes)), lanes)


# Weights and repeated channels --------------------------------------------------------------------


def _packed(w, scale):
    """w (C, 1, KH, KW) as (KH, KW, C), multiplied by scale (C,)."""
    C, _, KH, KW = w.shape
    packed = empty((KH, KW, C))
    launch(_pack, contiguous(w), scale, packed, C, KH * KW, items=C)
    return packed


@kernel
def _pack(w: F32, scale: F32, packed: F32, C: INT, window: INT, part: INT, begin: INT, end: INT):
    """packed (window, C) = w (C, window) scaled and transposed; items are channels."""
    for c in range(begin, end):
        for k in range(window):
            packed[k * C + c] = w[c * window + k] * scale[c]


def _repeated(x, times):
    """x (N, H, W, C) with each channel repeated."""
    if times == 1:
        return x
    y = empty((*x.shape[:-1], x.shape[-1] * times))
    launch(_repeat, x, y, times, items=x.size, parts=parts_for(x.size, y.size))
    return y


@kernel
def _repeat(x: F32, y: F32, times: INT, part: INT, begin: INT, end: INT):
    for k in range(begin, end):
        for t in range(times):
            y[k * times + t] = x[k]


@kernel
def _add_repeated(y: F32, x: F32, times: INT, part: INT, begin: INT, end: INT):
    """x[k] = sum of the `times` numbers of y that belong to it"""
    for k in range(begin, end):
        total = y[k * times]
        for t in range(1, times):
            total += y[k * times + t]
        x[k] = total


# Forward ------------------------------------------------------------------------------------------


@register(Conv2d, "forward", _forward)
@register(PaddedConv2d, "forward", _forward)
def depthwise_convolution(op, xp, x, w, b):
    """Conv2d forward."""
    return convolve_depthwise(op, x, w, Finish.of(w, b)), (x, w)


def convolve_depthwise(op, x, w, finish):
    """The convolution with what follows it, in one pass."""
    O, sizes = len(w), Sizes.of(op, x, w)
    memory = _repeated(channels_last(x), O // sizes.C)
    sizes = sizes._replace(C=O)
    return as_images(_filtered(memory, _packed(w, finish.scale), finish, sizes))


def _filtered(x, packed, finish, sizes, turned=False):
    """y (N, OH, OW, O) from memory x (N, H, W, C = O); `turned`: with the windows turned round."""
    y = empty((len(x), sizes.OH, sizes.OW, sizes.O))
    rows = rows_of_strip(sizes.sh * sizes.row, sizes.OH)
    items = len(x) * sizes.OH
    parts = parts_for(items, _nanoseconds(len(x), sizes))
    size = sizes.border(rows)
    launch(
        _filter, x, packed, finish.bias, *finish.last(y), y, empty((parts, size)), *sizes,
        rows, size, turned, once_past_cache(y), items=items, parts=parts,
    )  # fmt: skip
    return y


@kernel
def _filter(
    x: F32, w: F32, bias: F32, limits: F32, residual: F32, clips: INT, adds: INT,
    y: F32, borders: F32,
    H: INT, W: INT, C: INT, O: INT,
    KH: INT, KW: INT, OH: INT, OW: INT, sh: INT, sw: INT, ph: INT, pw: INT, dh: INT, dw: INT,
    wide: INT, strip: INT, size: INT, turned: INT, past: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """y (N, OH, OW, O) from x (N, H, W, C = O); items are rows of y, up to `strip` at a time."""
    ends = limits if clips else nowhere()
    xs, xu, xv, wk = sw * C, dh * wide * C, dw * C, O
    if turned:
        w, wk = offset(w, (KH * KW - 1) * O), -O
    border = offset(borders, part * size)
    first = begin
    while first < end:
        n, top = first // OH, first % OH
        rows = min(strip, OH - top, end - first)
        seen = (rows - 1) * sh + (KH - 1) * dh + 1
        a = bordered(x, n, top * sh, seen, H, W, C, ph, pw, wide, border)
        for i in range(rows):
            for j in range(0, OW, PIXELS):
                source = offset(a, (i * sh * wide + j * sw) * C)
                to = offset(y, ((first + i) * OW + j) * O)
                count = min(PIXELS, OW - j)
                for o in range(0, O, LANES):
                    lanes = min(O - o, LANES)
                    t = offset(residual, ((first + i) * OW + j) * O + o) if adds else nowhere()
                    if lanes == LANES:
                        taps(
                            offset(source, o), xs, xu, xv, offset(w, o), wk, offset(bias, o), t,
                            offset(to, o), O, KH, KW, count, lanes, ends, past,
                        )  # fmt: skip
                    else:
                        taps_of_few(
                            offset(source, o), xs, xu, xv, offset(w, o), wk, offset(bias, o), t,
                            offset(to, o), O, KH, KW, count, lanes, ends, past,
                        )  # fmt: skip
        first += rows


# Backward -----------------------------------------------------------------------------------------


@register(Conv2d, "backward", _backward)
@register(PaddedConv2d, "backward", _backward)
def depthwise_convolution_backward(op, xp, gy, saved, needs):
    """Conv2d backward."""
    x, w = saved
    times = len(w) // x.shape[1]
    sizes = Sizes.of(op, x, w)._replace(C=len(w))
    gy = channels_last(gy)
    gx = gw = gb = None
    if needs[0]:
        gx = _input_gradient(gy, w, x.shape, times, sizes)
    if needs[1] or needs[2]:
        gw, gb = _weight_gradient(_repeated(channels_last(x), times), gy, w.shape, sizes)
    return gx, gw if needs[1] else None, gb if needs[2] else None


def _input_gradient(gy, w, shape, times, sizes):
    """gx (N, C, H, W) from gy (N, OH, OW, O)."""
    N, C, H, W = shape
    packed = _packed(w, np.ones(len(w), np.float32))
    opposite = sizes.turned()
    repeated = (
        empty((N, H, W, C * times))
        if opposite is None
        else _filtered(gy, packed, Finish.of(w, None), opposite, turned=True)
    )
    items = N * H
    parts = parts_for(items, _nanoseconds(N, sizes))
    launch(_spread, gy, packed, repeated, *sizes, opposite is not None, items=items, parts=parts)
    if times == 1:
        return as_images(repeated)
    gx = empty((N, H, W, C))
    parts = parts_for(gx.size, repeated.size)
    launch(_add_repeated, repeated, gx, times, items=gx.size, parts=parts)
    return as_images(gx)


@kernel
def _spread(
    gy: F32, w: F32, gx: F32, H: INT, W: INT, C: INT, O: INT,
    KH: INT, KW: INT, OH: INT, OW: INT, sh: INT, sw: INT, ph: INT, pw: INT, dh: INT, dw: INT,
    wide: INT, unless_finite: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gx (N, H, W, C = O) from gy (N, OH, OW, O); items are rows of gx.

    unless_finite: only where w is not, whose products with the zeros around gy are NaN.
    """
    if unless_finite and finite(w, KH * KW * O):
        return
    for row in range(begin, end):
        n, h = row // H, row % H
        to = offset(gx, row * W * C)
        for k in range(W * C):
            to[k] = 0
        for u in range(KH):
            i, apart = (h + ph - u * dh) // sh, (h + ph - u * dh) % sh
            if apart == 0 and 0 <= i < OH:
                source = offset(gy, (n * OH + i) * OW * O)
                for v in range(KW):
                    for j in range(OW):
                        l = j * sw + v * dw - pw
                        if 0 <= l < W:
                            weights = offset(w, (u * KW + v) * O)
                            _add_products(offset(to, l * C), offset(source, j * O), weights, C)


def _weight_gradient(x, gy, shape, sizes):
    """gw (C, 1, KH, KW) and gb (C,) from x (N, H, W, C) and gy (N, OH, OW, C)."""
    N, window = len(x), sizes.KH * sizes.KW
    items = N * sizes.OH
    parts = parts_for(items, _nanoseconds(N, sizes))
    rows = rows_of_strip(sizes.sh * sizes.row + sizes.OW * sizes.O, sizes.OH)
    size = sizes.border(rows)
    sums = empty((parts, 2, window + 1, sizes.O))
    launch(
        _correlate, x, gy, np.zeros(LANES, np.float32), sums, empty((parts, size)), *sizes,
        rows, size, items=items, parts=parts,
    )  # fmt: skip
    gw, gb = empty(shape), empty((sizes.O,))
    launch(_collect, sums, gw, gb, parts, sizes.O, window, items=sizes.O)
    return gw, gb


@kernel
def _correlate(
    x: F32, gy: F32, zeros: F32, sums: F32, borders: F32, H: INT, W: INT, C: INT, O: INT,
    KH: INT, KW: INT, OH: INT, OW: INT, sh: INT, sw: INT, ph: INT, pw: INT, dh: INT, dw: INT,
    wide: INT, strip: INT, size: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """sums (parts, 2, KH * KW + 1, O) of x times gy, last row of gy; items are rows of gy.

    The second of the two is the sum over the latest pixels.
    """
    border = offset(borders, part * size)
    count = (KH * KW + 1) * O
    total = offset(sums, part * 2 * count)
    latest = offset(total, count)
    for k in range(2 * count):
        total[k] = 0
    pixels, first = 0, begin
    while first < end:
        n, top = first // OH, first % OH
        rows = min(strip, OH - top, end - first)
        seen = (rows - 1) * sh + (KH - 1) * dh + 1
        a = bordered(x, n, top * sh, seen, H, W, C, ph, pw, wide, border)
        gradient = offset(gy, first * OW * O)
        # As in _filter, with gy in the place of the window and taps in that of pixels.
        for o in range(0, O, LANES):
            lanes = min(O - o, LANES)
            for u in range(KH):
                for v in range(0, KW, PIXELS):
                    to = offset(latest, (u * KW + v) * O + o)
                    source = offset(a, (u * dh * wide + v * dw) * C + o)
                    columns = min(KW - v, PIXELS)
                    if lanes == LANES:
                        taps(
                            source, dw * C, sh * wide * C, sw * C, offset(gradient, o), O, zeros,
                            to, to, O, rows, OW, columns, lanes, nowhere(), 0,
                        )  # fmt: skip
                    else:
                        taps_of_few(
                            source, dw * C, sh * wide * C, sw * C, offset(gradient, o), O, zeros,
                            to, to, O, rows, OW, columns, lanes, nowhere(), 0,
                        )  # fmt: skip
        add_rows(offset(latest, KH * KW * O), gradient, rows * OW, O)
        first += rows
        pixels += rows * OW
        if pixels >= APART or first == end:
            pixels = 0
            for k in range(count):
                total[k] += latest[k]
                latest[k] = 0


@kernel
def _collect(
    sums: F32, gw: F32, gb: F32, parts: INT, O: INT, window: INT, part: INT, begin: INT, end: INT
):
    """gw (O, window) and gb (O,) from all parts' sums; items are channels."""
    for k in range(window + 1):
        for o in range(begin, end):
            total = sums[k * O + o]
            for p in range(1, parts):
                total += sums[(p * 2 * (window + 1) + k) * O + o]
            if k < window:
                gw[o * window + k] = total
            else:
                gb[o] = total

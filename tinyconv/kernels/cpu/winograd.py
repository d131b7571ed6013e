"""Convolution 3x3 with stride 1 by Winograd's F(4x4, 3x3): four times fewer multiplications.

A tile of 4x4 outputs sees 6x6 inputs. With three fixed matrices (Lavin and Gray, 2015,
arXiv:1509.09308), Y = A^T [ (G w G^T) . (B^T x B) ] A, where . multiplies element by element: 36
products for each channel instead of 144. Summed over the channels, each of the 36 elements is a
matrix product (tiles x C)(C x O), which runs near the machine's peak. The gradients are of the same
form: gx is the convolution of gy with the weights turned round, and, transposing the formula,

    gw = G^T [ sum over tiles of (B^T x B) . (A gy A^T) ] G.

Tiles are done in chunks that stay in the cache, each thread its own. Every transform is done along
columns and then along rows, by the one-dimensional functions below, on vectors of channels.

The price is rounding: the matrices' entries up to 8 let an error grow to about 1e-5 of the largest
output in float32, some ten times that of the plain sum (see docs/speed.md and the tests).
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.jit import F32, INT, jit, kernel, shared
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last, contiguous
from tinyconv.kernels.cpu.product import multiply
from tinyconv.kernels.cpu.simd import (
    LANES,
    broadcast,
    load,
    load_first,
    multiply_add,
    offset,
    prefetch,
    store,
    store_first,
)
from tinyconv.kernels.cpu.when import float32
from tinyconv.op import register
from tinyconv.ops.conv import Conv2d

PANEL = 2 * LANES  # output channels that lie together in the transformed weights

_ROWS = 56  # input channels whose weight gradients are worked out together


# The one-dimensional transforms, each on 6, 4 or 3 vectors ----------------------------------------


@jit
def _input(d0, d1, d2, d3, d4, d5):
    """B^T d"""
    two, four, five = broadcast(np.float32(2)), broadcast(np.float32(4)), broadcast(np.float32(5))
    even, odd = d4 - four * d2, d3 - four * d1
    even2, odd2 = d4 - d2, two * (d3 - d1)
    return (
        multiply_add(four, d0, d4 - five * d2),
        even + odd,
        even - odd,
        even2 + odd2,
        even2 - odd2,
        multiply_add(four, d1, d5 - five * d3),
    )


@jit
def _output(m0, m1, m2, m3, m4, m5):
    """A^T m"""
    two, four, eight = broadcast(np.float32(2)), broadcast(np.float32(4)), broadcast(np.float32(8))
    sum1, difference1, sum2, difference2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        m0 + sum1 + sum2,
        multiply_add(two, difference2, difference1),
        multiply_add(four, sum2, sum1),
        multiply_add(eight, difference2, difference1 + m5),
    )


@jit
def _output_transposed(y0, y1, y2, y3):
    """A y"""
    two, four = broadcast(np.float32(2)), broadcast(np.float32(4))
    even, odd = y0 + y2, y1 + y3
    even2, odd2 = multiply_add(four, y2, y0), two * multiply_add(four, y3, y1)
    return y0, even + odd, even - odd, even2 + odd2, even2 - odd2, y3


@jit
def _weight(g0, g1, g2):
    """G g"""
    sixth, quarter = broadcast(np.float32(1 / 6)), broadcast(np.float32(1 / 4))
    even, odd = sixth * (g0 + g2), sixth * g1
    even2, odd2 = sixth * multiply_add(quarter, g0, g2), broadcast(np.float32(1 / 12)) * g1
    zero = broadcast(np.float32(0))
    return quarter * g0, zero - even - odd, odd - even, even2 + odd2, even2 - odd2, g2


@jit
def _weight_transposed(s0, s1, s2, s3, s4, s5):
    """G^T s"""
    sixth, quarter = broadcast(np.float32(1 / 6)), broadcast(np.float32(1 / 4))
    sum1, sum2 = sixth * (s1 + s2), sixth * (s3 + s4)
    odd = sixth * (s2 - s1) + broadcast(np.float32(1 / 12)) * (s3 - s4)
    return quarter * (s0 + sum2) - sum1, odd, sum2 - sum1 + s5


# Vectors at equal distances in memory: written out, since a loop over a tuple would not stay in
# registers.


@jit
def _load3(p, i, step):
    return load(p, i), load(p, i + step), load(p, i + 2 * step)


@jit
def _load4(p, i, step):
    return load(p, i), load(p, i + step), load(p, i + 2 * step), load(p, i + 3 * step)


@jit
def _load6(p, i, step):
    return (
        load(p, i),
        load(p, i + step),
        load(p, i + 2 * step),
        load(p, i + 3 * step),
        load(p, i + 4 * step),
        load(p, i + 5 * step),
    )


@jit
def _load6_first(p, i, step, lanes):
    return (
        load_first(p, i, lanes),
        load_first(p, i + step, lanes),
        load_first(p, i + 2 * step, lanes),
        load_first(p, i + 3 * step, lanes),
        load_first(p, i + 4 * step, lanes),
        load_first(p, i + 5 * step, lanes),
    )


@jit
def _store3(p, i, step, t):
    store(p, i, t[0])
    store(p, i + step, t[1])
    store(p, i + 2 * step, t[2])


@jit
def _store4(p, i, step, t):
    store(p, i, t[0])
    store(p, i + step, t[1])
    store(p, i + 2 * step, t[2])
    store(p, i + 3 * step, t[3])


@jit
def _store6(p, i, step, t):
    _store3(p, i, step, t[:3])
    _store3(p, i + 3 * step, step, t[3:])


# Weights ------------------------------------------------------------------------------------------


@kernel
def _transform_weights(
    w: F32, u: F32, scratch: F32, C: INT, O: INT, so: INT, sc: INT, turned: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """u (36, panels, C, PANEL) = G w G^T, w[o so + c sc + 0..8]; items: vectors of channels o."""
    panels = (O + PANEL - 1) // PANEL
    tmp = offset(scratch, part * 36 * LANES)
    for item in range(begin, end):
        o = item * LANES
        panel, at = o // PANEL, o % PANEL
        for c in range(C):
            for l in range(LANES):
                for k in range(9):
                    if o + l < O:
                        tmp[k * LANES + l] = w[(o + l) * so + c * sc + (8 - k if turned else k)]
                    else:
                        tmp[k * LANES + l] = 0
            for v in range(3):  # columns, from the numbers 0..8 into those from 9 on
                g = _weight(*_load3(tmp, v * LANES, 3 * LANES))
                _store6(tmp, (9 + v) * LANES, 3 * LANES, g)
            for i in range(6):
                g = _weight(*_load3(tmp, (9 + i * 3) * LANES, LANES))
                to = ((i * 6 * panels + panel) * C + c) * PANEL + at
                _store6(u, to, panels * C * PANEL, g)


@shared
def write_gradient(s: F32, step: INT, gw: F32, so: INT, lanes: INT, tmp: F32):
    """gw[l so + 0..8] = G^T s G for the vector of output channels l, s[p step]."""
    for j in range(6):
        t = _weight_transposed(*_load6(s, j * step, 6 * step))
        _store3(tmp, j * LANES, 6 * LANES, t)
    for i in range(3):
        t = _weight_transposed(*_load6(tmp, i * 6 * LANES, LANES))
        _store3(tmp, (18 + i * 3) * LANES, LANES, t)
    for l in range(lanes):
        for k in range(9):
            gw[l * so + k] = tmp[(18 + k) * LANES + l]


@kernel
def _collect_weight_gradient(
    sums: F32, gw: F32, scratch: F32, parts: INT, C: INT, O: INT, part: INT, begin: INT, end: INT
):
    """gw (O, C, 3, 3) = G^T (sum of the parts of `sums` (parts, 36, C, O)) G; items: channels c."""
    total = offset(scratch, part * 72 * LANES)
    tmp = offset(total, 36 * LANES)
    for c in range(begin, end):
        for o in range(0, O, LANES):
            lanes = min(O - o, LANES)
            for p in range(36):
                at = (p * C + c) * O + o
                value = load_first(sums, at, lanes)
                for other in range(1, parts):
                    value = value + load_first(sums, at + other * 36 * C * O, lanes)
                store(total, p * LANES, value)
            write_gradient(total, LANES, offset(gw, (o * C + c) * 9), C * 9, lanes, tmp)


# Tiles --------------------------------------------------------------------------------------------


@jit
def _place(t, TH, TW):
    """Image, first row and first column of outputs of tile t."""
    return t // (TH * TW), t % (TH * TW) // TW * 4, t % TW * 4


@jit
def _cut_tile(x, n, i, j, size, H, W, C, tile):
    """Where rows i and columns j on of image n lie, size x size pixels, as (pointer, row stride).

    A tile that reaches over the border is copied into `tile`, with zeros outside.
    """
    if i >= 0 and j >= 0 and i + size <= H and j + size <= W:
        return offset(x, ((n * H + i) * W + j) * C), W * C
    for u in range(size):
        for v in range(size):
            to = (u * size + v) * C
            if 0 <= i + u < H and 0 <= j + v < W:
                pixel = ((n * H + i + u) * W + j + v) * C
                for c in range(C):
                    tile[to + c] = x[pixel + c]
            else:
                for c in range(C):
                    tile[to + c] = 0
    return tile, size * C


@shared
def transform_input(source: F32, row: INT, C: INT, to: F32, step: INT, tmp: F32):
    """to[p step + c] = (B^T x B)[p] for a 6x6 tile of C channels."""
    for c in range(0, C, LANES):
        lanes = min(C - c, LANES)
        for v in range(6):
            if v > 1:  # the next tile to the right begins four pixels on
                for u in range(6):
                    prefetch(source, u * row + (v + 4) * C + c)
            t = _input(*_load6_first(source, v * C + c, row, lanes))
            _store6(tmp, v * LANES, 6 * LANES, t)
        for i in range(6):
            t = _input(*_load6(tmp, i * 6 * LANES, LANES))
            _store6(to, i * 6 * step + c, step, t)


@shared
def transform_output(
    source: F32, step: INT, O: INT, bias: F32, y: F32, row: INT, rows: INT, columns: INT, tmp: F32
):
    """The rows x columns (at most 4x4) outputs of a tile, A^T m A + bias, m[p] = source[p step]."""
    for o in range(0, O, LANES):
        lanes = min(O - o, LANES)
        b = load_first(bias, o, lanes)
        for v in range(6):
            t = _output(*_load6(source, v * step + o, 6 * step))
            _store4(tmp, v * LANES, 6 * LANES, t)
        for i in range(rows):
            t = _output(*_load6(tmp, i * 6 * LANES, LANES))
            to = i * row + o
            for v in range(4):
                prefetch(y, to + (4 + v) * O)
            store_first(y, to, t[0] + b, lanes)
            if columns > 1:
                store_first(y, to + O, t[1] + b, lanes)
            if columns > 2:
                store_first(y, to + 2 * O, t[2] + b, lanes)
            if columns > 3:
                store_first(y, to + 3 * O, t[3] + b, lanes)


@shared
def transform_gradient(source: F32, row: INT, O: INT, to: F32, step: INT, tmp: F32, gb: F32):
    """to[p step + o] = (A gy A^T)[p] for a 4x4 tile of O channels; its sums are added to gb."""
    for o in range(0, O, LANES):
        lanes = min(O - o, LANES)
        total = load_first(gb, o, lanes)
        for v in range(4):
            at = v * O + o
            g0 = load_first(source, at, lanes)
            g1 = load_first(source, at + row, lanes)
            g2 = load_first(source, at + 2 * row, lanes)
            g3 = load_first(source, at + 3 * row, lanes)
            total = total + ((g0 + g1) + (g2 + g3))
            _store6(tmp, v * LANES, 4 * LANES, _output_transposed(g0, g1, g2, g3))
        store_first(gb, o, total, lanes)
        for i in range(6):
            t = _output_transposed(*_load4(tmp, i * 4 * LANES, LANES))
            _store6(to, i * 6 * step + o, step, t)


# The three convolutions ---------------------------------------------------------------------------


@kernel
def _convolve(
    x: F32, u: F32, bias: F32, y: F32, scratch: F32, H: INT, W: INT, C: INT, OH: INT, OW: INT,
    O: INT, ph: INT, pw: INT, chunk: INT, size: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """y (N, OH, OW, O) from x (N, H, W, C); items are tiles, done `chunk` at a time."""
    TH, TW = (OH + 3) // 4, (OW + 3) // 4
    CV, OV = (C + LANES - 1) // LANES * LANES, (O + LANES - 1) // LANES * LANES
    panels = (O + PANEL - 1) // PANEL
    mine = offset(scratch, part * size)
    zeros, tmp = mine, offset(mine, PANEL)
    tile = offset(tmp, 36 * LANES)
    v, m = offset(tile, 36 * CV), offset(tile, 36 * CV + 36 * chunk * CV)
    for l in range(PANEL):
        zeros[l] = 0
    for first in range(begin, end, chunk):
        tiles = min(chunk, end - first)
        for t in range(tiles):
            n, i, j = _place(first + t, TH, TW)
            source, row = _cut_tile(x, n, i - ph, j - pw, 6, H, W, C, tile)
            transform_input(source, row, C, offset(v, t * CV), chunk * CV, tmp)
        for p in range(36):
            for panel in range(panels):
                o = panel * PANEL
                multiply(
                    offset(v, p * chunk * CV), CV, 0, 1,
                    offset(u, (p * panels + panel) * C * PANEL), 0, PANEL,
                    zeros, 0, offset(m, p * chunk * OV + o), OV, 1, C, tiles, min(PANEL, O - o),
                )  # fmt: skip
        for t in range(tiles):
            n, i, j = _place(first + t, TH, TW)
            to = offset(y, ((n * OH + i) * OW + j) * O)
            rows, columns = min(4, OH - i), min(4, OW - j)
            transform_output(offset(m, t * OV), chunk * OV, O, bias, to, OW * O, rows, columns, tmp)


@kernel
def _correlate(
    x: F32, gy: F32, sums: F32, gb: F32, scratch: F32, H: INT, W: INT, C: INT, OH: INT, OW: INT,
    O: INT, ph: INT, pw: INT, chunk: INT, size: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """sums (parts, 36, C, O) = sum over tiles of B^T x B times A gy A^T, gb (parts, O) of gy."""
    TH, TW = (OH + 3) // 4, (OW + 3) // 4
    CV, OV = (C + LANES - 1) // LANES * LANES, (O + LANES - 1) // LANES * LANES
    mine = offset(scratch, part * size)
    zeros, tmp = mine, offset(mine, PANEL)
    tile = offset(tmp, 36 * LANES)
    v, m = offset(tile, 36 * max(CV, OV)), offset(tile, 36 * max(CV, OV) + 36 * chunk * CV)
    for l in range(PANEL):
        zeros[l] = 0
    for o in range(O):
        gb[part * O + o] = 0
    for first in range(begin, end, chunk):
        tiles = min(chunk, end - first)
        for t in range(tiles):
            n, i, j = _place(first + t, TH, TW)
            source, row = _cut_tile(x, n, i - ph, j - pw, 6, H, W, C, tile)
            transform_input(source, row, C, offset(v, t * CV), chunk * CV, tmp)
            source, row = _cut_tile(gy, n, i, j, 4, OH, OW, O, tile)
            to = offset(m, t * OV)
            transform_gradient(source, row, O, to, chunk * OV, tmp, offset(gb, part * O))
        for p in range(36):
            for o in range(0, O, PANEL):
                c = offset(sums, (part * 36 + p) * C * O + o)
                s, sr = (zeros, 0) if first == begin else (c, O)
                multiply(
                    offset(v, p * chunk * CV), 1, 0, CV, offset(m, p * chunk * OV + o), 0, OV,
                    s, sr, c, O, 1, tiles, C, min(PANEL, O - o),
                )  # fmt: skip


@kernel
def _transform_both(
    x: F32, gy: F32, v: F32, m: F32, gb: F32, scratch: F32, H: INT, W: INT, C: INT, OH: INT,
    OW: INT, O: INT, ph: INT, pw: INT, tiles: INT, size: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """v (36, tiles, CV) = B^T x B, m (36, tiles, OV) = A gy A^T, gb (parts, O) = sums of gy."""
    TH, TW = (OH + 3) // 4, (OW + 3) // 4
    CV, OV = (C + LANES - 1) // LANES * LANES, (O + LANES - 1) // LANES * LANES
    tmp = offset(scratch, part * size)
    tile = offset(tmp, 36 * LANES)
    for o in range(O):
        gb[part * O + o] = 0
    for t in range(begin, end):
        n, i, j = _place(t, TH, TW)
        source, row = _cut_tile(x, n, i - ph, j - pw, 6, H, W, C, tile)
        transform_input(source, row, C, offset(v, t * CV), tiles * CV, tmp)
        source, row = _cut_tile(gy, n, i, j, 4, OH, OW, O, tile)
        to = offset(m, t * OV)
        transform_gradient(source, row, O, to, tiles * OV, tmp, offset(gb, part * O))


@kernel
def _correlate_channels(
    v: F32, m: F32, gw: F32, scratch: F32, C: INT, O: INT, tiles: INT, size: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """gw (O, C, 3, 3) from all tiles at once; items are channels c, done _ROWS at a time."""
    CV, OV = (C + LANES - 1) // LANES * LANES, (O + LANES - 1) // LANES * LANES
    zeros = offset(scratch, part * size)
    tmp = offset(zeros, PANEL)
    sums = offset(tmp, 36 * LANES)
    for l in range(PANEL):
        zeros[l] = 0
    for first in range(begin, end, _ROWS):
        rows = min(_ROWS, end - first)
        for o in range(0, O, PANEL):
            columns = min(PANEL, O - o)
            for p in range(36):
                at = offset(m, p * tiles * OV + o)
                multiply(
                    offset(v, p * tiles * CV + first), 1, 0, CV, at, 0, OV, zeros, 0,
                    offset(sums, p * _ROWS * PANEL), PANEL, 1, tiles, rows, columns,
                )  # fmt: skip
            for r in range(rows):
                for l in range(0, columns, LANES):
                    at = offset(sums, r * PANEL + l)
                    to = offset(gw, ((o + l) * C + first + r) * 9)
                    write_gradient(at, _ROWS * PANEL, to, C * 9, min(columns - l, LANES), tmp)


@kernel
def _add_parts(parts_of: F32, y: F32, parts: INT, size: INT, part: INT, begin: INT, end: INT):
    """y (size,) = sum of the parts (parts, size)"""
    for i in range(begin, end):
        y[i] = parts_of[i]
    for p in range(1, parts):
        for i in range(begin, end):
            y[i] += parts_of[p * size + i]


# Launches -----------------------------------------------------------------------------------------


def _chunk(C: int, O: int, tiles: int, sizes: tuple[int, int, int]) -> int:
    """How many of `tiles` to do at a time, by the size of the transformed weights.

    Small weights stay in the cache beside the tiles, large ones are read again for every chunk and
    want it large. The chunks come out about equal.
    """
    chunk = sizes[0] if C * O <= 40_000 else sizes[1] if C * O <= 100_000 else sizes[2]
    return -(-tiles // max(1, round(tiles / chunk)))


def _vectors(channels: int) -> int:
    return -(-channels // LANES)


def _tiles(n: int) -> int:
    return -(-n // 4)


def _nanoseconds(tiles: int, C: int, O: int) -> float:
    return tiles * 36 * C * O / 50  # 50 multiply-adds in a nanosecond


def _transformed(w: np.ndarray, turned: bool) -> np.ndarray:
    """The weights' (36, panels, C, PANEL); turned round, with C and O swapped, for gx."""
    O, C = w.shape[:2]
    so, sc = (C * 9, 9) if not turned else (9, C * 9)
    outputs, inputs = (O, C) if not turned else (C, O)
    u = empty((36, -(-outputs // PANEL), inputs, PANEL))
    vectors = u.shape[1] * 2
    parts = parts_for(vectors, C * O * 6)
    scratch = empty((parts, 36, LANES))
    launch(
        _transform_weights, contiguous(w), u, scratch, inputs, outputs, so, sc, int(turned),
        items=vectors, parts=parts,
    )  # fmt: skip
    return u


def _convolution(
    x: np.ndarray, u: np.ndarray, bias: np.ndarray | None, O: int, padding: tuple[int, int]
) -> np.ndarray:
    """x (N, H, W, C) convolved -> (N, OH, OW, O)"""
    N, H, W, C = x.shape
    OH, OW = H + 2 * padding[0] - 2, W + 2 * padding[1] - 2
    y = empty((N, OH, OW, O))
    tiles = N * _tiles(OH) * _tiles(OW)
    parts = parts_for(tiles, _nanoseconds(tiles, C, O))
    CV, OV = _vectors(C) * LANES, _vectors(O) * LANES
    chunk = _chunk(C, O, -(-tiles // parts), (28, 56, 140))
    size = PANEL + 36 * LANES + 36 * CV + 36 * chunk * (CV + OV)
    scratch = empty((parts, size))
    if bias is None:
        bias = np.zeros(O, np.float32)
    launch(
        _convolve, x, u, contiguous(bias), y, scratch,
        H, W, C, OH, OW, O, *padding, chunk, size, items=tiles, parts=parts,
    )  # fmt: skip
    return y


# What it costs for each pair of channels to transform weights, in products that could be done
# meanwhile: a map or two of few tiles, as at batch 1, are better done directly.
_FORMING = 500


def _pays(op: Conv2d, xp, x, w) -> bool:
    if not (
        float32(xp, x, w)
        and w.shape[2:] == (3, 3)
        and op.stride == (1, 1)
        and op.dilation == (1, 1)
        and op.groups == 1
        and max(op.padding) <= 2
        and min(w.shape[:2]) >= LANES
    ):
        return False
    OH, OW = x.shape[2] + 2 * op.padding[0] - 2, x.shape[3] + 2 * op.padding[1] - 2
    if min(OH, OW) < 1:
        return False
    tiles = len(x) * _tiles(OH) * _tiles(OW)
    products, direct = tiles * 36 * 1.35, len(x) * OH * OW * 9
    return products + _FORMING < direct


def _forward_pays(op, xp, x, w, b):
    return _pays(op, xp, x, w) and float32(xp, b)


def _backward_pays(op, xp, gy, saved, needs):
    return _pays(op, xp, *saved) and float32(xp, gy)


@register(Conv2d, "forward", _forward_pays)
def winograd(op, xp, x, w, b):
    """Conv2d forward."""
    y = _convolution(channels_last(x), _transformed(w, turned=False), b, len(w), op.padding)
    return as_images(y), (x, w)


@register(Conv2d, "backward", _backward_pays)
def winograd_backward(op, xp, gy, saved, needs):
    """Conv2d backward."""
    x, w = saved
    gx = gw = gb = None
    g = channels_last(gy)
    if needs[1] or needs[2]:
        gw, gb = _weight_gradient(channels_last(x), g, w.shape, op.padding)
    if needs[0]:
        u = _transformed(w, turned=True)
        gx = as_images(_convolution(g, u, None, w.shape[1], (2 - op.padding[0], 2 - op.padding[1])))
    return gx, gw if needs[1] else None, gb if needs[2] else None


def _weight_gradient(
    x: np.ndarray, gy: np.ndarray, shape: tuple[int, ...], padding: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """gw (O, C, 3, 3) and gb (O,) from x (N, H, W, C) and gy (N, OH, OW, O)."""
    N, H, W, C = x.shape
    _, OH, OW, O = gy.shape
    tiles = N * _tiles(OH) * _tiles(OW)
    parts = parts_for(tiles, _nanoseconds(tiles, C, O))
    CV, OV = _vectors(C) * LANES, _vectors(O) * LANES
    gw, gb, gbs = empty(shape), empty((O,)), empty((parts, O))
    sizes = H, W, C, OH, OW, O, *padding
    common = PANEL + 36 * LANES + 36 * max(CV, OV)
    finishing = parts_for(C, _nanoseconds(tiles, C, O))
    if tiles * (C + O) < 1.5 * C * O:
        # Few tiles, many channels: all tiles' transforms take less memory than the sums would.
        v, m = empty((36, tiles, CV)), empty((36, tiles, OV))
        launch(
            _transform_both, x, gy, v, m, gbs, empty((parts, common)), *sizes, tiles, common,
            items=tiles, parts=parts,
        )  # fmt: skip
        size = PANEL + 36 * LANES + 36 * _ROWS * PANEL
        launch(
            _correlate_channels, v, m, gw, empty((finishing, size)), C, O, tiles, size,
            items=C, parts=finishing,
        )  # fmt: skip
    else:
        chunk = _chunk(C, O, -(-tiles // parts), (56, 112, 448))
        size = common + 36 * chunk * (CV + OV)
        sums = empty((parts, 36, C, O))
        launch(
            _correlate, x, gy, sums, gbs, empty((parts, size)), *sizes, chunk, size,
            items=tiles, parts=parts,
        )  # fmt: skip
        scratch = empty((finishing, 72, LANES))
        launch(_collect_weight_gradient, sums, gw, scratch, parts, C, O, items=C, parts=finishing)
    launch(_add_parts, gbs, gb, parts, O, items=O)
    return gw, gb

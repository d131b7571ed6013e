"""The fully connected layer and the product of two matrices, on two ways to multiply.

`_product` goes through the columns of the result in panels as wide as two vectors. The panel of b
is copied so that it lies together (transposed where need be), stays in the cache, and serves all
rows of a. With few rows that does not pay: they are multiplied with b as it lies.

`_dots` is for y = x w^T, where x and w lie along the sum: the layer with few rows, or with long
ones. It transposes nothing.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.dots import COLUMNS, ROWS, dots_of_row, dots_of_rows
from tinyconv.kernels.cpu.jit import F32, INT, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import contiguous
from tinyconv.kernels.cpu.product import multiply
from tinyconv.kernels.cpu.simd import LANES, offset
from tinyconv.kernels.cpu.when import float32
from tinyconv.op import register
from tinyconv.ops.linear import Linear, MatMul

_PER_NANOSECOND = 40  # multiplications with addition that one core does
_FEW = 28  # rows with which a panel is not worth its copy
_PANEL = 2 * LANES
_DEPTH = 512  # of a panel: it takes a part of the second cache
_SHALLOW = 16  # rows of b read at a time where it is not copied: streams that can be followed
_TILE_ROWS, _TILE_DEPTH = 64, 2048  # of x, kept in the second cache while w goes by


def _matrix(x):
    """x (..., I) as contiguous rows (R, I)."""
    return contiguous(x).reshape(-1, x.shape[-1])


# Linear -------------------------------------------------------------------------------------------


def _linear(op, xp, x, w, b):
    return float32(xp, x, w, b)


def _linear_backward(op, xp, gy, saved, needs):
    return float32(xp, gy, *saved)


@register(Linear, "forward", _linear)
def linear_by_blocks(op, xp, x, w, b):
    """y = x w^T + b, each block of y at once."""
    rows, weight = _matrix(x), contiguous(w)
    (R, I), O = rows.shape, len(w)
    y = empty((*x.shape[:-1], O))
    start = np.zeros(O, np.float32) if b is None else contiguous(b)
    # A transposed panel costs I for each column, the last additions of the dots cost R.
    if I < 2 * R and R > 2 * ROWS:
        _multiply(y, rows, weight.T, start)
        return y, (x, w)
    row_blocks, column_blocks = -(-R // ROWS), -(-O // COLUMNS)
    by_rows = row_blocks > column_blocks
    items = row_blocks if by_rows else column_blocks
    parts = parts_for(items, R * O * I / _PER_NANOSECOND)
    launch(_dots, y, rows, weight, start, R, O, I, by_rows, items=items, parts=parts)
    return y, (x, w)


@register(Linear, "backward", _linear_backward)
def linear_backward_by_blocks(op, xp, gy, saved, needs):
    """gx = gy w, gw = gy^T x, gb = 1^T gy: three products."""
    x, w = saved
    rows, gy_rows = _matrix(x), _matrix(gy)
    gx = gw = gb = None
    if needs[0]:
        gx = empty(x.shape)
        _multiply(gx, gy_rows, contiguous(w))
    if needs[1]:
        gw = empty(w.shape)
        _multiply(gw, gy_rows.T, rows)
    if needs[2]:
        gb = empty((len(w),))
        _multiply(gb, np.ones((1, len(gy_rows)), np.float32), gy_rows)
    return gx, gw, gb


# MatMul -------------------------------------------------------------------------------------------


def _matmul(op, xp, a, b):
    return float32(xp, a, b) and a.ndim == b.ndim == 2


def _matmul_backward(op, xp, gy, saved, needs):
    return _matmul(op, xp, *saved) and float32(xp, gy)


@register(MatMul, "forward", _matmul)
def matmul_by_blocks(op, xp, a, b):
    """y = a b"""
    y = empty((len(a), b.shape[1]))
    _multiply(y, contiguous(a), contiguous(b))
    return y, (a, b)


@register(MatMul, "backward", _matmul_backward)
def matmul_backward_by_blocks(op, xp, gy, saved, needs):
    """ga = gy b^T, gb = a^T gy"""
    a, b = saved
    gy = contiguous(gy)
    ga = gb = None
    if needs[0]:
        ga = empty(a.shape)
        _multiply(ga, gy, contiguous(b).T)
    if needs[1]:
        gb = empty(b.shape)
        _multiply(gb, contiguous(a).T, gy)
    return ga, gb


# The kernels --------------------------------------------------------------------------------------


def _multiply(y, a, b, start=None):
    """y (R, J) = start + a b; a (R, K) and b (K, J) are contiguous or transposes of what is."""
    (R, K), J = a.shape, b.shape[1]
    if start is None:
        start = np.zeros(J, np.float32)
    row_blocks, column_blocks = -(-R // _FEW), -(-J // LANES)
    by_rows = 4 * column_blocks < row_blocks
    items = row_blocks if by_rows else column_blocks
    parts = parts_for(items, R * J * K / _PER_NANOSECOND)
    panels = empty((parts, min(K, _DEPTH), _PANEL))
    launch(
        _product, y, a if a.flags.c_contiguous else a.T, a.strides[0] // 4, a.strides[1] // 4,
        b if b.flags.c_contiguous else b.T, b.strides[0] // 4, b.strides[1] // 4,
        start, panels, R, J, K, by_rows, items=items, parts=parts,
    )  # fmt: skip


@kernel
def _product(
    y: F32, a: F32, ar: INT, ak: INT, b: F32, bk: INT, bj: INT, start: F32, panels: F32,
    R: INT, J: INT, K: INT, by_rows: INT, part: INT, begin: INT, end: INT,
):  # fmt: skip
    """y (R, J) = start (J,) + sum over k of a[r ar + k ak] b[k bk + j bj].

    Items are blocks of _FEW rows or of LANES columns.
    """
    r0, r1, j0, j1 = 0, R, begin * LANES, min(end * LANES, J)
    if by_rows:
        r0, r1, j0, j1 = begin * _FEW, min(end * _FEW, R), 0, J
    rows, a0 = r1 - r0, offset(a, r0 * ar)
    copied = rows > _FEW or bj != 1
    width, depth = (_PANEL, _DEPTH) if copied else (J, _SHALLOW)
    panel = offset(panels, part * min(K, _DEPTH) * _PANEL)
    for j in range(j0, j1, width):
        columns = min(width, j1 - j)
        c = offset(y, r0 * J + j)
        s, sr = offset(start, j), 0
        for k in range(0, K, depth):
            deep = min(depth, K - k)
            source, stride = offset(b, k * bk + j * bj), bk
            if copied:
                _copy_panel(panel, source, bk, bj, deep, columns)
                source, stride = panel, _PANEL
            multiply(
                offset(a0, k * ak), ar, 0, ak, source, 0, stride, s, sr, c, J, 1, deep,
                rows, columns,
            )  # fmt: skip
            s, sr = c, J


@jit
def _copy_panel(panel, b, bk, bj, depth, columns):
    """panel (depth, _PANEL) = b[k bk + j bj]"""
    if bj == 1:
        for k in range(depth):
            for j in range(columns):
                panel[k * _PANEL + j] = b[k * bk + j]
    else:  # what lies together in b is read together
        for first in range(0, depth, LANES):
            last = min(first + LANES, depth)
            for j in range(columns):
                for k in range(first, last):
                    panel[k * _PANEL + j] = b[k * bk + j * bj]


@kernel
def _dots(
    y: F32, x: F32, w: F32, start: F32, R: INT, O: INT, I: INT, by_rows: INT,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """y (R, O) = start (O,) + x (R, I) w^T; items are blocks of ROWS rows or COLUMNS columns."""
    r0, r1, o0, o1 = 0, R, begin * COLUMNS, min(end * COLUMNS, O)
    if by_rows:
        r0, r1, o0, o1 = begin * ROWS, min(end * ROWS, R), 0, O
    for top in range(r0, r1, _TILE_ROWS):
        bottom = min(top + _TILE_ROWS, r1)
        for i in range(0, I, _TILE_DEPTH):
            deep = min(_TILE_DEPTH, I - i)
            for o in range(o0, o1, COLUMNS):
                columns = min(COLUMNS, o1 - o)
                b = offset(w, o * I + i)
                for r in range(top, bottom, ROWS):
                    rows = min(ROWS, bottom - r)
                    a, c = offset(x, r * I + i), offset(y, r * O + o)
                    s, sr = (c, O) if i else (offset(start, o), 0)
                    if rows == 1:
                        dots_of_row(a, I, b, I, s, sr, c, O, deep, rows, columns)
                    else:
                        dots_of_rows(a, I, b, I, s, sr, c, O, deep, rows, columns)

"""The fully connected layer and the product of matrices on tensor cores, see linear.cu."""

from __future__ import annotations

from math import prod

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda.gemm import (
    LINE,
    Finish,
    exact,
    lay_out,
    plan,
    sum_gradient,
    sum_product,
    unit,
)
from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import contiguous, empty
from tinyconv.kernels.cuda.sums import channel_sums
from tinyconv.kernels.cuda.when import float32, floats
from tinyconv.op import register
from tinyconv.ops.linear import Linear, MatMul

# With so many rows, laying weights out as float16 (6 bytes moved for each, and 2 instead of 4 read
# by the product) takes no longer than float16 products save over TF32: 2 FLOP for each row.
_MANY_ROWS = 512

# Linear -------------------------------------------------------------------------------------------


def _linear(op, xp, x, w, b):
    return (
        floats(xp, x)
        and float32(xp, w, b)
        and x.shape[-1] == w.shape[1]
        and _small(x, w)
        and prod(x.shape[:-1]) * len(w) < 2**31
    )


def _linear_backward(op, xp, gy, saved, needs):
    x, w = saved
    return _linear(op, xp, x, w, None) and floats(xp, gy) and gy.dtype == x.dtype


def _small(*arrays):
    """Whether all numbers can be counted in an int."""
    return all(a.size < 2**31 for a in arrays)


@register(Linear, "forward", _linear)
def linear_by_tiles(op, xp, x, w, b):
    """y = x w^T + b"""
    y = empty((*x.shape[:-1], len(w)), x.dtype)
    rows = _rows(x)
    _multiply(y, rows, _weights(w, rows).T, None if b is None else contiguous(b))
    return y, (x, w)


@register(Linear, "backward", _linear_backward)
def linear_backward_by_tiles(op, xp, gy, saved, needs):
    """gx = gy w, gw = gy^T x; gb, the sum of gy's rows, on the way."""
    x, w = saved
    gy_rows = _rows(gy)
    gx = gw = gb = None
    if needs[0]:
        gx = empty(x.shape, x.dtype)
        _multiply(gx, gy_rows, _weights(w, gy_rows))
    if needs[1]:
        gw, gb = empty(w.shape), empty((len(w),)) if needs[2] else None
        _multiply(gw, gy_rows.T, _rows(x), row_sums=gb)
    elif needs[2]:
        gb = channel_sums(gy_rows)
    return gx, gw, gb


def _rows(x):
    """x (..., I) as contiguous rows (R, I)."""
    return contiguous(x).reshape(-1, x.shape[-1])


def _weights(w, rows):
    """w (O, I) as it is multiplied with rows of x or gy: as float16, where they and many are.

    Few rows are bound by reading w, which TF32 products do as it lies: float16 would cost a pass.
    """
    if rows.dtype == np.float32 or len(rows) < _MANY_ROWS:
        return _rows(w)
    return lay_out(w.reshape(*w.shape, 1, 1), False, rows.dtype).reshape(w.shape)


# MatMul -------------------------------------------------------------------------------------------


def _matmul(op, xp, a, b):
    """One matrix b for all, or one for each matrix of a."""
    return (
        floats(xp, a, b)
        and a.dtype == b.dtype
        and min(a.ndim, b.ndim) >= 2
        and a.shape[-1] == b.shape[-2]
        and (b.ndim == 2 or a.shape[:-2] == b.shape[:-2])
        and _small(a, b)
        and prod(a.shape[:-1]) * b.shape[-1] < 2**31
        and prod(a.shape[:-2]) < 2**16
    )


def _matmul_backward(op, xp, gy, saved, needs):
    return _matmul(op, xp, *saved) and floats(xp, gy) and gy.dtype == saved[0].dtype


@register(MatMul, "forward", _matmul)
def matmul_by_tiles(op, xp, a, b):
    """y = a b"""
    y = empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    left, right = _matrices(a, b)
    _multiply(y, left, right)
    return y, (a, b)


@register(MatMul, "backward", _matmul_backward)
def matmul_backward_by_tiles(op, xp, gy, saved, needs):
    """ga = gy b^T, gb = a^T gy"""
    a, b = saved
    (left, right), (gy, _) = _matrices(a, b), _matrices(gy, b)
    ga = gb = None
    if needs[0]:
        ga = empty(a.shape, a.dtype)
        _multiply(ga, gy, right.swapaxes(-1, -2))
    if needs[1]:
        gb = empty(b.shape, b.dtype)
        _multiply(gb, left.swapaxes(-1, -2), gy)
    return ga, gb


def _matrices(a, b):
    """a and b as contiguous matrices, or as equally many of them one after the other."""
    if b.ndim == 2:
        return _rows(a), contiguous(b)
    return tuple(contiguous(m).reshape(-1, *m.shape[-2:]) for m in (a, b))


# The product --------------------------------------------------------------------------------------


def _multiply(
    y: Array, a: Array, b: Array, bias: Array | None = None, row_sums: Array | None = None
) -> None:
    """y = a b + bias for a (M, K) and b (K, N), or for as many matrices as a and b both have.

    a and b are contiguous, or transposes of what is; float32 beside float16 is multiplied as TF32.
    row_sums (M,), float32, are those of a.
    """
    (M, K), N = a.shape[-2:], b.shape[-1]
    batch = a.size // (M * K)
    number = a.dtype if a.dtype == b.dtype else np.dtype(np.float32)
    # A row or column alone lies both ways; a's sums are taken where it lies across k.
    a_along = row_sums is None and bool(a.flags.c_contiguous)
    b_along = not b.flags.c_contiguous
    cut = plan(M, N, ceil_div(K * number.itemsize, LINE), batch, may_split=batch == 1)
    parts, part_size, sums = None, 0, row_sums
    if cut.splits > 1:
        part_size = M * N + (0 if row_sums is None else M)
        parts = empty((cut.splits, part_size))
        sums = None if row_sums is None else parts.reshape(-1)[M * N :]
    together = unit(y, N) // y.dtype.itemsize
    if parts is not None:
        together = min(together, unit(parts, part_size) // 4)

    def copied(matrix: Array, length: int) -> int:
        return min(unit(matrix, length) // matrix.dtype.itemsize * number.itemsize, 16)

    launch(
        "linear.cu", "product", (cut.tiles, batch, cut.splits), cut.tile.threads,
        a, b, y, parts, sums, bias, M, N, K, part_size, cut.splits,
        shared=cut.shared(a_along, b_along),
        **cut.constants, NUMBER="half_t" if number == np.float16 else "float",
        SA=type_name(a), SB=type_name(b), TY=type_name(y), EXACT=number == a.dtype and exact(a),
        A_ALONG=a_along, UNIT_A=copied(a, K if a_along else M),
        B_ALONG=b_along, UNIT_B=copied(b, K if b_along else N), VECTOR=together,
    )  # fmt: skip
    if parts is not None and row_sums is not None:
        sum_gradient(y, row_sums, parts, N, 1)
    elif parts is not None:
        sum_product(y, N, parts, Finish(b=bias))

"""The matrix product that convolutions and fully connected layers are made of."""

from __future__ import annotations

from tinyconv.kernels.cpu.jit import F32, INT, jit, shared
from tinyconv.kernels.cpu.simd import LANES, REGISTERS, make_block, nowhere, offset

# As many rows as registers hold besides the vectors of b: 14 x 2 of 32 registers, 6 x 2 of 16.
_MOST, _MANY, _FEW = (14, 8, 4) if REGISTERS == 32 else (6, 4, 2)

_wide_most, _slim_most = make_block(_MOST, 2), make_block(_MOST, 1)
_wide_ahead, _slim_ahead = make_block(_MOST, 2, ahead=True), make_block(_MOST, 1, ahead=True)
_wide_many, _slim_many = make_block(_MANY, 2), make_block(_MANY, 1)
_wide_few, _slim_few = make_block(_FEW, 2), make_block(_FEW, 1)


@jit
def multiply(a, ar, ao, ak, b, bo, bk, s, sr, c, cr, outer, inner, rows, columns):
    """As multiply_and_finish with nothing to do at the end."""
    multiply_and_finish(
        a, ar, ao, ak, b, bo, bk, s, sr, c, cr, outer, inner, rows, columns,
        nowhere(), 0, nowhere(), 0, 0,
    )  # fmt: skip


@shared
def multiply_and_finish(
    a: F32, ar: INT, ao: INT, ak: INT, b: F32, bo: INT, bk: INT, s: F32, sr: INT,
    c: F32, cr: INT, outer: INT, inner: INT, rows: INT, columns: INT,
    t: F32, adds: INT, limits: F32, past_cache: INT, ahead: INT,
):  # fmt: skip
    """c[r cr + l] = s[r sr + l] + sum of a[r ar + o ao + k ak] b[o bo + k bk + l] over o and k

    for o < outer, k < inner, r < rows and l < columns; all arrays are pointers to float32;
    s may be c (adding to it). Then come t, limits and past_cache, see simd.make_block.
    """
    for j in range(0, columns, 2 * LANES):
        left = columns - j
        wide = left > LANES
        lanes = min(left - LANES, LANES) if wide else left
        bj, sj, cj = offset(b, j), offset(s, j), offset(c, j)
        r = 0
        while r < rows:
            left = rows - r
            if left > _MANY + _FEW and (wide or left % _MANY):
                size, count = 0, min(left, _MOST)
            elif left > _FEW:
                size, count = 1, min(left, _MANY)
            else:
                size, count = 2, left
            ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
            tp = offset(t, r * cr + j) if adds else nowhere()
            if wide:
                if size == 0 and ahead:
                    _wide_ahead(
                        ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                        outer, inner, count, lanes, tp, limits, past_cache,
                    )  # fmt: skip
                elif size == 0:
                    _wide_most(
                        ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                        outer, inner, count, lanes, tp, limits, past_cache,
                    )  # fmt: skip
                elif size == 1:
                    _wide_many(
                        ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                        outer, inner, count, lanes, tp, limits, past_cache,
                    )  # fmt: skip
                else:
                    _wide_few(
                        ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                        outer, inner, count, lanes, tp, limits, past_cache,
                    )  # fmt: skip
            elif size == 0 and ahead:
                _slim_ahead(
                    ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                    outer, inner, count, lanes, tp, limits, past_cache,
                )  # fmt: skip
            elif size == 0:
                _slim_most(
                    ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                    outer, inner, count, lanes, tp, limits, past_cache,
                )  # fmt: skip
            elif size == 1:
                _slim_many(
                    ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                    outer, inner, count, lanes, tp, limits, past_cache,
                )  # fmt: skip
            else:
                _slim_few(
                    ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr,
                    outer, inner, count, lanes, tp, limits, past_cache,
                )  # fmt: skip
            r += count

"""The matrix product that convolutions and fully connected layers are made of."""

from __future__ import annotations

from tinyconv.kernels.cpu.jit import F32, INT, shared
from tinyconv.kernels.cpu.simd import LANES, REGISTERS, make_block, offset

# As many rows as registers hold besides the vectors of b: 14 x 2 of 32 registers, 6 x 2 of 16.
_MOST, _MANY = (14, 8) if REGISTERS == 32 else (6, 6)

_wide_most, _wide_many = make_block(_MOST, 2), make_block(_MANY, 2)
_wide_4, _wide_1 = make_block(4, 2), make_block(1, 2)
_slim_most, _slim_many = make_block(_MOST, 1), make_block(_MANY, 1)
_slim_4, _slim_1 = make_block(4, 1), make_block(1, 1)


@shared
def multiply(
    a: F32, ar: INT, ao: INT, ak: INT, b: F32, bo: INT, bk: INT, s: F32, sr: INT,
    c: F32, cr: INT, outer: INT, inner: INT, rows: INT, columns: INT,
):  # fmt: skip
    """c[r cr + l] = s[r sr + l] + sum of a[r ar + o ao + k ak] b[o bo + k bk + l] over o and k

    for o < outer, k < inner, r < rows and l < columns; all arrays are pointers to float32;
    s may be c (adding to it).
    """
    for j in range(0, columns, 2 * LANES):
        left = columns - j
        wide = left > LANES
        lanes = min(left - LANES, LANES) if wide else left
        bj, sj, cj = offset(b, j), offset(s, j), offset(c, j)
        r = 0
        while r < rows:
            ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
            left = rows - r
            if left >= _MOST and (wide or left % _MANY):
                if wide:
                    _wide_most(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                else:
                    _slim_most(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += _MOST
            elif left >= _MANY:
                if wide:
                    _wide_many(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                else:
                    _slim_many(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += _MANY
            elif left >= 4:
                if wide:
                    _wide_4(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                else:
                    _slim_4(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += 4
            else:
                if wide:
                    _wide_1(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                else:
                    _slim_1(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += 1

"""The matrix product that convolutions and fully connected layers are made of."""

from __future__ import annotations

from tinyconv.kernels.cpu.jit import jit
from tinyconv.kernels.cpu.simd import LANES, REGISTERS, make_block, offset

# As many rows as registers hold besides the vectors of b: 14 x 2 of 32 registers, 6 x 2 of 16.
_ROWS = 14 if REGISTERS == 32 else 6

_wide_most, _wide_4, _wide_1 = make_block(_ROWS, 2), make_block(4, 2), make_block(1, 2)
_slim_most, _slim_4, _slim_1 = make_block(_ROWS, 1), make_block(4, 1), make_block(1, 1)


@jit
def multiply(a, ar, ao, ak, b, bo, bk, s, sr, c, cr, outer, inner, rows, columns):
    """c[r cr + l] = s[r sr + l] + sum_{o < outer, k < inner} a[r ar + o ao + k ak] b[o bo + k bk + l]

    for r < rows and l < columns; all arrays are pointers to float32, s may be c (adding to it).
    """
    j = 0
    while j < columns:
        bj, sj, cj = offset(b, j), offset(s, j), offset(c, j)
        r = 0
        if columns - j > LANES:
            lanes = min(columns - j - LANES, LANES)
            while r + _ROWS <= rows:
                ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
                _wide_most(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += _ROWS
            while r + 4 <= rows:
                ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
                _wide_4(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += 4
            while r < rows:
                ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
                _wide_1(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += 1
            j += 2 * LANES
        else:
            lanes = columns - j
            while r + _ROWS <= rows:
                ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
                _slim_most(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += _ROWS
            while r + 4 <= rows:
                ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
                _slim_4(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += 4
            while r < rows:
                ap, sp, cp = offset(a, r * ar), offset(sj, r * sr), offset(cj, r * cr)
                _slim_1(ap, ar, ao, ak, bj, bo, bk, sp, sr, cp, cr, outer, inner, lanes)
                r += 1
            j += LANES

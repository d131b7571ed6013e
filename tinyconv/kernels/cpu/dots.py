"""Dot products of rows with rows, y = x w^T: both lie along memory, so nothing is transposed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinyconv.kernels.cpu import simd
from tinyconv.kernels.cpu.simd import LANES, REGISTERS

# A block of 4 x 4 sums loads 8 vectors for 16 multiplications: all of it fits 32 registers.
ROWS, COLUMNS = 4, 4 if REGISTERS == 32 else 2


def _make_dots(most_rows: int) -> Any:
    """A function for Numba: most_rows x COLUMNS dot products at once.

    dots(a, ar, b, br, s, sr, c, cr, inner, rows, columns) computes

        c[r cr + j] = s[r sr + j] + sum_{k < inner} a[r ar + k] * b[j br + k]

    for r < rows <= most_rows and j < columns <= COLUMNS, all of them pointers to float32. Sums are
    vectors until their lanes are added at the end. A block that is not full does its last row or
    column again, which is cheaper than a choice in the loop.
    """
    cells = [(r, j) for r in range(most_rows) for j in range(COLUMNS)]
    vector = ir.VectorType(ir.FloatType(), LANES)
    add_lanes = f"llvm.vector.reduce.fadd.v{LANES}f32"

    @intrinsic
    def dots(_, a, ar, b, br, s, sr, c, cr, inner, rows, columns):
        def generate(context, builder, signature, arguments):
            a, ar, b, br, s, sr, c, cr, inner, rows, columns = arguments

            def number(n):
                return ir.Constant(ir.IntType(64), n)

            def within(n, count):
                last = builder.sub(count, number(1))
                return builder.select(builder.icmp_signed("<", number(n), count), number(n), last)

            row = [within(r, rows) for r in range(most_rows)]
            column = [within(j, columns) for j in range(COLUMNS)]
            a_rows = [builder.gep(a, [builder.mul(r, ar)]) for r in row]
            b_rows = [builder.gep(b, [builder.mul(j, br)]) for j in column]
            # LLVM turns these places on the stack into registers.
            sums = {cell: cgutils.alloca_once(builder, vector) for cell in cells}
            for cell in cells:
                builder.store(ir.Constant(vector, [0.0] * LANES), sums[cell])

            def step(k, load):
                b_vectors = [load(pointer, k) for pointer in b_rows]
                for r in range(most_rows):
                    a_vector = load(a_rows[r], k)
                    for j in range(COLUMNS):
                        before = builder.load(sums[r, j])
                        total = simd._multiply_add(builder, a_vector, b_vectors[j], before)
                        builder.store(total, sums[r, j])

            whole = builder.sdiv(inner, number(LANES))
            with cgutils.for_range(builder, whole) as loop:
                step(
                    builder.mul(loop.index, number(LANES)),
                    lambda p, k: builder.load(simd._vector_at(builder, p, k), align=4),
                )
            done = builder.mul(whole, number(LANES))
            left = builder.sub(inner, done)
            with builder.if_then(builder.icmp_signed(">", left, number(0))):
                mask = simd._mask(builder, left)
                step(
                    done,
                    lambda p, k: simd._masked_load(builder, simd._vector_at(builder, p, k), mask),
                )

            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), vector])
            function = cgutils.get_or_insert_function(builder.module, kind, add_lanes)
            starts = {
                (r, j): builder.load(
                    builder.gep(s, [builder.add(builder.mul(row[r], sr), column[j])])
                )
                for r, j in cells
            }
            totals = {
                cell: builder.call(
                    function, [starts[cell], builder.load(sums[cell])], fastmath=("reassoc",)
                )
                for cell in cells
            }
            for r, j in cells:
                where = builder.gep(c, [builder.add(builder.mul(row[r], cr), column[j])])
                builder.store(totals[r, j], where)
            return context.get_dummy_value()

        I = types.intp
        return types.void(a, I, b, I, s, I, c, I, I, I, I), generate

    return dots


dots_of_rows, dots_of_row = _make_dots(ROWS), _make_dots(1)

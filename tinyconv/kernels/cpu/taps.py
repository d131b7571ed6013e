"""Sums over small windows, element by element: what depthwise convolution does at each pixel."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinyconv.kernels.cpu import simd

# Pixels done together: they share the weights, and additions do not wait for one another. The
# widths of usual maps, halves of 224, are multiples of 7.
PIXELS = 7


def _make_taps(whole: bool) -> Any:
    """A function for Numba: windows of up to PIXELS pixels, LANES channels.

    taps(x, xs, xu, xv, w, wk, s, t, y, ys, KH, KW, count, lanes, limits, past) computes

        y[p ys + l] = s[l] + t[p ys + l] + sum_{u < KH, v < KW} x[p xs + u xu + v xv + l]
                                                                * w[(u KW + v) wk + l]

    for p < count <= PIXELS and l < lanes (`whole`: LANES), all of them pointers to float32, clipped
    to limits[0] and limits[1]; t may be nowhere(). past (not 0): y is aligned to whole
    vectors and written past the cache. Pixels that are too many do the last one again.
    """

    @intrinsic
    def taps(_, x, xs, xu, xv, w, wk, s, t, y, ys, KH, KW, count, lanes, limits, past):
        def generate(context, builder, signature, arguments):
            x, xs, xu, xv, w, wk, s, t, y, ys, KH, KW, count, lanes, limits, past = arguments
            mask = simd._mask(builder, lanes)

            def number(n):
                return ir.Constant(ir.IntType(64), n)

            def moved(pointer, *counts):
                return builder.gep(pointer, [builder.mul(*counts)])

            def load(pointer):
                where = simd._vector_at(builder, pointer, number(0))
                if whole:
                    return builder.load(where, align=4)
                return simd._masked_load(builder, where, mask)

            last = builder.sub(count, number(1))
            pixel = [
                builder.select(builder.icmp_signed("<", number(p), count), number(p), last)
                for p in range(PIXELS)
            ]
            offsets = [builder.mul(xs, p) for p in pixel]
            # LLVM turns these places on the stack into registers.
            sums = [cgutils.alloca_once(builder, simd._LLVM_VECTOR) for _ in pixel]
            start = load(s)
            for place in sums:
                builder.store(start, place)
            with cgutils.for_range(builder, KH) as rows:
                x_row = moved(x, xu, rows.index)
                w_row = moved(w, wk, builder.mul(KW, rows.index))
                with cgutils.for_range(builder, KW) as columns:
                    # An empty instruction keeps LLVM from unrolling: there are not enough registers
                    # for the pointers.
                    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], True)
                    x_tap = moved(x_row, xv, columns.index)
                    weights = load(moved(w_row, wk, columns.index))
                    for shift, place in zip(offsets, sums, strict=True):
                        value = load(builder.gep(x_tap, [shift]))
                        before = builder.load(place)
                        total = simd._multiply_add(builder, value, weights, before)
                        builder.store(total, place)
            with builder.if_then(builder.icmp_unsigned("!=", t, ir.Constant(t.type, None))):
                for p, place in zip(pixel, sums, strict=True):
                    total = builder.fadd(builder.load(place), load(moved(t, ys, p)))
                    builder.store(total, place)
            simd.clip_all(builder, sums, limits)
            to = [simd._vector_at(builder, moved(y, ys, p), number(0)) for p in pixel]
            totals = [builder.load(place) for place in sums]
            if not whole:
                for value, where in zip(totals, to, strict=True):
                    simd._masked_store(builder, value, where, mask)
                return context.get_dummy_value()
            streams = builder.icmp_signed("!=", past, number(0))
            with builder.if_else(streams) as (past_cache, into_cache):
                with past_cache:
                    for value, where in zip(totals, to, strict=True):
                        simd.store_past_cache(builder, value, where)
                with into_cache:
                    for value, where in zip(totals, to, strict=True):
                        builder.store(value, where, align=4)
            return context.get_dummy_value()

        I = types.intp
        return types.void(x, I, I, I, w, I, s, t, y, I, I, I, I, I, limits, I), generate

    return taps


taps, taps_of_few = _make_taps(whole=True), _make_taps(whole=False)

"""Vectors that are compared: what ReLU and max pooling need beside the arithmetic of simd.py.

Channels are taken LANES at a time. What loads and stores here takes the number of lanes that are
left, so that one loop serves whole vectors and the last, shorter one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinyconv.kernels.cpu import simd
from tinyconv.kernels.cpu.simd import LANES, vector

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)


@intrinsic
def where_greater(_, x, y, a, b):
    """In each lane a where x > y or x is NaN, else b."""

    def generate(context, builder, signature, arguments):
        x, y, a, b = arguments
        greater = builder.fcmp_ordered(">", x, y)
        return builder.select(builder.or_(greater, builder.fcmp_unordered("uno", x, x)), a, b)

    return vector(vector, vector, vector, vector), generate


@intrinsic
def where_equal(_, x, y, a, b):
    """In each lane a where x == y, else b."""

    def generate(context, builder, signature, arguments):
        x, y, a, b = arguments
        return builder.select(builder.fcmp_ordered("==", x, y), a, b)

    return vector(vector, vector, vector, vector), generate


@intrinsic
def where_inside(_, x, low, high, a, b):
    """In each lane a, or b where x <= low or x >= high: NaN is neither, as x or as a limit."""

    def generate(context, builder, signature, arguments):
        x, low, high, a, b = arguments
        below, above = builder.fcmp_ordered("<=", x, low), builder.fcmp_ordered(">=", x, high)
        return builder.select(builder.or_(below, above), b, a)

    return vector(vector, vector, vector, vector, vector), generate


@intrinsic
def load_lanes(_, pointer, index, lanes):
    """The vector pointer[index : index + lanes], zero from there on; lanes <= LANES.

    From float32, or from uint8 as the same numbers in float32.
    """
    memory, name = _memory(pointer)

    def generate(context, builder, signature, arguments):
        pointer, index, lanes = arguments
        where = builder.bitcast(builder.gep(pointer, [index]), memory.as_pointer())
        zero = ir.Constant(memory, [0] * LANES)
        found = cgutils.alloca_once(builder, memory)
        with builder.if_else(_whole(builder, lanes)) as (whole, short):
            with whole:
                builder.store(builder.load(where, align=_ALIGN), found)
            with short:
                mask, call = simd._mask(builder, lanes), f"llvm.masked.load.{name}.p0"
                value = simd._call(builder, call, memory, where, _I32(_ALIGN), mask, zero)
                builder.store(value, found)
        value = builder.load(found)
        return value if memory == _FLOATS else builder.uitofp(value, _FLOATS)

    return vector(pointer, types.intp, types.intp), generate


@intrinsic
def store_lanes(_, pointer, index, value, lanes):
    """pointer[index : index + lanes] = value's first lanes, into float32 or uint8."""
    kind = _memory(pointer)

    def generate(context, builder, signature, arguments):
        pointer, index, value, lanes = arguments
        _store(builder, pointer, index, value, lanes, kind)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector, types.intp), generate


@intrinsic
def stream_lanes(_, pointer, index, value, lanes, past_cache):
    """As store_lanes into float32; past_cache (not 0): without reading the memory into the cache.

    That is faster by half where a result is so large that nothing of it stays in the cache.
    """
    kind = _memory(pointer)

    def generate(context, builder, signature, arguments):
        pointer, index, value, lanes, past_cache = arguments
        zero = ir.Constant(past_cache.type, 0)
        address = builder.ptrtoint(builder.gep(pointer, [index]), ir.IntType(64))
        misplaced = builder.and_(address, ir.Constant(address.type, _STREAM_ALIGN - 1))
        streams = builder.and_(
            builder.icmp_signed("!=", past_cache, zero),
            builder.icmp_signed("==", misplaced, ir.Constant(address.type, 0)),
        )
        streams = builder.and_(streams, _whole(builder, lanes))
        with builder.if_else(streams) as (stream, store):
            with stream:
                where = simd._vector_at(builder, pointer, index)
                instruction = builder.store(value, where, align=_STREAM_ALIGN)
                one = builder.module.add_metadata([ir.Constant(_I32, 1)])
                instruction.set_metadata("nontemporal", one)
            with store:
                _store(builder, pointer, index, value, lanes, kind)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector, types.intp, types.intp), generate


_I32 = ir.IntType(32)
_STREAM_ALIGN = 16
_ALIGN = 1


def _memory(pointer: types.CPointer) -> tuple[Any, str]:
    """The vector that lies in memory, and its name in LLVM's functions."""
    if pointer.dtype == types.uint8:
        return _BYTES, f"v{LANES}i8"
    return _FLOATS, f"v{LANES}f32"


def _store(builder: Any, pointer: Any, index: Any, value: Any, lanes: Any, kind: Any) -> None:
    memory, name = kind
    where = builder.bitcast(builder.gep(pointer, [index]), memory.as_pointer())
    value = value if memory == _FLOATS else builder.fptoui(value, memory)
    with builder.if_else(_whole(builder, lanes)) as (whole, short):
        with whole:
            builder.store(value, where, align=_ALIGN)
        with short:
            mask, call = simd._mask(builder, lanes), f"llvm.masked.store.{name}.p0"
            simd._call(builder, call, ir.VoidType(), value, where, _I32(_ALIGN), mask)


def _whole(builder: Any, lanes: Any) -> Any:
    # Masks are slow on older processors; the branch costs nothing beside them.
    return builder.icmp_signed("==", lanes, ir.Constant(lanes.type, LANES))

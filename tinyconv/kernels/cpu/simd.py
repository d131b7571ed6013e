"""Vectors of float32 as a type for Numba, and the block of a matrix product built on them.

LLVM turns loops over contiguous channels into vector code by itself; what it does not find is a
block of results that stays in registers. `block` writes that loop in LLVM's own language.
"""

from __future__ import annotations

import operator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

_FEATURES = llvm.get_host_cpu_features()
REGISTERS = 32 if _FEATURES.get("avx512f") or _FEATURES.get("neon") else 16

# Numbers in a vector: what one register holds (16 with AVX-512, 8 with AVX, 4 with SSE and NEON).
LANES = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx") else 4


_LLVM_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class VectorType(types.Type):
    """LANES numbers of float32 that live in one register."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _LLVM_VECTOR)


def _vector_at(builder: Any, pointer: Any, index: Any) -> Any:
    """The address of pointer[index] as that of a vector."""
    return builder.bitcast(builder.gep(pointer, [index]), _LLVM_VECTOR.as_pointer())


def _broadcast(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_LLVM_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, nothing, zeros)


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call one of LLVM's own functions."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fma.v{LANES}f32", _LLVM_VECTOR, a, b, c)


def _mask(builder: Any, lanes: Any) -> Any:
    """The mask of the first `lanes` lanes."""
    kind = ir.VectorType(ir.IntType(32), LANES)
    nothing = ir.Constant(kind, ir.Undefined)
    count = builder.trunc(lanes, ir.IntType(32))
    first = builder.insert_element(nothing, count, ir.Constant(ir.IntType(32), 0))
    counts = builder.shuffle_vector(first, nothing, ir.Constant(kind, [0] * LANES))
    return builder.icmp_signed("<", ir.Constant(kind, list(range(LANES))), counts)


_ALIGN = ir.Constant(ir.IntType(32), 4)


def _masked_load(builder: Any, where: Any, mask: Any) -> Any:
    zero = ir.Constant(_LLVM_VECTOR, [0.0] * LANES)
    name = f"llvm.masked.load.v{LANES}f32.p0"
    return _call(builder, name, _LLVM_VECTOR, where, _ALIGN, mask, zero)


def _masked_store(builder: Any, value: Any, where: Any, mask: Any) -> None:
    name = f"llvm.masked.store.v{LANES}f32.p0"
    _call(builder, name, ir.VoidType(), value, where, _ALIGN, mask)


_LINE = 16  # numbers that come into the cache together, on nearly all processors


def _prefetch(builder: Any, pointer: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), *[ir.IntType(32)] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    where = builder.bitcast(pointer, kind.args[0])
    to_read, all_levels, data = (ir.Constant(ir.IntType(32), n) for n in (0, 3, 1))
    builder.call(function, [where, to_read, all_levels, data])


@intrinsic
def offset(_, pointer, count):
    """The pointer to the number that comes `count` numbers later."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), generate


@intrinsic
def load(_, pointer, index):
    """The vector pointer[index : index + LANES]."""

    def generate(context, builder, signature, arguments):
        return builder.load(_vector_at(builder, *arguments), align=4)

    return vector(pointer, types.intp), generate


@intrinsic
def store(_, pointer, index, value):
    """pointer[index : index + LANES] = value"""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _vector_at(builder, *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector), generate


@intrinsic
def load_first(_, pointer, index, lanes):
    """The vector pointer[index : index + lanes], zero from there on."""

    def generate(context, builder, signature, arguments):
        pointer, index, lanes = arguments
        return _masked_load(builder, _vector_at(builder, pointer, index), _mask(builder, lanes))

    return vector(pointer, types.intp, types.intp), generate


@intrinsic
def store_first(_, pointer, index, value, lanes):
    """pointer[index : index + lanes] = value's first lanes"""

    def generate(context, builder, signature, arguments):
        pointer, index, value, lanes = arguments
        where = _vector_at(builder, pointer, index)
        _masked_store(builder, value, where, _mask(builder, lanes))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector, types.intp), generate


@intrinsic
def transpose(_, x, xs, y, ys, scale):
    """y[k ys + l] = x[l xs + k] * scale[l] for k, l < LANES: a block of a matrix turned round."""

    def generate(context, builder, signature, arguments):
        x, xs, y, ys, scale = arguments

        def row(pointer, stride, r):
            step = builder.mul(stride, ir.Constant(ir.IntType(64), r))
            return _vector_at(builder, pointer, step)

        # Rows i and i + LANES/2 shuffled like cards, as often as LANES is a power of 2.
        kind = ir.VectorType(ir.IntType(32), LANES)
        cards = [n // 2 + n % 2 * LANES for n in range(2 * LANES)]
        halves = [ir.Constant(kind, cards[:LANES]), ir.Constant(kind, cards[LANES:])]
        rows = [builder.load(row(x, xs, r), align=4) for r in range(LANES)]
        for _ in range(LANES.bit_length() - 1):
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in halves]
        scales = builder.load(_vector_at(builder, scale, ir.Constant(ir.IntType(64), 0)), align=4)
        for r, value in enumerate(rows):
            builder.store(builder.fmul(value, scales), row(y, ys, r), align=4)
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.intp, scale), generate


@intrinsic
def prefetch(_, pointer, index):
    """Ask for pointer[index], wherever that may be, to come into the cache; nothing else."""

    def generate(context, builder, signature, arguments):
        _prefetch(builder, builder.gep(*arguments[:1], [arguments[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp), generate


@intrinsic
def broadcast(_, number):
    """The vector of LANES times the same number."""

    def generate(context, builder, signature, arguments):
        return _broadcast(builder, arguments[0])

    return vector(types.float32), generate


@intrinsic
def multiply_add(_, a, b, c):
    """a * b + c for vectors, rounded once."""

    def generate(context, builder, signature, arguments):
        return _multiply_add(builder, *arguments)

    return vector(vector, vector, vector), generate


def _arithmetic(operation: Any, instruction: str) -> None:
    @infer_global(operation)
    class _Template(ConcreteTemplate):
        cases = [signature(vector, vector, vector)]  # noqa: RUF012

    @lower_builtin(operation, vector, vector)
    def _lower(context, builder, signature, arguments):
        return getattr(builder, instruction)(*arguments)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


def clip_all(builder: Any, places: Any, limits: Any) -> None:
    """Clip the vectors in these places on the stack to limits[0] and limits[1]; NaN stays NaN.

    Nothing is done where `limits` is nowhere().
    """
    somewhere = builder.icmp_unsigned("!=", limits, ir.Constant(limits.type, None))
    with builder.if_then(somewhere):
        low, high = (
            _broadcast(builder, builder.load(builder.gep(limits, [ir.Constant(ir.IntType(64), n)])))
            for n in (0, 1)
        )
        for place in places:
            value = builder.load(place)
            value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
            value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
            builder.store(value, place)


def store_past_cache(builder: Any, value: Any, where: Any) -> None:
    """Store a vector, at a multiple of its size, without reading the memory into the cache."""
    one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
    builder.store(value, where, align=4 * LANES).set_metadata("nontemporal", one)


@intrinsic
def nowhere(_):
    """A pointer to float32 that leads nowhere, for what is left out."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.FloatType().as_pointer(), None)

    return types.CPointer(types.float32)(), generate


def make_block(rows: int, vectors: int, ahead: bool = False) -> Any:
    """A function for Numba: a block of rows x (vectors * LANES) sums that stays in registers.

    block(a, ar, ao, ak, b, bo, bk, s, sr, c, cr, outer, inner, count, lanes, t, limits, past)
    computes

        c[r cr + l] = s[r sr + l] + t[r cr + l]
                      + sum_{o < outer, k < inner} a[r ar + o ao + k ak] * b[o bo + k bk + l]

    for r < count <= rows and l < (vectors - 1) LANES + lanes, all of them pointers to float32. Two
    nested sums reach the windows in images: o walks over rows of pixels, k along one. A block that
    is not full does its last row again, which is cheaper than a choice. Then:

    t may be nowhere(). Results are clipped to limits[0] and limits[1], unless that is nowhere().
    past (not 0): they are written past the cache; all vectors are whole, and lie in c at multiples
    of their size. With `ahead` the numbers from a[ar * rows] on come into the cache meanwhile: the
    next block of a, where its rows lie one after another.
    """
    cells = [(r, v) for r in range(rows) for v in range(vectors)]

    @intrinsic
    def block(
        _, a, ar, ao, ak, b, bo, bk, s, sr, c, cr, outer, inner, count, lanes,
        t, limits, past,
    ):  # fmt: skip
        def generate(context, builder, signature, arguments):
            a, ar, ao, ak, b, bo, bk, s, sr, c, cr, outer, inner, count, lanes = arguments[:15]
            t, limits, past = arguments[15:]
            mask = _mask(builder, lanes)

            def number(n):
                return ir.Constant(ir.IntType(64), n)

            def moved(pointer, stride, count):
                return builder.gep(pointer, [builder.mul(stride, count)])

            last = builder.sub(count, number(1))
            row = [
                builder.select(builder.icmp_signed("<", number(r), count), number(r), last)
                for r in range(rows)
            ]

            # One pointer that moves and an offset for each row: few registers, and nothing to be
            # worked out anew for every o.
            a_offsets = [builder.mul(ar, r) for r in row]

            def load_part(pointer, v):  # the last vector may be cut short
                where = _vector_at(builder, pointer, number(v * LANES))
                if v < vectors - 1:
                    return builder.load(where, align=4)
                return _masked_load(builder, where, mask)

            def store_part(value, pointer, v):
                where = _vector_at(builder, pointer, number(v * LANES))
                if v < vectors - 1:
                    builder.store(value, where, align=4)
                else:
                    _masked_store(builder, value, where, mask)

            # LLVM turns these places on the stack into registers.
            sums = {cell: cgutils.alloca_once(builder, _LLVM_VECTOR) for cell in cells}
            for r, v in cells:
                builder.store(load_part(moved(s, sr, row[r]), v), sums[r, v])
            adds, clips = (
                builder.icmp_unsigned("!=", pointer, ir.Constant(pointer.type, None))
                for pointer in (t, limits)
            )
            streams = builder.icmp_signed("!=", past, number(0))
            finishes = builder.or_(builder.or_(adds, clips), streams)
            with builder.if_then(adds):
                for r, v in cells:
                    _prefetch(builder, builder.gep(moved(t, cr, row[r]), [number(v * LANES)]))
            next_rows = moved(a, ar, number(rows))
            with cgutils.for_range(builder, outer) as outer_loop:
                a_outer = moved(a, ao, outer_loop.index)
                b_outer = moved(b, bo, outer_loop.index)
                with cgutils.for_range(builder, inner) as loop:
                    b_inner = moved(b_outer, bk, loop.index)
                    b_vectors = [load_part(b_inner, v) for v in range(vectors)]
                    a_inner = moved(a_outer, ak, loop.index)
                    if ahead:
                        _prefetch(builder, moved(next_rows, number(_LINE), loop.index))
                    for r in range(rows):
                        a_number = builder.load(builder.gep(a_inner, [a_offsets[r]]))
                        a_vector = _broadcast(builder, a_number)
                        for v in range(vectors):
                            before = builder.load(sums[r, v])
                            total = _multiply_add(builder, a_vector, b_vectors[v], before)
                            builder.store(total, sums[r, v])

            def store_all():
                for r, v in cells:
                    store_part(builder.load(sums[r, v]), moved(c, cr, row[r]), v)

            with builder.if_else(finishes) as (with_more, at_once):
                with at_once:
                    store_all()
                with with_more:
                    with builder.if_then(adds):
                        for r, v in cells:
                            term = load_part(moved(t, cr, row[r]), v)
                            total = builder.fadd(builder.load(sums[r, v]), term)
                            builder.store(total, sums[r, v])
                    clip_all(builder, sums.values(), limits)
                    with builder.if_else(streams) as (past_cache, into_cache):
                        with past_cache:
                            for r, v in cells:
                                where = _vector_at(builder, moved(c, cr, row[r]), number(v * LANES))
                                store_past_cache(builder, builder.load(sums[r, v]), where)
                        with into_cache:
                            store_all()
            return context.get_dummy_value()

        I = types.intp
        kinds = (a, I, I, I, b, I, I, s, I, c, I, I, I, I, I, t, limits, I)
        return types.void(*kinds), generate

    return block

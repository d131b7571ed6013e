"""One native loop that runs a table of launches, on several threads at once.

A table has one row for each launch: address of the kernel, address of its packed arguments, their
number, items, parts. All threads walk through all rows; each does its part of a row and waits for
the others before the next. Nothing of this needs Python or its lock.
"""

from __future__ import annotations

import os

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinyconv.kernels.cpu.jit import jit

FUNCTION, ARGUMENTS, COUNT, ITEMS, PARTS, COLUMNS = range(6)

MOST_ARGUMENTS = 32

CANCELLED = 2**40  # a barrier's count that ends a run


@intrinsic
def _call(_, function, arguments, count, part, begin, end):
    """Call the C function at an address with `count` 64-bit words and three numbers more."""

    def generate(context, builder, signature, values):
        function, arguments, count, part, begin, end = values
        word = ir.IntType(64)
        words = builder.inttoptr(arguments, word.as_pointer())
        done = builder.append_basic_block("done")
        switch = builder.switch(count, done)
        for n in range(MOST_ARGUMENTS + 1):
            case = builder.append_basic_block(f"with_{n}")
            switch.add_case(ir.Constant(word, n), case)
            builder.position_at_end(case)
            given = [
                builder.load(builder.gep(words, [ir.Constant(ir.IntType(32), i)])) for i in range(n)
            ]
            kind = ir.FunctionType(ir.VoidType(), [word] * (n + 3))
            builder.call(builder.inttoptr(function, kind.as_pointer()), [*given, part, begin, end])
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def _add_atomic(_, counter, index, amount):
    """counter[index] += amount as one step that all threads see; the value before."""

    def generate(context, builder, signature, values):
        array, index, amount = values
        data = context.make_array(signature.args[0])(context, builder, array).data
        return builder.atomic_rmw("add", builder.gep(data, [index]), amount, "seq_cst")

    return types.int64(counter, types.intp, types.int64), generate


@intrinsic
def _read_atomic(_, counter, index):
    """counter[index] as it is in memory now; a plain read may be kept in a register."""

    def generate(context, builder, signature, values):
        array, index = values
        data = context.make_array(signature.args[0])(context, builder, array).data
        return builder.load_atomic(builder.gep(data, [index]), ordering="acquire", align=8)

    return types.int64(counter, types.intp), generate


@intrinsic
def _cycles(_):
    """The processor's running count of cycles."""

    def generate(context, builder, signature, values):
        name = "llvm.readcyclecounter"
        function = builder.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(ir.IntType(64), [])
            function = ir.Function(builder.module, kind, name)
        return builder.call(function, [])

    return types.int64(), generate


_yield_thread = types.ExternalFunction(
    "sched_yield" if os.name == "posix" else "SwitchToThread", types.int32()
)

# A thread that waited so many turns (some 20 microseconds) lets others run on its core.
_PATIENCE = 8_000


@jit
def run_table(table, first, last, thread, threads, barrier, ticks):
    """Run rows first to last as thread number `thread` of `threads`.

    `barrier` (int64, one number, 0 at the start) counts arrivals; `ticks` (int64, one number for
    each row) grows by the cycles that the row took.
    """
    before = _cycles()
    goal = 0
    for row in range(first, last):
        if threads > 1 and _read_atomic(barrier, 0) >= CANCELLED:
            return
        parts = table[row, PARTS]
        if thread < parts:
            items = table[row, ITEMS]
            for part in range(thread, parts, threads):
                begin, end = part * items // parts, (part + 1) * items // parts
                _call(
                    table[row, FUNCTION], table[row, ARGUMENTS], table[row, COUNT], part, begin, end
                )
        if threads > 1:
            goal += threads
            _add_atomic(barrier, 0, 1)
            turns = 0
            while _read_atomic(barrier, 0) < goal:
                turns += 1
                if turns > _PATIENCE:
                    _yield_thread()
        if thread == 0:
            now = _cycles()
            ticks[row] += now - before
            before = now


@jit
def wait_for_change(counter, seen, turns):
    """Look at counter[0] (int64) up to `turns` times; whether it differs from `seen`."""
    for _ in range(turns):  # noqa: SIM110
        if _read_atomic(counter, 0) != seen:
            return True
    return False

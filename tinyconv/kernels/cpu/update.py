"""The optimisers' updates: all parameters in one launch, each number read and written once.

NumPy makes ten passes over memory for Adam, and ten calls for every parameter. Here a table holds
the addresses of all parameters' arrays, so that the launch is the same for one and for hundreds,
and threads share their numbers evenly, however these are spread over parameters.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinyconv.kernels.cpu.jit import F32, F64, I64, INT, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import contiguous
from tinyconv.kernels.cpu.simd import offset
from tinyconv.kernels.cpu.when import float32
from tinyconv.kernels.fused import Together
from tinyconv.op import register
from tinyconv.ops.update import AdamUpdate, CountStep, RMSpropUpdate, SGDUpdate

# A row of the table: where the parameter's numbers begin among those of all, then the addresses of
# p, g, lr, t and of up to three arrays that the optimiser keeps. One row more says where all end.
_START, _P, _G, _LR, _T, _SLOTS = range(6)
_COLUMNS = _SLOTS + 3

_STRETCH = 1024  # numbers worked on at a time: their gradient stays in the first cache


# Which arrays an update needs of those it may be given -------------------------------------------


def _slots(op, given):
    """The optimiser's arrays that the settings make use of, and whether they do, for each."""
    wanted: tuple[Any, ...] = (op.momentum,) if isinstance(op, SGDUpdate) else ()
    if isinstance(op, AdamUpdate):
        wanted = (True, True, op.amsgrad)
    if isinstance(op, RMSpropUpdate):
        wanted = (True, op.centered, op.momentum)
    return [(slot if w else None, bool(w)) for slot, w in zip(given, wanted, strict=True)]


def _is_number(x):
    return isinstance(x, np.ndarray) and x.shape == () and x.dtype == np.float64


def _update(op, xp, p, g, lr, t, *slots):
    if not (float32(xp, p, g) and g.shape == p.shape and _is_number(lr) and _is_number(t)):
        return False
    written = [p, *(slot for slot, wanted in _slots(op, slots) if wanted)]
    return all(
        a is not None
        and a.dtype == np.float32
        and a.shape == p.shape
        and a.flags.c_contiguous
        and a.flags.writeable
        for a in written
    )


def _count(op, xp, t):
    return _is_number(t) or (isinstance(t, np.ndarray) and t.shape == () and t.dtype == np.int64)


def _together(op, xp, *inputs):
    when = _count if type(op.op) is CountStep else _update
    known = type(op.op) is CountStep or type(op.op) in _KERNELS
    return known and all(when(op.op, xp, *one) for one in _split(inputs, op.width))


def _split(inputs, width):
    return [inputs[i : i + width] for i in range(0, len(inputs), width)]


# The ways -----------------------------------------------------------------------------------------


@register(SGDUpdate, "forward", _update)
@register(AdamUpdate, "forward", _update)
@register(RMSpropUpdate, "forward", _update)
def update_in_one_pass(op, xp, *inputs):
    """One parameter's update."""
    return _update_all(op, [inputs])


@register(CountStep, "forward", _count)
def count_step(op, xp, t):
    """t += 1"""
    return _count_all([t])


@register(Together, "forward", _together)
def updates_in_one_launch(op, xp, *inputs):
    """The updates, or counts, of all parameters."""
    if type(op.op) is CountStep:
        return _count_all(inputs)
    return _update_all(op.op, _split(inputs, op.width))


def _update_all(op, parameters):
    used, rows, total = [], [], 0
    for p, g, lr, t, *slots in parameters:
        arrays = [p, contiguous(g), lr, t, *(slot for slot, _ in _slots(op, slots))]
        row = [total, *(0 if a is None else a.ctypes.data for a in arrays)]
        rows.append(row + [0] * (_COLUMNS - len(row)))
        used += [a for a in arrays if a is not None]
        total += p.size
    table = np.array([*rows, [total] + [0] * (_COLUMNS - 1)], np.int64)
    function, nanoseconds, settings = _KERNELS[type(op)]
    numbers = [-1.0 if op.maximize else 1.0, op.weight_decay, op.l1, *settings(op)]
    parts = parts_for(total, nanoseconds * total)
    launch(
        function, table, np.array(numbers, np.float64), empty((parts, _STRETCH)), len(rows),
        items=total, parts=parts, also=tuple(used),
    )  # fmt: skip
    return None, ()


def _count_all(counts):
    # Optimisers count their steps in float64, batch norms their batches in int64.
    for dtype, function in ((np.float64, _count_steps), (np.int64, _count_batches)):
        same = tuple(t for t in counts if t.dtype == dtype)
        if same:
            table = np.array([t.ctypes.data for t in same], np.int64)
            launch(function, table, items=len(table), also=same)
    return None, ()


# The kernels --------------------------------------------------------------------------------------


@intrinsic
def _float32_at(_, address, index):
    """The pointer to number `index` of those at an address."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.FloatType().as_pointer())
        return builder.gep(pointer, [arguments[1]])

    return F32(types.int64, types.intp), generate


@intrinsic
def _float64_at(_, address):
    """The pointer to the numbers at an address."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())

    return F64(types.int64), generate


@intrinsic
def _int64_at(_, address):
    """The pointer to the whole numbers at an address."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())

    return I64(types.int64), generate


@kernel
def _count_steps(table: I64, part: INT, begin: INT, end: INT):
    for i in range(begin, end):
        t = _float64_at(table[i])
        t[0] += 1


@kernel
def _count_batches(table: I64, part: INT, begin: INT, end: INT):
    for i in range(begin, end):
        t = _int64_at(table[i])
        t[0] += 1


@jit
def _gradient(scratch, p, g, size, settings):
    """The pointer to the gradient with weight decay and so on, in `scratch` where that changes it.

    `settings` are 1 or, to maximise, -1; weight_decay; l1; then what belongs to the optimiser.
    """
    sign, decay, l1 = np.float32(settings[0]), np.float32(settings[1]), np.float32(settings[2])
    if sign == 1 and decay == 0 and l1 == 0:
        return g
    for i in range(size):
        scratch[i] = sign * g[i]
    if decay != 0:
        for i in range(size):
            scratch[i] += decay * p[i]
    if l1 != 0:
        one = np.float32(1)
        for i in range(size):
            scratch[i] += l1 * (one if p[i] > 0 else -one if p[i] < 0 else p[i])
    return scratch


@kernel
def _sgd(
    table: I64, settings: F64, scratch: F32, count: INT, part: INT, begin: INT, end: INT
):  # fmt: skip
    """Items are the numbers of all parameters, in one row."""
    momentum, nesterov = np.float32(settings[3]), settings[5]
    mine = offset(scratch, part * _STRETCH)
    for i in range(count):
        row = i * _COLUMNS
        rate = np.float32(_float64_at(table[row + _LR])[0])
        first = _float64_at(table[row + _T])[0] == 1
        damping = np.float32(1 if first else 1 - settings[4])
        start, stop = _mine(table, row, begin, end)
        for at in range(start, stop, _STRETCH):
            size = min(_STRETCH, stop - at)
            p = _float32_at(table[row + _P], at)
            g = _gradient(mine, p, _float32_at(table[row + _G], at), size, settings)
            if momentum == 0:
                for k in range(size):
                    p[k] -= rate * g[k]
                continue
            v = _float32_at(table[row + _SLOTS], at)
            if nesterov:
                for k in range(size):
                    v[k] = momentum * v[k] + damping * g[k]
                    p[k] -= rate * (g[k] + momentum * v[k])
            else:
                for k in range(size):
                    v[k] = momentum * v[k] + damping * g[k]
                    p[k] -= rate * v[k]


@jit
def _mine(table, row, begin, end):
    """From where to where a parameter's numbers are in the part from begin to end."""
    start, stop = table[row + _START], table[row + _COLUMNS + _START]
    return max(begin, start) - start, min(end, stop) - start


@kernel
def _adam(
    table: I64, settings: F64, scratch: F32, count: INT, part: INT, begin: INT, end: INT
):  # fmt: skip
    """Items are the numbers of all parameters, in one row."""
    b1, b2, shrink, amsgrad = settings[3], settings[4], settings[6], settings[7]
    eps, f1, f2 = np.float32(settings[5]), np.float32(1 - b1), np.float32(1 - b2)
    b2_short = np.float32(b2)
    mine = offset(scratch, part * _STRETCH)
    for i in range(count):
        row = i * _COLUMNS
        start, stop = _mine(table, row, begin, end)
        if start >= stop:
            continue
        rate, t = _float64_at(table[row + _LR])[0], _float64_at(table[row + _T])[0]
        step_size = np.float32(rate / (1 - b1**t))
        correction = np.float32(math.sqrt(1 - b2**t))
        kept = np.float32(1 - rate * shrink)
        for at in range(start, stop, _STRETCH):
            size = min(_STRETCH, stop - at)
            p = _float32_at(table[row + _P], at)
            m, v = _float32_at(table[row + _SLOTS], at), _float32_at(table[row + _SLOTS + 1], at)
            if shrink != 0:
                for k in range(size):
                    p[k] *= kept
            g = _gradient(mine, p, _float32_at(table[row + _G], at), size, settings)
            if amsgrad:
                largest = _float32_at(table[row + _SLOTS + 2], at)
                for k in range(size):
                    m[k] += f1 * (g[k] - m[k])
                    v[k] = b2_short * v[k] + f2 * g[k] * g[k]
                    if not (largest[k] >= v[k] or largest[k] != largest[k]):  # NaN stays NaN
                        largest[k] = v[k]
                    p[k] -= step_size * m[k] / (math.sqrt(largest[k]) / correction + eps)
            else:
                for k in range(size):
                    m[k] += f1 * (g[k] - m[k])
                    v[k] = b2_short * v[k] + f2 * g[k] * g[k]
                    p[k] -= step_size * m[k] / (math.sqrt(v[k]) / correction + eps)


@kernel
def _rmsprop(
    table: I64, settings: F64, scratch: F32, count: INT, part: INT, begin: INT, end: INT
):  # fmt: skip
    """Items are the numbers of all parameters, in one row."""
    a, f = np.float32(settings[3]), np.float32(1 - settings[3])
    eps, momentum, centered = np.float32(settings[4]), np.float32(settings[5]), settings[6]
    mine = offset(scratch, part * _STRETCH)
    for i in range(count):
        row = i * _COLUMNS
        rate = np.float32(_float64_at(table[row + _LR])[0])
        start, stop = _mine(table, row, begin, end)
        for at in range(start, stop, _STRETCH):
            size = min(_STRETCH, stop - at)
            p, v = _float32_at(table[row + _P], at), _float32_at(table[row + _SLOTS], at)
            g = _gradient(mine, p, _float32_at(table[row + _G], at), size, settings)
            if centered:
                mean = _float32_at(table[row + _SLOTS + 1], at)
                for k in range(size):
                    v[k] = a * v[k] + f * g[k] * g[k]
                    mean[k] += f * (g[k] - mean[k])
                    mine[k] = g[k] / (math.sqrt(v[k] - mean[k] * mean[k]) + eps)
            else:
                for k in range(size):
                    v[k] = a * v[k] + f * g[k] * g[k]
                    mine[k] = g[k] / (math.sqrt(v[k]) + eps)
            step = mine
            if momentum != 0:
                step = _float32_at(table[row + _SLOTS + 2], at)
                for k in range(size):
                    step[k] = momentum * step[k] + mine[k]
            for k in range(size):
                p[k] -= rate * step[k]


# Of each update: its kernel, nanoseconds for a number, and the settings that the kernel takes.
_KERNELS = {
    SGDUpdate: (_sgd, 0.5, lambda op: (op.momentum, op.dampening, op.nesterov)),
    AdamUpdate: (_adam, 1.0, lambda op: (*op.betas, op.eps, op.shrink, op.amsgrad)),
    RMSpropUpdate: (_rmsprop, 1.0, lambda op: (op.alpha, op.eps, op.momentum, op.centered)),
}

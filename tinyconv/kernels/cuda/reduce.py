"""Sums and means over axes; their gradients are views.

The axes are seen in the order of memory, kept ones and summed ones each in runs. The innermost run
of summed axes is summed first, as the middle axis of (K1, R, K2); then the next. The order of all
additions is fixed by the shape: results are the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda.launch import PROCESSORS, ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import contiguous, empty
from tinyconv.kernels.cuda.strides import order_of, seen_back
from tinyconv.kernels.cuda.when import floats
from tinyconv.op import register
from tinyconv.ops.reduce import Mean, Sum

_THREADS = 256
_ENOUGH = 2 * PROCESSORS  # blocks
_LEAST = 16  # numbers that a thread sums before its run is cut in parts


def total(x: Array, axes: Sequence[int], scale: float = 1.0) -> Array:
    """scale * the sum of x (float32 or float16, added up in float32) over axes, which go away."""
    order = order_of(x)
    if order is None:
        x, order = contiguous(x), tuple(range(x.ndim))
    runs: list[tuple[bool, int]] = []  # whether it is summed, and its size
    for axis in order:
        summed, n = axis in axes, x.shape[axis]
        if runs and runs[-1][0] == summed:
            runs[-1] = summed, n * runs[-1][1]
        else:
            runs.append((summed, n))
    memory, dtype = x, x.dtype
    while any(summed for summed, _ in runs):
        innermost = max(i for i, (summed, _) in enumerate(runs) if summed)
        sizes = [n for _, n in runs]
        del runs[innermost]
        last = not any(summed for summed, _ in runs)
        memory = _sum_middle(
            memory, math.prod(sizes[:innermost]), sizes[innermost],
            math.prod(sizes[innermost + 1 :]), scale if last else 1.0,
            dtype if last else np.float32,
        )  # fmt: skip
    kept = [axis for axis in order if axis not in axes]
    places = sorted(kept)
    memory = memory.reshape(tuple(x.shape[axis] for axis in kept))
    return seen_back(memory, [places.index(axis) for axis in kept])


def sum_to(g: Array, shape: tuple[int, ...]) -> Array:
    """g summed over the axes along which an input of `shape` was broadcast to g's."""
    if g.shape == shape:
        return g
    missing = g.ndim - len(shape)
    stretched = [missing + i for i, n in enumerate(shape) if n == 1 and g.shape[missing + i] != 1]
    return total(g, [*range(missing), *stretched]).reshape(shape)


def _sum_middle(x, K1, R, K2, scale, dtype):
    """The memory x (K1, R, K2) -> scale * sum over R, as (K1, K2) of dtype."""
    across = min(_power_of_two(K2), 32)
    along = min(_power_of_two(R), _THREADS // across)
    rows = _THREADS // (across * along)
    blocks = ceil_div(K1, rows) * ceil_div(K2, across)
    parts = 1
    if blocks < _ENOUGH:
        parts = min(ceil_div(R, along * _LEAST), ceil_div(4 * _ENOUGH, blocks))
    part = ceil_div(R, parts)
    parts = ceil_div(R, part)
    y = empty((K1, parts, K2), dtype if parts == 1 else np.float32)
    launch(
        "reduce.cu", "sum_middle", ceil_div(K1, rows) * ceil_div(K2, across) * parts, _THREADS,
        y, x, K1, R, K2, part, parts, scale if parts == 1 else 1.0,
        across, along, TX=type_name(x), TY=type_name(y),
    )  # fmt: skip
    return y if parts == 1 else _sum_middle(y, K1, parts, K2, scale, dtype)


def _power_of_two(n):
    return 1 << (n - 1).bit_length()


def _axes(op, ndim):
    return list(range(ndim)) if op.dim is None else [axis % ndim for axis in op.dim]


def _forward(op, xp, x):
    return floats(xp, x)


def _backward(op, xp, gy, saved, needs):
    return floats(xp, gy)


def _reduced(op, x, scale):
    axes = _axes(op, x.ndim)
    y = total(x, axes, scale)
    if op.keepdim:
        y = y.reshape(tuple(1 if i in axes else n for i, n in enumerate(x.shape)))
    return y, (x.shape,)


@register(Sum, "forward", _forward)
def sum_of_runs(op, xp, x):
    """y = sum of x over dim"""
    return _reduced(op, x, 1.0)


@register(Mean, "forward", _forward)
def mean_of_runs(op, xp, x):
    """y = mean of x over dim"""
    return _reduced(op, x, 1 / math.prod(x.shape[axis] for axis in _axes(op, x.ndim)))


@register(Sum, "backward", _backward)
@register(Mean, "backward", _backward)
def spread(op, xp, gy, saved, needs):
    """gy or its share, seen with x's shape: what reads it next reads each number many times."""
    return op.backward(xp, gy, saved, needs)

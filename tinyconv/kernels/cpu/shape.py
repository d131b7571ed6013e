"""Other shapes for the same numbers: views, and a copy only where the order in memory changes.

Nothing is computed here; as kernels these ops can be part of a compiled step's native loop.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.layout import contiguous
from tinyconv.kernels.cpu.when import float32
from tinyconv.op import register
from tinyconv.ops.shape import Permute, Reshape, Slice


def _of_float32(op, xp, x):
    return float32(xp, x)


def _of_float32_backward(op, xp, gy, saved, needs):
    return float32(xp, gy)


def _reshaped(x, shape):
    x = np.asarray(x)  # NumPy's sums are scalars
    try:
        return x.reshape(shape, copy=False)
    except ValueError:
        return contiguous(x).reshape(shape)


@register(Reshape, "forward", _of_float32)
def reshape_view(op, xp, x):
    """x in another shape: itself seen anew, where its order in memory allows that."""
    return _reshaped(x, op.shape), (x.shape,)


@register(Reshape, "backward", _of_float32_backward)
def reshape_back(op, xp, gy, saved, needs):
    """gy in x's shape, in the same way."""
    return (_reshaped(gy, saved[0]),)


@register(Permute, "forward", _of_float32)
def permute_view(op, xp, x):
    """x with its axes in another order."""
    return op.forward(xp, x)


@register(Permute, "backward", _of_float32_backward)
def permute_back(op, xp, gy, saved, needs):
    """gy with its axes in x's order."""
    return op.backward(xp, gy, saved, needs)


@register(Slice, "forward", _of_float32)
def slice_view(op, xp, x):
    """A part of x, seen where it is."""
    index = op.index if isinstance(op.index, tuple) else (op.index,)
    if Ellipsis not in index:  # with it, a single number too comes as a view
        index = (*index, Ellipsis)
    return x[index], (x.shape,)

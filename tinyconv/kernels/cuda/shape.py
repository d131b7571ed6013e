"""Operations that move values without changing them: views, and copies only where it takes one.

Images come and go channels last, so that a flatten, and its way back, is a transposed copy. Padding
and joining, and the gradients of slices, are the reference's own fills and assignments of parts,
made on the axes in the order of memory; like all that is done here they are launches alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyconv.backend import Array
from tinyconv.kernels.cuda.elementwise import copy, fits
from tinyconv.kernels.cuda.layout import empty
from tinyconv.kernels.cuda.strides import order_for, order_of, seen_back
from tinyconv.kernels.cuda.when import on_gpu
from tinyconv.op import register
from tinyconv.ops.shape import Concatenate, Pad, Permute, Reshape, Slice

_CHANNELS_LAST = (0, 2, 3, 1)


def _of_any(op, xp, x):
    return on_gpu(xp, x)


def _of_floats(op, xp, *inputs):
    return fits(xp, *inputs)


def _reshaped(op, xp, x):
    return on_gpu(xp, x) and (x.flags.c_contiguous or fits(xp, x))


def _of_one_type(op, xp, *inputs):
    return fits(xp, *inputs) and all(x.dtype == inputs[0].dtype for x in inputs)


def _backward(op, xp, gy, saved, needs):
    return fits(xp, gy)


def _in_order(x):
    """x as it is where its axes lie in order, else a copy."""
    return x if x.flags.c_contiguous else copy(x, range(x.ndim))


@register(Reshape, "forward", _reshaped)
def reshape_view(op, xp, x):
    """x in another shape: a view, or of channels last a transposed copy."""
    return _in_order(x).reshape(op.shape), (x.shape,)


@register(Reshape, "backward", _backward)
def reshape_back(op, xp, gy, saved, needs):
    """gy in x's shape; images come channels last."""
    gx = _in_order(gy).reshape(saved[0])
    return (copy(gx, _CHANNELS_LAST) if gx.ndim == 4 and gy.ndim != 4 else gx,)


@register(Permute, "forward", _of_any)
def permute_view(op, xp, x):
    """x with its axes in another order"""
    return op.forward(xp, x)


@register(Permute, "backward", _backward)
def permute_back(op, xp, gy, saved, needs):
    """gy with its axes in x's order"""
    return op.backward(xp, gy, saved, needs)


@register(Slice, "forward", _of_any)
def slice_view(op, xp, x):
    """A part of x, seen where it is"""
    return op.forward(xp, x)


@register(Slice, "backward", _backward)
def slice_back(op, xp, gy, saved, needs):
    """gy among zeros; images come channels last"""
    (shape,) = saved
    order = _CHANNELS_LAST if len(shape) == 4 else tuple(range(len(shape)))
    gx = seen_back(xp.zeros(_turned(shape, order), gy.dtype), order)
    gx[op.index] = gy
    return (gx,)


@register(Pad, "forward", _of_floats)
def pad(op, xp, x):
    """x inside of `value`, with its axes as they lie in x"""
    order, turned = _as_they_lie(op, x)
    y, _ = turned.forward(xp, x.transpose(order))
    return seen_back(y, order), (x.shape,)


@register(Pad, "backward", _backward)
def pad_back(op, xp, gy, saved, needs):
    """The part of gy that x is in, with its axes as they lie in gy"""
    order, turned = _as_they_lie(op, gy)
    (gx,) = turned.backward(xp, gy.transpose(order), (_turned(saved[0], order),), needs)
    return (seen_back(gx, order),)


@register(Concatenate, "forward", _of_one_type)
def concatenate(op, xp, *inputs):
    """Part after part, with the axes as they lie in the first input that lies in another order"""
    orders = (order_of(x) for x in inputs if not x.flags.c_contiguous)
    order = next((found for found in orders if found), tuple(range(inputs[0].ndim)))
    axis, sizes = order.index(op.dim % len(order)), tuple(x.shape[op.dim] for x in inputs)
    shape = list(_turned(inputs[0].shape, order))
    shape[axis] = sum(sizes)
    memory = empty(tuple(shape), inputs[0].dtype)
    start = 0
    for x, size in zip(inputs, sizes, strict=True):
        memory[(slice(None),) * axis + (slice(start, start + size),)] = x.transpose(order)
        start += size
    return seen_back(memory, order), sizes


@register(Concatenate, "backward", _backward)
def split(op, xp, gy, saved, needs):
    """The parts of gy, seen where they are"""
    return op.backward(xp, gy, saved, needs)


def _turned(sizes: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """What is told of each axis, in another order of the axes."""
    return tuple(sizes[axis] for axis in order)


def _as_they_lie(op: Pad, x: Array) -> tuple[tuple[int, ...], Pad]:
    """The order of x's axes in memory, and the same padding of them in that order."""
    order = order_for(x)
    return order, Pad(_turned(op.before, order), _turned(op.after, order), op.value)

"""Activations, as their inputs lie in memory; softmax along the axis that is innermost there."""

from __future__ import annotations

from tinyconv.kernels.cuda.elementwise import elementwise, fits, like
from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.strides import empty_in, order_for, order_of
from tinyconv.op import register
from tinyconv.ops.activation import LeakyReLU, LogSoftmax, ReLU, ReLU6, Sigmoid, Softmax, Tanh

_THREADS = 256
_LONG = 1024  # numbers in a row that get a block to themselves


def _forward(op, xp, x):
    return fits(xp, x)


def _backward(op, xp, gy, saved, needs):
    return fits(xp, gy, *saved)


@register(ReLU, "forward", _forward)
@register(ReLU6, "forward", _forward)
@register(Tanh, "forward", _forward)
@register(Sigmoid, "forward", _forward)
def activation(op, xp, x):
    """y, whose gradient is told by y"""
    y = elementwise(type(op).__name__, x)
    return y, (y,)


@register(ReLU, "backward", _backward)
@register(ReLU6, "backward", _backward)
@register(Tanh, "backward", _backward)
@register(Sigmoid, "backward", _backward)
def activation_backward(op, xp, gy, saved, needs):
    """gy times the slope, told by y"""
    return (elementwise(f"{type(op).__name__}Backward", gy, saved[0]),)


@register(LeakyReLU, "forward", _forward)
def leaky_relu(op, xp, x):
    """x, and below 0 negative_slope * x"""
    return elementwise("LeakyReLU", x, s=op.negative_slope), (x,)


@register(LeakyReLU, "backward", _backward)
def leaky_relu_backward(op, xp, gy, saved, needs):
    """gy, and where x <= 0 negative_slope * gy"""
    return (elementwise("LeakyReLUBackward", gy, saved[0], s=op.negative_slope),)


# Softmax ------------------------------------------------------------------------------------------


def _along_rows(op, xp, x):
    if not fits(xp, x) or (order := order_of(x)) is None:
        return False
    axes = [axis for axis in order if x.shape[axis] != 1]
    return bool(axes) and axes[-1] == op.dim % x.ndim


def _along_rows_backward(op, xp, gy, saved, needs):
    return fits(xp, gy) and _along_rows(op, xp, *saved) and gy.dtype == saved[0].dtype


def _launch(kernel, op, y, *inputs):
    C = y.shape[op.dim]
    rows = y.size // C
    group = _THREADS if C > _LONG else min(32, 1 << (C - 1).bit_length())
    launch(
        "activation.cu", kernel, ceil_div(rows * group, _THREADS), _THREADS, y, *inputs, rows, C,
        TX=type_name(y), GROUP=group, LOG=isinstance(op, LogSoftmax),
    )  # fmt: skip
    return y


@register(Softmax, "forward", _along_rows)
@register(LogSoftmax, "forward", _along_rows)
def softmax_of_rows(op, xp, x):
    """y by one launch, a row by a warp or a block"""
    y = _launch("softmax", op, empty_in(order_for(x), x.shape, x.dtype), x)
    return y, (y,)


@register(Softmax, "backward", _along_rows_backward)
@register(LogSoftmax, "backward", _along_rows_backward)
def softmax_of_rows_backward(op, xp, gy, saved, needs):
    """gx by one launch, which lies as y does"""
    (y,) = saved
    gx = empty_in(order_for(y), y.shape, y.dtype)
    return (_launch("softmax_backward", op, gx, like(gy, y), y),)

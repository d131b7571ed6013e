"""Dropout in one pass: random numbers, the scale of each element and the product."""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cuda.elementwise import copy, elementwise, fits
from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.strides import empty_in, lies_in
from tinyconv.op import register
from tinyconv.ops.dropout import Dropout

_THREADS = 256


def _of_floats(op, xp, x, stream):
    return fits(xp, x) and stream.dtype == np.uint64 and stream.flags.c_contiguous


def _of_floats_backward(op, xp, gy, saved, needs):
    return fits(xp, gy, *saved)


@register(Dropout, "forward", _of_floats)
def dropout_in_one_pass(op, xp, x, stream):
    """The reference's numbers, bit for bit, whether images lie channels first or last."""
    order, C = tuple(range(x.ndim)), 1
    if x.ndim == 4 and not x.flags.c_contiguous and lies_in(x, (0, 2, 3, 1)):
        order, C = (0, 2, 3, 1), x.shape[1]
    elif not x.flags.c_contiguous:
        x = copy(x, order)
    pixels = x.size // (len(x) * C) if C > 1 else x.size
    y, scale = (empty_in(order, x.shape, x.dtype) for _ in range(2))
    factor = 1 / (1 - op.p) if op.p < 1 else 0.0
    launch(
        "dropout.cu", "dropout", ceil_div(x.size, _THREADS * (16 // x.itemsize)), _THREADS,
        y, scale, x, stream, float(op.p), factor, x.size, C, pixels, TX=type_name(x),
    )  # fmt: skip
    return y, (scale,)


@register(Dropout, "backward", _of_floats_backward)
def dropout_backward(op, xp, gy, saved, needs):
    """gx = gy * scale"""
    return elementwise("Multiply", gy, saved[0]), None

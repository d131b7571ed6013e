"""Sums, differences and products of arrays of one shape: one loop over memory, as it lies.

Where two gradients meet they are added, so that these loops run in every network with a branch.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu.jit import F32, INT, KernelFunction, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last, contiguous
from tinyconv.kernels.cpu.when import float32
from tinyconv.op import register
from tinyconv.ops.elementwise import Add, Multiply, Subtract


def elementwise(function: KernelFunction, *arrays: np.ndarray) -> np.ndarray:
    """function(result, *arrays) for arrays of one shape, images channels last where one lies so."""
    arrays = tuple(map(np.asarray, arrays))  # NumPy's sums are scalars
    turned = any(map(is_channels_last, arrays))
    flat = tuple(map(channels_last if turned else contiguous, arrays))
    y = empty(flat[0].shape)
    launch(function, y, *flat, items=y.size, parts=parts_for(y.size, 0.3 * y.size))
    return as_images(y) if turned else y


def is_channels_last(x):
    """Whether x lies channels last and not in any other way too."""
    if x.ndim != 4 or x.flags.c_contiguous:
        return False
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


def _of_one_shape(op, xp, a, b):
    return float32(xp, a, b) and a.shape == b.shape


def _passed_on(op, xp, gy, saved, needs):
    return float32(xp, gy) and saved[0] == saved[1] == gy.shape


def _of_saved(op, xp, gy, saved, needs):
    return float32(xp, gy) and _of_one_shape(op, xp, *saved) and saved[0].shape == gy.shape


@register(Add, "forward", _of_one_shape)
def add(op, xp, a, b):
    """y = a + b"""
    return elementwise(_add, a, b), (a.shape, b.shape)


@register(Add, "backward", _passed_on)
def pass_on(op, xp, gy, saved, needs):
    """The gradient of a sum is that of each term."""
    return tuple(gy if needed else None for needed in needs)


@register(Subtract, "forward", _of_one_shape)
def subtract(op, xp, a, b):
    """y = a - b"""
    return elementwise(_subtract, a, b), (a.shape, b.shape)


@register(Subtract, "backward", _passed_on)
def pass_on_and_negate(op, xp, gy, saved, needs):
    """ga = gy, gb = -gy"""
    return gy if needs[0] else None, elementwise(_negate, gy) if needs[1] else None


@register(Multiply, "forward", _of_one_shape)
def multiply(op, xp, a, b):
    """y = a b"""
    return elementwise(product, a, b), (a, b)


@register(Multiply, "backward", _of_saved)
def multiply_by_the_other(op, xp, gy, saved, needs):
    """ga = gy b, gb = gy a"""
    a, b = saved
    ga = elementwise(product, gy, b) if needs[0] else None
    gb = elementwise(product, gy, a) if needs[1] else None
    return ga, gb


@kernel
def _add(y: F32, a: F32, b: F32, part: INT, begin: INT, end: INT):
    for i in range(begin, end):
        y[i] = a[i] + b[i]


@kernel
def _subtract(y: F32, a: F32, b: F32, part: INT, begin: INT, end: INT):
    for i in range(begin, end):
        y[i] = a[i] - b[i]


@kernel
def product(y: F32, a: F32, b: F32, part: INT, begin: INT, end: INT):
    """y = a b, number by number."""
    for i in range(begin, end):
        y[i] = a[i] * b[i]


@kernel
def _negate(y: F32, x: F32, part: INT, begin: INT, end: INT):
    for i in range(begin, end):
        y[i] = -x[i]

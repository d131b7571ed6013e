"""A stand-in for cupyx: pinned host memory."""

import math

import numpy
from cupy import cuda


def empty_pinned(shape, dtype=float, order="C"):
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    memory = cuda.alloc_pinned_memory(math.prod(shape) * numpy.dtype(dtype).itemsize)
    return numpy.ndarray(shape, dtype, buffer=memory, order=order)


def zeros_pinned(shape, dtype=float, order="C"):
    array = empty_pinned(shape, dtype, order)
    array[...] = 0
    return array


def empty_like_pinned(a, dtype=None):
    return empty_pinned(a.shape, dtype or a.dtype)

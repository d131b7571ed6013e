"""Functions of single numbers for whole arrays: arithmetic, casts, and copies to another layout.

`elementwise` is what the activations and losses use too. The result lies in memory as the inputs
do, so that images stay channels last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.reduce import sum_to
from tinyconv.kernels.cuda.strides import (
    empty_in,
    lies_in,
    merged,
    order_for,
    order_of,
    steps,
)
from tinyconv.kernels.cuda.when import floats
from tinyconv.op import register
from tinyconv.ops.elementwise import (
    Absolute,
    Add,
    Cast,
    Divide,
    Exp,
    Log,
    Maximum,
    Minimum,
    Multiply,
    Negative,
    Power,
    Sqrt,
    Subtract,
)

_THREADS = 256
_MOST_AXES = 6
_lie = np.dtype(
    [("size", np.int32, _MOST_AXES), ("step", np.int32, (3, _MOST_AXES)), ("count", np.int32)]
)
_MOST = 2**31 - 2**16  # numbers: the last thread's is an int too
_SIDE = 8  # a matrix with a shorter side leaves most of a square of 32 empty


def elementwise(function: str, *arrays: Array, s: float = 0.0, dtype: Any = None) -> Array:
    """function(*arrays, s) of elementwise.cu, of up to three arrays broadcast against each other.

    They are float32 or float16, the result has the type of the widest unless `dtype` is given. It
    lies in memory as the first input of its shape that has no gaps and is not C-contiguous, else it
    is C-contiguous.
    """
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    turned = (order_of(a) for a in arrays if a.shape == shape and not a.flags.c_contiguous)
    order = next((found for found in turned if found), tuple(range(len(shape))))
    dtype = dtype or np.result_type(*(a.dtype for a in arrays))
    return _compute(function, [_turned(a, shape, order) for a in arrays], shape, order, s, dtype)


def copy(x: Array, order: Sequence[int], dtype: Any = None) -> Array:
    """x (float32 or float16) copied, as `dtype` if given, with its axes in this order in memory."""
    y = _transposed(x, order, dtype or x.dtype)
    return _compute("Copy", [x], x.shape, order, 0.0, dtype or x.dtype) if y is None else y


def like(x: Array, y: Array) -> Array:
    """x itself where it lies in memory as y (of its shape) does, else a copy that does."""
    order = order_for(y)
    return x if lies_in(x, order) else copy(x, order)


def _turned(x, shape, order):
    """x, if it lies as the transpose of what `order` asks for a copy that does not."""
    if x.shape != shape:
        return x
    y = _transposed(x, order, x.dtype)
    return x if y is None else y


def _transposed(x, order, dtype):
    """A copy of x in this order where a transposed matrix, or several, is what it takes."""
    sizes, found = merged(x.shape, order, [steps(x, x.shape)])
    if len(sizes) == 2:
        sizes, found = [1, *sizes], [(sizes[0] * sizes[1],), *found]
    if len(sizes) != 3 or min(sizes[1:]) < _SIDE:
        return None
    B, M, N = sizes
    if found != [(M * N,), (1,), (M,)]:
        return None
    y = empty_in(order, x.shape, dtype)
    _launch("transpose", "Copy", B * ceil_div(M, 32) * ceil_div(N, 32), y, [x], M, N)
    return y


def _compute(function, arrays, shape, order, s, dtype):
    y = empty_in(order, shape, dtype)
    sizes, found = merged(shape, order, [steps(a, shape) for a in arrays])
    padded = [*arrays, None, None][:3]
    if not sizes or (len(sizes) == 1 and set(found[0]) <= {0, 1}):
        each = [*(found[0] if found else [0] * len(arrays)), 0, 0][:3]
        vector = 16 // max(a.itemsize for a in (y, *arrays))
        blocks = ceil_div(y.size, 2 * _THREADS * vector)
        _launch("flat", function, blocks, y, arrays, *padded[1:], *each, y.size, s)
        return y
    lie = np.zeros(1, _lie)
    lie["count"] = len(sizes)
    lie["size"][0, : len(sizes)] = sizes
    lie["step"][0, : len(arrays), : len(sizes)] = np.transpose(found)
    blocks = ceil_div(y.size, _THREADS)
    _launch("strided", function, blocks, y, arrays, *padded[1:], lie, y.size, s)
    return y


def _launch(kernel, function, blocks, y, arrays, *others):
    types = [*map(type_name, arrays), "half_t", "half_t"]  # an input that is not there is not wide
    launch(
        "elementwise.cu", kernel, blocks, _THREADS, y, arrays[0], *others,
        FUNCTION=function, INPUTS=len(arrays), TY=type_name(y),
        TA=types[0], TB=types[1], TC=types[2],
    )  # fmt: skip


# When ---------------------------------------------------------------------------------------------


def fits(xp: Any, *arrays: Array) -> bool:
    """Whether `elementwise` can take these arrays."""
    return floats(xp, *arrays) and all(a.size < _MOST and a.ndim <= _MOST_AXES for a in arrays)


def _forward(op, xp, *inputs):
    return fits(xp, *inputs) and _size(inputs) < _MOST


def _size(inputs):
    """How many numbers the result has."""
    return math.prod(np.broadcast_shapes(*(x.shape for x in inputs)))


def _backward(op, xp, gy, saved, needs):
    return fits(xp, gy, *(a for a in saved if hasattr(a, "size")))


# Two inputs, broadcast against each other ---------------------------------------------------------


def _both(needs, shapes, of_a, of_b):
    """The gradients of two inputs, each summed to the input's shape, where they are asked for."""
    a_shape, b_shape = shapes
    ga = sum_to(of_a(), a_shape) if needs[0] else None
    return ga, sum_to(of_b(), b_shape) if needs[1] else None


@register(Add, "forward", _forward)
def add(op, xp, a, b):
    """y = a + b"""
    return elementwise("Add", a, b), (a.shape, b.shape)


@register(Add, "backward", _backward)
def add_backward(op, xp, gy, saved, needs):
    """gy itself for each input that was not broadcast."""
    return _both(needs, saved, lambda: gy, lambda: gy)


@register(Subtract, "forward", _forward)
def subtract(op, xp, a, b):
    """y = a - b"""
    return elementwise("Subtract", a, b), (a.shape, b.shape)


@register(Subtract, "backward", _backward)
def subtract_backward(op, xp, gy, saved, needs):
    """gy and -gy"""
    return _both(needs, saved, lambda: gy, lambda: elementwise("Negative", gy))


@register(Multiply, "forward", _forward)
def multiply(op, xp, a, b):
    """y = a b"""
    return elementwise("Multiply", a, b), (a, b)


@register(Multiply, "backward", _backward)
def multiply_backward(op, xp, gy, saved, needs):
    """gy b and gy a"""
    a, b = saved
    return _both(
        needs, (a.shape, b.shape),
        lambda: elementwise("Multiply", gy, b), lambda: elementwise("Multiply", gy, a),
    )  # fmt: skip


@register(Divide, "forward", _forward)
def divide(op, xp, a, b):
    """y = a / b"""
    return elementwise("Divide", a, b), (a, b)


@register(Divide, "backward", _backward)
def divide_backward(op, xp, gy, saved, needs):
    """gy / b and -gy a / b^2"""
    a, b = saved
    return _both(
        needs, (a.shape, b.shape),
        lambda: elementwise("Divide", gy, b), lambda: elementwise("DivideBackward", gy, a, b),
    )  # fmt: skip


@register(Maximum, "forward", _forward)
@register(Minimum, "forward", _forward)
def greater_or_smaller(op, xp, a, b):
    """y = max(a, b) or min(a, b)"""
    y = elementwise(type(op).__name__, a, b)
    return y, (a, b, y)


@register(Maximum, "backward", _backward)
def maximum_backward(op, xp, gy, saved, needs):
    """gy to the greater one, half to each where they are equal."""
    a, b, _ = saved
    return _to_the_greater(gy, a, b, a, b, needs)


@register(Minimum, "backward", _backward)
def minimum_backward(op, xp, gy, saved, needs):
    """gy to the smaller one, half to each where they are equal."""
    a, b, _ = saved
    return _to_the_greater(gy, a, b, b, a, needs)


def _to_the_greater(gy, a, b, first, second, needs):
    return _both(
        needs, (a.shape, b.shape),
        lambda: elementwise("GreaterBackward", gy, first, second),
        lambda: elementwise("OtherBackward", gy, first, second),
    )  # fmt: skip


# One input ----------------------------------------------------------------------------------------


def _same_type(op, xp, x):
    """Whether a copy is asked for, or a cast between the floats of the kernels."""
    return fits(xp, x) and op.dtype in (np.float32, np.float16)


def _same_type_backward(op, xp, gy, saved, needs):
    return fits(xp, gy) and saved[0] in (np.float32, np.float16)


def _cast(x, dtype):
    return copy(x, order_for(x), dtype)


@register(Cast, "forward", _same_type)
def cast(op, xp, x):
    """x in another dtype, or a copy in the same."""
    return _cast(x, op.dtype), (x.dtype,)


@register(Cast, "backward", _same_type_backward)
def cast_back(op, xp, gy, saved, needs):
    """gy in x's dtype"""
    return (_cast(gy, saved[0]),)


@register(Negative, "forward", _forward)
def negate(op, xp, x):
    """y = -x"""
    return elementwise("Negative", x), ()


@register(Negative, "backward", _backward)
def negate_backward(op, xp, gy, saved, needs):
    """-gy"""
    return (elementwise("Negative", gy),)


@register(Absolute, "forward", _forward)
@register(Log, "forward", _forward)
def of_input(op, xp, x):
    """y = |x| or log x, whose gradients are told by x"""
    return elementwise(type(op).__name__, x), (x,)


@register(Exp, "forward", _forward)
@register(Sqrt, "forward", _forward)
def of_output(op, xp, x):
    """y = e^x or sqrt x, whose gradients are told by y"""
    y = elementwise(type(op).__name__, x)
    return y, (y,)


@register(Power, "forward", _forward)
def power(op, xp, x):
    """y = x^exponent"""
    return elementwise("Power", x, s=op.exponent), (x,)


@register(Power, "backward", _backward)
def power_backward(op, xp, gy, saved, needs):
    """gy exponent x^(exponent - 1)"""
    if op.exponent == 0:
        return op.backward(xp, gy, saved, needs)
    return (elementwise("PowerBackward", gy, saved[0], s=op.exponent),)


_BACKWARD = {
    Absolute: "AbsoluteBackward", Log: "Divide", Exp: "Multiply", Sqrt: "SqrtBackward"
}  # fmt: skip


@register(Absolute, "backward", _backward)
@register(Log, "backward", _backward)
@register(Exp, "backward", _backward)
@register(Sqrt, "backward", _backward)
def by_saved(op, xp, gy, saved, needs):
    """gy times a function of the one array that is saved."""
    return (elementwise(_BACKWARD[type(op)], gy, saved[0]),)

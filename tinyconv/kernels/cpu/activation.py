"""Activations: one loop over the numbers as they lie in memory, which becomes vector code.

Nothing here depends on where a number stands in an array, so images stay channels last or first,
as they come. e^x is a polynomial: a call of the C library for each number would take ten times as
long.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu import when
from tinyconv.kernels.cpu.elementwise import is_channels_last
from tinyconv.kernels.cpu.jit import F32, INT, jit, kernel
from tinyconv.kernels.cpu.launch import empty, launch, parts_for
from tinyconv.kernels.cpu.layout import as_images, channels_last, contiguous
from tinyconv.op import register
from tinyconv.ops.activation import LeakyReLU, ReLU, ReLU6, Sigmoid, Tanh

# Nanoseconds for each number on one thread: about what memory takes, and the arithmetic.
_COST, _EXP_COST = 0.4, 1.0


def limits(op: ReLU | ReLU6 | None) -> np.ndarray:
    """What an activation clips to: the lowest and the highest value."""
    return _floats(0 if op else -np.inf, 6 if isinstance(op, ReLU6) else np.inf)


def limits_of_gradient(op: ReLU | ReLU6) -> np.ndarray:
    """The values of y between which its gradient passes."""
    # No number is >= NaN: an infinite y of ReLU passes its gradient on.
    return _floats(0, 6 if isinstance(op, ReLU6) else np.nan)


def _memory(x, turned):
    return channels_last(x) if turned else contiguous(x)


def _map(function, x, cost, *settings):
    """The array function(x), and x, both in one block of memory."""
    turned = is_channels_last(x)
    memory = _memory(x, turned)
    y = empty(memory.shape)
    parts = parts_for(y.size, y.size * cost)
    launch(function, y, memory, *settings, items=y.size, parts=parts)
    return as_images(y) if turned else y, x if turned else memory


def _map_gradient(function, gy, saved, *settings):
    """gx = function(gy, saved), which lies as `saved` does."""
    turned = is_channels_last(saved)
    gy, saved = _memory(gy, turned), _memory(saved, turned)
    gx = empty(saved.shape)
    parts = parts_for(gx.size, gx.size * _COST)
    launch(function, gx, gy, saved, *settings, items=gx.size, parts=parts)
    return as_images(gx) if turned else gx


def _forward(op, xp, x):
    return when.float32(xp, x)


def _backward(op, xp, gy, saved, needs):
    return when.float32(xp, gy, *saved)


# With kinks. Comparisons are such that a NaN stays, as in ops/activation.py. ----------------------


@kernel
def _clip(y: F32, x: F32, ends: F32, part: INT, begin: INT, end: INT):
    low, high = ends[0], ends[1]
    for i in range(begin, end):
        value = x[i]
        value = low if value < low else value
        y[i] = high if value > high else value


@kernel
def _clip_gradient(gx: F32, gy: F32, y: F32, ends: F32, part: INT, begin: INT, end: INT):
    low, high = ends[0], ends[1]
    for i in range(begin, end):
        g = gy[i]
        g = np.float32(0) if y[i] <= low else g
        gx[i] = np.float32(0) if y[i] >= high else g


@kernel
def _leaky(y: F32, x: F32, slope: F32, part: INT, begin: INT, end: INT):
    s = slope[0]
    for i in range(begin, end):
        y[i] = x[i] if x[i] > 0 else x[i] * s


@kernel
def _leaky_gradient(gx: F32, gy: F32, x: F32, slope: F32, part: INT, begin: INT, end: INT):
    s = slope[0]
    for i in range(begin, end):
        gx[i] = gy[i] if x[i] > 0 else gy[i] * s


def _floats(*numbers):
    return np.array(numbers, np.float32)


@register(ReLU, "forward", _forward)
def relu(op, xp, x):
    """max(x, 0) as it lies in memory."""
    y, _ = _map(_clip, x, _COST, limits(op))
    return y, (y,)


@register(ReLU, "backward", _backward)
def relu_gradient(op, xp, gy, saved, needs):
    """gy where y > 0."""
    return (_map_gradient(_clip_gradient, gy, saved[0], limits_of_gradient(op)),)


@register(ReLU6, "forward", _forward)
def relu6(op, xp, x):
    """x between 0 and 6."""
    y, _ = _map(_clip, x, _COST, limits(op))
    return y, (y,)


@register(ReLU6, "backward", _backward)
def relu6_gradient(op, xp, gy, saved, needs):
    """gy where 0 < y < 6."""
    return (_map_gradient(_clip_gradient, gy, saved[0], limits_of_gradient(op)),)


@register(LeakyReLU, "forward", _forward)
def leaky_relu(op, xp, x):
    """x, and below 0 negative_slope * x."""
    y, x = _map(_leaky, x, _COST, _floats(op.negative_slope))
    return y, (x,)


@register(LeakyReLU, "backward", _backward)
def leaky_relu_gradient(op, xp, gy, saved, needs):
    """gy, and where x <= 0 negative_slope * gy."""
    return (_map_gradient(_leaky_gradient, gy, saved[0], _floats(op.negative_slope)),)


# Made of e^x --------------------------------------------------------------------------------------

_f = np.float32  # a plain number would make the arithmetic float64
_LOG2_E, _LN2 = _f(1.44269504), _f(0.693147181)


@jit
def _exp_minus(a):
    """e^-a for a >= 0; 0 where it would be below 1e-38.

    Relative error below 3e-7, or 5e-6 for large a where multiply and add are not one instruction.
    e^-a = 2^n e^r with whole n and |r| <= ln(2) / 2; the polynomial is that of Cephes' expf.
    """
    bounded = a if a < _f(87.5) else _f(87.5)  # NaN too: 2^n must stay a number
    n = np.floor(_f(0.5) - bounded * _LOG2_E)
    r = -a - n * _LN2
    p = _f(1.9875691500e-4)
    p = p * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    p = p * (r * r) + r + _f(1)
    # A float's exponent stands 23 bits up, counted from 127.
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return _f(0) if a > _f(87.5) else p * power


@kernel
def _tanh(y: F32, x: F32, part: INT, begin: INT, end: INT):
    """tanh |x| = (1 - e) / (1 + e) with e = e^-2|x|, and Cephes' polynomial near 0.

    There the quotient would lose digits. Error below 2e-7, absolute and relative.
    """
    for i in range(begin, end):
        a = abs(x[i])
        e = _exp_minus(a + a)
        far = (_f(1) - e) / (_f(1) + e)
        z = a * a
        p = _f(-5.70498872745e-3)
        p = p * z + _f(2.06390887954e-2)
        p = p * z + _f(-5.37397155531e-2)
        p = p * z + _f(1.33314422036e-1)
        p = p * z + _f(-3.33332819422e-1)
        near = p * z * a + a
        value = near if a < _f(0.625) else far
        y[i] = -value if x[i] < 0 else value


@kernel
def _tanh_gradient(gx: F32, gy: F32, y: F32, part: INT, begin: INT, end: INT):
    for i in range(begin, end):
        gx[i] = gy[i] * (_f(1) - y[i] * y[i])


@kernel
def _sigmoid(y: F32, x: F32, part: INT, begin: INT, end: INT):
    """1 / (1 + e^-|x|) for x >= 0, e^-|x| / (1 + e^-|x|) below."""
    for i in range(begin, end):
        e = _exp_minus(abs(x[i]))
        y[i] = (e if x[i] < 0 else _f(1)) / (_f(1) + e)


@kernel
def _sigmoid_gradient(gx: F32, gy: F32, y: F32, part: INT, begin: INT, end: INT):
    for i in range(begin, end):
        gx[i] = gy[i] * y[i] * (_f(1) - y[i])


@register(Tanh, "forward", _forward)
def tanh(op, xp, x):
    """(1 - e) / (1 + e) with e = e^-2|x|, near 0 a polynomial: see _tanh."""
    y, _ = _map(_tanh, x, _EXP_COST)
    return y, (y,)


@register(Tanh, "backward", _backward)
def tanh_gradient(op, xp, gy, saved, needs):
    """gy * (1 - y * y)."""
    return (_map_gradient(_tanh_gradient, gy, saved[0]),)


@register(Sigmoid, "forward", _forward)
def sigmoid(op, xp, x):
    """1 / (1 + e^-x) without overflow."""
    y, _ = _map(_sigmoid, x, _EXP_COST)
    return y, (y,)


@register(Sigmoid, "backward", _backward)
def sigmoid_gradient(op, xp, gy, saved, needs):
    """gy * y * (1 - y)."""
    return (_map_gradient(_sigmoid_gradient, gy, saved[0]),)

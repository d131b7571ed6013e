"""Convolution, batch norm in evaluation, a residual and ReLU or ReLU6 in one pass, for inference.

In evaluation a batch norm multiplies each channel by a number and adds another one. The first goes
into the weights when they are laid out for the convolution, the second becomes its bias, and each
output is clipped before it is stored for the first time. The norm's own arrays are read anew every
time: nothing is folded for good.
"""

from __future__ import annotations

import numpy as np

from tinyconv.kernels.cpu import depthwise, direct, winograd
from tinyconv.kernels.cpu.activation import limits
from tinyconv.kernels.cpu.direct import Finish, Sizes
from tinyconv.kernels.cpu.jit import F32, F64, INT, kernel
from tinyconv.kernels.cpu.launch import empty, launch
from tinyconv.kernels.cpu.layout import contiguous
from tinyconv.kernels.cpu.when import float32
from tinyconv.kernels.fused import ConvNormReLU
from tinyconv.op import register


def _follows(op, xp, x, w, vectors, residual):
    """Whether norm and residual fit the output of the convolution."""
    sizes = Sizes.of(op.conv, x, w)
    return (
        float32(xp, *vectors, residual)
        and not op.norm.training
        and all(v is None or v.shape == (sizes.O,) for v in vectors)
        and (residual is None or residual.shape == (len(x), sizes.O, sizes.OH, sizes.OW))
    )


def _with(convolves):
    """The condition of a way that convolves where `convolves` holds, and nowhere else."""

    def when(op, xp, x, w, b, *vectors_and_residual):
        vectors, residual = vectors_and_residual[:4], (*vectors_and_residual, None)[4]
        return convolves(op.conv, xp, x, w, b) and _follows(op, xp, x, w, vectors, residual)

    return when


def _finish(op, b, weight, bias, running_mean, running_var, residual):
    """Norm, residual and activation as a convolution takes them."""
    C = len(running_mean)
    scale, shift = empty((C,)), empty((C,))
    launch(
        _fold, scale, shift, *_vectors(C, (1, weight), (0, bias), (0, b)),
        contiguous(running_mean), contiguous(running_var), np.array([op.norm.eps]), items=C,
    )  # fmt: skip
    return Finish(scale, shift, limits(op.relu), residual)


def _vectors(C, *pairs):
    """Each vector, or the number before it C times where there is none."""
    return [np.full(C, n, np.float32) if v is None else contiguous(v) for n, v in pairs]


@kernel
def _fold(
    scale: F32, shift: F32, weight: F32, bias: F32, b: F32, mean: F32, var: F32, eps: F64,
    part: INT, begin: INT, end: INT,
):  # fmt: skip
    """norm(sum + b) = sum * scale + shift; items are channels, all numbers (C,)."""
    for c in range(begin, end):
        s = weight[c] / np.sqrt(var[c] + eps[0])
        scale[c] = s
        shift[c] = bias[c] + (np.float64(b[c]) - mean[c]) * s


@register(ConvNormReLU, "forward", _with(depthwise._forward))
def fused_depthwise_convolution(op, xp, x, w, b, weight, bias, mean, var, residual=None):
    """Depthwise convolution, norm, residual and activation."""
    finish = _finish(op, b, weight, bias, mean, var, residual)
    return depthwise.convolve_depthwise(op.conv, x, w, finish), ()


def _direct(op, xp, x, w, b):
    """Where Winograd's form pays, norm and ReLU are better done by themselves."""
    return direct._forward(op, xp, x, w, b) and not winograd._forward_pays(op, xp, x, w, b)


@register(ConvNormReLU, "forward", _with(_direct))
def fused_direct_convolution(op, xp, x, w, b, weight, bias, mean, var, residual=None):
    """Direct convolution, norm, residual and activation."""
    finish = _finish(op, b, weight, bias, mean, var, residual)
    return direct.convolve(op.conv, x, w, finish), ()

"""Depthwise convolution, a window of its own for each channel, see depthwise.cu."""

from __future__ import annotations

from typing import Any

from tinyconv.backend import Array
from tinyconv.kernels.cuda.conv import Geometry, finish_with_norm, norm_follows
from tinyconv.kernels.cuda.gemm import Finish
from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import channels_last, contiguous, empty, empty_images
from tinyconv.kernels.cuda.sums import REDUCING_BLOCKS, channel_sums, cut, vector_width
from tinyconv.kernels.cuda.when import float32, floats
from tinyconv.kernels.fused import ConvNormReLU, PaddedConv2d
from tinyconv.op import register
from tinyconv.ops.conv import Conv2d

_THREADS = 256
# Sums of weights' gradients that a thread keeps in registers at most.
_MOST_SUMS = 64


def _depthwise(op, x, w):
    reach = (w.shape[3] - 1) * op.dilation[1]
    return (
        1 < op.groups == x.shape[1] == len(w)
        and w.shape[1] == 1
        and w.shape[2] * w.shape[3] <= 49
        and reach <= 12  # so many pixels of a row, and a strip's, are kept in registers
        and x.size < 2**31
    )


def _forward(op, xp, x, w, b):
    return floats(xp, x) and float32(xp, w, b) and _depthwise(op, x, w)


def _backward(op, xp, gy, saved, needs):
    x, w = saved
    return _forward(op, xp, x, w, None) and floats(xp, gy) and gy.dtype == x.dtype


def _constants(g: Geometry, x: Array, V: int) -> dict[str, Any]:
    """The macros of depthwise.cu."""
    kept = max(1, _MOST_SUMS // (g.KW * V))
    return {
        "TX": type_name(x), "V": V, "KH": g.KH, "KW": g.KW, "SH": g.sh, "SW": g.sw, "DH": g.dh,
        "DW": g.dw, "STRIP": 2 if V == 8 else 4, "ROWS": min(g.KH, kept),
    }  # fmt: skip


def _sizes(g: Geometry) -> tuple[int, ...]:
    return g.C, g.H, g.W, g.OH, g.OW, g.ph, g.pw


# Forward ------------------------------------------------------------------------------------------


def _convolve(
    g: Geometry, x: Array, w: Array, y: Array, finish: Finish, turned: bool = False
) -> None:
    """y = finish(w * x), with windows turned by half a turn where wanted."""
    V = vector_width(g.C, *(a for a in (x, finish.residual) if a is not None))
    constants = _constants(g, x, V)
    rows = g.N * g.OH * ceil_div(g.OW, constants["STRIP"])
    grid, lanes = cut(rows, g.C, V, _THREADS, REDUCING_BLOCKS)
    launch(
        "depthwise.cu", "depthwise", grid, _THREADS,
        x, contiguous(w), y, *finish, turned, rows, lanes, *_sizes(g), **constants,
    )  # fmt: skip


def _outputs(op, x, w, finish):
    g = Geometry.of(op, x.shape, w.shape)
    y = empty_images(g.N, g.O, g.OH, g.OW, x.dtype)
    _convolve(g, channels_last(x), w, y, finish)
    return y


@register(Conv2d, "forward", _forward)
@register(PaddedConv2d, "forward", _forward)
def depthwise(op, xp, x, w, b):
    """Conv2d forward."""
    return _outputs(op, x, w, Finish(b=None if b is None else contiguous(b))), (x, w)


def _forward_with_norm(op, xp, x, w, b, *norm):
    return _forward(op.conv, xp, x, w, b) and norm_follows(op, xp, x, w, *norm)


@register(ConvNormReLU, "forward", _forward_with_norm)
def depthwise_with_norm(op, xp, x, w, *norm):
    """Convolution, norm, residual and activation, all before a number of y is written."""
    return _outputs(op.conv, x, w, finish_with_norm(op, *norm)), ()


# Backward -----------------------------------------------------------------------------------------


@register(Conv2d, "backward", _backward)
@register(PaddedConv2d, "backward", _backward)
def depthwise_backward(op, xp, gy, saved, needs):
    """gx as a convolution of gy, gw as sums of the blocks' sums."""
    x, w = saved
    g = Geometry.of(op, x.shape, w.shape)
    gy = channels_last(gy)
    return (
        _gradient(g, gy, w) if needs[0] else None,
        _weight_gradient(g, channels_last(x), gy, w.shape) if needs[1] else None,
        channel_sums(gy) if needs[2] else None,
    )


def _gradient(g: Geometry, gy: Array, w: Array) -> Array:
    gx = empty_images(g.N, g.C, g.H, g.W, gy.dtype)
    if (g.sh, g.sw) == (1, 1):  # as forward, with the window turned by half a turn
        ph, pw = g.dh * (g.KH - 1) - g.ph, g.dw * (g.KW - 1) - g.pw
        _convolve(g.turned()._replace(ph=ph, pw=pw), gy, w, gx, Finish(), turned=True)
        return gx
    V, rows = vector_width(g.C, gy), g.N * g.H * g.W
    grid, lanes = cut(rows, g.C, V, _THREADS, 2 * REDUCING_BLOCKS)
    launch(
        "depthwise.cu", "depthwise_gradient", grid, _THREADS,
        gy, contiguous(w), gx, rows, lanes, *_sizes(g), **_constants(g, gy, V),
    )  # fmt: skip
    return gx


def _weight_gradient(g: Geometry, x: Array, gy: Array, shape: tuple[int, ...]) -> Array:
    V = vector_width(g.C, x, gy)
    while V > 1 and g.KH * g.KW * V > _MOST_SUMS:
        V //= 2
    constants = _constants(g, x, V)
    rows = g.N * g.OH * ceil_div(g.OW, constants["STRIP"])
    groups = ceil_div(g.KH, constants["ROWS"])
    (chunks, slices), lanes = cut(rows, g.C, V, _THREADS, ceil_div(REDUCING_BLOCKS, groups), 4)
    parts = empty((slices, g.C * g.KH * g.KW))
    launch(
        "depthwise.cu", "depthwise_weights", (chunks, slices, groups), _THREADS,
        x, gy, parts, rows, lanes, *_sizes(g),
        shared=_THREADS * V * constants["ROWS"] * g.KW * 4, **constants,
    )  # fmt: skip
    return (parts if slices == 1 else channel_sums(parts)).reshape(shape)

"""Convolution on tensor cores as an implicit matrix product, see conv.cu."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda.gemm import (
    LINE,
    LONGEST,
    Finish,
    exact,
    lay_out,
    plan,
    sum_gradient,
    sum_product,
    unit,
)
from tinyconv.kernels.cuda.launch import ceil_div, launch, type_name
from tinyconv.kernels.cuda.layout import channels_last, contiguous, empty, empty_images
from tinyconv.kernels.cuda.sums import channel_sums
from tinyconv.kernels.cuda.when import float32, floats
from tinyconv.kernels.fused import ConvNormReLU, PaddedConv2d
from tinyconv.op import register
from tinyconv.ops.activation import ReLU6
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.window import Window

# So few weights are not put in order first: that would be another launch.
_FEW_WEIGHTS = 5000
_LARGEST = 2**14  # rows or columns of an image with its border: positions are 16-bit numbers


class Geometry(NamedTuple):
    """Sizes and settings of a convolution, in the order in which the kernels take them."""

    N: int
    H: int
    W: int
    C: int
    OH: int
    OW: int
    O: int
    KH: int
    KW: int
    sh: int
    sw: int
    ph: int
    pw: int
    dh: int
    dw: int

    @classmethod
    def of(cls, op: Conv2d, x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> Geometry:
        """Raises ShapeError where no window fits into the image."""
        (N, C, H, W), (O, _, KH, KW) = x_shape, w_shape
        (ph, pw), (top, left), (bottom, right) = op.padding, (0, 0), (0, 0)
        if isinstance(op, PaddedConv2d):
            (top, left), (bottom, right) = op.before, op.after
        OH, OW = Window((KH, KW), op.stride, op.padding, op.dilation).output_size(
            top + H + bottom, left + W + right
        )
        return cls(N, H, W, C, OH, OW, O, KH, KW, *op.stride, ph + top, pw + left, *op.dilation)

    def turned(self) -> Geometry:
        """The same with the roles of x and y exchanged, as the kernel takes it for gx."""
        return self._replace(H=self.OH, W=self.OW, C=self.O, OH=self.H, OW=self.W, O=self.C)


def _fits(op, x, w):
    N, C, H, W = x.shape
    rows, columns = (
        n + 2 * (p + more)
        for n, p, more in zip((H, W), op.padding, getattr(op, "before", (0, 0)), strict=True)
    )
    return (
        op.groups == 1
        and w.shape[1] == C
        and max(rows, columns) < _LARGEST
        and N * rows * columns * max(C, len(w)) < 2**31
    )


def _forward(op, xp, x, w, b):
    return floats(xp, x) and float32(xp, w, b) and _fits(op, x, w)


def _backward(op, xp, gy, saved, needs):
    x, w = saved
    return _forward(op, xp, x, w, None) and floats(xp, gy) and gy.dtype == x.dtype


# Forward ------------------------------------------------------------------------------------------


@register(Conv2d, "forward", _forward)
@register(PaddedConv2d, "forward", _forward)
def implicit_gemm(op, xp, x, w, b):
    """Conv2d forward."""
    return _outputs(op, x, w, Finish(b=None if b is None else contiguous(b))), (x, w)


def norm_follows(op, xp, x, w, weight, bias, mean, var, residual=None):
    """Whether norm and residual fit the output of the convolution."""
    y = Geometry.of(op.conv, x.shape, w.shape)
    same = (y.N, y.O, y.OH, y.OW)
    return (
        not op.norm.training
        and float32(xp, weight, bias, mean, var)
        and mean.shape == (y.O,)
        and (residual is None or (residual.dtype == x.dtype and residual.shape == same))
    )


def _forward_with_norm(op, xp, x, w, b, *norm):
    return _forward(op.conv, xp, x, w, b) and norm_follows(op, xp, x, w, *norm)


def finish_with_norm(op, b, weight, bias, mean, var, residual=None):
    """Norm, residual and activation as a kernel of a convolution takes them."""
    vectors = (b, weight, bias, mean, var)
    b, weight, bias, mean, var = (None if v is None else contiguous(v) for v in vectors)
    residual = None if residual is None else channels_last(residual)
    low = -np.inf if op.relu is None else 0.0
    high = 6.0 if isinstance(op.relu, ReLU6) else np.inf
    return Finish(residual, b, weight, bias, mean, var, float(op.norm.eps), low, high)


@register(ConvNormReLU, "forward", _forward_with_norm)
def implicit_gemm_with_norm(op, xp, x, w, *norm):
    """Convolution, norm, residual and activation, all before a number of y is written."""
    return _outputs(op.conv, x, w, finish_with_norm(op, *norm)), ()


def _outputs(op, x, w, finish):
    geometry = Geometry.of(op, x.shape, w.shape)
    y = empty_images(geometry.N, geometry.O, geometry.OH, geometry.OW, x.dtype)
    _convolve(geometry, channels_last(x), w, y, finish)
    return y


def _weights(g: Geometry, w: Array, backward: bool, dtype: Any) -> tuple[Array, Any, int, bool]:
    """w as the product reads it, the strides of a column, a tap and a channel of x in it,

    how many bytes of its tile can be copied at once, and whether it is rounded.
    """
    taps = g.KH * g.KW
    if taps == 1 and not backward and w.dtype == dtype:  # it lies along k as it is
        w = contiguous(w)
        return w, (g.C, g.C, 1), unit(w, g.C), False
    if w.size <= _FEW_WEIGHTS:
        strides = (taps, 1, g.O * taps) if backward else (g.C * taps, 1, taps)
        return contiguous(w), strides, np.dtype(dtype).itemsize, False
    w = lay_out(w, backward, dtype)
    return w, (taps * g.C, g.C, 1), unit(w, g.C), True


def _convolve(
    geometry: Geometry,
    x: Array,
    w: Array,
    y: Array,
    finish: Finish,
    backward: bool = False,
) -> None:
    """y = finish(w * x), or backward gx = gy * w with gy as x and gx as y; both channels last."""
    N, _, _, C, OH, OW, O, KH, KW, sh, sw, *_ = geometry
    number, taps = type_name(x), KH * KW
    depth = LINE // x.dtype.itemsize
    w, strides, unit_w, rounded = _weights(geometry, w, backward, x.dtype)
    residues = sh * sw if backward else 1
    windows = (ceil_div(OH, sh), ceil_div(OW, sw)) if backward else (OH, OW)
    steps = ceil_div(taps * C, depth * residues)
    cut = plan(N * windows[0] * windows[1], O, steps, residues, may_split=residues == 1)
    parts = empty((cut.splits, y.size)) if cut.splits > 1 else None
    together = min(unit(a, O) for a in (y, finish.residual) if a is not None)
    launch(
        "conv.cu", "convolve", (cut.tiles, residues, cut.splits), cut.tile.threads,
        x, w, y, parts, *finish, *geometry, *strides, cut.splits,
        shared=cut.shared(True, True, cut.tile.m * 12 + cut.tile.n * 8),
        **cut.constants, NUMBER=number, TX=number, TW=type_name(w), EXACT=exact(x),
        BACKWARD=backward, WHOLE=C % depth == 0, UNIT_X=unit(x, C), UNIT_W=unit_w,
        ROUNDED_W=rounded, CACHED_X=taps > 1 and cut.tile.cached,
        VECTOR=together // y.dtype.itemsize,
    )  # fmt: skip
    if parts is not None:
        sum_product(y, O, parts, finish)


# Backward -----------------------------------------------------------------------------------------


@register(Conv2d, "backward", _backward)
@register(PaddedConv2d, "backward", _backward)
def implicit_gemm_backward(op, xp, gy, saved, needs):
    """gx as a convolution of gy, gw and gb as a product along the pixels."""
    x, w = saved
    geometry = Geometry.of(op, x.shape, w.shape)
    gy = channels_last(gy)
    gx = gw = gb = None
    if needs[0]:
        gx = empty_images(geometry.N, geometry.C, geometry.H, geometry.W, x.dtype)
        _convolve(geometry.turned(), gy, w, gx, Finish(), backward=True)
    if needs[1]:
        gw, gb = empty(w.shape), empty((geometry.O,)) if needs[2] else None
        _weight_gradient(geometry, channels_last(x), gy, gw, gb)
    elif needs[2]:
        gb = channel_sums(gy)
    return gx, gw, gb


def _weight_gradient(geometry: Geometry, x: Array, gy: Array, gw: Array, gb: Array | None) -> None:
    N, _, _, C, OH, OW, O, KH, KW, *_ = geometry
    number, K, pixels = type_name(x), KH * KW * C, N * OH * OW
    depth = LINE // x.dtype.itemsize
    cut = plan(O, K, ceil_div(pixels, depth), fewest_splits=ceil_div(pixels, LONGEST))
    to, to_bias, size = gw, gb, 0
    parts = None
    if cut.splits > 1:
        size = gw.size + (0 if gb is None else O)
        parts = to = empty((cut.splits, size))
        to_bias = None if gb is None else parts.reshape(-1)[gw.size :]
    vector = min(4, *(unit(parts, n) // 4 for n in (K, size))) if parts is not None else 1
    launch(
        "conv_weights.cu", "weight_gradient", (cut.tiles, cut.splits), cut.tile.threads,
        x, gy, to, to_bias, size, *geometry, cut.splits,
        shared=cut.shared(False, False, cut.stages * depth * 8),
        **cut.constants, NUMBER=number, TX=number, EXACT=exact(x),
        UNIT_X=unit(x, C), UNIT_GY=unit(gy, O), VECTOR=vector,
    )  # fmt: skip
    if parts is not None:
        sum_gradient(gw, gb, parts, C, KH * KW)
